//! `unmap`: clears leaves. What to invalidate is read before the stores (DESIGN rule 4).

use crate::addr::{VirtAddr, VirtRange};
use crate::descriptor::{CONTIGUOUS, Descriptor};
use crate::edit::Reserve;
use crate::flush::{FlushBatch, Pending};
use crate::granule::{Granule, LAST_LEVEL, Level};
use crate::mmu::Mmu;
use crate::outcome::{Failure, LeafSize, Outcome};
use crate::tables::Tables;
use crate::trace;
use crate::tree::{Kinds, Node, Tree, level_around, part};

struct Unmapping<'p, G: Granule> {
    range: VirtRange,
    takes_tables: bool,
    reserve: Reserve,
    pending: &'p mut Pending<G>,
    outcome: Outcome,
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
        self.validate(range)?;
        let VirtRange { start, size } = range;
        let mut outcome = Outcome::default();
        if let Some(table) = self.linked_table(TOP, range) {
            let node = Node { table, level: TOP };
            if self.unmap_whole_leaves(node, start, size, pending, &mut outcome) {
                return Ok(outcome.copied());
            }
        }
        self.unmap_anything(range, pending)
    }

    #[inline(never)]
    fn unmap_anything(&self, range: VirtRange, pending: &mut Pending<G>) -> Result<Outcome, Failure> {
        let mut unmapping = Unmapping {
            range,
            takes_tables: true,
            reserve: Reserve::new(),
            pending,
            outcome: Outcome::default(),
        };
        self.reserve(range, &mut unmapping.reserve)?;
        let node = self.table_around(range);
        self.unmap_each(node, range.start, range.size, &mut unmapping);
        self.unreserve(&mut unmapping.reserve);
        Ok(unmapping.outcome.copied())
    }

    /// `range` ends at the end of one.
    pub(crate) fn unmap_leaves(&self, range: VirtRange, pending: &mut Pending<G>) {
        let mut unmapping = Unmapping {
            range,
            takes_tables: false,
            reserve: Reserve::new(),
            pending,
            outcome: Outcome::default(),
        };
        let node = self.table_around(range);
        self.unmap_table(node, range.start, range.size, &mut unmapping);
    }

    fn table_around(&self, range: VirtRange) -> Node {
        let level = level_around::<G>(range);
        let mut node = self.root_node();
        while node.level < level {
            let found = self.load(node.table, G::index(range.start.0, node.level));
            if !found.is_table(node.level) {
                break;
            }
            node = self.child(node, found);
        }
        node
    }

    /// If it is valid leaves covered whole.
    #[inline(always)]
    fn unmap_whole_leaves(
        &self,
        node: Node,
        va: VirtAddr,
        size: u64,
        pending: &mut Pending<G>,
        outcome: &mut Outcome,
    ) -> bool {
        let level = node.level;
        if (va.0 | size) & (G::size(level) - 1) != 0 {
            return false;
        }
        let index = G::index(va.0, level);
        let nr = (size >> G::shift(level)) as usize;
        let kinds = self.kinds(node, index, nr);
        if !kinds.are_valid_leaves(level) || self.cuts_group(node, index, nr, kinds) {
            return false;
        }
        self.count_leaves(node, index, nr, kinds, outcome);
        self.clear(node, index, nr);
        // DESIGN rule 4: a TLB may hold a group as its members.
        pending.invalidate(VirtRange::new(va, size), level, false);
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
    fn unmap_table(&self, node: Node, va: VirtAddr, remaining: u64, unmapping: &mut Unmapping<'_, G>) {
        let (pending, outcome) = (&mut *unmapping.pending, &mut unmapping.outcome);
        if !self.unmap_whole_leaves(node, va, remaining, pending, outcome) {
            self.unmap_each(node, va, remaining, unmapping);
        }
    }

    fn unmap_each(&self, node: Node, va: VirtAddr, remaining: u64, unmapping: &mut Unmapping<'_, G>) {
        let level = node.level;
        let (index, nr) = self.slots(level, va, remaining);
        let (mut i, mut va, mut remaining) = (index, va, remaining);
        while i < index + nr {
            let here = part::<G>(level, va, remaining);
            let found = self.load(node.table, i);
            let mut next = i + 1;
            if found.is_table(level) {
                let child = self.child(node, found);
                trace::level::<G>(child, va, here);
                if here == G::size(level) && unmapping.takes_tables {
                    self.tables.store(node.table, i, 0);
                    self.take_table(child, va, unmapping);
                } else {
                    self.unmap_table(child, va, here, unmapping);
                }
            } else if !found.is_vacant() {
                next = self.unmap_leaf(node, i, va, found, unmapping);
            }
            let step = here + ((next - i - 1) as u64) * G::size(level);
            va = va.add(step);
            remaining = remaining.saturating_sub(step);
            i = next;
        }
    }

    /// Returns the index behind it.
    fn unmap_leaf(
        &self,
        node: Node,
        index: usize,
        va: VirtAddr,
        found: Descriptor,
        unmapping: &mut Unmapping<'_, G>,
    ) -> usize {
        let unit = self.unit(node, index, va, found);
        let nr = unit.size.descriptors::<G>();
        if unmapping.range.covers(unit.range) {
            self.clear(node, unit.index, nr);
            took_out(unit.range, unit.size, found, false, unmapping);
        } else {
            let Unmapping {
                range,
                reserve,
                pending,
                outcome,
                ..
            } = unmapping;
            self.split_leaf(&unit, *range, |_| None, reserve, pending, outcome);
        }
        unit.index + nr
    }

    /// Defers the free of `node`, unlinked and covered whole, and of tables below it. Descriptors
    /// stay: a walk cache that holds the link may load them again, so leaves are invalidated at all
    /// levels.
    fn take_table(&self, node: Node, va: VirtAddr, unmapping: &mut Unmapping<'_, G>) {
        let kinds = self.kinds(node, 0, G::ENTRIES);
        let span = VirtRange::new(va, G::table_span(node.level));
        if kinds.are_valid_leaves(node.level) {
            self.count_leaves(node, 0, G::ENTRIES, kinds, &mut unmapping.outcome);
            unmapping.pending.invalidate(span, node.level, true);
        } else if !kinds.is_vacant() {
            self.take_descriptors(node, va, unmapping);
        }
        // A walk cache may hold the link (DESIGN rule 5).
        let level = node.level - 1;
        unmapping.pending.invalidate_link(span, level);
        unmapping.pending.defer_free(&self.tables, node.table);
        unmapping.outcome.levels.insert(level);
        unmapping.outcome.tables_removed += 1;
    }

    fn take_descriptors(&self, node: Node, va: VirtAddr, unmapping: &mut Unmapping<'_, G>) {
        let level = node.level;
        // By range, all pages cost no more than some.
        let at_once = level == LAST_LEVEL && self.mmu.has_tlbi_range();
        if at_once {
            let span = VirtRange::new(va, G::table_span(level));
            unmapping.pending.invalidate(span, level, true);
        }
        let mut i = 0;
        while i < G::ENTRIES {
            let found = self.load(node.table, i);
            let va = va.add((i as u64) << G::shift(level));
            i += 1;
            if found.is_table(level) {
                self.take_table(self.child(node, found), va, unmapping);
            } else if !found.is_vacant() {
                let leaf = LeafSize::new(level, found.is_contiguous());
                let range = VirtRange::new(va, leaf.bytes::<G>());
                i += leaf.descriptors::<G>() - 1;
                took_out(range, leaf, found, true, unmapping);
            }
        }
    }
}

/// No TLB holds a leaf that was invalid.
fn took_out<G: Granule>(
    range: VirtRange,
    leaf: LeafSize,
    found: Descriptor,
    links: bool,
    unmapping: &mut Unmapping<'_, G>,
) {
    let level: Level = leaf.level();
    unmapping.outcome.levels.insert(level);
    unmapping.outcome.leaves.add(leaf, 1);
    if found.is_valid() {
        unmapping.pending.invalidate(range, level, links);
    } else {
        unmapping.pending.publish();
    }
}
