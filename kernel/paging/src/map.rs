//! `map`: the one walker. Checks that the range is vacant, then fills table after table: one DSB
//! ISHST, one ISB (DESIGN rule 2). A failure is undone and flushed (rule 7).

use crate::addr::{Pfn, PhysAddr, VirtAddr, VirtRange};
use crate::descriptor::{Attributes, Descriptor};
use crate::edit::Change;
use crate::granule::{Granule, LAST_LEVEL, Level};
use crate::leaf::Leaves;
use crate::mmu::Mmu;
use crate::outcome::{Error, Failure, LeafSet, LeafSize, LevelMask, Outcome};
use crate::source::{FrameArray, PageArray, PhysRange, PhysSource, Piece, Run, output};
use crate::tables::Tables;
use crate::trace;
use crate::tree::{Node, Slot, Tree, level_around, refusal};
use crate::walk::Visit;

struct Mapping {
    range: VirtRange,
    attributes: Attributes,
    allowed: LeafSet,
    /// It holds all of the range.
    top: Node,
    /// The table filled last.
    node: Node,
    done: u64,
    /// All are empty.
    has_tables: bool,
}

impl Mapping {
    #[inline(always)]
    const fn va(&self) -> VirtAddr {
        self.range.start.add(self.done)
    }
}

impl<G: Granule, T: Tables, M: Mmu> Tree<G, T, M> {
    /// Maps `range` to the pages of `source`, in order, with the largest legal leaves in `allowed`.
    /// Granularity: a page.
    ///
    /// # Errors
    /// [`Error::Empty`], [`Error::Misaligned`], [`Error::NonCanonical`] for the range;
    /// [`Error::NoFrame`] if the source is shorter or lacks a page; [`Error::PhysicalRange`] for an
    /// address not page-aligned or beyond [`Config::pa_bits`](crate::Config::pa_bits);
    /// [`Error::Occupied`] if anything is mapped; [`Error::EmptyTable`] if a [`prune`](Self::prune)
    /// is needed; [`Error::WritableExecutable`]; [`Error::OutOfTables`]. Nothing is mapped then;
    /// new tables stay linked ([`Failure::tables_left`]).
    #[cfg_attr(feature = "trace", inline(never))]
    pub fn map<S: PhysSource<G>>(
        &self,
        range: VirtRange,
        source: &mut S,
        attributes: Attributes,
        allowed: LeafSet,
    ) -> Result<Outcome, Failure> {
        let source = source.passed();
        // For constant shifts.
        match level_around::<G>(range) {
            3 => self.walk_under::<3, _>(range, source, attributes, allowed),
            2 => self.walk_under::<2, _>(range, source, attributes, allowed),
            1 => self.walk_under::<1, _>(range, source, attributes, allowed),
            -1 if const { G::ROOT_LEVEL < 0 } => self.walk_under::<-1, _>(range, source, attributes, allowed),
            _ => self.walk_under::<0, _>(range, source, attributes, allowed),
        }
    }

    #[inline(never)]
    fn walk_under<const TOP: Level, S: PhysSource<G>>(
        &self,
        range: VirtRange,
        mut source: S,
        attributes: Attributes,
        allowed: LeafSet,
    ) -> Result<Outcome, Failure> {
        if !self.is_valid::<TOP>(range) {
            return Err(refusal::<G>(range).into());
        }
        if attributes.is_writable_and_executable() {
            return Err(Error::WritableExecutable(range.start).into());
        }
        let mut mapping = Mapping {
            range,
            attributes,
            allowed: allowed.intersection(self.config().leaves).below(TOP),
            top: self.root_node(),
            node: self.root_node(),
            done: 0,
            has_tables: false,
        };
        let mut outcome = Outcome::default();
        match self.write_pieces::<TOP, S>(&mut mapping, &mut source, &mut outcome) {
            Ok(()) => {
                // DESIGN rule 2, Arm ARM K13.5.3: descriptors are complete before a walk needs
                // them, and this CPU drops an invalid one.
                self.mmu.dsb_ishst();
                self.mmu.isb();
                Ok(outcome.copied())
            }
            Err(error) => {
                let written = VirtRange::new(range.start, mapping.done);
                Err(self.undo(written, error, outcome.levels, outcome.tables_added))
            }
        }
    }

