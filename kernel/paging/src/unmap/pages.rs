//! What `unmap` takes out of one last-level table.

use super::Unmapping;
use crate::addr::{VirtAddr, VirtRange};
use crate::descriptor::{CONTIGUOUS, VALID};
use crate::flush::Pending;
use crate::granule::{Granule, LAST_LEVEL};
use crate::mmu::Mmu;
use crate::outcome::{LeafSize, Outcome};
use crate::tables::Tables;
use crate::tree::{Node, Tree};

impl<G: Granule, T: Tables, M: Mmu> Tree<G, T, M> {
    /// The common case at the last level: every descriptor is valid and no group is cut. Takes out `nr` descriptors from
    /// `index` on, or does nothing.
    #[inline(always)]
    pub(super) fn unmap_whole_pages(
        &self,
        node: Node,
        index: usize,
        nr: usize,
        va: VirtAddr,
        pending: &mut Pending<G>,
        outcome: &mut Outcome,
    ) -> bool {
        let range = VirtRange::new(va, (nr as u64) << G::PAGE_SHIFT);
        if nr == 1 {
            let found = self.load(node.table, index);
            if !found.is_valid() || found.is_contiguous() {
                return false;
            }
            self.tables.store(node.table, index, 0);
            outcome.levels.insert(LAST_LEVEL);
            outcome.leaves.add(LeafSize::PAGE, 1);
            pending.invalidate(range, LAST_LEVEL, false);
            return true;
        }
        let all = self.tables.and_all(node.table, index, nr);
        if all & VALID == 0 || self.cuts_group(&node, index, nr) {
            return false;
        }
        let groups = self.nr_groups(node, index, nr, all);
        self.clear(node, index, nr);
        outcome.levels.insert(LAST_LEVEL);
        outcome.leaves.add(LeafSize::PAGE_GROUP, groups as u32);
        outcome.leaves.add(
            LeafSize::PAGE,
            (nr - (groups << G::cont_shift(LAST_LEVEL))) as u32,
        );
        // DESIGN rule 4: a group may be held as its pages, so the stride is a page for both.
        pending.invalidate(range, LAST_LEVEL, false);
        true
    }

    /// Whether a group sticks out of `nr` last-level descriptors from `index` on.
    #[inline(always)]
    pub(crate) fn cuts_group(&self, node: &Node, index: usize, nr: usize) -> bool {
        let cut = |at: usize| at & (G::cont_entries(LAST_LEVEL) - 1) != 0;
        (cut(index) && self.load(node.table, index).is_contiguous())
            || (cut(index + nr) && self.load(node.table, index + nr - 1).is_contiguous())
    }

    /// Takes pages and groups out of a last-level table.
    pub(super) fn unmap_pages(
        &self,
        node: Node,
        va: VirtAddr,
        remaining: u64,
        unmapping: &mut Unmapping<'_, G>,
    ) -> usize {
        let (mut index, mut nr) = self.slots(LAST_LEVEL, va, remaining);
        let mut va = va;
        let mut removed = 0;
        let group = G::cont_entries(LAST_LEVEL);
        // A group that sticks out at the front or at the back is taken apart.
        if index & (group - 1) != 0 {
            let taken = self.unmap_cut_group(node, index, va, unmapping, &mut removed);
            if taken != 0 {
                let taken = taken.min(nr);
                index += taken;
                nr -= taken;
                va = va.add((taken as u64) << G::PAGE_SHIFT);
            }
        }
        let tail = (index + nr) & (group - 1);
        if tail != 0 && nr != 0 {
            let last = va.add(((nr - 1) as u64) << G::PAGE_SHIFT);
            if self.unmap_cut_group(node, index + nr - 1, last, unmapping, &mut removed) != 0 {
                nr -= tail.min(nr);
            }
        }
        if nr == 0 {
            return removed;
        }
        if self.unmap_whole_pages(node, index, nr, va, unmapping.pending, &mut unmapping.outcome) {
            return removed + nr;
        }
        removed + self.unmap_sparse_pages(node, index, nr, va, unmapping)
    }

    /// Whole groups among `nr` last-level descriptors from `index` on, of which no group sticks out.
    #[inline(always)]
    fn nr_groups(&self, node: Node, index: usize, nr: usize, all: u64) -> usize {
        let group = G::cont_entries(LAST_LEVEL);
        if all & CONTIGUOUS != 0 {
            return nr >> G::cont_shift(LAST_LEVEL);
        }
        let first = (index + group - 1) & !(group - 1);
        let heads = (first..index + nr).step_by(group);
        heads
            .filter(|head| head + group <= index + nr && self.load(node.table, *head).is_contiguous())
            .count()
    }

    /// If the descriptor at `index` is of a group that the range cuts: takes the covered part out, and says how many
    /// descriptors there are from `index` to the end of the group; 0 if there is no such group.
    fn unmap_cut_group(
        &self,
        node: Node,
        index: usize,
        va: VirtAddr,
        unmapping: &mut Unmapping<'_, G>,
        removed: &mut usize,
    ) -> usize {
        let found = self.load(node.table, index);
        if !found.is_contiguous() {
            return 0;
        }
        let unit = self.unit(node, index, va, found);
        *removed += self.edit_unit(
            &unit,
            unmapping.range,
            |_| None,
            &mut unmapping.reserve,
            unmapping.pending,
            &mut unmapping.outcome,
        );
        unit.index + unit.size.descriptors::<G>() - index
    }

    /// As `unmap_pages`, where some descriptors are vacant or invalid.
    #[cold]
    fn unmap_sparse_pages(
        &self,
        node: Node,
        index: usize,
        nr: usize,
        va: VirtAddr,
        unmapping: &mut Unmapping<'_, G>,
    ) -> usize {
        let mut removed = 0;
        let mut i = index;
        while i < index + nr {
            let found = self.load(node.table, i);
            if found.is_vacant() {
                i += 1;
                continue;
            }
            let va = va.add(((i - index) as u64) << G::PAGE_SHIFT);
            let size = LeafSize::new(LAST_LEVEL, found.is_contiguous());
            let nr_unit = size.descriptors::<G>();
            self.tables.clear(node.table, i, nr_unit);
            let range = VirtRange::new(va, size.bytes::<G>());
            self.took_out(range, size, found, false, unmapping);
            removed += nr_unit;
            i += nr_unit;
        }
        removed
    }
}
