//! `unmap`: clears leaves. What to invalidate is read before the stores (DESIGN rule 4).

use crate::addr::{VirtAddr, VirtRange};
use crate::descriptor::CONTIGUOUS;
use crate::edit::Change;
use crate::flush::{FlushBatch, Pending};
use crate::granule::{Granule, LAST_LEVEL, Level};
use crate::mmu::Mmu;
use crate::outcome::{Failure, LeafSize, Outcome};
use crate::tables::Tables;
use crate::trace;
use crate::tree::{Kinds, Node, Slot, Tree, level_around, refusal};
use crate::walk::Leaf;

/// Descriptors of a table that a range covers.
#[derive(Clone, Copy)]
struct Covered {
    index: usize,
    nr: usize,
    kinds: Kinds,
}

impl<G: Granule, T: Tables, M: Mmu> Tree<G, T, M> {
    /// Unmaps `range`; holes are skipped. A leaf covered in part is split, no further than needed.
    /// Tables covered whole are unlinked, and freed by the flush; others stay, even if empty.
    ///
    /// The outcome counts what was taken out. Granularity: a page. Neither addresses nor frames may
    /// be reused before `batch` has flushed.
    ///
    /// # Errors
    /// [`Error::Empty`](crate::Error::Empty), [`Error::Misaligned`](crate::Error::Misaligned),
    /// [`Error::NonCanonical`](crate::Error::NonCanonical);
    /// [`Error::OutOfTables`](crate::Error::OutOfTables) if a split lacks a table page: nothing has
    /// changed then.
    #[cfg_attr(feature = "trace", inline(never))]
    pub fn unmap<C>(
        &self,
        range: VirtRange,
        batch: &mut FlushBatch<'_, G, T, M, C>,
    ) -> Result<Outcome, Failure> {
        let pending = batch.pending_mut();
        match level_around::<G>(range) {
            3 => self.unmap_under::<3>(range, pending),
            2 => self.unmap_under::<2>(range, pending),
            1 => self.unmap_under::<1>(range, pending),
            -1 if const { G::ROOT_LEVEL < 0 } => self.unmap_under::<-1>(range, pending),
            _ => self.unmap_under::<0>(range, pending),
        }
    }

    #[inline(never)]
    fn unmap_under<const TOP: Level>(
        &self,
        range: VirtRange,
        pending: &mut Pending<G>,
    ) -> Result<Outcome, Failure> {
        if !self.is_valid::<TOP>(range) {
            return refused::<G>(range);
        }
        let node = self.linked_table(TOP, range);
        let mut is_cut = true;
        if node.level == TOP
            && let Some(whole) = self.covered_whole(node, range)
        {
            if whole.kinds.are_valid_leaves(TOP) {
                let mut outcome = Outcome::default();
                self.clear_leaves(node, whole, &mut outcome);
                // Last, so that nothing is kept over a call.
                let result = Ok(outcome.copied());
                pending.invalidate(range, TOP, false);
                return result;
            }
            is_cut = false;
        }
        self.unmap_anything(range, pending, node, is_cut)
    }

    /// `is_cut`: an end of the range may cut a leaf.
    #[inline(never)]
    fn unmap_anything(
        &self,
        range: VirtRange,
        pending: &mut Pending<G>,
        node: Node,
        is_cut: bool,
    ) -> Result<Outcome, Failure> {
        let mut change = Change::new(range, pending);
        if is_cut {
            self.reserve(node, &mut change)?;
        }
        self.unmap_each(node, range, false, &mut change);
        self.unreserve(&mut change);
        Ok(change.outcome.copied())
    }

    /// If the range cuts neither what a descriptor translates nor a group.
    #[inline(always)]
    fn covered_whole(&self, node: Node, range: VirtRange) -> Option<Covered> {
        let (VirtRange { start, size }, level) = (range, node.level);
        if level < LAST_LEVEL && (start.0 | size) & (G::size(level) - 1) != 0 {
            return None;
        }
        let index = G::index(start.0, level);
        let nr = (size >> G::shift(level)) as usize;
        let kinds = self.kinds(node, index, nr);
        let is_cut = kinds.or & CONTIGUOUS != 0 && self.cuts_group(node, range);
        (!is_cut).then_some(Covered { index, nr, kinds })
    }

    #[inline(always)]
    fn clear_leaves(&self, node: Node, covered: Covered, outcome: &mut Outcome) {
        self.count_leaves(node, covered, outcome);
        self.clear(node, covered.index, covered.nr);
    }

