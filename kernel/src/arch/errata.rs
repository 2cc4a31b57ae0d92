//! Errata that translation has to work around (rule 11): boot-time policy from MIDR_EL1, two switches, and each can be forced.
//!
//! CPUs of a machine may be of several kinds, and all walk the same tables and take part in the same invalidations. So every CPU records its own
//! MIDR_EL1 before the final tables are built (`smp::identify`), and the policy is what any of them needs.
//!
//! The table names published Arm errata by their number in the Software Developers Errata Notice of the core. An entry is here
//! because its workaround is one of the two switches; other errata of these cores do not concern what this kernel does.

use core::sync::atomic::{AtomicU64, Ordering};

use aarch64_cpu::registers::{MIDR_EL1, Readable};

use super::percpu::MAX_CPUS;

/// MIDR_EL1 of each CPU by its number; 0 for one that has not said.
static MIDRS: [AtomicU64; MAX_CPUS] = [const { AtomicU64::new(0) }; MAX_CPUS];

/// Notes MIDR_EL1 of the CPU that runs this, which is number `index`.
pub fn record_midr(index: usize) {
    if let Some(midr) = MIDRS.get(index) {
        midr.store(MIDR_EL1.get(), Ordering::Release);
    }
}

/// MIDR_EL1 of CPU `index`, if it has said.
#[must_use]
pub fn midr_of(index: usize) -> Option<u64> {
    let midr = MIDRS.get(index)?.load(Ordering::Acquire);
    (midr != 0).then_some(midr)
}

/// A CPU, and the MIDR_EL1 that it is taken to have: for a machine of several kinds where there is none (`errata.midr=`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Pretence {
    /// The CPU's number.
    pub cpu: usize,
    /// Its MIDR_EL1.
    pub midr: u64,
}

/// What is switched on.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Errata {
    /// A TLBI may complete before every other CPU has stopped using what it removes: DSB and the same TLBI again.
    pub repeat_tlbi: bool,
    /// The contiguous bit is not to be used.
    pub no_cont: bool,
}

/// A core and the revisions of it that are affected.
struct Affected {
    name: &'static str,
    implementer: u8,
    part: u16,
    /// First and last, as variant and revision: r1p2 is (1, 2).
    revisions: core::ops::RangeInclusive<(u8, u8)>,
    errata: Errata,
}

const ARM: u8 = 0x41;
const REPEAT_TLBI: Errata = Errata {
    repeat_tlbi: true,
    no_cont: false,
};

const TABLE: &[Affected] = &[
    Affected {
        name: "Cortex-A76 1286807",
        implementer: ARM,
        part: 0xd0b,
        revisions: (0, 0)..=(3, 0),
        errata: REPEAT_TLBI,
    },
    Affected {
        name: "Cortex-A55 2441007",
        implementer: ARM,
        part: 0xd05,
        revisions: (0, 0)..=(2, 0xf),
        errata: REPEAT_TLBI,
    },
    Affected {
        name: "Cortex-A510 2441009",
        implementer: ARM,
        part: 0xd46,
        revisions: (0, 0)..=(1, 1),
        errata: REPEAT_TLBI,
    },
];

impl Errata {
    /// What the table says for the CPU with this MIDR_EL1.
    #[must_use]
    pub fn of(midr: u64) -> Self {
        Self::matching(midr).fold(Self::default(), |all, (_, errata)| all.or(errata))
    }

    /// What any CPU needs that has recorded its MIDR_EL1, one of them perhaps by pretence.
    #[must_use]
    pub fn of_all_cpus(pretence: Option<Pretence>) -> Self {
        Self::cpus(pretence).fold(Self::default(), |all, (_, midr)| all.or(Self::of(midr)))
    }

    /// The CPUs that have recorded their MIDR_EL1, and what it is, or is taken to be.
    pub fn cpus(pretence: Option<Pretence>) -> impl Iterator<Item = (usize, u64)> {
        (0..MAX_CPUS).filter_map(move |cpu| {
            let midr = midr_of(cpu)?;
            let pretended = pretence.filter(|pretence| pretence.cpu == cpu);
            Some((cpu, pretended.map_or(midr, |pretence| pretence.midr)))
        })
    }

    /// Names and switches of the entries that apply to `midr`.
    pub fn matching(midr: u64) -> impl Iterator<Item = (&'static str, Self)> {
        let implementer = (midr >> 24) as u8;
        let part = (midr >> 4 & 0xfff) as u16;
        let revision = ((midr >> 20 & 0xf) as u8, (midr & 0xf) as u8);
        TABLE
            .iter()
            .filter(move |a| {
                a.implementer == implementer && a.part == part && a.revisions.contains(&revision)
            })
            .map(|a| (a.name, a.errata))
    }

    /// Both: a switch is on if it is on in either. CPUs of several kinds, and what the boot arguments force, add up so.
    #[must_use]
    pub const fn or(self, other: Self) -> Self {
        Self {
            repeat_tlbi: self.repeat_tlbi | other.repeat_tlbi,
            no_cont: self.no_cont | other.no_cont,
        }
    }

    /// The switches, by the names that the boot argument `errata=` has for them.
    pub const SWITCHES: &[(&str, Self)] = &[
        ("repeat-tlbi", REPEAT_TLBI),
        (
            "no-cont",
            Self {
                repeat_tlbi: false,
                no_cont: true,
            },
        ),
    ];
}
