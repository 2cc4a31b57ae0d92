//! What a PMUv3 counts, and with which counter (Arm ARM D13.11, "PMU events and event numbers").

/// Common events, in the order in which they get counters.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Event {
    /// INST_RETIRED.
    Instructions = 0x08,
    /// MEM_ACCESS: loads and stores.
    MemoryAccesses = 0x13,
    /// L1D_TLB_REFILL.
    L1TlbRefills = 0x05,
    /// L2D_TLB_REFILL.
    L2TlbRefills = 0x2d,
    /// DTLB_WALK: accesses that a walk was made for.
    Walks = 0x34,
    /// CPU_CYCLES: PMCCNTR_EL0 counts them, too.
    Cycles = 0x11,
}

impl Event {
    /// Without cycles.
    pub const ALL: [Self; 5] = [
        Self::Instructions,
        Self::MemoryAccesses,
        Self::L1TlbRefills,
        Self::L2TlbRefills,
        Self::Walks,
    ];

    /// Returns the name that perf has for it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Instructions => "inst_retired",
            Self::MemoryAccesses => "mem_access",
            Self::L1TlbRefills => "l1d_tlb_refill",
            Self::L2TlbRefills => "l2d_tlb_refill",
            Self::Walks => "dtlb_walk",
            Self::Cycles => "cpu_cycles",
        }
    }

    /// `pmceid` is PMCEID0_EL0 and PMCEID1_EL0; their upper halves are events from 0x4000 on.
    #[must_use]
    pub const fn is_in(self, pmceid: [u64; 2]) -> bool {
        let number = self as usize;
        pmceid[number / 32] >> (number % 32) & 1 != 0
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Lack {
    NoPmu,
    NoEvent,
    /// More events than counters.
    NoCounter,
}

impl Lack {
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::NoPmu => "no PMUv3",
            Self::NoEvent => "PMCEID lacks it",
            Self::NoCounter => "no counter is left",
        }
    }
}

/// The counter of each of [`Event::ALL`].
pub type Assignment = [Result<u8, Lack>; Event::ALL.len()];

/// `counters` is PMCR_EL0.N.
pub fn assign(counters: u8, pmceid: [u64; 2]) -> Assignment {
    let mut next = 0;
    Event::ALL.map(|event| {
        if !event.is_in(pmceid) {
            return Err(Lack::NoEvent);
        }
        if next == counters {
            return Err(Lack::NoCounter);
        }
        next += 1;
        Ok(next - 1)
    })
}

/// Returns the name of ID_AA64DFR0_EL1.PMUVer; `None` if it is no PMUv3.
#[must_use]
pub const fn version(pmuver: u64) -> Option<&'static str> {
    match pmuver {
        0 | 0xf => None,
        1 => Some("PMUv3"),
        4 => Some("PMUv3p1"),
        5 => Some("PMUv3p4"),
        6 => Some("PMUv3p5"),
        7 => Some("PMUv3p7"),
        8 => Some("PMUv3p8"),
        9 => Some("PMUv3p9"),
        _ => Some("PMUv3, of a version after v3p9"),
    }
}

/// Event counters have 64 bits (FEAT_PMUv3p5).
#[must_use]
pub const fn has_long_counters(pmuver: u64) -> bool {
    pmuver >= 6 && pmuver != 0xf
}

/// Returns what a counter of 32 bits counted that began at 0, by PMOVSSET_EL0. It may have 64, and
/// yet overflow at 32.
#[must_use]
pub const fn with_overflow(count: u64, overflowed: bool) -> u64 {
    (count & 0xffff_ffff) + ((overflowed as u64) << 32)
}
