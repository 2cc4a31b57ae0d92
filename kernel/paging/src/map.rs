//! `map`: the one walker.
//!
//! The seed asks whether a contiguous physical range and an array of pages need a walker each. This is the one that serves
//! both. It never asks what its source is, only how long the physical run at a page is ([`PhysSource::run_at`]), and is
//! compiled once for each source. [`vmap_range_noflush`] and [`vmap_pages_range_noflush_walk`] are its two instantiations
//! under the names that Linux gives to its two walkers.
//!
//! One call: check that the whole range is vacant, before anything is changed; descend once; at each position fill the
//! largest leaves that VA, PA and run allow; one DSB ISHST and one ISB at the end, however large the range (DESIGN rule 2).
//! What fails on the way (no page for a table, no frame for a page) takes out again what the call has put in, invalidates
//! it, and leaves the tree as it was (rule 7).

use crate::addr::{PhysAddr, VirtAddr, VirtRange};
use crate::descriptor::{Attributes, Descriptor};
use crate::granule::{Granule, LAST_LEVEL};
use crate::mmu::Mmu;
use crate::outcome::{Error, Failure, LeafSet, LeafSize, Outcome};
use crate::source::{FrameArray, PageArray, PhysSource, output};
use crate::tables::Tables;
use crate::trace;
use crate::tree::{Node, Tree, part};

mod fill;
mod in_one_table;
mod vacancy;

pub(crate) use fill::valid_bits;

/// One call of `map`, as it goes.
struct Mapping<'s, S> {
    source: &'s mut S,
    attributes: Attributes,
    allowed: LeafSet,
    /// The next page of the source.
    page: u64,
    /// The first address, for reporting and checking.
    range: VirtRange,
    /// The last run that was looked for in an array: its first page, its length, and whether it is known to end there. Two
    /// levels ask about the same run.
    known: (u64, u64, bool),
    /// The check met links to tables that are empty: other CPUs are about to take them out.
    empty_links: bool,
    outcome: Outcome,
}

impl<'s, S> Mapping<'s, S> {
    #[inline(always)]
    fn new(range: VirtRange, source: &'s mut S, attributes: Attributes, allowed: LeafSet) -> Self {
        Self {
            source,
            attributes,
            allowed,
            page: 0,
            range,
            known: (0, 0, false),
            empty_links: false,
            outcome: Outcome::default(),
        }
    }

    #[inline(always)]
    fn va<G: Granule>(&self) -> VirtAddr {
        self.range.start.add(self.page << G::PAGE_SHIFT)
    }

    #[inline(always)]
    fn remaining<G: Granule>(&self) -> u64 {
        self.range.size - (self.page << G::PAGE_SHIFT)
    }
}

impl<G: Granule, T: Tables, M: Mmu> Tree<G, T, M> {
    /// Maps `range` to the pages of `source`, in order, with the largest leaves in `allowed` that are legal at each place.
    ///
    /// Granularity: a page. `range.size` must be exactly the size of the source.
    ///
    /// # Errors
    /// [`Error::Empty`], [`Error::Misaligned`], [`Error::NonCanonical`] for the range; [`Error::NoFrame`] if the source is
    /// shorter or lacks a page; [`Error::PhysicalRange`] for an address that is not a multiple of the page size or beyond
    /// [`Config::pa_bits`](crate::Config::pa_bits); [`Error::Occupied`] if anything in the range is taken;
    /// [`Error::WritableExecutable`]; [`Error::OutOfTables`]. The tree is as it was before the call.
    #[cfg_attr(not(feature = "trace"), inline(always))]
    #[cfg_attr(feature = "trace", inline(never))]
    pub fn map<S: PhysSource<G>>(
        &self,
        range: VirtRange,
        source: &mut S,
        attributes: Attributes,
        allowed: LeafSet,
    ) -> Result<Outcome, Failure> {
        let pages = range.size >> G::PAGE_SHIFT;
        if !cfg!(feature = "trace")
            && let Some(pa) = whole_run::<G, S>(source, pages)
        {
            return self.map_run(range, pa, attributes, allowed);
        }
        if !cfg!(feature = "trace")
            && let Some(frames) = source.pfns(0, pages)
            && lies_in_one_table_of_pages::<G>(range)
        {
            return self.map_frames(range, frames, attributes, allowed);
        }
        self.map_several(range, source, attributes, allowed)
    }

