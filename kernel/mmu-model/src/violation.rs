//! What the model finds, and how it tells it.

use std::collections::VecDeque;
use std::fmt;

/// The rule that was broken. The numbers are those of the rules of the tables in the project's
/// design.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Rule {
    /// Two translations for one address, or a leaf and a link, or two links, may be held at once
    /// and differ in more than permissions, AF and software bits (rule 3; Arm ARM D8.16.1,
    /// break-before-make).
    BreakBeforeMake,
    /// A contiguous group is not all or nothing: its members differ, or only some are there (rule
    /// 1; Arm ARM D8.7.1).
    MixedGroup,
    /// A contiguous group's output is not aligned to the group (rule 1; Arm ARM D8.7.1).
    MisalignedGroup,
    /// An access may use something other than the one current translation (rules 2 to 4; Arm ARM
    /// D8.2.6, D8.16).
    StaleAccess,
    /// A frame may be reached with two memory types, cacheabilities or shareabilities (rule 12; Arm
    /// ARM B2.8).
    MismatchedAlias,
    /// A frame is reused while an entry that leads to it may be held (rule 6).
    FrameReused,
    /// A table page is freed while a link to it is in place or may be held (rules 5 and 6; Arm
    /// ARM D8.16).
    TableReused,
    /// A range of addresses is reused while an entry for it may be held (rule 6).
    VaReused,
    /// A table was linked before its zeroing or its contents were sure to be seen by a walk that
    /// sees the link (rule 2).
    LinkedTooEarly,
    /// A table was linked at two places at once, or moved while a link to it may be held.
    LinkedTwice,
    /// A link leads to memory that is no table of this pool.
    NotATable,
    /// A TLBI was issued before a DSB completed this CPU's stores which it is there for (rule 3;
    /// Arm ARM D8.16).
    TlbiBeforeDsb,
    /// The operand of a TLBI is malformed, or its form is not implemented (Arm ARM C5.5).
    TlbiOperand,
    /// A reserved encoding, non-zero RES0 bits, or a misaligned output (Arm ARM D8.3).
    MalformedDescriptor,
    /// An output address beyond the implemented size (Arm ARM D8.2.3).
    OutputTooLarge,
    /// A table page is freed that was not handed out, or a descriptor is accessed outside the
    /// tables in use.
    BadTable,
    /// The table memory was accessed through the linear map while its translation there was broken
    /// (rule 3).
    TableOutOfReach,
    /// Not quiescent where the caller said that everything is (see `assert_quiescent`).
    NotQuiescent,
}

/// One broken rule, with its story.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Violation {
    /// Which.
    pub rule: Rule,
    /// The number of the event that broke it.
    pub event: u32,
    /// Who did what, and what may still be held.
    pub story: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{} {:?}: {}", self.event, self.rule, self.story)
    }
}

/// Something that happened, in the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event {
    /// A descriptor was stored; `release` if by compare-exchange.
    Store {
        /// The table.
        table: u64,
        /// The index in it.
        index: usize,
        /// How many, one behind the other: a run of stores is one event in the log.
        nr: usize,
        /// What was there, at the first.
        old: u64,
        /// What is there now, at the first.
        new: u64,
        /// By compare-exchange.
        release: bool,
    },
    /// A table page was handed out.
    Alloc(u64),
    /// No table page was to be had: the pool is empty, or the failure was asked for.
    AllocFailed,
    /// A table page came back.
    Free(u64),
    /// DSB ISHST.
    DsbIshst,
    /// DSB ISH.
    DsbIsh,
    /// DMB ISHST.
    DmbIshst,
    /// DMB ISH.
    DmbIsh,
    /// A word was loaded with acquire.
    WordLoad {
        /// Which.
        word: usize,
        /// The value returned.
        value: u64,
    },
    /// A word was stored.
    WordStore {
        /// Which.
        word: usize,
        /// The value stored.
        value: u64,
        /// With release.
        release: bool,
    },
    /// AT, and the ISB behind it.
    At {
        /// The address asked for.
        va: u64,
    },
    /// ISB or another context synchronisation.
    ContextSynchronised,
    /// A TLBI.
    Tlbi {
        /// The first address.
        first: u64,
        /// The last address.
        last: u64,
        /// Walk cache entries too.
        all_levels: bool,
        /// This CPU only.
        local: bool,
    },
    /// A release by this CPU was acquired by another.
    HandOver {
        /// That other.
        to: usize,
    },
    /// Releases of others were acquired by this CPU.
    Acquire,
    /// A load, store or fetch.
    Access {
        /// Where.
        va: u64,
    },
    /// `enter_break`.
    EnterBreak {
        /// The first address.
        va: u64,
        /// Bytes.
        size: u64,
    },
    /// `exit_break`.
    LeaveBreak,
}

