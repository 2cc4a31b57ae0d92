//! Reading a tree: see [`Tree`] on when an unlinked table may be reused.

use crate::addr::{PhysAddr, VirtAddr, VirtRange};
use crate::descriptor::{Attributes, Descriptor};
use crate::granule::{Granule, Level};
use crate::mmu::Mmu;
use crate::outcome::{Error, LeafSize};
use crate::tables::Tables;
use crate::tree::{Node, Tree, part};

/// A page, a block, or a whole contiguous group.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Leaf {
    /// First address.
    pub va: VirtAddr,
    /// What that maps to.
    pub pa: PhysAddr,
    /// Its size.
    pub size: LeafSize,
    /// Attributes.
    pub attributes: Attributes,
    /// Whether walks use it.
    pub valid: bool,
}

impl Leaf {
    /// Returns the addresses covered.
    #[must_use]
    pub fn range<G: Granule>(&self) -> VirtRange {
        VirtRange::new(self.va, self.size.bytes::<G>())
    }

    /// Returns what `va`, inside the leaf, maps to.
    #[must_use]
    pub const fn translate(&self, va: VirtAddr) -> PhysAddr {
        self.pa.add(va.offset_from(self.va))
    }
}

/// One level of a walk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Step {
    /// The level.
    pub level: Level,
    /// The table.
    pub table: PhysAddr,
    /// The index read.
    pub index: usize,
    /// What was there.
    pub descriptor: Descriptor,
}

/// A walk for one address, level by level.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Walk {
    steps: [Option<Step>; 5],
    /// `None` for a translation fault at the last step's level.
    pub leaf: Option<Leaf>,
}

impl Walk {
    /// Returns the levels read, root first.
    pub fn steps(&self) -> impl Iterator<Item = &Step> {
        self.steps.iter().flatten()
    }

    /// Returns the level at which it ended.
    #[must_use]
    pub fn level(&self) -> Level {
        self.steps().last().map_or(0, |step| step.level)
    }
}

/// Whether [`Tree::visit`] goes on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Visit {
    /// To the next leaf.
    Continue,
    /// No further.
    Stop,
}

impl<G: Granule, T: Tables, M: Mmu> Tree<G, T, M> {
    /// Walks for `va`, aligned or not.
    ///
    /// # Errors
    /// [`Error::NonCanonical`].
    pub fn walk(&self, va: VirtAddr) -> Result<Walk, Error> {
        self.validate(VirtRange::new(va.align_down(G::PAGE_SIZE), G::PAGE_SIZE))?;
        let mut walk = Walk {
            steps: [None; 5],
            leaf: None,
        };
        let mut node = self.root_node();
        for slot in 0.. {
            let index = G::index(va.0, node.level);
            let found = self.load(node.table, index);
            walk.steps[slot] = Some(Step {
                level: node.level,
                table: node.table,
                index,
                descriptor: found,
            });
            if found.is_table(node.level) {
                node = self.child(node, found);
                continue;
            }
            if !found.is_vacant() {
                walk.leaf = Some(self.leaf(node, index, va, found));
            }
            break;
        }
        Ok(walk)
    }

    /// Returns the valid leaf that translates `va`, if any.
    #[inline]
    pub fn translate(&self, va: VirtAddr) -> Option<Leaf> {
        if !self.range().contains(va) {
            return None;
        }
        let mut node = self.root_node();
        loop {
            let index = G::index(va.0, node.level);
            let found = self.load(node.table, index);
            if found.is_table(node.level) {
                node = self.child(node, found);
            } else if found.is_valid() {
                return Some(self.leaf(node, index, va, found));
            } else {
                return None;
            }
        }
    }

    /// Calls `visitor` for each leaf in `range`, ascending, whole even over an end of the range.
    ///
    /// # Errors
    /// [`Error::Empty`], [`Error::Misaligned`], [`Error::NonCanonical`].
    pub fn visit(&self, range: VirtRange, mut visitor: impl FnMut(&Leaf) -> Visit) -> Result<(), Error> {
        self.validate(range)?;
        self.visit_table(self.root_node(), range.start, range.size, &mut visitor);
        Ok(())
    }

    fn visit_table(
        &self,
        node: Node,
        va: VirtAddr,
        remaining: u64,
        visitor: &mut impl FnMut(&Leaf) -> Visit,
    ) -> Visit {
        let (index, nr) = self.slots(node.level, va, remaining);
        let end = index + nr;
        let (mut i, mut va, mut remaining) = (index, va, remaining);
        while i < end {
            let found = self.load(node.table, i);
            let mut next = i + 1;
            let mut answer = Visit::Continue;
            if found.is_table(node.level) {
                let here = part::<G>(node.level, va, remaining);
                answer = self.visit_table(self.child(node, found), va, here, visitor);
            } else if !found.is_vacant() {
                let leaf = self.leaf(node, i, va, found);
                next = (i | (leaf.size.descriptors::<G>() - 1)) + 1;
                answer = visitor(&leaf);
            }
            if answer == Visit::Stop {
                return Visit::Stop;
            }
            let ahead = va
                .align_down(G::size(node.level))
                .add(((next - i) as u64) << G::shift(node.level));
            remaining = remaining.saturating_sub(ahead.offset_from(va));
            (i, va) = (next, ahead);
        }
        Visit::Continue
    }

    #[inline]
    fn leaf(&self, node: Node, index: usize, va: VirtAddr, found: Descriptor) -> Leaf {
        let size = LeafSize::new(node.level, found.is_contiguous());
        let within = index & (size.descriptors::<G>() - 1);
        let back = (within as u64) << G::shift(node.level);
        Leaf {
            va: va.align_down(size.bytes::<G>()),
            pa: PhysAddr(found.address::<G>().0.wrapping_sub(back)),
            size,
            attributes: found.attributes::<G>(),
            valid: found.is_valid(),
        }
    }
}
