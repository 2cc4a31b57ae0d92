//! Features of a CPU and of all CPUs ([`Features::common`], DESIGN rule 13).

use crate::identity::{Identity, Register};

/// FEAT_BBM.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Bbm {
    Level0,
    /// nT bit.
    Level1,
    /// TLB conflict aborts are possible.
    Level2,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Features {
    /// The boot CPU's.
    pub midr: u64,
    pub pa_bits: u8,
    pub granule_4k: bool,
    pub granule_16k: bool,
    pub granule_64k: bool,
    /// FEAT_LPA2 with pages of 4 KiB.
    pub wide_4k: bool,
    /// The same of 16 KiB.
    pub wide_16k: bool,
    /// FEAT_LVA and FEAT_LPA.
    pub wide_64k: bool,
    pub tlbi_range: bool,
    pub lse: bool,
    pub bbm: Bbm,
    pub hardware_access_flag: bool,
    pub hardware_dirty_state: bool,
    /// PSTATE.PAN stays off.
    pub pan: bool,
    /// Bytes of DC ZVA; 0 if prohibited.
    pub zva_size: usize,
    pub dcache_line: usize,
    pub icache_line: usize,
    /// CTR_EL0.IDC.
    pub fetches_see_data: bool,
    /// CTR_EL0.DIC.
    pub fetches_see_stores: bool,
    pub simd: bool,
    /// Without the cycle counter; `None` without a PMUv3.
    pub pmu_counters: Option<u8>,
}

const fn field(register: u64, shift: u32) -> u64 {
    register >> shift & 0xf
}

impl Features {
    /// Returns the features of `identity` (Arm ARM D24.2).
    #[must_use]
    pub const fn of(identity: &Identity) -> Self {
        let mmfr0 = identity.get(Register::Mmfr0);
        let mmfr1 = identity.get(Register::Mmfr1);
        let ctr = identity.get(Register::Ctr);
        let dczid = identity.get(Register::Dczid);
        Self {
            midr: identity.get(Register::Midr),
            pa_bits: match field(mmfr0, 0) {
                0 => 32,
                1 => 36,
                2 => 40,
                3 => 42,
                4 => 44,
                5 => 48,
                6 => 52,
                7 => 56,
                _ => 32,
            },
            granule_4k: field(mmfr0, 28) != 0xf,
            granule_16k: field(mmfr0, 20) != 0,
            granule_64k: field(mmfr0, 24) != 0xf,
            // TGran4: 1, and 0xf is no granule at all; TGran16: 2; VARange, PARange.
            wide_4k: matches!(field(mmfr0, 28), 1..0xf),
            wide_16k: field(mmfr0, 20) >= 2,
            wide_64k: field(identity.get(Register::Mmfr2), 16) >= 1 && field(mmfr0, 0) >= 6,
            tlbi_range: field(identity.get(Register::Isar0), 56) >= 2,
            lse: field(identity.get(Register::Isar0), 20) >= 2,
            bbm: match field(identity.get(Register::Mmfr2), 52) {
                0 => Bbm::Level0,
                1 => Bbm::Level1,
                _ => Bbm::Level2,
            },
            hardware_access_flag: field(mmfr1, 0) >= 1,
            hardware_dirty_state: field(mmfr1, 0) >= 2,
            pan: field(mmfr1, 20) != 0,
            // DZP; BS is log2 of words.
            zva_size: if dczid & 1 << 4 != 0 {
                0
            } else {
                4 << (dczid & 0xf)
            },
            // DminLine, IminLine: log2 of words.
            dcache_line: 4 << field(ctr, 16),
            icache_line: 4 << field(ctr, 0),
            fetches_see_data: ctr & 1 << 28 != 0,
            fetches_see_stores: ctr & 1 << 29 != 0,
            simd: field(identity.get(Register::Pfr0), 20) != 0xf,
            // PMUVer 0: none; 0xf: not Arm's. PMCR_EL0.N.
            pmu_counters: match field(identity.get(Register::Dfr0), 8) {
                0 | 0xf => None,
                _ => Some((identity.get(Register::Pmcr) >> 11 & 0x1f) as u8),
            },
        }
    }

    /// Returns what code on either CPU may use. The smaller line misses none, as maintenance by
    /// address reaches all CPUs' caches; the smaller DC ZVA may zero twice, in one table.
    #[must_use]
    pub fn common(self, other: Self) -> Self {
        Self {
            midr: self.midr,
            pa_bits: self.pa_bits.min(other.pa_bits),
            granule_4k: self.granule_4k && other.granule_4k,
            granule_16k: self.granule_16k && other.granule_16k,
            granule_64k: self.granule_64k && other.granule_64k,
            wide_4k: self.wide_4k && other.wide_4k,
            wide_16k: self.wide_16k && other.wide_16k,
            wide_64k: self.wide_64k && other.wide_64k,
            tlbi_range: self.tlbi_range && other.tlbi_range,
            lse: self.lse && other.lse,
            bbm: self.bbm.min(other.bbm),
            hardware_access_flag: self.hardware_access_flag && other.hardware_access_flag,
            hardware_dirty_state: self.hardware_dirty_state && other.hardware_dirty_state,
            pan: self.pan && other.pan,
            zva_size: self.zva_size.min(other.zva_size),
            dcache_line: self.dcache_line.min(other.dcache_line),
            icache_line: self.icache_line.min(other.icache_line),
            fetches_see_data: self.fetches_see_data && other.fetches_see_data,
            fetches_see_stores: self.fetches_see_stores && other.fetches_see_stores,
            simd: self.simd && other.simd,
            pmu_counters: self.pmu_counters.min(other.pmu_counters),
        }
    }

    /// Returns what pages of 2^`page_shift` bytes, or the kernel, need and this lacks.
    #[must_use]
    pub const fn missing(&self, page_shift: u32, va_bits: u32) -> Option<&'static str> {
        let (granule, wide) = match page_shift {
            12 => ((self.granule_4k, "4 KiB granule"), self.wide_4k),
            14 => ((self.granule_16k, "16 KiB granule"), self.wide_16k),
            _ => ((self.granule_64k, "64 KiB granule"), self.wide_64k),
        };
        if !granule.0 {
            Some(granule.1)
        } else if va_bits > 48 && !wide {
            Some("52-bit addresses with this granule")
        } else if !self.simd {
            Some("Advanced SIMD")
        } else {
            None
        }
    }
}