    #[inline(always)]
    fn write_pieces<const TOP: Level, S: PhysSource<G>>(
        &self,
        mapping: &mut Mapping,
        source: &mut S,
        outcome: &mut Outcome,
    ) -> Result<(), Error> {
        let range = mapping.range;
        let pages = range.size >> G::PAGE_SHIFT;
        if source.pages() < pages {
            return Err(Error::NoFrame { page: source.pages() });
        }
        trace::level::<G>(self.root_node(), range);
        mapping.top = self.table_at(self.root_node(), TOP, range, outcome)?;
        mapping.node = mapping.top;
        mapping.has_tables = self.check_vacant(mapping.top, range)?;
        let mut page = 0;
        loop {
            match source.piece_at(page, pages - page, mapping.va()) {
                Some(Piece::Run(run)) => self.write_run::<TOP>(mapping, run, outcome)?,
                Some(Piece::Frames(frames)) => {
                    if !self.begin_groups(mapping.va(), frames, mapping.allowed)
                        || !self.write_groups::<TOP>(mapping, frames, outcome)?
                    {
                        self.write_run::<TOP>(mapping, self.run_of(frames), outcome)?;
                    }
                }
                Some(Piece::Singles(frames)) => self.write_singles::<TOP>(mapping, frames, outcome)?,
                None => return Err(Error::NoFrame { page }),
            }
            page = mapping.done >> G::PAGE_SHIFT;
            if page == pages {
                break;
            }
        }
        Ok(())
    }

    #[inline(always)]
    fn run_of(&self, frames: &[Pfn]) -> Run {
        let group = G::cont_entries(LAST_LEVEL);
        let goes_on = frames
            .get(group)
            .is_none_or(|next| next.0.wrapping_sub(frames[0].0) == group as u64);
        let frames = if goes_on { frames } else { &frames[..group] };
        Run {
            pa: output::<G>(frames[0].0),
            pages: self.tables.nr_consecutive(frames) as u64,
        }
    }

    /// And not with a block.
    #[inline(never)]
    fn begin_groups(&self, va: VirtAddr, frames: &[Pfn], allowed: LeafSet) -> bool {
        let (groups, head) = (self.page_groups(), frames[0].0);
        let group = groups.frames as u64;
        let goes_on = |next: &Pfn| next.0.wrapping_sub(head) == group;
        let block = G::table_span(LAST_LEVEL);
        let begins_block =
            (va.0 | output::<G>(head).0) & (block - 1) == 0 && frames.get(groups.frames).is_some_and(goes_on);
        if begins_block || head & groups.head_mask != 0 {
            return false;
        }
        // The least alignment of a group.
        let (pa, bytes) = (output::<G>(head | group), group << G::PAGE_SHIFT);
        G::leaves(va, pa, bytes, allowed).first() == LeafSize::PAGE_GROUP
    }

    #[inline(always)]
    fn write_groups<const TOP: Level>(
        &self,
        mapping: &mut Mapping,
        frames: &[Pfn],
        outcome: &mut Outcome,
    ) -> Result<bool, Error> {
        let (va, leaf) = (mapping.va(), LeafSize::PAGE_GROUP);
        let node = self.enter::<TOP>(mapping, LAST_LEVEL, outcome)?;
        let index = G::index(va.0, LAST_LEVEL);
        let here = &frames[..frames.len().min(G::ENTRIES - index)];
        let groups = self.page_groups();
        trace::frames::<G>(va, here, Some(groups), (mapping.range, mapping.allowed));
        let template = Descriptor::leaf::<G>(LAST_LEVEL, PhysAddr(0), mapping.attributes, true);
        let nr = self
            .tables
            .fill_groups(node.table, index, here, groups, template.0);
        outcome.levels.insert(LAST_LEVEL);
        outcome.leaves.add(leaf, (nr / leaf.descriptors::<G>()) as u32);
        mapping.done += (nr as u64) << G::PAGE_SHIFT;
        Ok(nr != 0)
    }

