//! The shortest ways: one run into one table, and one table's leaves out and flushed.
//!
//! Most calls map a single run whose tables are all there, and take just that out again. For these nothing has to be in memory
//! but the tables: no state to hand on, no batch. Whatever is not so simple is left alone and goes the general way.
//!
//! With the feature `trace` everything goes the general way, which tells each step.

use crate::addr::{PhysAddr, VirtAddr, VirtRange};
use crate::descriptor::{Attributes, CONTIGUOUS, Descriptor, TABLE_OR_PAGE, VALID};
use crate::granule::{Granule, LAST_LEVEL, Level};
use crate::leaf::choose_leaf;
use crate::map::valid_bits;
use crate::mmu::Mmu;
use crate::outcome::{Failure, LeafSet, LeafSize, Outcome};
use crate::source::PhysSource;
use crate::tables::Tables;
use crate::tree::{Node, Tree};

/// Made where it is returned: numbers are cheaper to hand on.
#[inline(always)]
fn taken_out(level: Level, singles: usize, groups: usize) -> Outcome {
    let mut outcome = Outcome::default();
    outcome.levels.insert(level);
    outcome.leaves.add(LeafSize::new(level, false), singles as u32);
    outcome.leaves.add(LeafSize::new(level, true), groups as u32);
    outcome
}

impl<G: Granule, T: Tables, M: Mmu> Tree<G, T, M> {
    /// The last table on the way down that holds all of `range` and more than one descriptor for it, and the link to it.
    /// `None` where a table is missing, or the range lies in several.
    #[inline(always)]
    fn one_table(&self, range: VirtRange) -> Option<(Node, Descriptor)> {
        let VirtRange { start, size } = range;
        // The bits of an address that differ within the range.
        let varying = start.0 ^ (start.0 + (size - 1));
        let larger = varying.max(size);
        let mut node = self.root_node();
        let mut link = Descriptor::VACANT;
        while node.level < LAST_LEVEL && larger < G::size(node.level) {
            let index = G::index(start.0, node.level);
            link = self.load(node.table, index);
            if !link.is_table(node.level) {
                return None;
            }
            node = self.child(&node, index, link);
        }
        let here = node.level == LAST_LEVEL || varying < G::table_span(node.level);
        here.then_some((node, link))
    }

    /// Maps one physical run into one table that is there: pages and groups of pages, or blocks and groups of blocks. The
    /// barriers are the caller's. `None`: it is not that simple, and nothing has changed.
    #[inline(always)]
    pub(crate) fn map_run<S: PhysSource<G>>(
        &self,
        range: VirtRange,
        source: &mut S,
        attributes: Attributes,
        allowed: LeafSet,
    ) -> Option<Outcome> {
        let VirtRange { start, size } = range;
        let (node, link) = self.one_table(range)?;
        let pages = size >> G::PAGE_SHIFT;
        let run = source.run_at(0, pages)?;
        let bad = self.unimplemented_pa();
        if run.pages < pages || (run.pa.0 | run.pa.0.wrapping_add(size - 1) & !(G::PAGE_SIZE - 1)) & bad != 0
        {
            return None;
        }
        let run = (run.pa, size);
        // The level as a constant in each.
        match node.level {
            3 => self.map_run_at(&node, link, 3, start, run, attributes, allowed),
            2 => self.map_run_at(&node, link, 2, start, run, attributes, allowed),
            1 => self.map_run_at(&node, link, 1, start, run, attributes, allowed),
            _ => None,
        }
    }