    /// What is more than one run, or not known to be one.
    #[inline(never)]
    fn map_several<S: PhysSource<G>>(
        &self,
        range: VirtRange,
        source: &mut S,
        attributes: Attributes,
        allowed: LeafSet,
    ) -> Result<Outcome, Failure> {
        if S::RUNS_ARE_FREE && !cfg!(feature = "trace") {
            if lies_in_one_table_of_pages::<G>(range) {
                return self.map_runs::<LAST_LEVEL, S>(range, source, attributes, allowed);
            }
            if fills_blocks_of_one_table::<G>(range) {
                return self.map_runs::<2, S>(range, source, attributes, allowed);
            }
        }
        self.map_source(range, source, attributes, allowed)
    }

    /// What is left of a call that has filled `done` of `nr` descriptors of a table, with which `outcome` came about. All `nr` are
    /// vacant but for those, and counted. With the barriers.
    #[cold]
    #[inline(never)]
    pub(crate) fn map_rest<S: PhysSource<G>>(
        &self,
        range: VirtRange,
        source: &mut S,
        attributes: Attributes,
        allowed: LeafSet,
        (node, nr, done): (Node, usize, usize),
        outcome: Outcome,
    ) -> Result<Outcome, Failure> {
        let mut mapping = Mapping::new(range, source, attributes, allowed);
        mapping.page = (done as u64) << (G::shift(node.level) - G::PAGE_SHIFT);
        mapping.outcome = outcome;
        if done == 0 {
            mapping.outcome = Outcome::default();
        }
        let result = if node.level == LAST_LEVEL {
            let index = G::index(range.start.0, LAST_LEVEL) + done;
            let filled = self.fill_pages(&mut mapping, node.table, index, nr - done);
            self.settle(&node, nr - done, filled)
        } else {
            // What is counted and not written pins the table meanwhile.
            let result = self.map_table(&mut mapping, node);
            if node.level != G::ROOT_LEVEL {
                self.vacate(&node, nr - done);
            }
            result
        };
        match result {
            Ok(()) => {
                self.publish();
                Ok(mapping.outcome)
            }
            Err(error) => Err(self.undo(range, error, mapping.page, mapping.outcome.levels)),
        }
    }

    /// Checks what was asked for, then maps it, with its barriers.
    #[inline(never)]
    pub(crate) fn map_source<S: PhysSource<G>>(
        &self,
        range: VirtRange,
        source: &mut S,
        attributes: Attributes,
        allowed: LeafSet,
    ) -> Result<Outcome, Failure> {
        self.check_request(range, source, attributes)?;
        let allowed = allowed.intersection(self.config().leaves);
        let outcome = self.map_pieces(range, source, attributes, allowed)?;
        self.publish();
        Ok(outcome)
    }

    /// The same where it is known that [`map_in_one_table`](Self::map_in_one_table) cannot do it.
    #[inline(always)]
    pub(crate) fn map_in_many_tables<S: PhysSource<G>>(
        &self,
        range: VirtRange,
        source: &mut S,
        attributes: Attributes,
        allowed: LeafSet,
    ) -> Result<Outcome, Failure> {
        self.check_request(range, source, attributes)?;
        let allowed = allowed.intersection(self.config().leaves);
        let outcome = self.map_anywhere(Mapping::new(range, source, attributes, allowed))?;
        self.publish();
        Ok(outcome)
    }

    /// What can be refused without a look at the tables.
    #[inline(always)]
    fn check_request<S: PhysSource<G>>(
        &self,
        range: VirtRange,
        source: &S,
        attributes: Attributes,
    ) -> Result<(), Failure> {
        self.validate(range)?;
        if attributes.is_writable_and_executable() {
            return Err(Error::WritableExecutable(range.start).into());
        }
        if source.pages() < range.size >> G::PAGE_SHIFT {
            return Err(Error::NoFrame { page: source.pages() }.into());
        }
        Ok(())
    }

    /// Every other case: tables may be missing, and the range may lie in many.
    #[inline(never)]
    fn map_anywhere<S: PhysSource<G>>(&self, mut mapping: Mapping<'_, S>) -> Result<Outcome, Failure> {
        let range = mapping.range;
        match self.map_from_root(&mut mapping) {
            Ok(()) => Ok(mapping.outcome),
            Err(error) => Err(self.undo(range, error, mapping.page, mapping.outcome.levels)),
        }
    }