    #[inline(always)]
    fn cuts_group(&self, node: Node, range: VirtRange) -> bool {
        let (group, level) = (G::cont_size(node.level), node.level);
        let is_cut = |end: VirtAddr, member: VirtAddr| {
            !end.is_aligned(group) && self.load(node.table, G::index(member.0, level)).is_contiguous()
        };
        is_cut(range.start, range.start) || is_cut(range.end(), range.last())
    }

    /// None is in a group that is cut.
    #[inline(always)]
    fn count_leaves(&self, node: Node, covered: Covered, outcome: &mut Outcome) {
        let Covered { index, nr, kinds } = covered;
        let level = node.level;
        let (groups, singles) = if kinds.or & CONTIGUOUS == 0 {
            (0, nr)
        } else {
            let all = kinds.and & CONTIGUOUS != 0;
            let grouped = if all { nr } else { self.nr_grouped(node, index, nr) };
            (grouped >> G::cont_shift(level), nr - grouped)
        };
        outcome.levels.insert(level);
        outcome.leaves.add(LeafSize::new(level, true), groups as u32);
        outcome.leaves.add(LeafSize::new(level, false), singles as u32);
    }

    #[inline]
    fn nr_grouped(&self, node: Node, index: usize, nr: usize) -> usize {
        let (group, end) = (G::cont_entries(node.level), index + nr);
        let mut head = (index + group - 1) & !(group - 1);
        let mut grouped = 0;
        while head < end {
            if self.load(node.table, head).is_contiguous() {
                grouped += group;
            }
            head += group;
        }
        grouped
    }

    #[inline(never)]
    fn unmap_table(&self, node: Node, range: VirtRange, change: &mut Change<'_, G>) {
        match self.covered_whole(node, range) {
            Some(whole) if whole.kinds.are_valid_leaves(node.level) => {
                self.clear_leaves(node, whole, &mut change.outcome);
                // DESIGN rule 4: a TLB may hold a group as its members.
                change.pending.invalidate(range, node.level, false);
            }
            _ => self.unmap_each(node, range, false, change),
        }
    }

    /// `unlinked`: the table is, and its descriptors stay.
    fn unmap_each(&self, node: Node, range: VirtRange, unlinked: bool, change: &mut Change<'_, G>) {
        let level = node.level;
        let mut rest = range;
        while let Some(Slot { index, part, found }) = self.next_slot(node, &mut rest) {
            if level < LAST_LEVEL && found.is_link() {
                let child = self.child(node, found);
                trace::level::<G>(child, part);
                if part.size != G::size(level) {
                    self.unmap_table(child, part, change);
                    continue;
                }
                if !unlinked {
                    self.tables.store(node.table, index, 0);
                }
                self.take_table(child, part, change);
            } else if !found.is_vacant() {
                let size = LeafSize::new(level, found.is_contiguous());
                let leaf = VirtRange::new(part.start.align_down(size.bytes::<G>()), size.bytes::<G>());
                rest = rest.behind(leaf);
                if unlinked {
                    change.record(leaf, size, 1, found.is_valid(), true);
                } else if change.range.covers(leaf) {
                    self.clear(node, index, size.descriptors::<G>());
                    change.record(leaf, size, 1, found.is_valid(), false);
                } else {
                    let leaf = Leaf::of::<G>(level, part.start, found);
                    self.split_leaf(node.table, leaf, |_| None, change);
                }
            }
        }
    }

    /// Defers the free of `node`, unlinked, which translates `span`, and of tables below it.
    /// Descriptors stay: a walk cache that holds the link may load them again, so leaves are
    /// invalidated at all levels (TLBIs are unordered before the DSB).
    fn take_table(&self, node: Node, span: VirtRange, change: &mut Change<'_, G>) {
        let level = node.level;
        let kinds = self.kinds(node, 0, G::ENTRIES);
        // A walk cache may hold the link (DESIGN rule 5).
        if kinds.are_valid_leaves(level) {
            let (index, nr) = (0, G::ENTRIES);
            self.count_leaves(node, Covered { index, nr, kinds }, &mut change.outcome);
            change.pending.invalidate(span, level, true);
        } else {
            if !kinds.is_vacant() {
                if level == LAST_LEVEL && self.mmu.has_tlbi_range() {
                    // All pages cost no more than some.
                    change.pending.invalidate(span, level, true);
                }
                self.unmap_each(node, span, true, change);
            }
            change.pending.invalidate_link(span, level - 1);
        }
        change.pending.defer_free(&self.tables, node.table);
        change.outcome.levels.insert(level - 1);
        change.outcome.tables_removed += 1;
    }
}

#[cold]
#[inline(never)]
fn refused<G: Granule>(range: VirtRange) -> Result<Outcome, Failure> {
    Err(refusal::<G>(range).into())
}