    #[inline(always)]
    #[allow(
        clippy::too_many_arguments,
        reason = "the place and the run, all of them scalars in registers"
    )]
    fn map_run_at(
        &self,
        node: &Node,
        link: Descriptor,
        level: Level,
        start: VirtAddr,
        (pa, size): (PhysAddr, u64),
        attributes: Attributes,
        allowed: LeafSet,
    ) -> Option<Outcome> {
        if level < LAST_LEVEL {
            let unaligned = (start.0 | pa.0 | size) & (G::size(level) - 1) != 0;
            if unaligned || !G::leaf_allowed(level) || !allowed.contains(LeafSize::new(level, false)) {
                return None;
            }
        }
        let index = G::index(start.0, level);
        let nr = (size >> G::shift(level)) as usize;
        let group = G::cont_entries(level);
        let one_group = nr == group
            && group != 1
            && (start.0 | pa.0) & (G::cont_size(level) - 1) == 0
            && self.groups_allowed(allowed, level);
        let vacant = if nr == 1 {
            self.load(node.table, index) == Descriptor::VACANT
        } else if one_group {
            self.tables.or_all(node.table, index, group) == 0
        } else {
            self.tables.or_all(node.table, index, nr) == 0
        };
        if !vacant || self.occupy_seen(node, link, nr).is_err() {
            return None;
        }
        let template = attributes.bits() | valid_bits(level);
        let mut outcome = Outcome::default();
        outcome.levels.insert(level);
        if one_group {
            let first = pa.0 | template | CONTIGUOUS;
            self.tables
                .fill_linear(node.table, index, group, first, G::size(level));
            outcome.leaves.add(LeafSize::new(level, true), 1);
        } else {
            self.write_run(node.table, level, index, pa, nr, template, allowed)
                .count::<G>(level, &mut outcome);
        }
        debug_assert!(
            outcome
                .leaves
                .get(choose_leaf::<G>(start, pa, size, size, allowed))
                != 0,
            "{outcome:?} lacks the leaf that choose_leaf chooses at {start:?} for {pa:?}"
        );
        Some(outcome)
    }

    /// Takes whatever is mapped in `range` out, as [`unmap`](Self::unmap), and flushes it at once.
    ///
    /// # Errors
    /// As [`unmap`](Self::unmap).
    #[cfg_attr(not(feature = "trace"), inline(always))]
    #[cfg_attr(feature = "trace", inline(never))]
    pub fn unmap_and_flush(&self, range: VirtRange) -> Result<Outcome, Failure> {
        self.validate(range)?;
        if !cfg!(feature = "trace")
            && let Some(outcome) = self.unmap_directly::<false>(range)
        {
            return Ok(outcome);
        }
        self.unmap_in_batch(range)
    }

    /// Unmaps `range` and flushes, as [`unmap_keeping_tables`](Self::unmap_keeping_tables) and a flush would, if that is as
    /// simple as can be: valid leaves of one table, all of it, and no table goes. `None`: nothing has changed.
    #[cfg_attr(not(feature = "trace"), inline(always))]
    #[cfg_attr(feature = "trace", inline(never))]
    pub fn unmap_one_table(&self, range: VirtRange) -> Option<Outcome> {
        self.validate(range).ok()?;
        if cfg!(feature = "trace") {
            return None;
        }
        self.unmap_directly::<true>(range)
    }

    #[inline(always)]
    fn unmap_directly<const KEEP: bool>(&self, range: VirtRange) -> Option<Outcome> {
        let (node, link) = self.one_table(range)?;
        // The level as a constant in each, and no common place for what they give.
        if node.level == 3 {
            if let Some(outcome) = self.unmap_at::<KEEP>(&node, link, 3, range) {
                return Some(outcome);
            }
        } else if node.level == 2 {
            if let Some(outcome) = self.unmap_at::<KEEP>(&node, link, 2, range) {
                return Some(outcome);
            }
        } else if node.level == 1
            && let Some(outcome) = self.unmap_at::<KEEP>(&node, link, 1, range)
        {
            return Some(outcome);
        }
        None
    }

    /// The general way.
    #[inline(never)]
    fn unmap_in_batch(&self, range: VirtRange) -> Result<Outcome, Failure> {
        // Flushes where it is dropped.
        let mut batch = self.batch();
        self.unmap(range, &mut batch)
    }

    /// The rest of an unmap of `range` that left a table empty: it goes, too.
    #[cold]
    #[inline(never)]
    fn unmap_emptied(&self, range: VirtRange, level: Level, singles: usize, groups: usize) -> Outcome {
        let mut outcome = taken_out(level, singles, groups);
        let mut batch = self.batch();
        batch.pending_mut().invalidate(range, level, false);
        self.unlink_emptied(range, level, batch.pending_mut(), &mut outcome);
        outcome
    }

    /// Takes whole, valid leaves of one table of `level` out, and flushes: pages and groups of pages, none of them cut, or
    /// blocks or groups of blocks. `None`: it is not that simple, and nothing has changed.
    #[inline(always)]
    fn unmap_at<const KEEP: bool>(
        &self,
        node: &Node,
        link: Descriptor,
        level: Level,
        range: VirtRange,
    ) -> Option<Outcome> {
        let VirtRange { start, size } = range;
        if level < LAST_LEVEL && ((start.0 | size) & (G::size(level) - 1) != 0 || !G::leaf_allowed(level)) {
            return None;
        }
        let index = G::index(start.0, level);
        let nr = (size >> G::shift(level)) as usize;
        let group = G::cont_entries(level);
        let (mut singles, mut groups) = (nr, 0);
        let mut one_group = false;
        if nr == group && index & (group - 1) == 0 && {
            let head = self.load(node.table, index);
            head.is_valid() && head.is_contiguous()
        } {
            // DESIGN rule 1: its head speaks for all of a group.
            self.tables.clear(node.table, index, group);
            (singles, groups) = (0, 1);
            one_group = true;
        } else if nr == 1 {
            let found = self.load(node.table, index);
            if !found.is_valid() || found.is_contiguous() || found.is_table(level) {
                return None;
            }
            self.tables.store(node.table, index, 0);
        } else {
            let (and, or) = self.tables.flags(node.table, index, nr);
            let table = level < LAST_LEVEL && or & TABLE_OR_PAGE != 0;
            // Some in groups and some not: those are told apart in the general way, and so is a cut group.
            let mixed = (and ^ or) & CONTIGUOUS != 0;
            if and & VALID == 0 || table || mixed {
                return None;
            }
            if or & CONTIGUOUS != 0 {
                if (index | nr) & (group - 1) != 0 {
                    return None;
                }
                (singles, groups) = (0, nr >> G::cont_shift(level));
            }
            self.tables.clear(node.table, index, nr);
        }
        let emptied = node.level != G::ROOT_LEVEL && self.vacate_seen(node, link, nr).occupied::<G>() == 0;
        if emptied && !KEEP {
            return Some(self.unmap_emptied(range, level, singles, groups));
        }
        // DESIGN rules 3 and 4, as in the general flush: the stores are complete for table walks, then the TLBIs, then they
        // are complete, and what this CPU fetched ahead is forgotten.
        self.mmu.dsb_ishst();
        if nr == 1 {
            self.mmu.tlbi_vaale1is(start);
        } else {
            // A group's size is a constant here, and its TLBI one operand.
            let size = if one_group { G::cont_size(level) } else { size };
            self.issue_one(VirtRange::new(start, size), level);
        }
        self.wait_for_tlbis(start);
        self.mmu.isb();
        let mut outcome = taken_out(level, singles, groups);
        outcome.tables_emptied = u32::from(emptied);
        Some(outcome)
    }
}
