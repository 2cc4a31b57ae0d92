//! Reading a tree: see [`Tree`] on when an unlinked table may be reused.

use crate::addr::{PhysAddr, VirtAddr, VirtRange};
use crate::descriptor::{Attributes, Descriptor, VALID};
use crate::granule::{Granule, Level};
use crate::mmu::Mmu;
use crate::outcome::{Error, LeafSize};
use crate::tables::Tables;
use crate::tree::{Node, Slot, Tree};

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
    /// Returns the leaf of which `found`, around `va`, is a descriptor of `level`.
    #[inline]
    pub(crate) fn of<G: Granule>(level: Level, va: VirtAddr, found: Descriptor) -> Self {
        let size = LeafSize::new(level, found.is_contiguous());
        let start = va.align_down(size.bytes::<G>());
        let back = va.align_down(G::size(level)).offset_from(start);
        Self {
            va: start,
            pa: PhysAddr(found.address::<G>().0.wrapping_sub(back)),
            size,
            attributes: found.attributes::<G>(),
            valid: found.is_valid(),
        }
    }

    /// Returns its first descriptor.
    #[inline]
    pub(crate) fn descriptor<G: Granule>(&self) -> u64 {
        let size = self.size;
        let valid = Descriptor::leaf::<G>(size.level(), self.pa, self.attributes, size.is_contiguous());
        if self.valid { valid.0 } else { valid.0 & !VALID }
    }

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
        for step in &mut walk.steps {
            let Node { table, level } = node;
            let index = G::index(va.0, level);
            let descriptor = self.load(table, index);
            *step = Some(Step {
                level,
                table,
                index,
                descriptor,
            });
            if !descriptor.is_table(level) {
                walk.leaf = (!descriptor.is_vacant()).then(|| Leaf::of::<G>(level, va, descriptor));
                break;
            }
            node = self.child(node, descriptor);
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
            let found = self.load(node.table, G::index(va.0, node.level));
            if !found.is_table(node.level) {
                return found.is_valid().then(|| Leaf::of::<G>(node.level, va, found));
            }
            node = self.child(node, found);
        }
    }

    /// Calls `visitor` for each leaf in `range`, ascending, whole even over an end of the range.
    ///
    /// # Errors
    /// [`Error::Empty`], [`Error::Misaligned`], [`Error::NonCanonical`].
    pub fn visit(&self, range: VirtRange, mut visitor: impl FnMut(&Leaf) -> Visit) -> Result<(), Error> {
        self.validate(range)?;
        self.visit_table(self.root_node(), range, &mut |_, leaf| visitor(leaf));
        Ok(())
    }

    /// `visitor` gets a leaf's table, too.
    pub(crate) fn visit_table(
        &self,
        node: Node,
        range: VirtRange,
        visitor: &mut impl FnMut(PhysAddr, &Leaf) -> Visit,
    ) -> Visit {
        let mut rest = range;
        while let Some(Slot { part, found, .. }) = self.next_slot(node, &mut rest) {
            let mut answer = Visit::Continue;
            if found.is_table(node.level) {
                answer = self.visit_table(self.child(node, found), part, visitor);
            } else if !found.is_vacant() {
                let leaf = Leaf::of::<G>(node.level, part.start, found);
                rest = rest.behind(leaf.range::<G>());
                answer = visitor(node.table, &leaf);
            }
            if answer == Visit::Stop {
                return answer;
            }
        }
        Visit::Continue
    }
}
