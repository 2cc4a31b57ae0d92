//! The other CPUs.

/// What a CPU needs to come up. It reads them by physical address with the MMU off.
#[repr(C, align(4096))]
pub struct SecondaryArgs {
    /// TTBR0_EL1: the identity map.
    pub ttbr0: u64,
    /// TTBR1_EL1.
    pub ttbr1: u64,
    /// TCR_EL1.
    pub tcr: u64,
    /// MAIR_EL1.
    pub mair: u64,
    /// SCTLR_EL1, MMU on.
    pub sctlr: u64,
    /// Stack pointer with the MMU on.
    pub stack_top: usize,
    /// Where to go.
    pub entry: usize,
    /// With what in x0.
    pub argument: usize,
    /// The stack with the MMU off is the end of this.
    scratch: [u64; 504],
}