    #[inline(always)]
    fn write_run<const TOP: Level>(
        &self,
        mapping: &mut Mapping,
        run: Run,
        outcome: &mut Outcome,
    ) -> Result<(), Error> {
        let (mut pa, mut left) = (run.pa, run.pages << G::PAGE_SHIFT);
        if (pa.0 | pa.0.wrapping_add(left - G::PAGE_SIZE)) & self.unimplemented_pa() != 0 {
            // The source is asked again for the rest, so that each fails alike.
            left = self.implemented_part(pa);
            if left == 0 {
                return Err(Error::PhysicalRange(pa));
            }
        }
        loop {
            let leaves = G::leaves(mapping.va(), pa, left, mapping.allowed);
            let bytes = match leaves.level {
                0 if TOP <= 0 => self.write_leaves::<TOP, 0>(mapping, pa, leaves, outcome)?,
                1 if TOP <= 1 => self.write_leaves::<TOP, 1>(mapping, pa, leaves, outcome)?,
                2 if TOP <= 2 => self.write_leaves::<TOP, 2>(mapping, pa, leaves, outcome)?,
                _ => self.write_leaves::<TOP, 3>(mapping, pa, leaves, outcome)?,
            };
            pa = pa.add(bytes);
            left -= bytes;
            if left == 0 {
                return Ok(());
            }
        }
    }

    #[inline(always)]
    fn write_leaves<const TOP: Level, const LEVEL: Level>(
        &self,
        mapping: &mut Mapping,
        pa: PhysAddr,
        leaves: Leaves,
        outcome: &mut Outcome,
    ) -> Result<u64, Error> {
        let leaves = Leaves {
            level: LEVEL,
            ..leaves
        };
        let va = mapping.va();
        let node = self.enter::<TOP>(mapping, LEVEL, outcome)?;
        if LEVEL < LAST_LEVEL && mapping.has_tables {
            self.check_no_table(node, va, leaves.nr)?;
        }
        trace::leaves::<G>(va, pa, leaves, (mapping.range, mapping.allowed));
        let template = Descriptor::leaf::<G>(LEVEL, PhysAddr(0), mapping.attributes, false);
        self.fill(node.table, va, G::encode(pa) | template.0, leaves);
        outcome.levels.insert(LEVEL);
        leaves.count::<G>(&mut outcome.leaves);
        let bytes = leaves.bytes::<G>();
        mapping.done += bytes;
        Ok(bytes)
    }

    #[inline(always)]
    fn write_singles<const TOP: Level>(
        &self,
        mapping: &mut Mapping,
        frames: &[Pfn],
        outcome: &mut Outcome,
    ) -> Result<(), Error> {
        let (mut left, mut result) = (frames, Ok(()));
        // Rotated as by `output`.
        let bad = self.unimplemented_pa().rotate_right(G::PAGE_SHIFT);
        if self.tables.or_of_frames(frames) & bad != 0 {
            (left, result) = implemented_frames::<G>(frames, bad);
        }
        let leaf = LeafSize::PAGE;
        while !left.is_empty() {
            let va = mapping.va();
            let node = self.enter::<TOP>(mapping, LAST_LEVEL, outcome)?;
            let index = G::index(va.0, LAST_LEVEL);
            let (here, rest) = left.split_at((G::ENTRIES - index).min(left.len()));
            trace::frames::<G>(va, here, None, (mapping.range, mapping.allowed));
            let template = Descriptor::leaf::<G>(LAST_LEVEL, PhysAddr(0), mapping.attributes, false);
            self.fill_frames(node.table, index, here, template.0);
            outcome.levels.insert(LAST_LEVEL);
            outcome.leaves.add(leaf, here.len() as u32);
            mapping.done += (here.len() as u64) << G::PAGE_SHIFT;
            left = rest;
        }
        result
    }

