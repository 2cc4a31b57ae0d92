use core::fmt;

use kernel::layout;
use kernel::print;
use paging::LeafCounts;

use super::OURS;
use super::counting::Counts;
use crate::measure::{Samples, Summary};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Op {
    Map,
    Unmap,
    Lazy,
    Protect,
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

pub struct Line<'a> {
    pub case: &'a str,
    pub walker: &'a str,
    pub op: Op,
    pub instructions: Summary,
    pub counts: Option<Counts>,
    pub counted: u64,
    /// Without setup and teardown.
    pub steady: Option<u32>,
    pub leaves: Option<LeafCounts>,
    pub note: &'a str,
}

impl<'a> Line<'a> {
    #[must_use]
    pub fn of(case: &'a str, op: Op, samples: &Samples) -> Self {
        Self::new(case, op, samples.summary())
    }

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

    #[must_use]
    pub const fn counts(self, counts: Counts) -> Self {
        Self {
            counts: Some(counts),
            ..self
        }
    }

    #[must_use]
    pub const fn leaves(self, leaves: LeafCounts) -> Self {
        Self {
            leaves: Some(leaves),
            ..self
        }
    }

    /// Prints it. Names need no escapes.
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

pub fn name(name: &str) {
    print!("bench {{\"name\":\"{name}\"}}\n");
}

pub fn point(curve: &str, x: u64, y: u64) {
    print!("bench {{\"curve\":\"{curve}\",\"x\":{x},\"y\":{y}}}\n");
}

/// With three decimals unless it is whole.
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
