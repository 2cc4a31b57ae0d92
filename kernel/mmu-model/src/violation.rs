use std::collections::VecDeque;
use std::fmt;

/// The broken rule. Numbers are those of docs/DESIGN.md.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Rule {
    /// Entries for one address differ in more than permissions, AF and software bits (rule 3; Arm
    /// ARM D8.16.1).
    BreakBeforeMake,
    /// A group's members differ or are missing (rule 1; Arm ARM D8.7.1).
    MixedGroup,
    /// A group's output is not aligned to it (rule 1; Arm ARM D8.7.1).
    MisalignedGroup,
    /// An access may miss the current translation (rules 2 to 4; Arm ARM D8.2.6, D8.16).
    StaleAccess,
    /// A frame has two memory types, cacheabilities or shareabilities (rule 12; Arm ARM B2.8).
    MismatchedAlias,
    /// A frame is reused while an entry to it may be held (rule 6).
    FrameReused,
    /// A table is freed while a link to it may be held (rules 5 and 6; Arm ARM D8.16).
    TableReused,
    /// An address is reused while an entry for it may be held (rule 6).
    VaReused,
    /// A walk may see a link before its table's zeroing or contents (rule 2).
    LinkedTooEarly,
    /// A table is linked twice, or moved while a link may be held.
    LinkedTwice,
    /// A link leads to no table of the pool.
    NotATable,
    /// A TLBI precedes the DSB of the stores that it is for (rule 3; Arm ARM D8.16).
    TlbiBeforeDsb,
    /// A malformed or unimplemented TLBI operand (Arm ARM C5.5).
    TlbiOperand,
    /// A reserved encoding, non-zero RES0 bits, or a misaligned output (Arm ARM D8.3).
    MalformedDescriptor,
    /// An output address beyond the implemented size (Arm ARM D8.2.3).
    OutputTooLarge,
    /// A bad page is freed, or an access is outside the tables.
    BadTable,
    /// The linear map of an accessed table was broken (rule 3).
    TableOutOfReach,
    /// See `assert_quiescent`.
    NotQuiescent,
}

/// One broken rule, with its story.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Violation {
    /// The rule.
    pub rule: Rule,
    /// Its event.
    pub event: u32,
    /// What happened, and what may be held.
    pub story: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{} {:?}: {}", self.event, self.rule, self.story)
    }
}

/// An entry of the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event {
    /// A descriptor was stored.
    Store {
        /// The table.
        table: u64,
        /// Its index.
        index: usize,
        /// Consecutive stores.
        nr: usize,
        /// The first old value.
        old: u64,
        /// The first new value.
        new: u64,
        /// By compare-exchange.
        release: bool,
    },
    /// Allocation of a table.
    Alloc(u64),
    /// Allocation that failed.
    AllocFailed,
    /// Free of a table.
    Free(u64),
    /// DSB ISHST.
    DsbIshst,
    /// DSB ISH.
    DsbIsh,
    /// DMB ISHST.
    DmbIshst,
    /// DMB ISH.
    DmbIsh,
    /// LDAR of a word.
    WordLoad {
        /// The word.
        word: usize,
        /// The value returned.
        value: u64,
    },
    /// A word was stored.
    WordStore {
        /// The word.
        word: usize,
        /// The value.
        value: u64,
        /// With release.
        release: bool,
    },
    /// AT and its ISB.
    At {
        /// The address.
        va: u64,
    },
    /// Context synchronisation.
    ContextSynchronised,
    /// A TLBI.
    Tlbi {
        /// The first address.
        first: u64,
        /// The last address.
        last: u64,
        /// Walk caches too.
        all_levels: bool,
        /// This CPU only.
        local: bool,
    },
    /// Another CPU acquired this one's release.
    HandOver {
        /// The other CPU.
        to: usize,
    },
    /// Of other CPUs' releases.
    Acquire,
    /// A load, store or fetch.
    Access {
        /// The address.
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

/// Counts of events.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counters {
    /// Descriptors loaded.
    pub loads: u64,
    /// Descriptors stored plainly.
    pub stores: u64,
    /// Including those that failed.
    pub compare_exchanges: u64,
    /// Tables allocated.
    pub allocs: u64,
    /// Tables freed.
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

#[derive(Clone, Debug, Default)]
pub(crate) struct Journal {
    pub(crate) violations: Vec<Violation>,
    /// Violations not kept.
    pub(crate) more: u64,
    pub(crate) log: VecDeque<(u32, usize, Event)>,
    pub(crate) log_events: usize,
    pub(crate) counters: Counters,
}

/// The first of each rule are kept beyond that.
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

    pub(crate) fn tail(&self) -> String {
        self.log
            .iter()
            .map(|(time, cpu, event)| format!("  #{time} CPU {cpu}: {event}\n"))
            .collect()
    }
}
