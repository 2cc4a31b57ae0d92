//! What the events took, by operation and kind.

use alloc::vec::Vec;
use core::ops::{AddAssign, Sub};

use trace_replay::{Action, Kind, PurgeKind, Trace};

/// Barriers and invalidations.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Counts {
    /// TLBIs of any kind.
    pub tlbi: u64,
    /// DSBs of either kind.
    pub dsb: u64,
    /// ISBs.
    pub isb: u64,
}

impl Sub for Counts {
    type Output = Self;
    fn sub(self, earlier: Self) -> Self {
        Self {
            tlbi: self.tlbi - earlier.tlbi,
            dsb: self.dsb - earlier.dsb,
            isb: self.isb - earlier.isb,
        }
    }
}

impl AddAssign for Counts {
    fn add_assign(&mut self, more: Self) {
        self.tlbi += more.tlbi;
        self.dsb += more.dsb;
        self.isb += more.isb;
    }
}

macro_rules! operations {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)*) => {
        /// What is counted apart.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub enum Operation {
            $($(#[$doc])* $variant,)*
        }

        impl Operation {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// As the report names it.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }
        }
    };
}

operations! {
    /// Makes an area that lives at the start.
    Pre = "pre",
    /// Makes an area.
    Alloc = "alloc",
    /// Makes code of an area: read-only, then executable.
    Protect = "protect",
    /// Ends an area.
    Free = "free",
    /// Flushes what waits.
    Purge = "purge",
    /// Ends an area that the trace leaves.
    Rest = "rest",
}

/// What an operation was about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum About {
    /// An area.
    Area(Kind),
    /// A purge.
    Purge(PurgeKind),
}

impl About {
    const NR: usize = Kind::ALL.len() + PurgeKind::ALL.len();

    const fn index(self) -> usize {
        match self {
            Self::Area(kind) => kind as usize,
            Self::Purge(kind) => Kind::ALL.len() + kind as usize,
        }
    }

    /// As a trace names it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Area(kind) => kind.name(),
            Self::Purge(kind) => kind.name(),
        }
    }

    fn all() -> impl Iterator<Item = Self> {
        let areas = Kind::ALL.iter().map(|kind| Self::Area(*kind));
        areas.chain(PurgeKind::ALL.iter().map(|kind| Self::Purge(*kind)))
    }
}

/// What the calls of one operation on one kind took.
#[derive(Clone, Default, Debug)]
pub struct Row {
    /// Calls.
    pub count: u64,
    /// Instructions of each, if they are counted.
    pub instructions: Vec<u32>,
    /// Barriers and invalidations of all, if they are counted.
    pub counts: Counts,
}

/// Instructions of many calls.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Summary {
    /// The median: of an even number, the upper one.
    pub median: u32,
    /// What 99 of 100 do not exceed.
    pub p99: u32,
    /// The most.
    pub max: u32,
    /// All together.
    pub total: u64,
}

impl Row {
    /// Of the instructions, if they were counted.
    #[must_use]
    pub fn summary(&self) -> Option<Summary> {
        let mut sorted = self.instructions.clone();
        sorted.sort_unstable();
        let max = *sorted.last()?;
        Some(Summary {
            median: sorted[sorted.len() / 2],
            p99: sorted[(sorted.len() * 99).div_ceil(100) - 1],
            max,
            total: sorted.iter().map(|value| u64::from(*value)).sum(),
        })
    }
}

/// A row for each operation and kind.
#[derive(Clone, Debug)]
pub struct Stats(Vec<Row>);

impl Stats {
    /// Empty.
    #[must_use]
    pub fn new() -> Self {
        Self(
            (0..Operation::ALL.len() * About::NR)
                .map(|_| Row::default())
                .collect(),
        )
    }

