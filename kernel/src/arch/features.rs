//! What this CPU has, from its identification registers.

use core::arch::asm;

use aarch64_cpu::registers::{
    ID_AA64DFR0_EL1, ID_AA64ISAR0_EL1, ID_AA64MMFR0_EL1, ID_AA64MMFR1_EL1, ID_AA64MMFR2_EL1, ID_AA64PFR0_EL1,
    MIDR_EL1, Readable,
};

/// Support for changing the block size without break-before-make (FEAT_BBM).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Bbm {
    /// Break-before-make is needed.
    Level0,
    /// With the nT bit.
    Level1,
    /// Without it; a TLB conflict abort is still possible.
    Level2,
}

/// Features that matter for translation and for the benches.
#[derive(Clone, Copy, Debug)]
pub struct Features {
    /// MIDR_EL1.
    pub midr: u64,
    /// Bits of physical address.
    pub pa_bits: u8,
    /// The granules that stage 1 has.
    pub granule_4k: bool,
    /// 16 KiB.
    pub granule_16k: bool,
    /// 64 KiB.
    pub granule_64k: bool,
    /// FEAT_TLBIRANGE: TLBI by range.
    pub tlbi_range: bool,
    /// FEAT_BBM.
    pub bbm: Bbm,
    /// FEAT_HAFDBS: hardware sets the Access flag.
    pub hardware_access_flag: bool,
    /// And the dirty state.
    pub hardware_dirty_state: bool,
    /// FEAT_PAN is implemented; PSTATE.PAN is off and stays so.
    pub pan: bool,
    /// Bytes that DC ZVA zeroes; 0 if it is prohibited here.
    pub zva_size: usize,
    /// Smallest data cache line, in bytes.
    pub dcache_line: usize,
    /// Advanced SIMD, which the bulk operations on tables use.
    pub simd: bool,
    /// Event counters of the PMU beside the cycle counter; `None` without a PMUv3.
    pub pmu_counters: Option<u8>,
}

/// The field of four bits at `shift`.
const fn field(register: u64, shift: u32) -> u64 {
    register >> shift & 0xf
}

impl Features {
    /// Reads those of the CPU that runs this.
    #[must_use]
    pub fn read() -> Self {
        let mmfr0 = ID_AA64MMFR0_EL1.get();
        let mmfr1 = ID_AA64MMFR1_EL1.get();
        let mmfr2 = ID_AA64MMFR2_EL1.get();
        let isar0 = ID_AA64ISAR0_EL1.get();
        let pfr0 = ID_AA64PFR0_EL1.get();
        let dfr0 = ID_AA64DFR0_EL1.get();
        let (dczid, ctr): (u64, u64);
        // SAFETY: reading identification registers.
        unsafe { asm!("mrs {}, dczid_el0", out(reg) dczid, options(nostack, nomem, preserves_flags)) };
        // SAFETY: as above.
        unsafe { asm!("mrs {}, ctr_el0", out(reg) ctr, options(nostack, nomem, preserves_flags)) };
        // PMUVer 0: none; 0xf: not Arm's.
        let pmu_counters = (!matches!(field(dfr0, 8), 0 | 0xf)).then(|| {
            let pmcr: u64;
            // SAFETY: a PMUv3 is there, and EL2 does not trap it.
            unsafe { asm!("mrs {}, pmcr_el0", out(reg) pmcr, options(nostack, nomem, preserves_flags)) };
            (pmcr >> 11 & 0x1f) as u8
        });
        Self {
            midr: MIDR_EL1.get(),
            pa_bits: match field(mmfr0, 0) {
                0 => 32,
                1 => 36,
                2 => 40,
                3 => 42,
                4 => 44,
                5 => 48,
                6 => 52,
                7 => 56,
                // Reserved: what every implementation has at least.
                _ => 32,
            },
            granule_4k: field(mmfr0, 28) != 0xf,
            granule_16k: field(mmfr0, 20) != 0,
            granule_64k: field(mmfr0, 24) != 0xf,
            tlbi_range: field(isar0, 56) >= 2,
            bbm: match field(mmfr2, 52) {
                0 => Bbm::Level0,
                1 => Bbm::Level1,
                _ => Bbm::Level2,
            },
            hardware_access_flag: field(mmfr1, 0) >= 1,
            hardware_dirty_state: field(mmfr1, 0) >= 2,
            pan: field(mmfr1, 20) != 0,
            // DZP prohibits; BS is log2 of words.
            zva_size: if dczid & 1 << 4 != 0 {
                0
            } else {
                4 << (dczid & 0xf)
            },
            dcache_line: 4 << (ctr >> 16 & 0xf),
            simd: field(pfr0, 20) != 0xf,
            pmu_counters,
        }
    }
}
