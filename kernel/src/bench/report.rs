//! What the bench says on the console: a line of JSON for each measured operation, for `scripts/bench` to read.

use paging::{Granule4K, LeafCounts};

use super::counting::Counts;
use super::measure::Summary;
use crate::print;

/// What was measured of a case.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Op {
    /// The call that maps.
    Map,
    /// The call that takes it back.
    Unmap,
    /// What a later purge owes for it.
    Lazy,
}

impl Op {
    const fn name(self) -> &'static str {
        match self {
            Self::Map => "map",
            Self::Unmap => "unmap",
            Self::Lazy => "lazy",
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
    /// The leaves that were mapped, if that is known.
    pub leaves: Option<LeafCounts>,
    /// What is special about this line; empty for nothing.
    pub note: &'a str,
}

impl Line<'_> {
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
        if let Some(counts) = self.counts {
            let Counts {
                loads,
                stores,
                allocated,
                freed,
                tlbi,
                dsb,
                isb,
            } = counts;
            print!(
                ",\"loads\":{loads},\"stores\":{stores},\"allocated\":{allocated},\"freed\":{freed},\"tlbi\":{tlbi},\"dsb\":{dsb},\"isb\":{isb}"
            );
        }
        if let Some(leaves) = &self.leaves {
            print!(",\"leaves\":\"{}\"", leaves.display::<Granule4K>());
        }
        if !self.note.is_empty() {
            print!(",\"note\":\"{}\"", self.note);
        }
        print!("}}\n");
    }
}
