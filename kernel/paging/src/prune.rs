//! `prune`: unlinks and frees empty tables. There are no counts, so it reads them whole.

use crate::addr::{VirtAddr, VirtRange};
use crate::flush::Pending;
use crate::granule::{Granule, LAST_LEVEL};
use crate::mmu::Mmu;
use crate::outcome::{Failure, Outcome};
use crate::tables::Tables;
use crate::trace;
use crate::tree::{Node, Tree, part};

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
        let mut outcome = Outcome::default();
        let mut batch = self.batch();
        let root = self.root_node();
        self.prune_table(root, range.start, range.size, batch.pending_mut(), &mut outcome);
        batch.flush();
        Ok(outcome)
    }

    fn prune_table(
        &self,
        node: Node,
        va: VirtAddr,
        remaining: u64,
        pending: &mut Pending<G>,
        outcome: &mut Outcome,
    ) {
        trace::level::<G>(node, va, remaining);
        let level = node.level;
        let (index, nr) = self.slots(level, va, remaining);
        let (mut va, mut remaining) = (va, remaining);
        for i in index..index + nr {
            let here = part::<G>(level, va, remaining);
            let found = self.load(node.table, i);
            if found.is_table(level) {
                let child = self.child(node, found);
                if child.level < LAST_LEVEL {
                    self.prune_table(child, va, here, pending, outcome);
                }
                if self.are_vacant(child, 0, G::ENTRIES) {
                    self.tables.store(node.table, i, 0);
                    // DESIGN rule 5: a walk cache may hold the link.
                    let span = VirtRange::new(va.align_down(G::size(level)), G::size(level));
                    pending.invalidate_link(span, level);
                    pending.defer_free(&self.tables, child.table);
                    outcome.levels.insert(level);
                    outcome.tables_removed += 1;
                }
            }
            va = va.add(here);
            remaining -= here;
        }
    }
}
