//! Leaves of one table out and flushed, and one table that is covered whole.

use super::{bound, extent, leaves_of};
use crate::addr::{PhysAddr, VirtRange};
use crate::descriptor::{CONTIGUOUS, Descriptor, TABLE_OR_PAGE, VALID};
use crate::flush::TakenOut;
use crate::granule::{Granule, LAST_LEVEL, Level};
use crate::mmu::Mmu;
use crate::outcome::{Failure, Outcome};
use crate::tables::Tables;
use crate::tree::{Node, Tree};

/// Leaves that are out of their table, and not yet flushed.
#[derive(Clone, Copy)]
struct Taken {
    singles: usize,
    groups: usize,
    /// Their table counts nothing any more.
    emptied: bool,
}

/// What went with a full table of `level`, whose descriptors are alike in what kind of leaves they are: `bits` has those
/// bits.
#[inline(always)]
fn full_table<G: Granule>(level: Level, bits: u64) -> Outcome {
    let (singles, groups) = if bits & CONTIGUOUS == 0 {
        (G::ENTRIES, 0)
    } else {
        (0, G::ENTRIES >> G::cont_shift(level))
    };
    let mut outcome = leaves_of(level, singles, groups);
    outcome.levels.insert(level - 1);
    outcome.tables_removed = 1;
    outcome
}

impl<G: Granule, T: Tables, M: Mmu> Tree<G, T, M> {
    /// Takes whatever is mapped in `range` out, as [`unmap`](Self::unmap), and flushes it at once.
    ///
    /// # Errors
    /// As [`unmap`](Self::unmap).
    #[cfg_attr(not(feature = "trace"), inline(always))]
    #[cfg_attr(feature = "trace", inline(never))]
    pub fn unmap_and_flush(&self, range: VirtRange) -> Result<Outcome, Failure> {
        if cfg!(feature = "trace") {
            return self.unmap_in_batch(range);
        }
        let size = range.size;
        if size == G::PAGE_SIZE {
            return self.unmap_leaf::<3>(range);
        }
        let extent = extent(range);
        if extent < bound::<G>(3) {
            self.unmap_leaves::<3>(range)
        } else if size == G::size(2) {
            self.unmap_leaf::<2>(range)
        } else if extent < bound::<G>(2) {
            self.unmap_leaves::<2>(range)
        } else if size == G::size(1) {
            self.unmap_leaf::<1>(range)
        } else if extent < bound::<G>(1) {
            self.unmap_leaves::<1>(range)
        } else {
            self.unmap_in_batch(range)
        }
    }

    /// Unmaps `range` and flushes, as [`unmap_keeping_tables`](Self::unmap_keeping_tables) and a flush would, if that is as
    /// simple as can be: valid leaves of one table, all of it, and no table goes. `None`: nothing has changed.
    #[cfg_attr(not(feature = "trace"), inline(always))]
    #[cfg_attr(feature = "trace", inline(never))]
    pub fn unmap_one_table(&self, range: VirtRange) -> Option<Outcome> {
        if cfg!(feature = "trace") {
            return None;
        }
        let size = range.size;
        let extent = extent(range);
        let level;
        let taken;
        if size == G::PAGE_SIZE {
            (level, taken) = (3, self.take_leaf::<3>(range)?);
            self.flush_leaf(range);
        } else if extent < bound::<G>(3) {
            (level, taken) = (3, self.take_leaves::<3>(range)?);
            self.flush_leaves(range, level);
        } else if size == G::size(2) {
            (level, taken) = (2, self.take_leaf::<2>(range)?);
            self.flush_leaf(range);
        } else if extent < bound::<G>(2) {
            (level, taken) = (2, self.take_leaves::<2>(range)?);
            self.flush_leaves(range, level);
        } else if size == G::size(1) {
            (level, taken) = (1, self.take_leaf::<1>(range)?);
            self.flush_leaf(range);
        } else if extent < bound::<G>(1) {
            (level, taken) = (1, self.take_leaves::<1>(range)?);
            self.flush_leaves(range, level);
        } else {
            return None;
        }
        let mut outcome = leaves_of(level, taken.singles, taken.groups);
        outcome.tables_emptied = u32::from(taken.emptied);
        Some(outcome)
    }

