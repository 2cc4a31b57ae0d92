//! Tables that were linked, are not any more, and that a walk may still be reading.
//!
//! `map` runs while others walk, and yet takes tables out: those that it has made before it failed, and empty ones that stand
//! where a block is to go. Whoever followed the link before it went may be in such a table still (the story in
//! [`tree`](crate::Tree), 4), so `map` gives none back. It withholds them here, unlinked, empty and flushed, until a moment at
//! which the environment lets tables go back anyway: [`Tree::reclaim`], [`Tree::prune`], or the flush of a batch with tables
//! in it.

use crate::addr::PhysAddr;
use crate::granule::Granule;
use crate::mmu::Mmu;
use crate::tables::Tables;
use crate::tree::Tree;
use core::sync::atomic::{AtomicU64, Ordering};

/// The first of the tables withheld, or 0. They are strung together as those of a [`Pending`](crate::Pending) are: through
/// their first descriptor, which a late walk reads as nothing.
#[derive(Debug, Default)]
pub(crate) struct Withheld(AtomicU64);

impl<G: Granule, T: Tables, M: Mmu> Tree<G, T, M> {
    /// Withholds `table`, which is unlinked, and no walk cache holds a link to it.
    #[cold]
    pub(crate) fn withhold(&self, table: PhysAddr) {
        let mut next = self.withheld.0.load(Ordering::Relaxed);
        loop {
            self.tables.store(table, 0, next);
            match self
                .withheld
                .0
                .compare_exchange_weak(next, table.0, Ordering::Release, Ordering::Relaxed)
            {
                Ok(_) => return,
                Err(now) => next = now,
            }
        }
    }

    /// Whether [`reclaim`](Self::reclaim) has something to do.
    #[inline]
    pub fn withholds_tables(&self) -> bool {
        self.withheld.0.load(Ordering::Relaxed) != 0
    }

    /// Gives back the tables that a `map` has taken out, one that failed most often. How many.
    ///
    /// No walk that began before that `map` ended may be under way: with a readers' lock around walks, the caller holds it
    /// against all of them, as for [`prune`](Self::prune). Needed after a `map` that failed, if its memory shall be back at
    /// once; `prune`, and the flush of a batch that holds tables, do it too.
    pub fn reclaim(&self) -> usize {
        if !self.withholds_tables() {
            return 0;
        }
        // Acquire: what a table says of the next one was stored by whoever put it here.
        let mut next = self.withheld.0.swap(0, Ordering::Acquire);
        let mut nr = 0;
        while next != 0 {
            let table = PhysAddr(next);
            next = self.tables.load(table, 0);
            self.tables.free_table(table);
            nr += 1;
        }
        nr
    }
}
