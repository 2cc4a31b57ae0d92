//! `coalesce` and `fold`: leaves become larger ones, by break-before-make of all descriptors of a
//! group, or of a table, which is freed after the flush (DESIGN rules 1, 3, 5).

use crate::addr::{PhysAddr, VirtAddr, VirtRange};
use crate::descriptor::{TABLE_OR_PAGE, VALID};
use crate::edit::Change;
use crate::flush::{FlushBatch, Packed};
use crate::granule::{Granule, LAST_LEVEL, Level};
use crate::mmu::Mmu;
use crate::outcome::{Failure, LeafSize, Outcome};
use crate::tables::Tables;
use crate::tree::{Node, Slot, Tree};
use crate::walk::Leaf;

impl<G: Granule, T: Tables, M: Mmu> Tree<G, T, M> {
    /// Folds what lies whole in `range` into the largest leaves that the policy allows, and counts
    /// them. Granularity: a page.
    ///
    /// # Errors
    /// [`Error::Empty`](crate::Error::Empty), [`Error::Misaligned`](crate::Error::Misaligned),
    /// [`Error::NonCanonical`](crate::Error::NonCanonical).
    #[cfg_attr(feature = "trace", inline(never))]
    pub fn coalesce<C>(
        &self,
        range: VirtRange,
        batch: &mut FlushBatch<'_, G, T, M, C>,
    ) -> Result<Outcome, Failure> {
        self.validate(range)?;
        let mut change = Change::new(range, batch.pending_mut());
        self.coalesce_table(self.root_node(), range, &mut change);
        Ok(change.outcome)
    }

    /// Folds the leaf of `size` around `va`, if the policy allows it and all descriptors of the
    /// rung below are leaves that agree; reads no other.
    ///
    /// The outcome counts the leaf if `va` then lies in one of `size` or larger; its levels are
    /// empty if it did before.
    ///
    /// # Errors
    /// [`Error::NonCanonical`](crate::Error::NonCanonical) if the leaf leaves the tree's half.
    #[cfg_attr(feature = "trace", inline(never))]
    pub fn fold<C>(
        &self,
        va: VirtAddr,
        size: LeafSize,
        batch: &mut FlushBatch<'_, G, T, M, C>,
    ) -> Result<Outcome, Failure> {
        if size == LeafSize::PAGE || !self.may_make(size) {
            return Ok(Outcome::default());
        }
        let bytes = size.bytes::<G>();
        let range = VirtRange::new(va.align_down(bytes), bytes);
        self.validate(range)?;
        let mut change = Change::new(range, batch.pending_mut());
        // A group's descriptors are of its own level, a block's are those of the table.
        let rung = size.level() + Level::from(!size.is_contiguous());
        let (mut above, mut node) = (self.root_node(), self.root_node());
        while node.level < rung {
            let found = self.load(node.table, G::index(range.start.0, node.level));
            if !found.is_table(node.level) {
                change.outcome.leaves.add(size, u32::from(!found.is_vacant()));
                return Ok(change.outcome);
            }
            (above, node) = (node, self.child(node, found));
        }
        if !size.is_contiguous() {
            if let Some(block) = self.foldable(node, size, range.start) {
                self.fold_into(above.table, &block, Some(node.table), &mut change);
            }
        } else if self
            .load(node.table, G::index(range.start.0, rung))
            .is_contiguous()
        {
            change.outcome.leaves.add(size, 1);
        } else {
            self.fold_groups(node, range, &mut change);
        }
        Ok(change.outcome)
    }

    /// Folds what lies below the descriptors of the range. Returns the block that could replace the
    /// table; the caller makes it.
    fn coalesce_table(&self, node: Node, range: VirtRange, change: &mut Change<'_, G>) -> Option<Leaf> {
        let level = node.level;
        let mut rest = range;
        while level < LAST_LEVEL
            && let Some(Slot { part, found, .. }) = self.next_slot(node, &mut rest)
        {
            if found.is_table(level) {
                let child = self.child(node, found);
                if let Some(block) = self.coalesce_table(child, part, change) {
                    self.fold_into(node.table, &block, Some(child.table), change);
                }
            }
        }
        let block = LeafSize::new(level - 1, false);
        if level > G::ROOT_LEVEL
            && range.size == G::table_span(level)
            && let Some(block) = self.foldable(node, block, range.start)
        {
            return Some(block);
        }
        self.fold_groups(node, range, change);
        None
    }

    fn fold_groups(&self, node: Node, range: VirtRange, change: &mut Change<'_, G>) {
        let size = LeafSize::new(node.level, true);
        let bytes = size.bytes::<G>();
        let mut group = VirtRange::new(range.start.add(bytes - 1).align_down(bytes), bytes);
        while self.may_make(size) && range.covers(group) {
            let head = self.load(node.table, G::index(group.start.0, node.level));
            if !head.is_contiguous()
                && let Some(leaf) = self.foldable(node, size, group.start)
            {
                self.fold_into(node.table, &leaf, None, change);
            }
            group.start = group.end();
        }
    }

    fn may_make(&self, size: LeafSize) -> bool {
        size.exists::<G>() && self.config().leaves.contains(size)
    }

    /// Returns the leaf of `size` that could replace the descriptors from `va` on.
    fn foldable(&self, node: Node, size: LeafSize, va: VirtAddr) -> Option<Leaf> {
        let index = G::index(va.0, node.level);
        let first = self.load(node.table, index);
        if !self.may_make(size) || !first.is_valid() || first.is_table(node.level) {
            return None;
        }
        let leaf = Leaf {
            size,
            ..Leaf::of::<G>(node.level, va, first)
        };
        let bytes = size.bytes::<G>();
        if G::leaves(va, leaf.pa, bytes, self.config().leaves).first() != size {
            return None;
        }
        // One comparison: a table differs in its type bits.
        let alike = G::ATTRIBUTES | G::ADDRESS | VALID | TABLE_OR_PAGE;
        let mut expected = first.0 & alike;
        let nr = (bytes >> G::shift(node.level)) as usize;
        let consecutive = (index + 1..index + nr).all(|i| {
            expected = expected.wrapping_add(G::size(node.level));
            self.load(node.table, i).0 & alike == expected
        });
        consecutive.then_some(leaf)
    }

    /// Makes `leaf` in place of its descriptors, or of the link to `child`.
    fn fold_into(&self, table: PhysAddr, leaf: &Leaf, child: Option<PhysAddr>, change: &mut Change<'_, G>) {
        let (range, level, links) = (leaf.range::<G>(), leaf.size.level(), child.is_some());
        let stride = if links { LAST_LEVEL } else { level };
        // Never in place: folding is not urgent.
        self.break_before_make(table, level, Packed::new::<G>(range, stride, links), || {
            let (index, nr) = (G::index(leaf.va.0, level), leaf.size.descriptors::<G>());
            self.tables
                .fill_linear(table, index, nr, leaf.descriptor::<G>(), G::size(level));
        });
        change.pending.publish();
        change.outcome.levels.insert(level);
        change.outcome.leaves.add(leaf.size, 1);
        if let Some(child) = child {
            // DESIGN rule 5: walk caches are invalidated; the flush keeps software readers out.
            change.pending.defer_free(&self.tables, child);
            change.outcome.tables_removed += 1;
        }
    }
}