    /// Unmaps `range` as [`unmap_keeping_tables`](Self::unmap_keeping_tables), if that is as simple as can be: valid leaves of one
    /// table, all of it. The flush is left to whoever is given what was taken out. `None`: nothing has changed.
    #[cfg_attr(not(feature = "trace"), inline(always))]
    #[cfg_attr(feature = "trace", inline(never))]
    pub fn take_out_of_one_table(&self, range: VirtRange) -> Option<TakenOut> {
        if cfg!(feature = "trace") {
            return None;
        }
        let size = range.size;
        let extent = extent(range);
        let (level, emptied) = if size == G::PAGE_SIZE {
            (3, self.take_leaf::<3>(range)?.emptied)
        } else if extent < bound::<G>(3) {
            (3, self.take_pages(range)?)
        } else if size == G::size(2) {
            (2, self.take_leaf::<2>(range)?.emptied)
        } else if extent < bound::<G>(2) {
            (2, self.take_leaves::<2>(range)?.emptied)
        } else if size == G::size(1) {
            (1, self.take_leaf::<1>(range)?.emptied)
        } else if extent < bound::<G>(1) {
            (1, self.take_leaves::<1>(range)?.emptied)
        } else {
            return None;
        };
        // DESIGN rule 4: a group may be held as its descriptors, so their level is the stride.
        Some(TakenOut::new(range, level, emptied))
    }

    /// The general way.
    #[inline(never)]
    fn unmap_in_batch(&self, range: VirtRange) -> Result<Outcome, Failure> {
        // Flushes where it is dropped.
        let mut batch = self.batch();
        self.unmap(range, &mut batch)
    }

    /// One page or block.
    #[inline(never)]
    fn unmap_leaf<const LEVEL: Level>(&self, range: VirtRange) -> Result<Outcome, Failure> {
        match self.take_leaf::<LEVEL>(range) {
            Some(taken) if !taken.emptied => {
                self.flush_leaf(range);
                Ok(leaves_of(LEVEL, 1, 0))
            }
            Some(_) => self.unmap_emptied(range, LEVEL, 1, 0),
            None if LEVEL < LAST_LEVEL => self.unmap_full_table::<LEVEL>(range),
            None => self.unmap_in_batch(range),
        }
    }

    /// Several leaves.
    #[inline(never)]
    fn unmap_leaves<const LEVEL: Level>(&self, range: VirtRange) -> Result<Outcome, Failure> {
        match self.take_leaves::<LEVEL>(range) {
            Some(taken) if !taken.emptied => {
                self.flush_leaves(range, LEVEL);
                Ok(leaves_of(LEVEL, taken.singles, taken.groups))
            }
            Some(taken) => self.unmap_emptied(range, LEVEL, taken.singles, taken.groups),
            None => self.unmap_in_batch(range),
        }
    }

