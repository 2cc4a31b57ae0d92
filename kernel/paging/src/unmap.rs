//! `unmap`: takes leaves out, and with them the tables that become empty.
//!
//! What to invalidate is read from the tables as they were, before the stores (DESIGN rule 4), and goes into the caller's
//! [`FlushBatch`]; nothing is given back before that has flushed. A table that the range covers whole is unlinked without
//! touching its descriptors. Holes in the range are passed over.

use crate::addr::{VirtAddr, VirtRange};
use crate::descriptor::{CONTIGUOUS, Descriptor, TABLE_OR_PAGE, VALID};
use crate::edit::Reserve;
use crate::flush::{FlushBatch, Pending};
use crate::granule::{Granule, LAST_LEVEL, Level};
use crate::mmu::Mmu;
use crate::outcome::{Failure, LeafSize, Outcome};
use crate::tables::Tables;
use crate::trace;
use crate::tree::{Node, Tree, part};

mod bury;
mod pages;

/// What becomes of a table that is empty now, and not covered by the range whole.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Emptied {
    /// It is unlinked at once, and given back after the flush.
    Unlink,
    /// It stays linked, for the next map or for [`Tree::prune`].
    Keep,
}

/// One call of `unmap`, as it goes.
struct Unmapping<'p, G: Granule> {
    range: VirtRange,
    emptied: Emptied,
    reserve: Reserve,
    pending: &'p mut Pending<G>,
    outcome: Outcome,
}

impl<G: Granule, T: Tables, M: Mmu> Tree<G, T, M> {
    /// Takes whatever is mapped in `range` out. A leaf that the range covers in part is split first, down to what the cut
    /// needs; the rest of it stays mapped. Tables that become empty are unlinked, and given back by the flush.
    ///
    /// The outcome counts what was taken out. Granularity: a page. The addresses, and the frames that were mapped, must not
    /// be reused before `batch` has flushed; nor may anything be mapped in the span of a table that was unlinked, so callers
    /// that do not hold one lock around both want [`unmap_keeping_tables`](Self::unmap_keeping_tables).
    ///
    /// # Errors
    /// [`Error::Empty`](crate::Error::Empty), [`Error::Misaligned`](crate::Error::Misaligned),
    /// [`Error::NonCanonical`](crate::Error::NonCanonical) for the range; [`Error::OutOfTables`](crate::Error::OutOfTables)
    /// if a split needs a table page and there is none: then nothing has changed.
    #[cfg_attr(not(feature = "trace"), inline)]
    #[cfg_attr(feature = "trace", inline(never))]
    pub fn unmap<C>(
        &self,
        range: VirtRange,
        batch: &mut FlushBatch<'_, G, T, M, C>,
    ) -> Result<Outcome, Failure> {
        self.unmap_range(range, Emptied::Unlink, batch.pending_mut())
    }

    /// As [`unmap`](Self::unmap), but a table that becomes empty stays linked, unless the range covers it whole.
    ///
    /// Then nothing outside of the range is touched, and other CPUs may map right beside it before the flush. The next map
    /// there finds its table ready; [`Outcome::tables_emptied`] says whether [`prune`](Self::prune) has something to do.
    ///
    /// # Errors
    /// As [`unmap`](Self::unmap).
    #[cfg_attr(not(feature = "trace"), inline)]
    #[cfg_attr(feature = "trace", inline(never))]
    pub fn unmap_keeping_tables<C>(
        &self,
        range: VirtRange,
        batch: &mut FlushBatch<'_, G, T, M, C>,
    ) -> Result<Outcome, Failure> {
        self.unmap_range(range, Emptied::Keep, batch.pending_mut())
    }

    #[inline(always)]
    fn unmap_range(
        &self,
        range: VirtRange,
        emptied: Emptied,
        pending: &mut Pending<G>,
    ) -> Result<Outcome, Failure> {
        self.validate(range)?;
        let VirtRange { start, size } = range;
        // Walk down as long as one table holds the whole range and more than it.
        let varying = start.0 ^ (start.0 + (size - 1));
        let mut path = [self.root_node(); 4];
        let mut depth = 0;
        trace::level::<G>(path[0].level, path[0].table, start, size);
        while path[depth].level < LAST_LEVEL
            && varying < G::size(path[depth].level)
            && size < G::size(path[depth].level)
        {
            let node = path[depth];
            let index = G::index(start.0, node.level);
            let found = self.load(node.table, index);
            if !found.is_table(node.level) {
                break;
            }
            depth += 1;
            path[depth] = self.child(&node, index, found);
            trace::level::<G>(path[depth].level, path[depth].table, start, size);
        }
        let path = &path[..=depth];
        let node = path[depth];
        let mut outcome = Outcome::default();
        // The common case: whole leaves of one table.
        let (index, nr) = self.slots(node.level, start, size);
        let simple = if node.level == LAST_LEVEL {
            self.unmap_whole_pages(node, index, nr, start, pending, &mut outcome)
        } else {
            self.unmap_whole_blocks(node, index, nr, range, pending, &mut outcome)
        };
        if !simple {
            return self.unmap_anything(path, range, emptied, pending);
        }
        if node.level != G::ROOT_LEVEL {
            let link = self.vacate(&node, nr);
            if link.occupied::<G>() == 0 {
                self.table_emptied(path, link, start, emptied, pending, &mut outcome);
            }
        }
        Ok(outcome)
    }

