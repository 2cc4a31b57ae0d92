//! What CPUs have, and what all of them have together (DESIGN rule 13).
//!
//! All CPUs walk the same tables, take part in the same invalidations and run the same code. So
//! what may be used is what every one of them has: [`Features::common`] of all.

use crate::identity::{Identity, Register};

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

/// Features that matter for translation, for caches and for the benches.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Features {
    /// MIDR_EL1 of the first CPU.
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
    /// FEAT_LSE: atomics that are one instruction.
    pub lse: bool,
    /// FEAT_BBM.
    pub bbm: Bbm,
    /// FEAT_HAFDBS: hardware sets the Access flag.
    pub hardware_access_flag: bool,
    /// And the dirty state.
    pub hardware_dirty_state: bool,
    /// FEAT_PAN is implemented; PSTATE.PAN is off and stays so.
    pub pan: bool,
    /// Bytes that a step of DC ZVA zeroes at least; 0 if it is prohibited.
    pub zva_size: usize,
    /// Smallest data cache line, in bytes.
    pub dcache_line: usize,
    /// Smallest instruction cache line, in bytes.
    pub icache_line: usize,
    /// CTR_EL0.IDC: no clean to the point of unification before instructions are fetched.
    pub fetches_see_data: bool,
    /// CTR_EL0.DIC: no invalidation of instruction caches either.
    pub fetches_see_stores: bool,
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
    /// Returns what the CPU has that says `identity`.
    ///
    /// Source of the fields: Arm ARM D24.2, at each register.
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
                // Reserved: what every implementation has at least.
                _ => 32,
            },
            granule_4k: field(mmfr0, 28) != 0xf,
            granule_16k: field(mmfr0, 20) != 0,
            granule_64k: field(mmfr0, 24) != 0xf,
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
            // DZP prohibits; BS is log2 of words.
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

    /// Returns what both have: what code that runs on either may use.
    ///
    /// Sizes are the smaller ones. A loop over cache lines then misses no line of a cache with
    /// shorter ones: maintenance by address goes to the caches of all CPUs of the domain. And a
    /// loop over what DC ZVA zeroes leaves nothing out: where a CPU zeroes more than one step, it
    /// does so more than once, in the same table.
    #[must_use]
    pub fn common(self, other: Self) -> Self {
        Self {
            midr: self.midr,
            pa_bits: self.pa_bits.min(other.pa_bits),
            granule_4k: self.granule_4k && other.granule_4k,
            granule_16k: self.granule_16k && other.granule_16k,
            granule_64k: self.granule_64k && other.granule_64k,
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

    /// Returns what a kernel with pages of 2^`page_shift` bytes cannot do without and this lacks.
    #[must_use]
    pub const fn missing(&self, page_shift: u32) -> Option<&'static str> {
        let granule = match page_shift {
            12 => (self.granule_4k, "4 KiB granule"),
            14 => (self.granule_16k, "16 KiB granule"),
            _ => (self.granule_64k, "64 KiB granule"),
        };
        if !granule.0 {
            Some(granule.1)
        } else if !self.simd {
            Some("Advanced SIMD")
        } else {
            None
        }
    }
}