    /// Empty, with room for the instructions of every call that `trace` makes: nothing is allocated
    /// while it is replayed.
    #[must_use]
    pub fn with_room(trace: &Trace) -> Self {
        let mut stats = Self::new();
        let mut room = |operation, about| stats.row(operation, about).count += 1;
        let made = |room: &mut dyn FnMut(Operation, About), operation, kind: Kind| {
            room(operation, About::Area(kind));
            if kind.is_code() {
                room(Operation::Protect, About::Area(kind));
            }
            // Each area ends once, by the trace or after it; which, is of no interest for the room.
            room(Operation::Rest, About::Area(kind));
        };
        for area in &trace.areas[..trace.nr_pre] {
            made(&mut room, Operation::Pre, area.kind);
        }
        for event in &trace.events {
            match (event.action, trace.area_of(event)) {
                (Action::Alloc(_), Some(area)) => made(&mut room, Operation::Alloc, area.kind),
                (Action::Free(_), Some(area)) => room(Operation::Free, About::Area(area.kind)),
                (Action::Purge(kind), _) => room(Operation::Purge, About::Purge(kind)),
                (_, None) => {}
            }
        }
        for row in &mut stats.0 {
            row.instructions = Vec::with_capacity(row.count as usize);
            row.count = 0;
        }
        stats
    }

    fn row(&mut self, operation: Operation, about: About) -> &mut Row {
        &mut self.0[operation as usize * About::NR + about.index()]
    }

    /// A call was made.
    pub fn add(&mut self, operation: Operation, about: About, counts: Counts, instructions: Option<u32>) {
        let row = self.row(operation, about);
        row.count += 1;
        row.counts += counts;
        row.instructions.extend(instructions);
    }

    /// Adds what another CPU's calls took.
    pub fn merge(&mut self, other: &Self) {
        for (row, more) in self.0.iter_mut().zip(&other.0) {
            row.count += more.count;
            row.counts += more.counts;
            row.instructions.extend(&more.instructions);
        }
    }

    /// Returns the rows with a call in them.
    pub fn rows(&self) -> impl Iterator<Item = (Operation, About, &Row)> {
        let keys = Operation::ALL
            .iter()
            .flat_map(|operation| About::all().map(|about| (*operation, about)));
        keys.zip(&self.0)
            .filter(|(_, row)| row.count != 0)
            .map(|((operation, about), row)| (operation, about, row))
    }
}

/// The most of what was in use, looked at after each event.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Peaks {
    /// Areas in use.
    pub live_areas: u64,
    /// Bytes of addresses in use, guards included.
    pub live_bytes: u64,
    /// Areas that waited for a flush.
    pub lazy_areas: u64,
    /// Bytes of addresses that waited, guards included; the frames behind them waited, too.
    pub lazy_bytes: u64,
    /// Bytes of RAM in use that were not before.
    pub ram_bytes: u64,
    /// Table pages in use that were not before.
    pub tables: u64,
}

impl Peaks {
    /// Of two, the higher of each.
    #[must_use]
    pub fn max(&self, other: &Self) -> Self {
        Self {
            live_areas: self.live_areas.max(other.live_areas),
            live_bytes: self.live_bytes.max(other.live_bytes),
            lazy_areas: self.lazy_areas.max(other.lazy_areas),
            lazy_bytes: self.lazy_bytes.max(other.lazy_bytes),
            ram_bytes: self.ram_bytes.max(other.ram_bytes),
            tables: self.tables.max(other.tables),
        }
    }
}

/// What was looked at and found right.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Verified {
    /// Pages of RAM: their translation by the tables and by the MMU, and their words by two
    /// addresses.
    pub pages: u64,
    /// Pages of devices: their translation by the tables and by the MMU.
    pub device_pages: u64,
    /// Of the pages of RAM, those of code: neither address may write, and theirs may execute.
    pub code_pages: u64,
    /// Guard pages: not mapped.
    pub guards: u64,
    /// Mappings of a caller's pages: gone when the call returned. With one CPU only: with
    /// more, the address may be another's already.
    pub gone: u64,
}

impl AddAssign for Verified {
    fn add_assign(&mut self, more: Self) {
        self.pages += more.pages;
        self.device_pages += more.device_pages;
        self.code_pages += more.code_pages;
        self.guards += more.guards;
        self.gone += more.gone;
    }
}
