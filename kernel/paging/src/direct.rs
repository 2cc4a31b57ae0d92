//! The shortest ways: one physical run, or an array of frames, into one table, and one table's leaves out and flushed.
//!
//! Most calls map a single run whose tables are all there, and take just that out again. For these nothing has to be in memory
//! but the tables: no state to hand on, no batch. Each function here is one such case with its level as a constant, takes
//! scalars, and ends in a call of the general way where it is not that simple; so none has a frame. What may be written, what
//! must have been seen before, and which barriers follow is as everywhere: a case is shorter, never laxer.
//!
//! With the feature `trace` everything goes the general way, which tells each step.

use crate::addr::{VirtAddr, VirtRange};
use crate::descriptor::Descriptor;
use crate::granule::{Granule, LAST_LEVEL, Level};
use crate::mmu::Mmu;
use crate::outcome::{LeafSize, Outcome};
use crate::tables::Tables;
use crate::tree::{Node, Tree};

mod frames;
mod map;
mod unmap;

/// Made where it is returned: numbers are cheaper to hand on.
#[inline(always)]
fn leaves_of(level: Level, singles: usize, groups: usize) -> Outcome {
    let mut outcome = Outcome::default();
    outcome.levels.insert(level);
    outcome.leaves.add(LeafSize::new(level, false), singles as u32);
    outcome.leaves.add(LeafSize::new(level, true), groups as u32);
    outcome
}

/// Less than this is what a range and its length must have in common to lie in one table of `level` and not be all that a
/// descriptor above it covers: the smallest power of two that is larger than both says so with one comparison.
#[inline(always)]
pub(crate) fn bound<G: Granule>(level: Level) -> u64 {
    if level == G::ROOT_LEVEL {
        1 << G::VA_BITS
    } else {
        G::size(level - 1)
    }
}

/// The bits of an address that differ within `range`, and those of its size.
#[inline(always)]
pub(crate) const fn extent(range: VirtRange) -> u64 {
    let VirtRange { start, size } = range;
    (start.0 ^ start.0.wrapping_add(size.wrapping_sub(1))) | size
}

impl<G: Granule, T: Tables, M: Mmu> Tree<G, T, M> {
    /// The table of `LEVEL` on the way to `va`, and the link to it; of no meaning for the root. `None` where a table is
    /// missing.
    #[inline(always)]
    fn descend<const LEVEL: Level>(&self, va: VirtAddr) -> Option<(Node, Descriptor)> {
        let mut node = self.root_node();
        let mut link = Descriptor::VACANT;
        while node.level < LEVEL {
            let index = G::index(va.0, node.level);
            link = self.load(node.table, index);
            if !link.is_link() {
                return None;
            }
            node = self.child(&node, index, link);
        }
        Some((node, link))
    }

    /// Whether `range`, of which it is known that it lies in one table of this walk, begins in this tree's half, and is whole
    /// pages: what [`validate`](Self::validate) asks, of a range that cannot run over the end.
    #[inline(always)]
    fn is_plain(&self, range: VirtRange, granularity: u64, pa: u64) -> bool {
        let aligned = (range.start.0 | range.size | pa) & (granularity - 1) == 0;
        aligned && range.start.offset_from(self.start()) >> G::VA_BITS == 0
    }
}

const _: () = assert!(LAST_LEVEL == 3, "the cases are written out for levels 1 to 3");