    /// After the leaves of `range` were taken out of a table of `level`, which counts nothing any more: takes it out, too.
    pub(crate) fn unlink_emptied(
        &self,
        range: VirtRange,
        level: Level,
        pending: &mut Pending<G>,
        outcome: &mut Outcome,
    ) {
        let mut path = [self.root_node(); 4];
        let mut depth = 0;
        while path[depth].level < level {
            let node = path[depth];
            let index = G::index(range.start.0, node.level);
            let found = self.load(node.table, index);
            if !found.is_table(node.level) {
                // Another CPU has been faster.
                return;
            }
            depth += 1;
            path[depth] = self.child(&node, index, found);
        }
        let node = path[depth];
        let link = self.load(node.parent, node.index);
        if link.is_table(node.level - 1) && link.occupied::<G>() == 0 {
            self.table_emptied(
                &path[..=depth],
                link,
                range.start,
                Emptied::Unlink,
                pending,
                outcome,
            );
        }
    }

    /// Every other case: cut leaves, holes, links.
    #[inline(never)]
    fn unmap_anything(
        &self,
        path: &[Node],
        range: VirtRange,
        emptied: Emptied,
        pending: &mut Pending<G>,
    ) -> Result<Outcome, Failure> {
        let node = path[path.len() - 1];
        // Only a leaf that sticks out at either end can need a split, and with it a table.
        let mut reserve = Reserve::new();
        if node.level < LAST_LEVEL {
            self.reserve(range, &mut reserve)?;
        }
        let mut unmapping = Unmapping {
            range,
            emptied,
            reserve,
            pending,
            outcome: Outcome::default(),
        };
        let removed = self.unmap_table(node, range.start, range.size, &mut unmapping);
        self.unreserve(&mut unmapping.reserve);
        let Unmapping {
            pending, mut outcome, ..
        } = unmapping;
        if removed != 0 && node.level != G::ROOT_LEVEL {
            let link = self.vacate(&node, removed);
            if link.occupied::<G>() == 0 {
                self.table_emptied(path, link, range.start, emptied, pending, &mut outcome);
            }
        }
        Ok(outcome)
    }

    /// Takes out all of `range`, which was vacant before the caller wrote to it, so that no leaf sticks out of it. Tables
    /// that become empty stay linked.
    pub(crate) fn unmap_vacated(&self, range: VirtRange, pending: &mut Pending<G>) {
        let mut unmapping = Unmapping {
            range,
            emptied: Emptied::Keep,
            reserve: Reserve::new(),
            pending,
            outcome: Outcome::default(),
        };
        let root = self.root_node();
        self.unmap_table(root, range.start, range.size, &mut unmapping);
    }

    /// The last table of `path` counts nothing any more, and neither may those above it.
    #[cold]
    fn table_emptied(
        &self,
        path: &[Node],
        link: Descriptor,
        va: VirtAddr,
        emptied: Emptied,
        pending: &mut Pending<G>,
        outcome: &mut Outcome,
    ) {
        let mut link = link;
        for node in path.iter().rev() {
            if !self.remove_if_empty(node, link, va, emptied, pending, outcome) {
                return;
            }
            // Its parent has one descriptor less.
            let parent = path[usize::from(node.level - 1 - G::ROOT_LEVEL)];
            if parent.level == G::ROOT_LEVEL {
                return;
            }
            link = self.vacate(&parent, 1);
        }
    }

    /// Unlinks `node`, which `link` leads to and which holds `va`, if it counts nothing and is not to be kept.
    fn remove_if_empty(
        &self,
        node: &Node,
        link: Descriptor,
        va: VirtAddr,
        emptied: Emptied,
        pending: &mut Pending<G>,
        outcome: &mut Outcome,
    ) -> bool {
        if emptied == Emptied::Keep {
            outcome.tables_emptied += u32::from(link.occupied::<G>() == 0);
            return false;
        }
        if !self.unlink_if_empty(node, link) {
            return false;
        }
        // DESIGN rule 5: a walk cache may hold the link.
        let level = node.level - 1;
        let span = VirtRange::new(va.align_down(G::size(level)), G::size(level));
        pending.invalidate_link(span, level);
        pending.bury(&self.tables, node.table);
        outcome.levels.insert(level);
        outcome.tables_removed += 1;
        true
    }

