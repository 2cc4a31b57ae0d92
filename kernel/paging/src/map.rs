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

use crate::addr::{Pfn, PhysAddr, VirtAddr, VirtRange};
use crate::descriptor::{Attributes, Descriptor};
use crate::granule::{Granule, LAST_LEVEL, Level};
use crate::leaf::choose_leaf;
use crate::mmu::Mmu;
use crate::outcome::{Error, Failure, LeafSet, LeafSize, LevelMask, Outcome};
use crate::source::{FrameArray, PageArray, PhysRange, PhysSource, Run, output};
use crate::tables::Tables;
use crate::trace;
use crate::tree::{Node, Tree, part};

/// Output addresses that are gathered before they are checked and written: a group of 4 KiB pages.
const BATCH: usize = 16;

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

/// What [`Tree::map_in_one_table`] did.
enum InOneTable {
    /// All of it.
    Done(Outcome),
    /// It failed at this page, with these levels written.
    Failed(Error, u64, LevelMask),
    /// Nothing: it is not that simple.
    No,
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
        self.validate(range)?;
        if attributes.is_writable() && attributes.is_executable() {
            return Err(Error::WritableExecutable(range.start).into());
        }
        let pages = range.size >> G::PAGE_SHIFT;
        if source.pages() < pages {
            return Err(Error::NoFrame { page: source.pages() }.into());
        }
        let allowed = allowed.intersection(self.config().leaves);
        let outcome = if S::RUNS_ARE_FREE
            && !cfg!(feature = "trace")
            && let Some(outcome) = self.map_run(range, source, attributes, allowed)
        {
            outcome
        } else {
            self.map_pieces(range, source, attributes, allowed)?
        };
        // DESIGN rule 2, Arm ARM D8.2.6 and K13.5.3: the stores are complete for table walks after a DSB, and an
        // earlier "invalid" that this CPU fetched ahead is forgotten at an ISB. No TLBI: an invalid descriptor is
        // never held.
        self.mmu.dsb_ishst();
        self.mmu.isb();
        Ok(outcome)
    }

    /// What is more than one run into one table.
    #[inline(never)]
    fn map_pieces<S: PhysSource<G>>(
        &self,
        range: VirtRange,
        source: &mut S,
        attributes: Attributes,
        allowed: LeafSet,
    ) -> Result<Outcome, Failure> {
        match self.map_in_one_table(Mapping::new(range, &mut *source, attributes, allowed)) {
            InOneTable::Done(outcome) => Ok(outcome),
            InOneTable::Failed(error, page, levels) => Err(self.undo(range, error, page, levels)),
            InOneTable::No => self.map_anywhere(Mapping::new(range, source, attributes, allowed)),
        }
    }

    /// The common cases, without recursion and without a pin: every table on the way is there, and the last one holds the
    /// whole range, be it as pages or as one run of blocks. Takes its `Mapping` by value, so that it lives in registers.
    #[inline(always)]
    fn map_in_one_table<S: PhysSource<G>>(&self, mut mapping: Mapping<'_, S>) -> InOneTable {
        let VirtRange { start, size } = mapping.range;
        // The bits of an address that differ within the range.
        let varying = start.0 ^ (start.0 + (size - 1));
        let mut node = self.root_node();
        let mut link = Descriptor::VACANT;
        trace::level::<G>(node.level, node.table, start, size);
        while node.level < LAST_LEVEL && varying < G::size(node.level) && size < G::size(node.level) {
            let index = G::index(start.0, node.level);
            link = self.load(node.table, index);
            if !link.is_table(node.level) {
                return InOneTable::No;
            }
            node = self.child(&node, index, link);
            trace::level::<G>(node.level, node.table, start, size);
        }
        let level = node.level;
        let index = G::index(start.0, level);
        let block = G::size(level);
        let nr = (size >> G::shift(level)) as usize;
        if (level < LAST_LEVEL && varying >= G::table_span(level)) || !self.all_vacant(node.table, index, nr)
        {
            // Tables that are about to go are not in the way, and whatever else there is has to be found and named.
            return InOneTable::No;
        }
        let mut blocks = PhysAddr(0);
        if level < LAST_LEVEL {
            // One run of whole blocks, or it is not as simple.
            let single = LeafSize::new(level, false);
            if !G::leaf_allowed(level)
                || !mapping.allowed.contains(single)
                || (start.0 | size) & (block - 1) != 0
            {
                return InOneTable::No;
            }
            let head = if S::RUNS_ARE_FREE {
                size >> G::PAGE_SHIFT
            } else {
                1
            };
            match self.run_at(&mut mapping, head) {
                Ok((pa, _)) if pa.0 & (block - 1) != 0 => return InOneTable::No,
                _ => {}
            }
            match self.run_at(&mut mapping, size >> G::PAGE_SHIFT) {
                Ok((pa, run)) if run == size >> G::PAGE_SHIFT => blocks = pa,
                _ => return InOneTable::No,
            }
        }
        if self.occupy_from(&node, link, nr).is_err() {
            return InOneTable::No;
        }
        if level < LAST_LEVEL {
            self.fill_run(&mut mapping, node.table, level, index, start, blocks, nr);
        } else if let Err((done, error)) = self.fill_pages(&mut mapping, node.table, index, nr) {
            self.vacate(&node, nr - done);
            return InOneTable::Failed(error, mapping.page, mapping.outcome.levels);
        }
        InOneTable::Done(mapping.outcome)
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

    /// Whether `nr` descriptors from `index` on are vacant.
    #[inline(always)]
    fn all_vacant(&self, table: PhysAddr, index: usize, nr: usize) -> bool {
        if nr == 1 {
            self.load(table, index) == Descriptor::VACANT
        } else {
            self.tables.or_all(table, index, nr) == 0
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

    /// Fills `nr` descriptors of a last-level table from `index` on. On failure says how many were written.
    #[inline(always)]
    fn fill_pages<S: PhysSource<G>>(
        &self,
        mapping: &mut Mapping<'_, S>,
        table: PhysAddr,
        index: usize,
        nr: usize,
    ) -> Result<(), (usize, Error)> {
        let group = G::cont_entries(LAST_LEVEL);
        let groups = self.groups_allowed(mapping.allowed, LAST_LEVEL);
        let mut done = 0;
        while done < nr {
            let at = index + done;
            let left = nr - done;
            // A group can begin only at an index that is a multiple of its length: nowhere else does an array have to
            // be looked at for contiguity.
            let mut singles = left;
            if S::RUNS_ARE_FREE {
                singles = 0;
            } else if groups {
                let to_boundary = group - (at & (group - 1));
                singles = left.min(to_boundary);
                if to_boundary == group && left >= group {
                    singles = match mapping.source.pfns(mapping.page, left as u64) {
                        Some(frames) => pages_to_head(frames, group),
                        None => {
                            let (head, _) = self.run_at(mapping, 1).map_err(|error| (done, error))?;
                            let grouped = head.0 & (G::cont_size(LAST_LEVEL) - 1) == 0;
                            if grouped { 0 } else { singles }
                        }
                    };
                }
            }
            if singles != 0 {
                self.fill_singles(mapping, table, at, singles)
                    .map_err(|(some, error)| (done + some, error))?;
                done += singles;
            } else {
                let (pa, run) = self.run_at(mapping, left as u64).map_err(|error| (done, error))?;
                // What is left over of a run that an array had to be asked for goes by the page; the next turn finds out.
                let whole = if !S::RUNS_ARE_FREE && run as usize >= group {
                    run as usize & !(group - 1)
                } else {
                    run as usize
                };
                let va = mapping.va::<G>();
                self.fill_run(mapping, table, LAST_LEVEL, at, va, pa, whole);
                done += whole;
            }
        }
        Ok(())
    }

    /// Fills `nr` single pages without a look at contiguity.
    #[inline(always)]
    fn fill_singles<S: PhysSource<G>>(
        &self,
        mapping: &mut Mapping<'_, S>,
        table: PhysAddr,
        index: usize,
        nr: usize,
    ) -> Result<(), (usize, Error)> {
        let template = Descriptor::leaf(LAST_LEVEL, PhysAddr(0), mapping.attributes, false).0;
        let bad = self.unimplemented_pa();
        // A trace tells each page; and what is wrong with one of them, the other way finds out.
        if !cfg!(feature = "trace")
            && let Some(frames) = mapping.source.pfns(mapping.page, nr as u64)
            && self.tables.or_frames(frames) & bad.rotate_right(G::PAGE_SHIFT) == 0
        {
            self.tables
                .fill_frames(table, index, frames, G::PAGE_SHIFT, template);
            mapping.outcome.levels.insert(LAST_LEVEL);
            mapping.page += nr as u64;
            mapping.outcome.leaves.add(LeafSize::PAGE, nr as u32);
            return Ok(());
        }
        let mut done = 0;
        while done < nr {
            let mut outputs = [PhysAddr(0); BATCH];
            let outputs = &mut outputs[..BATCH.min(nr - done)];
            let read = mapping.source.outputs_at(mapping.page, outputs);
            let whole = match read {
                Ok(()) => outputs.len(),
                Err(page) => (page - mapping.page) as usize,
            };
            let outputs = &outputs[..whole];
            if outputs.iter().fold(0, |all, pa| all | pa.0) & bad != 0 {
                // Which? The ones before it are written, so that `done` tells the truth.
                let good = outputs.iter().take_while(|pa| pa.0 & bad == 0).count();
                self.write_singles(mapping, table, index + done, &outputs[..good], template);
                return Err((done + good, Error::PhysicalRange(outputs[good])));
            }
            self.write_singles(mapping, table, index + done, outputs, template);
            done += whole;
            if let Err(page) = read {
                return Err((done, Error::NoFrame { page }));
            }
        }
        Ok(())
    }

    #[inline(always)]
    fn write_singles<S>(
        &self,
        mapping: &mut Mapping<'_, S>,
        table: PhysAddr,
        index: usize,
        outputs: &[PhysAddr],
        template: u64,
    ) {
        let (va, remaining) = (mapping.va::<G>(), mapping.remaining::<G>());
        trace::singles::<G>(va, outputs, remaining, mapping.allowed);
        if outputs.is_empty() {
            return;
        }
        self.tables.fill_outputs(table, index, outputs, template);
        mapping.outcome.levels.insert(LAST_LEVEL);
        mapping.page += outputs.len() as u64;
        mapping.outcome.leaves.add(LeafSize::PAGE, outputs.len() as u32);
    }

    /// Fills `nr` descriptors of `level` with consecutive outputs: singles up to a group's boundary, groups, singles.
    #[inline(always)]
    #[allow(
        clippy::too_many_arguments,
        reason = "the place and the run, all of them scalars in registers"
    )]
    fn fill_run<S>(
        &self,
        mapping: &mut Mapping<'_, S>,
        table: PhysAddr,
        level: Level,
        index: usize,
        va: VirtAddr,
        pa: PhysAddr,
        nr: usize,
    ) {
        debug_assert!(
            self.agrees(mapping, level, va, pa, nr),
            "level {level} leaf at {va:?} for {pa:?} is not the one that choose_leaf chooses"
        );
        let size = (nr as u64) << G::shift(level);
        trace::leaves::<G>(va, pa, size, mapping.remaining::<G>(), mapping.allowed);
        let filled = self.write_run(
            table,
            level,
            index,
            pa,
            nr,
            mapping.attributes.bits() | valid_bits(level),
            mapping.allowed,
        );
        mapping.outcome.levels.insert(level);
        filled.count::<G>(level, &mut mapping.outcome);
        mapping.page += (nr as u64) << (G::shift(level) - G::PAGE_SHIFT);
    }

    /// In debug builds: the first leaf of this run is the one that [`choose_leaf`] chooses.
    fn agrees<S>(
        &self,
        mapping: &Mapping<'_, S>,
        level: Level,
        va: VirtAddr,
        pa: PhysAddr,
        nr: usize,
    ) -> bool {
        let run = (nr as u64) << G::shift(level);
        let chosen = choose_leaf::<G>(va, pa, run, mapping.remaining::<G>(), mapping.allowed);
        let size = G::cont_size(level);
        let grouped =
            self.groups_allowed(mapping.allowed, level) && (va.0 | pa.0) & (size - 1) == 0 && run >= size;
        chosen == LeafSize::new(level, grouped)
    }

    #[inline(always)]
    pub(crate) fn groups_allowed(&self, allowed: LeafSet, level: Level) -> bool {
        G::cont_shift(level) != 0 && allowed.contains(LeafSize::new(level, true))
    }

    /// Writes `nr` descriptors of `level` for the consecutive outputs from `pa` on; groups where index and output allow.
    #[inline(always)]
    #[allow(
        clippy::too_many_arguments,
        reason = "the place and the run, all of them scalars in registers"
    )]
    pub(crate) fn write_run(
        &self,
        table: PhysAddr,
        level: Level,
        index: usize,
        pa: PhysAddr,
        nr: usize,
        template: u64,
        allowed: LeafSet,
    ) -> Shape {
        let shift = G::shift(level);
        let step = 1 << shift;
        let first = pa.0 | template;
        let shape = self.shape_run(level, index, pa, nr, allowed);
        if nr == 1 {
            self.tables.store(table, index, first);
            return shape;
        }
        if shape.grouped == 0 {
            self.tables.fill_linear(table, index, nr, first, step);
            return shape;
        }
        let Shape { head, grouped, tail } = shape;
        if head != 0 {
            self.tables.fill_linear(table, index, head, first, step);
        }
        let middle = first + ((head as u64) << shift);
        self.tables.fill_linear(
            table,
            index + head,
            grouped,
            middle | crate::descriptor::CONTIGUOUS,
            step,
        );
        if tail != 0 {
            let last = middle + ((grouped as u64) << shift);
            self.tables
                .fill_linear(table, index + head + grouped, tail, last, step);
        }
        shape
    }

    /// How [`write_run`](Self::write_run) divides a run.
    #[inline(always)]
    pub(crate) fn shape_run(
        &self,
        level: Level,
        index: usize,
        pa: PhysAddr,
        nr: usize,
        allowed: LeafSet,
    ) -> Shape {
        let group = G::cont_entries(level);
        let head = index.wrapping_neg() & (group - 1);
        // Congruent: where the index is a multiple of the group, the output is one too.
        let congruent = ((pa.0 >> G::shift(level)) as usize ^ index) & (group - 1) == 0;
        if !self.groups_allowed(allowed, level) || !congruent || nr < head + group {
            return Shape {
                head: nr,
                grouped: 0,
                tail: 0,
            };
        }
        let grouped = (nr - head) & !(group - 1);
        Shape {
            head,
            grouped,
            tail: nr - head - grouped,
        }
    }

    /// The run at the current page, checked against the implemented physical addresses.
    #[inline(always)]
    fn run_at<S: PhysSource<G>>(
        &self,
        mapping: &mut Mapping<'_, S>,
        limit: u64,
    ) -> Result<(PhysAddr, u64), Error> {
        let page = mapping.page;
        let here = limit.min(mapping.remaining::<G>() >> G::PAGE_SHIFT);
        let run = match mapping.source.pfns(page, here) {
            Some(frames) if let Some(first) = frames.first() => Some(Run {
                pa: output::<G>(first.0),
                pages: if limit == 1 {
                    1
                } else {
                    let (from, pages, ended) = mapping.known;
                    // Before `from` this wraps, and is no part of it.
                    let left = pages.wrapping_sub(page.wrapping_sub(from));
                    if left.wrapping_sub(1) < pages && (ended || left >= here) {
                        left.min(here)
                    } else {
                        let found = self.tables.nr_consecutive(frames) as u64;
                        mapping.known = (page, found, found < here);
                        found
                    }
                },
            }),
            _ => mapping.source.run_at(page, limit),
        };
        let Some(run) = run else {
            return Err(Error::NoFrame { page });
        };
        let last = run.pa.0.wrapping_add((run.pages - 1) << G::PAGE_SHIFT);
        let bad = self.unimplemented_pa();
        if run.pa.0 & bad != 0 {
            return Err(Error::PhysicalRange(run.pa));
        }
        if last & bad != 0 {
            // Up to the first address that is not implemented: the next turn names it, whatever the source.
            let implemented = (1u64 << self.config().pa_bits) - run.pa.0;
            return Ok((run.pa, implemented >> G::PAGE_SHIFT));
        }
        Ok((run.pa, run.pages))
    }

    /// Whether nothing in `remaining` bytes from `va` on is taken, below `node`. Links to empty tables are vacant, but said.
    #[inline]
    fn check_vacant(
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
    fn clear_empty_links(&self, node: &Node, index: usize, nr: usize, va: VirtAddr) {
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
        batch.flush();
    }

    /// After a failure: takes out what was written, so that the tree is as before.
    #[cold]
    fn undo(&self, range: VirtRange, error: Error, pages: u64, levels: LevelMask) -> Failure {
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
            batch.flush();
            // The range is as valid as when the call began; other CPUs may be about to use a table that was made.
            let _ = self.prune(range);
        }
        Failure { error, levels }
    }
}