    /// For the next address.
    #[inline(always)]
    fn enter<const TOP: Level>(
        &self,
        mapping: &mut Mapping,
        level: Level,
        outcome: &mut Outcome,
    ) -> Result<Node, Error> {
        if level == TOP {
            return Ok(mapping.top);
        }
        let va = mapping.va();
        let starts_table = mapping.done != 0 && va.0 & (G::table_span(level) - 1) == 0;
        if level != mapping.node.level || starts_table {
            let rest = VirtRange::new(va, mapping.range.size - mapping.done);
            mapping.node = self.table_at(mapping.top, level, rest, outcome)?;
        }
        Ok(mapping.node)
    }

    /// [`Error::Occupied`] if the range is mapped.
    #[inline]
    fn check_vacant(&self, node: Node, range: VirtRange) -> Result<bool, Error> {
        let (VirtRange { start, size }, shift) = (range, G::shift(node.level));
        let nr = if node.level == LAST_LEVEL {
            size >> shift
        } else {
            (range.last().0 >> shift) - (start.0 >> shift) + 1
        };
        if self.are_vacant(node, G::index(start.0, node.level), nr as usize) {
            return Ok(false);
        }
        self.check_each_vacant(node, range)
    }

    #[cold]
    #[inline(never)]
    fn check_each_vacant(&self, node: Node, range: VirtRange) -> Result<bool, Error> {
        let (level, mut has_tables) = (node.level, false);
        let mut rest = range;
        while let Some(Slot { part, found, .. }) = self.next_slot(node, &mut rest) {
            if found.is_table(level) {
                has_tables = true;
                self.check_vacant(self.child(node, found), part)?;
            } else if !found.is_vacant() {
                let va = part.start;
                return Err(Error::Occupied { va, level, found });
            }
        }
        Ok(has_tables)
    }

    /// Only [`prune`](Self::prune) may unlink them.
    #[cold]
    #[inline(never)]
    fn check_no_table(&self, node: Node, va: VirtAddr, nr: usize) -> Result<(), Error> {
        let level = node.level;
        let index = G::index(va.0, level);
        for i in 0..nr {
            if self.load(node.table, index + i).is_table(level) {
                let va = va.add((i as u64) << G::shift(level));
                return Err(Error::EmptyTable { va, level });
            }
        }
        Ok(())
    }

    /// In bytes, from `pa` on.
    #[cold]
    #[inline(never)]
    fn implemented_part(&self, pa: PhysAddr) -> u64 {
        let to_end = (1u64 << self.config().pa_bits).saturating_sub(pa.0);
        to_end * u64::from(pa.is_aligned(G::PAGE_SIZE))
    }

    /// Takes out what was written. Tables stay: others may use them.
    #[cold]
    #[inline(never)]
    fn undo(&self, written: VirtRange, error: Error, levels: LevelMask, tables_left: u32) -> Failure {
        let mut batch = self.batch();
        let mut change = Change::new(written, batch.pending_mut());
        // A speculative walk may have cached them (DESIGN rule 6).
        self.visit_table(self.root_node(), written, &mut |table, leaf| {
            let level = leaf.size.level();
            let index = G::index(leaf.va.0, level);
            self.clear(Node { table, level }, index, leaf.size.descriptors::<G>());
            change.record(leaf.range::<G>(), leaf.size, 1, leaf.valid, false);
            Visit::Continue
        });
        if tables_left != 0 {
            // The links that stay must be complete, too (rule 2).
            change.pending.publish();
        }
        batch.flush();
        Failure {
            error,
            levels,
            tables_left,
        }
    }
}

/// And the error for that.
#[cold]
#[inline(never)]
fn implemented_frames<G: Granule>(frames: &[Pfn], bad: u64) -> (&[Pfn], Result<(), Error>) {
    let good = frames.iter().take_while(|frame| frame.0 & bad == 0).count();
    let odd = frames.get(good).map_or(0, |frame| frame.0);
    (&frames[..good], Err(Error::PhysicalRange(output::<G>(odd))))
}

/// Maps one contiguous physical range, as Linux's walker for ioremap.
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

/// Maps an array of pages, as Linux's walker for vmap and vmalloc.
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