    /// All that the descriptor of `LEVEL` at `range` translates, if it links to a table full of valid leaves, either all
    /// single or all in groups: the table is unlinked as it is, and given back behind the flush.
    #[inline(never)]
    fn unmap_full_table<const LEVEL: Level>(&self, range: VirtRange) -> Result<Outcome, Failure> {
        let start = range.start;
        let level = LEVEL + 1;
        let plain = G::leaf_allowed(level) && self.is_plain(VirtRange::new(start, 0), G::size(LEVEL), 0);
        if plain && let Some((node, link)) = self.descend::<LEVEL>(start) {
            let index = G::index(start.0, LEVEL);
            let found = self.load(node.table, index);
            // The last of its table is left to the general way: then that goes, too.
            let stays = LEVEL == G::ROOT_LEVEL || link.occupied::<G>() > 1;
            if found.is_table(LEVEL) && found.occupied::<G>() == G::ENTRIES && stays {
                let table = found.address::<G>();
                let (and, or) = self.tables.flags(table, 0, G::ENTRIES);
                let links = level < LAST_LEVEL && or & TABLE_OR_PAGE != 0;
                if and & VALID != 0 && !links && (and ^ or) & CONTIGUOUS == 0 {
                    self.tables.store(node.table, index, 0);
                    if self.vacated(&node, link, 1) {
                        // Who shared the table with this left it meanwhile.
                        return self.unmap_emptied_beside(range, LEVEL, table, or);
                    }
                    self.mmu.dsb_ishst();
                    // DESIGN rules 4 and 5: the leaves at all levels, which the link goes with.
                    self.issue_one(VirtRange::new(start, G::size(LEVEL)), level, true);
                    self.wait_for_tlbis(start);
                    self.mmu.isb();
                    self.tables.free_table(table);
                    return Ok(full_table::<G>(level, or));
                }
            }
        }
        self.unmap_in_batch(range)
    }

    /// The rest of an unmap that unlinked the full `table`, whose descriptors have all of the bits of `or`, and left the table
    /// of `level` that it was linked in empty.
    #[cold]
    #[inline(never)]
    fn unmap_emptied_beside(
        &self,
        range: VirtRange,
        level: Level,
        table: PhysAddr,
        or: u64,
    ) -> Result<Outcome, Failure> {
        let mut outcome = full_table::<G>(level + 1, or);
        let mut batch = self.batch();
        batch.pending_mut().invalidate(range, level + 1, true);
        batch.pending_mut().bury(&self.tables, table);
        self.unlink_emptied(range, level, batch.pending_mut(), &mut outcome);
        Ok(outcome)
    }

    /// The rest of an unmap of `range` that left a table empty: it goes, too.
    #[cold]
    #[inline(never)]
    fn unmap_emptied(
        &self,
        range: VirtRange,
        level: Level,
        singles: usize,
        groups: usize,
    ) -> Result<Outcome, Failure> {
        let mut outcome = leaves_of(level, singles, groups);
        let mut batch = self.batch();
        batch.pending_mut().invalidate(range, level, false);
        self.unlink_emptied(range, level, batch.pending_mut(), &mut outcome);
        Ok(outcome)
    }

    /// Takes one valid page or block out. `None`: it is not that simple, and nothing has changed.
    #[inline(always)]
    fn take_leaf<const LEVEL: Level>(&self, range: VirtRange) -> Option<Taken> {
        let start = range.start;
        // Its size is that of the leaf.
        if !G::leaf_allowed(LEVEL) || !self.is_plain(VirtRange::new(start, 0), G::size(LEVEL), 0) {
            return None;
        }
        let (node, link) = self.descend::<LEVEL>(start)?;
        let index = G::index(start.0, LEVEL);
        let found = self.load(node.table, index);
        let kind = VALID | CONTIGUOUS | if LEVEL == LAST_LEVEL { 0 } else { TABLE_OR_PAGE };
        if found.0 & kind != VALID {
            return None;
        }
        self.tables.store(node.table, index, 0);
        Some(Taken {
            singles: 1,
            groups: 0,
            emptied: self.vacated(&node, link, 1),
        })
    }

    /// Takes whole, valid leaves out: pages and groups of pages, none of them cut, or blocks or groups of blocks. `None`: it
    /// is not that simple, and nothing has changed.
    #[inline(always)]
    fn take_leaves<const LEVEL: Level>(&self, range: VirtRange) -> Option<Taken> {
        let VirtRange { start, size } = range;
        if !G::leaf_allowed(LEVEL) || size == 0 || !self.is_plain(range, G::size(LEVEL), 0) {
            return None;
        }
        let (node, link) = self.descend::<LEVEL>(start)?;
        let index = G::index(start.0, LEVEL);
        let nr = (size >> G::shift(LEVEL)) as usize;
        let group = G::cont_entries(LEVEL);
        if nr != group || group == 1 {
            return self.take_alike::<LEVEL>(&node, link, index, nr);
        }
        // Its length as a constant.
        let head = self.load(node.table, index);
        if index & (group - 1) != 0 || head.0 & (VALID | CONTIGUOUS) != VALID | CONTIGUOUS {
            return self.take_alike::<LEVEL>(&node, link, index, group);
        }
        // DESIGN rule 1: its head speaks for all of a group.
        self.tables.clear(node.table, index, group);
        Some(Taken {
            singles: 0,
            groups: 1,
            emptied: self.vacated(&node, link, group),
        })
    }

