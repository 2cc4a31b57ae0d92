//! Whether a range is vacant, how it becomes so where only links to empty tables are in the way, and what a failed `map`
//! takes out again.

use crate::addr::{VirtAddr, VirtRange};
use crate::granule::{Granule, LAST_LEVEL};
use crate::mmu::Mmu;
use crate::outcome::{Error, Failure, LevelMask};
use crate::tables::Tables;
use crate::tree::{Node, Tree, part};

impl<G: Granule, T: Tables, M: Mmu> Tree<G, T, M> {
    /// Whether nothing in `remaining` bytes from `va` on is taken, below `node`. Links to empty tables are vacant, but said.
    #[inline]
    pub(super) fn check_vacant(
        &self,
        node: Node,
        va: VirtAddr,
        remaining: u64,
        empty_links: &mut bool,
    ) -> Result<(), Error> {
        let (index, nr) = self.slots(node.level, va, remaining);
        if self.tables.or_all(node.table, index, nr) == 0 {
            return Ok(());
        }
        self.check_each_vacant(node, va, remaining, empty_links)
    }

    fn check_each_vacant(
        &self,
        node: Node,
        va: VirtAddr,
        remaining: u64,
        empty_links: &mut bool,
    ) -> Result<(), Error> {
        let (index, nr) = self.slots(node.level, va, remaining);
        let mut va = va;
        let mut remaining = remaining;
        for i in index..index + nr {
            let here = part::<G>(node.level, va, remaining);
            let found = self.load_settled(node.table, i);
            if found.is_table(node.level) {
                if found.occupied::<G>() == 0 {
                    *empty_links = true;
                } else {
                    self.check_vacant(self.child(&node, i, found), va, here, empty_links)?;
                }
            } else if !found.is_vacant() {
                return Err(Error::Occupied {
                    va,
                    level: node.level,
                    found,
                });
            }
            va = va.add(here);
            remaining -= here;
        }
        Ok(())
    }

    /// Takes out links to empty tables that stand where `nr` blocks are to go. They are vacant, as the check has found, but
    /// another CPU is only about to unlink them; here they go by break-before-make (DESIGN rule 3, table to block).
    #[cold]
    pub(super) fn clear_empty_links(&self, node: &Node, index: usize, nr: usize, va: VirtAddr) {
        let mut batch = self.batch();
        for i in 0..nr {
            let va = va.add((i as u64) << G::shift(node.level));
            loop {
                let found = self.load_settled(node.table, index + i);
                if found.is_vacant() {
                    break;
                }
                assert!(
                    found.is_table(node.level),
                    "{va:?} was vacant and now holds {found:?}: two operations on one range at once"
                );
                let child = self.child(node, index + i, found);
                if child.level < LAST_LEVEL && found.occupied::<G>() != 0 {
                    // What it counts are links to empty tables, too.
                    self.clear_empty_links(&child, 0, G::ENTRIES, va);
                }
                if self.unlink_if_empty(&child, found) {
                    self.unpin(node);
                    let page = VirtRange::new(va, G::PAGE_SIZE);
                    batch.pending_mut().invalidate(page, LAST_LEVEL, true);
                    batch.pending_mut().bury(&self.tables, child.table);
                    break;
                }
                // Its last user holds a pin and is about to let go.
                core::hint::spin_loop();
            }
        }
        self.flush_withholding(batch.detach().0);
    }

    /// After a failure: takes out what was written, so that the tree is as before.
    #[cold]
    pub(super) fn undo(&self, range: VirtRange, error: Error, pages: u64, levels: LevelMask) -> Failure {
        // Beyond the last page written, one more: tables may have been made on the way to it.
        let touched = match error {
            Error::Occupied { .. } => pages << G::PAGE_SHIFT,
            _ => ((pages + 1) << G::PAGE_SHIFT).min(range.size),
        };
        if touched != 0 {
            let range = VirtRange::new(range.start, touched);
            let mut batch = self.batch();
            self.unmap_vacated(range, batch.pending_mut());
            // A speculative walk may have taken up what was there for a moment (DESIGN rule 6).
            self.flush_withholding(batch.detach().0);
            // Other CPUs may be about to use a table that was made, and then it stays; or may be reading it.
            self.prune_and(range, |table| self.withhold(table));
        }
        Failure { error, levels }
    }
}