impl Event {
    /// Takes the store `next` in, if it is the one behind this.
    fn extend(&mut self, next: &Self) -> bool {
        match (self, next) {
            (
                Self::Store {
                    table,
                    index,
                    nr,
                    release: false,
                    ..
                },
                Self::Store {
                    table: same,
                    index: behind,
                    release: false,
                    ..
                },
            ) if *table == *same && *index + *nr == *behind => {
                *nr += 1;
                true
            }
            _ => false,
        }
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Store {
                table,
                index,
                nr,
                old,
                new,
                release,
            } => {
                let how = if release { "CAS" } else { "STR" };
                write!(f, "{how} [{table:#x} + {index}] {old:#018x} -> {new:#018x}")?;
                if nr > 1 {
                    write!(f, ", and {} behind it", nr - 1)?;
                }
                Ok(())
            }
            Self::Alloc(table) => write!(f, "alloc table {table:#x}"),
            Self::AllocFailed => f.write_str("alloc table: none"),
            Self::Free(table) => write!(f, "free table {table:#x}"),
            Self::DsbIshst => f.write_str("DSB ISHST"),
            Self::DsbIsh => f.write_str("DSB ISH"),
            Self::DmbIshst => f.write_str("DMB ISHST"),
            Self::DmbIsh => f.write_str("DMB ISH"),
            Self::WordLoad { word, value } => write!(f, "LDAR word {word}: {value:#x}"),
            Self::WordStore { word, value, release } => {
                write!(
                    f,
                    "{} word {word}: {value:#x}",
                    if release { "STLR" } else { "STR" }
                )
            }
            Self::At { va } => write!(f, "AT {va:#x}"),
            Self::ContextSynchronised => f.write_str("ISB"),
            Self::Tlbi {
                first,
                last,
                all_levels,
                local,
            } => write!(
                f,
                "TLBI{} {first:#x}..={last:#x}{}",
                if local { " local" } else { " IS" },
                if all_levels { "" } else { " last level" },
            ),
            Self::HandOver { to } => write!(f, "hands over to CPU {to}"),
            Self::Acquire => f.write_str("acquires what others released"),
            Self::Access { va } => write!(f, "accesses {va:#x}"),
            Self::EnterBreak { va, size } => write!(f, "enters the break of {size:#x} bytes at {va:#x}"),
            Self::LeaveBreak => f.write_str("leaves the break"),
        }
    }
}

/// Counts of what passed through the model.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counters {
    /// Descriptors loaded.
    pub loads: u64,
    /// Descriptors stored plainly.
    pub stores: u64,
    /// Compare-exchanges, failed ones too.
    pub compare_exchanges: u64,
    /// Table pages handed out.
    pub allocs: u64,
    /// Table pages that came back.
    pub frees: u64,
    /// DSB ISHST.
    pub dsb_ishst: u64,
    /// DSB ISH.
    pub dsb_ish: u64,
    /// ISB.
    pub isb: u64,
    /// TLBIs by VA.
    pub tlbi_va: u64,
    /// TLBIs by range.
    pub tlbi_range: u64,
    /// TLBIs of everything.
    pub tlbi_all: u64,
}

/// Violations, log and counters: what the rules do not depend on.
#[derive(Clone, Debug, Default)]
pub(crate) struct Journal {
    pub(crate) violations: Vec<Violation>,
    /// Violations beyond those that are kept.
    pub(crate) more: u64,
    pub(crate) log: VecDeque<(u32, usize, Event)>,
    pub(crate) log_events: usize,
    pub(crate) counters: Counters,
}

/// Violations kept with their story; of further ones only the first of its rule, the rest are
/// counted.
const KEPT: usize = 32;

impl Journal {
    pub(crate) fn record(&mut self, time: u32, cpu: usize, event: Event) {
        if self.log_events != 0 {
            if let Some((_, whose, last)) = self.log.back_mut()
                && *whose == cpu
                && last.extend(&event)
            {
                return;
            }
            if self.log.len() == self.log_events {
                self.log.pop_front();
            }
            self.log.push_back((time, cpu, event));
        }
    }

    pub(crate) fn violate(&mut self, time: u32, rule: Rule, story: impl FnOnce() -> String) {
        let first = || self.violations.iter().all(|kept| kept.rule != rule);
        if self.violations.len() < KEPT || first() {
            self.violations.push(Violation {
                rule,
                event: time,
                story: story(),
            });
        } else {
            self.more += 1;
        }
    }

    /// Returns the log as text, a line an event.
    pub(crate) fn tail(&self) -> String {
        self.log
            .iter()
            .map(|(time, cpu, event)| format!("  #{time} CPU {cpu}: {event}\n"))
            .collect()
    }
}