    /// Walks down as long as one table holds the whole range, pins it, then checks and fills from there.
    fn map_from_root<S: PhysSource<G>>(&self, mapping: &mut Mapping<'_, S>) -> Result<(), Error> {
        let VirtRange { start, size } = mapping.range;
        loop {
            let mut node = self.root_node();
            while G::size(node.level) > size && part::<G>(node.level, start, size) == size {
                let index = G::index(start.0, node.level);
                let found = self.load(node.table, index);
                if node.level + 1 == LAST_LEVEL || !found.is_table(node.level) {
                    break;
                }
                node = self.child(&node, index, found);
            }
            if self.occupy(&node, 1).is_err() {
                continue;
            }
            let result = self
                .check_vacant(node, start, size, &mut mapping.empty_links)
                .and_then(|()| self.map_table(mapping, node));
            self.unpin(&node);
            return result;
        }
    }

    /// Ends the pin of a node. Nothing to do for the root, which nobody can unlink.
    #[inline(always)]
    fn unpin(&self, node: &Node) {
        if node.level != G::ROOT_LEVEL {
            self.vacate(node, 1);
        }
    }

    /// After `fill_pages` of `nr` reserved descriptors: gives back the count of those it did not write.
    #[inline(always)]
    fn settle(&self, node: &Node, nr: usize, filled: Result<(), (usize, Error)>) -> Result<(), Error> {
        filled.map_err(|(done, error)| {
            self.vacate(node, nr - done);
            error
        })
    }

    /// Fills the part of the mapping that lies in `node`, a table above the last level that is pinned or the root.
    fn map_table<S: PhysSource<G>>(&self, mapping: &mut Mapping<'_, S>, node: Node) -> Result<(), Error> {
        let va = mapping.va::<G>();
        let span = G::table_span(node.level);
        let in_table = mapping.remaining::<G>().min(span - (va.0 & (span - 1)));
        let end = mapping.page + (in_table >> G::PAGE_SHIFT);
        while mapping.page < end {
            let va = mapping.va::<G>();
            let here = (end - mapping.page) << G::PAGE_SHIFT;
            if !self.map_blocks(mapping, &node, va, here)? {
                self.map_child(mapping, &node, va)?;
            }
        }
        Ok(())
    }

    /// Fills blocks and groups of `node.level` at `va`, if the source has a run for one. `here` bytes may be filled.
    #[inline]
    fn map_blocks<S: PhysSource<G>>(
        &self,
        mapping: &mut Mapping<'_, S>,
        node: &Node,
        va: VirtAddr,
        here: u64,
    ) -> Result<bool, Error> {
        let level = node.level;
        let size = G::size(level);
        let single = LeafSize::new(level, false);
        if !G::leaf_allowed(level)
            || !mapping.allowed.contains(single)
            || va.0 & (size - 1) != 0
            || here < size
        {
            return Ok(false);
        }
        let whole = here & !(size - 1);
        // How far it pays to look: a source that must read looks at the head first, then no further than the leaf that
        // alignment leaves possible.
        let mut limit = whole;
        if !S::RUNS_ARE_FREE {
            let head = self.run_at(mapping, 1)?;
            if head.0.0 & (size - 1) != 0 {
                return Ok(false);
            }
            let group = G::cont_size(level);
            let grouped = self.groups_allowed(mapping.allowed, level)
                && (va.0 | head.0.0) & (group - 1) == 0
                && here >= group;
            limit = if grouped { group } else { size };
        }
        let (pa, run) = self.run_at(mapping, limit >> G::PAGE_SHIFT)?;
        let nr = (run >> (G::shift(level) - G::PAGE_SHIFT)) as usize;
        if pa.0 & (size - 1) != 0 || nr == 0 {
            return Ok(false);
        }
        let index = G::index(va.0, level);
        if mapping.empty_links {
            self.clear_empty_links(node, index, nr, va);
        }
        if self.occupy(node, nr).is_err() {
            unreachable!("a pinned table was unlinked");
        }
        self.fill_run(mapping, node.table, level, index, va, pa, nr);
        Ok(true)
    }

    /// Descends at `va`: makes the child if it is missing, and fills it.
    fn map_child<S: PhysSource<G>>(
        &self,
        mapping: &mut Mapping<'_, S>,
        node: &Node,
        va: VirtAddr,
    ) -> Result<(), Error> {
        let index = G::index(va.0, node.level);
        if node.level + 1 == LAST_LEVEL {
            let here = part::<G>(node.level, va, mapping.remaining::<G>());
            let nr = (here >> G::PAGE_SHIFT) as usize;
            let child = self.enter(mapping, node, index, va, nr)?;
            trace::level::<G>(child.level, child.table, va, here);
            let filled = self.fill_pages(mapping, child.table, G::index(va.0, LAST_LEVEL), nr);
            return self.settle(&child, nr, filled);
        }
        // Pinned by one while we work below it.
        let child = self.enter(mapping, node, index, va, 1)?;
        let here = part::<G>(node.level, va, mapping.remaining::<G>());
        trace::level::<G>(child.level, child.table, va, here);
        let result = self.map_table(mapping, child);
        self.vacate(&child, 1);
        result
    }