    /// Takes whole, valid pages and groups of them out, in whatever order they come, uncounted. Whether their table is empty
    /// now. `None`: some are cut, or not there, and nothing has changed.
    #[inline(always)]
    fn take_pages(&self, range: VirtRange) -> Option<bool> {
        let VirtRange { start, size } = range;
        if size == 0 || !self.is_plain(range, G::PAGE_SIZE, 0) {
            return None;
        }
        let (node, link) = self.descend::<LAST_LEVEL>(start)?;
        let index = G::index(start.0, LAST_LEVEL);
        let nr = (size >> G::PAGE_SHIFT) as usize;
        let all = self.tables.and_all(node.table, index, nr);
        if all & VALID == 0 || self.cuts_group(&node, index, nr) {
            return None;
        }
        self.tables.clear(node.table, index, nr);
        Some(self.vacated(&node, link, nr))
    }

    /// As [`take_leaves`](Self::take_leaves), for `nr` descriptors from `index` on: all of them single, or all in groups.
    #[inline(always)]
    fn take_alike<const LEVEL: Level>(
        &self,
        node: &Node,
        link: Descriptor,
        index: usize,
        nr: usize,
    ) -> Option<Taken> {
        let (and, or) = self.tables.flags(node.table, index, nr);
        let table = LEVEL < LAST_LEVEL && or & TABLE_OR_PAGE != 0;
        // Some in groups and some not: those are told apart in the general way, and so is a cut group.
        let mixed = (and ^ or) & CONTIGUOUS != 0;
        if and & VALID == 0 || table || mixed {
            return None;
        }
        let (mut singles, mut groups) = (nr, 0);
        if or & CONTIGUOUS != 0 {
            if (index | nr) & (G::cont_entries(LEVEL) - 1) != 0 {
                return None;
            }
            (singles, groups) = (0, nr >> G::cont_shift(LEVEL));
        }
        self.tables.clear(node.table, index, nr);
        Some(Taken {
            singles,
            groups,
            emptied: self.vacated(node, link, nr),
        })
    }

    /// Lowers the count of `node`, which `link` led to. Whether it is 0 now, and the node none that always stays.
    #[inline(always)]
    fn vacated(&self, node: &Node, link: Descriptor, nr: usize) -> bool {
        node.level != G::ROOT_LEVEL && self.vacate_seen(node, link, nr).occupied::<G>() == 0
    }

    /// Flushes one leaf at `range` that was taken out.
    #[inline(always)]
    fn flush_leaf(&self, range: VirtRange) {
        // DESIGN rules 3 and 4, as in the general flush: the stores are complete for table walks, then the TLBIs, then they
        // are complete, and what this CPU fetched ahead is forgotten.
        self.mmu.dsb_ishst();
        self.mmu.tlbi_vaale1is(range.start);
        self.wait_for_tlbis(range.start);
        self.mmu.isb();
    }

    /// Flushes leaves of `level` in `range`, of which there are at least two.
    #[inline(always)]
    fn flush_leaves(&self, range: VirtRange, level: Level) {
        self.mmu.dsb_ishst();
        if range.size == G::cont_size(level) {
            // One group, most likely: one operand, but for the address.
            self.issue_one(VirtRange::new(range.start, G::cont_size(level)), level, false);
        } else {
            self.issue_one(range, level, false);
        }
        self.wait_for_tlbis(range.start);
        self.mmu.isb();
    }
}
