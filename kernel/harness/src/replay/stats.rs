use alloc::vec::Vec;
use core::ops::{AddAssign, Sub};

use trace_replay::{Action, Kind, PurgeKind, Trace};

#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Counts {
    pub tlbi: u64,
    pub dsb: u64,
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
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub enum Operation {
            $($(#[$doc])* $variant,)*
        }

        impl Operation {
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

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
    Pre = "pre",
    Alloc = "alloc",
    Protect = "protect",
    Free = "free",
    Purge = "purge",
    Rest = "rest",
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum About {
    Area(Kind),
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

#[derive(Clone, Default, Debug)]
pub struct Row {
    pub count: u64,
    pub instructions: Vec<u32>,
    pub counts: Counts,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Summary {
    /// Of an even number, the upper one.
    pub median: u32,
    pub p99: u32,
    pub max: u32,
    pub total: u64,
}

impl Row {
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

#[derive(Clone, Debug)]
pub struct Stats(Vec<Row>);

impl Stats {
    #[must_use]
    pub fn new() -> Self {
        Self(
            (0..Operation::ALL.len() * About::NR)
                .map(|_| Row::default())
                .collect(),
        )
    }

    /// Makes room: nothing is allocated while `trace` is replayed.
    #[must_use]
    pub fn with_room(trace: &Trace) -> Self {
        let mut stats = Self::new();
        let mut room = |operation, about| stats.row(operation, about).count += 1;
        let made = |room: &mut dyn FnMut(Operation, About), operation, kind: Kind| {
            room(operation, About::Area(kind));
            if kind.is_code() {
                room(Operation::Protect, About::Area(kind));
            }
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

    pub fn add(&mut self, operation: Operation, about: About, counts: Counts, instructions: Option<u32>) {
        let row = self.row(operation, about);
        row.count += 1;
        row.counts += counts;
        row.instructions.extend(instructions);
    }

    pub fn merge(&mut self, other: &Self) {
        for (row, more) in self.0.iter_mut().zip(&other.0) {
            row.count += more.count;
            row.counts += more.counts;
            row.instructions.extend(&more.instructions);
        }
    }

    pub fn rows(&self) -> impl Iterator<Item = (Operation, About, &Row)> {
        let keys = Operation::ALL
            .iter()
            .flat_map(|operation| About::all().map(|about| (*operation, about)));
        keys.zip(&self.0)
            .filter(|(_, row)| row.count != 0)
            .map(|((operation, about), row)| (operation, about, row))
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Peaks {
    pub live_areas: u64,
    pub live_bytes: u64,
    pub lazy_areas: u64,
    pub lazy_bytes: u64,
    pub ram_bytes: u64,
    pub tables: u64,
}

impl Peaks {
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

#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Verified {
    pub pages: u64,
    pub device_pages: u64,
    pub code_pages: u64,
    pub guards: u64,
    /// A caller's pages. With one CPU only: another may have the address already.
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