    /// The table behind descriptor `index` of `node`, made if it is missing, with its count raised by `nr`.
    fn enter<S>(
        &self,
        mapping: &mut Mapping<'_, S>,
        node: &Node,
        index: usize,
        va: VirtAddr,
        nr: usize,
    ) -> Result<Node, Error> {
        loop {
            let found = self.load(node.table, index);
            if found.is_table(node.level) {
                let child = self.child(node, index, found);
                if self.occupy(&child, nr).is_ok() {
                    return Ok(child);
                }
                continue;
            }
            if found == Descriptor::LEAVING {
                core::hint::spin_loop();
                continue;
            }
            if !found.is_vacant() {
                return Err(Error::Occupied {
                    va,
                    level: node.level,
                    found,
                });
            }
            let level = node.level + 1;
            let table = self.tables.alloc_table().ok_or(Error::OutOfTables(level))?;
            if self.occupy(node, 1).is_err() {
                unreachable!("a pinned table was unlinked");
            }
            // The exchange releases: a walk that finds the link finds the table zeroed (DESIGN rule 2).
            let link = Descriptor::table(table, nr);
            match self.tables.compare_exchange(node.table, index, 0, link.0) {
                Ok(()) => {
                    mapping.outcome.levels.insert(node.level);
                    mapping.outcome.tables_added += 1;
                    return Ok(self.child(node, index, link));
                }
                Err(_) => {
                    // Another CPU was faster. Ours was never linked.
                    self.unpin(node);
                    self.tables.free_table(table);
                }
            }
        }
    }
}

/// Where the physical run begins that is all `pages` of `source`, if it is one and that is cheap to know.
#[inline(always)]
fn whole_run<G: Granule, S: PhysSource<G>>(source: &mut S, pages: u64) -> Option<PhysAddr> {
    if S::RUNS_ARE_FREE && pages != 0 {
        let run = source.run_at(0, pages)?;
        return (run.pages == pages).then_some(run.pa);
    }
    if pages == 1 {
        return Some(output::<G>(source.pfns(0, 1)?.first()?.0));
    }
    None
}

/// Whether one table of level 2 holds `range`, and more than a block of it.
#[inline(always)]
fn fills_blocks_of_one_table<G: Granule>(range: VirtRange) -> bool {
    let extent = crate::direct::extent(range);
    G::leaf_allowed(2) && extent >= crate::direct::bound::<G>(3) && extent < crate::direct::bound::<G>(2)
}

/// Whether one last-level table holds `range`, if it is not empty.
#[inline(always)]
fn lies_in_one_table_of_pages<G: Granule>(range: VirtRange) -> bool {
    crate::direct::extent(range) < crate::direct::bound::<G>(LAST_LEVEL)
}

/// Maps one contiguous physical range: Linux's walker for ioremap.
///
/// `va`, `pa` and `size` are multiples of the page size.
///
/// # Errors
/// As [`Tree::map`].
#[cfg_attr(not(feature = "trace"), inline)]
#[cfg_attr(feature = "trace", inline(never))]
pub fn vmap_range_noflush<G: Granule, T: Tables, M: Mmu>(
    tree: &Tree<G, T, M>,
    va: VirtAddr,
    pa: PhysAddr,
    size: u64,
    attributes: Attributes,
    allowed: LeafSet,
) -> Result<Outcome, Failure> {
    tree.map_run(VirtRange::new(va, size), pa, attributes, allowed)
}

/// Maps an array of pages that is contiguous only in places: Linux's walker for vmap and vmalloc.
///
/// `va` is a multiple of the page size; the range is as long as the array.
///
/// # Errors
/// As [`Tree::map`].
#[cfg_attr(not(feature = "trace"), inline)]
#[cfg_attr(feature = "trace", inline(never))]
pub fn vmap_pages_range_noflush_walk<G: Granule, T: Tables, M: Mmu, A: FrameArray + ?Sized>(
    tree: &Tree<G, T, M>,
    va: VirtAddr,
    frames: &A,
    attributes: Attributes,
    allowed: LeafSet,
) -> Result<Outcome, Failure> {
    let size = (frames.nr_frames() as u64) << G::PAGE_SHIFT;
    let mut source = PageArray::new(frames);
    tree.map(VirtRange::new(va, size), &mut source, attributes, allowed)
}