/// How many of `frames` come before the first that could be the head of a group of `group` pages, where the first of them is
/// at a group's boundary.
#[inline(always)]
fn pages_to_head(frames: &[Pfn], group: usize) -> usize {
    let mut heads = frames.iter().step_by(group);
    let place = heads.position(|head| head.0 & (group as u64 - 1) == 0);
    place.map_or(frames.len(), |place| place * group)
}

/// A run of descriptors, divided: single ones, whole groups, single ones.
#[derive(Clone, Copy)]
pub(crate) struct Shape {
    head: usize,
    grouped: usize,
    tail: usize,
}

impl Shape {
    /// Counts the leaves of `level` in `outcome`.
    #[inline(always)]
    pub(crate) fn count<G: Granule>(self, level: Level, outcome: &mut Outcome) {
        let groups = self.grouped >> G::cont_shift(level);
        let singles = self.head + self.tail;
        outcome.leaves.add(LeafSize::new(level, true), groups as u32);
        outcome.leaves.add(LeafSize::new(level, false), singles as u32);
    }
}

/// The type bits of a valid leaf of `level`.
#[inline(always)]
pub(crate) const fn valid_bits(level: Level) -> u64 {
    Descriptor::leaf(level, PhysAddr(0), Attributes::from_bits(0), false).0
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
    let mut source = PhysRange::new(pa, size >> G::PAGE_SHIFT);
    tree.map(VirtRange::new(va, size), &mut source, attributes, allowed)
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
