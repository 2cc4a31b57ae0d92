//! `prune`: unlinks and frees empty tables. There are no counts, so it reads them whole.

use crate::addr::VirtRange;
use crate::edit::Change;
use crate::granule::{Granule, LAST_LEVEL};
use crate::mmu::Mmu;
use crate::outcome::{Failure, Outcome};
use crate::tables::Tables;
use crate::trace;
use crate::tree::{Node, Slot, Tree};

impl<G: Granule, T: Tables, M: Mmu> Tree<G, T, M> {
    /// Unlinks the empty tables that translate any of `range`, and those that become empty,
    /// invalidates the links, and frees the tables. The outcome counts them.
    ///
    /// No other operation, nor walk by software, may be under way.
    ///
    /// # Errors
    /// [`Error::Empty`](crate::Error::Empty), [`Error::Misaligned`](crate::Error::Misaligned),
    /// [`Error::NonCanonical`](crate::Error::NonCanonical).
    #[cfg_attr(feature = "trace", inline(never))]
    pub fn prune(&self, range: VirtRange) -> Result<Outcome, Failure> {
        self.validate(range)?;
        let mut batch = self.batch();
        let mut change = Change::new(range, batch.pending_mut());
        self.prune_table(self.root_node(), range, &mut change);
        let outcome = change.outcome;
        batch.flush();
        Ok(outcome)
    }

    fn prune_table(&self, node: Node, range: VirtRange, change: &mut Change<'_, G>) {
        trace::level::<G>(node, range);
        let level = node.level;
        let mut rest = range;
        while let Some(Slot { index, part, found }) = self.next_slot(node, &mut rest) {
            if !found.is_table(level) {
                continue;
            }
            let child = self.child(node, found);
            if child.level < LAST_LEVEL {
                self.prune_table(child, part, change);
            }
            if self.are_vacant(child, 0, G::ENTRIES) {
                self.tables.store(node.table, index, 0);
                // DESIGN rule 5: a walk cache may hold the link.
                let span = VirtRange::new(part.start.align_down(G::size(level)), G::size(level));
                change.pending.invalidate_link(span, level);
                change.pending.defer_free(&self.tables, child.table);
                change.outcome.levels.insert(level);
                change.outcome.tables_removed += 1;
            }
        }
    }
}
