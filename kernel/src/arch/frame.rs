use super::syndrome::Syndrome;

/// Registers at an exception, as the vectors save them.
#[repr(C, align(16))]
#[derive(Debug)]
pub struct Frame {
    /// x0 to x30.
    pub x: [u64; 31],
    pub sp: u64,
    pub elr: u64,
    pub spsr: u64,
    pub esr: u64,
    pub far: u64,
    pub vector: u64,
    /// Aligns the frame record.
    _padding: u64,
    pub record: [u64; 2],
}

/// Arm ARM, "Exception vectors".
const VECTORS: [&str; 4] = ["synchronous exception", "IRQ", "FIQ", "SError"];

impl Frame {
    /// Returns ESR_EL1.
    #[must_use]
    pub fn syndrome(&self) -> Syndrome {
        Syndrome(self.esr)
    }

    /// Returns the kind of exception.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        VECTORS[(self.vector & 3) as usize]
    }

    /// Returns whether it is synchronous from EL1 with SP_EL1: all that can be handled.
    pub(super) fn is_synchronous(&self) -> bool {
        self.vector == 4
    }
}
