//! What the bench says on the console: a line of JSON for each measured operation, for
//! `scripts/bench` to read.

use core::fmt;

use kernel::layout;
use kernel::print;
use paging::LeafCounts;

use super::OURS;
use super::counting::Counts;
use crate::measure::{Samples, Summary};

/// What was measured of a case.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Op {
    /// The call that maps.
    Map,
    /// The call that takes it back.
    Unmap,
    /// What a later purge owes for it.
    Lazy,
    /// A change of permissions, while it is mapped.
    Protect,
    /// A loop that allocates and frees, what it owes included.
    Loop,
}

impl Op {
    const fn name(self) -> &'static str {
        match self {
            Self::Map => "map",
            Self::Unmap => "unmap",
            Self::Lazy => "lazy",
            Self::Protect => "protect",
            Self::Loop => "loop",
        }
    }
}

/// One measured operation.
pub struct Line<'a> {
    /// The case.
    pub case: &'a str,
    /// Who did it.
    pub walker: &'a str,
    /// What of the case it is.
    pub op: Op,
    /// Instructions per call.
    pub instructions: Summary,
    /// What it did to the tables, if that was counted.
    pub counts: Option<Counts>,
    /// How many operations were counted together.
    pub counted: u64,
    /// Instructions of one loop, without what comes before and after all loops.
    pub steady: Option<u32>,
    /// The leaves that were mapped, if that is known.
    pub leaves: Option<LeafCounts>,
    /// What is special about this line; empty for nothing.
    pub note: &'a str,
}

impl<'a> Line<'a> {
    /// Returns the engine's own line, of which only instructions are known yet.
    #[must_use]
    pub fn of(case: &'a str, op: Op, samples: &Samples) -> Self {
        Self::new(case, op, samples.summary())
    }

    /// The same for a summary.
    #[must_use]
    pub const fn new(case: &'a str, op: Op, instructions: Summary) -> Self {
        Self {
            case,
            walker: OURS,
            op,
            instructions,
            counts: None,
            counted: 1,
            steady: None,
            leaves: None,
            note: "",
        }
    }

    /// With what one operation did to the tables.
    #[must_use]
    pub const fn counts(self, counts: Counts) -> Self {
        Self {
            counts: Some(counts),
            ..self
        }
    }

    /// With the leaves that were mapped.
    #[must_use]
    pub const fn leaves(self, leaves: LeafCounts) -> Self {
        Self {
            leaves: Some(leaves),
            ..self
        }
    }

    /// Prints it. No name has a character that JSON would escape.
    pub fn print(&self) {
        let Summary {
            median,
            min,
            max,
            runs,
        } = self.instructions;
        print!(
            "bench {{\"case\":\"{}\",\"walker\":\"{}\",\"op\":\"{}\",\"instructions\":{median},\"min\":{min},\"max\":{max},\"runs\":{runs}",
            self.case,
            self.walker,
            self.op.name()
        );
        if let Some(steady) = self.steady {
            print!(",\"steady\":{steady}");
        }
        if let Some(counts) = self.counts {
            let each = [
                ("loads", counts.loads),
                ("stores", counts.stores),
                ("allocated", counts.allocated),
                ("freed", counts.freed),
                ("tlbi", counts.tlbi),
                ("dsb", counts.dsb),
                ("isb", counts.isb),
            ];
            for (what, nr) in each {
                print!(",\"{what}\":{}", Mean(nr, self.counted));
            }
        }
        if let Some(leaves) = &self.leaves {
            print!(",\"leaves\":\"{}\"", leaves.display::<layout::Granule>());
        }
        if !self.note.is_empty() {
            print!(",\"note\":\"{}\"", self.note);
        }
        print!("}}\n");
    }
}

/// The name of a case or of a curve.
pub fn name(name: &str) {
    print!("bench {{\"name\":\"{name}\"}}\n");
}

/// A point of a curve.
pub fn point(curve: &str, x: u64, y: u64) {
    print!("bench {{\"curve\":\"{curve}\",\"x\":{x},\"y\":{y}}}\n");
}

/// A sum of so many, as the mean of one: with three places, unless it is a whole number.
struct Mean(u64, u64);

impl fmt::Display for Mean {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(sum, nr) = *self;
        if sum.is_multiple_of(nr) {
            return write!(f, "{}", sum / nr);
        }
        let thousandths = (sum * 1000 + nr / 2) / nr;
        write!(f, "{}.{:03}", thousandths / 1000, thousandths % 1000)
    }
}