    /// Takes out what `remaining` bytes from `va` on map below `node`. Gives the number of its descriptors that became
    /// vacant; the caller lowers its count.
    fn unmap_table(
        &self,
        node: Node,
        va: VirtAddr,
        remaining: u64,
        unmapping: &mut Unmapping<'_, G>,
    ) -> usize {
        if node.level == LAST_LEVEL {
            return self.unmap_pages(node, va, remaining, unmapping);
        }
        let (index, nr) = self.slots(node.level, va, remaining);
        let here = VirtRange::new(va, remaining);
        if self.unmap_whole_blocks(node, index, nr, here, unmapping.pending, &mut unmapping.outcome) {
            return nr;
        }
        let size = G::size(node.level);
        let mut removed = 0;
        let mut va = va;
        let mut remaining = remaining;
        let mut i = index;
        while i < index + nr {
            let here = part::<G>(node.level, va, remaining);
            let found = self.load(node.table, i);
            let mut step = 1;
            if found.is_table(node.level) {
                let child = self.child(&node, i, found);
                if here == size {
                    // Covered whole: unlinked as it is. Only if it is empty may someone else be faster.
                    if found.occupied::<G>() != 0 {
                        self.tables.store(node.table, i, 0);
                    } else if !self.unlink_if_empty(&child, found) {
                        continue;
                    }
                    trace::level::<G>(child.level, child.table, va, here);
                    unmapping.outcome.levels.insert(node.level);
                    self.bury_subtree(&child, found.occupied::<G>(), va, unmapping);
                    removed += 1;
                } else {
                    trace::level::<G>(child.level, child.table, va, here);
                    let gone = self.unmap_table(child, va, here, unmapping);
                    let link = if gone == 0 {
                        self.load(node.table, i)
                    } else {
                        self.vacate(&child, gone)
                    };
                    if link.is_table(node.level)
                        && self.remove_if_empty(
                            &child,
                            link,
                            va,
                            unmapping.emptied,
                            unmapping.pending,
                            &mut unmapping.outcome,
                        )
                    {
                        removed += 1;
                    }
                }
            } else if !found.is_vacant() {
                let unit = self.unit(node, i, va, found);
                let covered =
                    unmapping.range.contains(unit.range.start) && unmapping.range.contains(unit.range.last());
                let nr_unit = unit.size.descriptors::<G>();
                if covered {
                    self.tables.clear(node.table, unit.index, nr_unit);
                    self.took_out(unit.range, unit.size, found, false, unmapping);
                    removed += nr_unit;
                } else {
                    removed += self.edit_unit(
                        &unit,
                        unmapping.range,
                        |_| None,
                        &mut unmapping.reserve,
                        unmapping.pending,
                        &mut unmapping.outcome,
                    );
                }
                step = unit.index + nr_unit - i;
            }
            // To the end of what was handled: `here` for one descriptor, the rest of the unit for a group.
            let advance = (here + (step as u64 - 1) * size).min(remaining);
            va = va.add(advance);
            remaining -= advance;
            i += step;
        }
        removed
    }

    /// The common case above the last level: nothing but valid blocks, all of them whole, all or none in groups. Takes
    /// out `nr` descriptors from `index` on, which `range` covers, or does nothing.
    #[inline(always)]
    fn unmap_whole_blocks(
        &self,
        node: Node,
        index: usize,
        nr: usize,
        range: VirtRange,
        pending: &mut Pending<G>,
        outcome: &mut Outcome,
    ) -> bool {
        let level = node.level;
        if !G::leaf_allowed(level) || (range.start.0 | range.size) & (G::size(level) - 1) != 0 {
            return false;
        }
        let (and, or) = if nr == 1 {
            let found = self.load(node.table, index).0;
            (found, found)
        } else {
            self.tables.and_or_all(node.table, index, nr)
        };
        if and & VALID == 0 || or & TABLE_OR_PAGE != 0 {
            return false;
        }
        let group = G::cont_entries(level);
        let (leaf, nr_leaves) = if or & CONTIGUOUS == 0 {
            (LeafSize::new(level, false), nr)
        } else if and & CONTIGUOUS != 0 && (index | nr) & (group - 1) == 0 {
            (LeafSize::new(level, true), nr >> G::cont_shift(level))
        } else {
            return false;
        };
        self.clear(node, index, nr);
        outcome.levels.insert(level);
        outcome.leaves.add(leaf, nr_leaves as u32);
        let range = VirtRange::new(range.start, (nr as u64) << G::shift(level));
        pending.invalidate(range, level, false);
        true
    }

    #[inline(always)]
    fn clear(&self, node: Node, index: usize, nr: usize) {
        if nr == 1 {
            self.tables.store(node.table, index, 0);
        } else {
            self.tables.clear(node.table, index, nr);
        }
    }

    /// Records a leaf, in `range`, that was taken out. One that was invalid is held by no TLB.
    #[inline(always)]
    fn took_out(
        &self,
        range: VirtRange,
        leaf: LeafSize,
        found: Descriptor,
        links: bool,
        unmapping: &mut Unmapping<'_, G>,
    ) {
        unmapping.outcome.levels.insert(leaf.level());
        unmapping.outcome.leaves.add(leaf, 1);
        if found.is_valid() {
            unmapping.pending.invalidate(range, leaf.level(), links);
        }
    }
}
