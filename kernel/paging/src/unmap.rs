//! `unmap`: clears leaves. What to invalidate is read before the stores (DESIGN rule 4).

use crate::addr::VirtRange;
use crate::descriptor::CONTIGUOUS;
use crate::edit::Change;
use crate::flush::{FlushBatch, Pending};
use crate::granule::{Granule, LAST_LEVEL, Level};
use crate::mmu::Mmu;
use crate::outcome::{Failure, LeafSize, Outcome};
use crate::tables::Tables;
use crate::trace;
use crate::tree::{Kinds, Node, Slot, Tree, level_around};
use crate::walk::Leaf;

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
        self.validate(range)?;
        let mut outcome = Outcome::default();
        let Some(table) = self.linked_table(TOP, range) else {
            return self.unmap_anything(range, pending, self.root_node());
        };
        let node = Node { table, level: TOP };
        if self.unmap_whole_leaves(node, range, pending, &mut outcome) {
            return Ok(outcome.copied());
        }
        self.unmap_anything(range, pending, node)
    }

    #[inline(never)]
    fn unmap_anything(
        &self,
        range: VirtRange,
        pending: &mut Pending<G>,
        node: Node,
    ) -> Result<Outcome, Failure> {
        let mut change = Change::new(range, pending);
        self.reserve(&mut change)?;
        self.unmap_each(node, range, false, &mut change);
        self.unreserve(&mut change);
        Ok(change.outcome.copied())
    }

    /// If it is valid leaves covered whole.
    #[inline(always)]
    fn unmap_whole_leaves(
        &self,
        node: Node,
        range: VirtRange,
        pending: &mut Pending<G>,
        outcome: &mut Outcome,
    ) -> bool {
        let (VirtRange { start, size }, level) = (range, node.level);
        if (start.0 | size) & (G::size(level) - 1) != 0 {
            return false;
        }
        let index = G::index(start.0, level);
        let nr = (size >> G::shift(level)) as usize;
        let kinds = self.kinds(node, index, nr);
        if !kinds.are_valid_leaves(level) || self.cuts_group(node, index, nr, kinds) {
            return false;
        }
        self.count_leaves(node, index, nr, kinds, outcome);
        self.clear(node, index, nr);
        // DESIGN rule 4: a TLB may hold a group as its members.
        pending.invalidate(range, level, false);
        true
    }

    #[inline(always)]
    fn cuts_group(&self, node: Node, index: usize, nr: usize, kinds: Kinds) -> bool {
        let cut = |at: usize| at & (G::cont_entries(node.level) - 1) != 0;
        kinds.or & CONTIGUOUS != 0
            && ((cut(index) && self.load(node.table, index).is_contiguous())
                || (cut(index + nr) && self.load(node.table, index + nr - 1).is_contiguous()))
    }

    /// None is in a group that is cut.
    #[inline(always)]
    fn count_leaves(&self, node: Node, index: usize, nr: usize, kinds: Kinds, outcome: &mut Outcome) {
        let level = node.level;
        let grouped = if kinds.or & CONTIGUOUS == 0 {
            0
        } else if kinds.and & CONTIGUOUS != 0 {
            nr
        } else {
            self.nr_grouped(node, index, nr)
        };
        let groups = grouped >> G::cont_shift(level);
        outcome.levels.insert(level);
        outcome.leaves.add(LeafSize::new(level, true), groups as u32);
        outcome
            .leaves
            .add(LeafSize::new(level, false), (nr - grouped) as u32);
    }

    #[inline(never)]
    fn nr_grouped(&self, node: Node, index: usize, nr: usize) -> usize {
        let group = G::cont_entries(node.level);
        let heads = (index.next_multiple_of(group)..index + nr).step_by(group);
        let groups = heads
            .filter(|head| self.load(node.table, *head).is_contiguous())
            .count();
        groups << G::cont_shift(node.level)
    }

    #[inline(never)]
    fn unmap_table(&self, node: Node, range: VirtRange, change: &mut Change<'_, G>) {
        if !self.unmap_whole_leaves(node, range, change.pending, &mut change.outcome) {
            self.unmap_each(node, range, false, change);
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
        if kinds.are_valid_leaves(level) {
            self.count_leaves(node, 0, G::ENTRIES, kinds, &mut change.outcome);
            change.pending.invalidate(span, level, true);
        } else if !kinds.is_vacant() {
            if level == LAST_LEVEL && self.mmu.has_tlbi_range() {
                // All pages cost no more than some.
                change.pending.invalidate(span, level, true);
            }
            self.unmap_each(node, span, true, change);
        }
        // A walk cache may hold the link (DESIGN rule 5).
        change.pending.invalidate_link(span, level - 1);
        change.pending.defer_free(&self.tables, node.table);
        change.outcome.levels.insert(level - 1);
        change.outcome.tables_removed += 1;
    }
}
