//! Sparse areas, which are mapped and unmapped in parts; and what keeps two calls from changing
//! parts of one area at once.
//!
//! Calls change tables side by side because each changes leaves of its own. Within one area two
//! calls may want the same pages, or parts of one leaf, which only one of them can split. So one
//! call at a time changes parts of an area: the busy bit in its words. Others wait, with interrupts
//! enabled.

use crate::area::VmArea;
use crate::backend::{Backend, Lock};
use crate::error::Error;
use crate::ram::{self, NoRam};
use crate::record::{self, Area, Head, Kind};
use crate::region::{Batch, Vmalloc};
use paging::{
    Attributes, FrameArray, Granule, LAST_LEVEL, Outcome, PageArray, PhysSource, VirtAddr, VirtRange, Visit,
};

/// No other call changes parts of the area until this is dropped.
pub(crate) struct Busy<'a, B: Backend> {
    vm: &'a Vmalloc<B>,
    area: &'a Area,
}

impl<'a, B: Backend> Busy<'a, B> {
    /// Waits until no other call changes parts of `area`.
    pub fn begin(vm: &'a Vmalloc<B>, area: &'a Area) -> Self {
        let shard = vm.shard_of(area);
        loop {
            let held = shard.state.lock();
            if !Head::of(area).is_busy() {
                record::set_busy(area, true);
                return Self { vm, area };
            }
            drop(held);
            vm.backend.relax();
        }
    }

    /// `area` is busy already, by this call.
    pub const fn adopt(vm: &'a Vmalloc<B>, area: &'a Area) -> Self {
        Self { vm, area }
    }
}

impl<B: Backend> Drop for Busy<'_, B> {
    fn drop(&mut self) {
        let _held = self.vm.shard_of(self.area).state.lock();
        record::set_busy(self.area, false);
    }
}

impl<B: Backend> VmArea<'_, B> {
    /// Returns the pages from `offset` on, `size` bytes, if they lie in a reserved area.
    fn part(&self, offset: u64, size: u64) -> Result<VirtRange, Error> {
        if self.kind() != Kind::Reserved {
            return Err(Error::WrongKind {
                area: self.info(),
                expected: Kind::Reserved,
            });
        }
        self.pages_at(offset, size)
    }

    /// Maps `frames` at `offset` in a reserved area: Linux's `vm_area_map_pages`. Where the
    /// attributes are executable, what the pages hold is
    /// [published](Backend::publish_instructions).
    ///
    /// [Waiting](crate#contexts): for what else changes parts of the area.
    ///
    /// # Errors
    /// [`Error::WrongKind`] for another kind of area, [`Error::Misaligned`], [`Error::Empty`],
    /// [`Error::OutOfBounds`]; [`Error::Ram`] if one of them is RAM and the attributes are not of
    /// its memory type; or [`Error::Map`].
    pub fn map_pages<A: FrameArray + ?Sized>(
        &self,
        offset: u64,
        frames: &A,
        attributes: Attributes,
    ) -> Result<Outcome, Error> {
        let most = u64::MAX >> B::Granule::PAGE_SHIFT;
        let size = (frames.nr_frames() as u64).min(most) << B::Granule::PAGE_SHIFT;
        let range = self.part(offset, size)?;
        let vm = self.manager();
        let result = vm.under_pressure(|| {
            let _busy = Busy::begin(vm, self.area());
            record::set_permissions_changed(self.area());
            let mut source = PageArray::new(frames);
            if ram::may_be(attributes) {
                return vm.map_part(self.area(), range, &mut source, attributes);
            }
            let mut source = NoRam::new(&vm.backend, source);
            vm.map_part(self.area(), range, &mut source, attributes)
                .map_err(|error| source.refusal(error))
        });
        if result.is_ok() && attributes.is_executable() {
            vm.backend.publish_instructions(range);
        }
        result
    }

    /// Unmaps the pages at `offset` in a reserved area, and flushes: Linux's `vm_area_unmap_pages`.
    /// Holes are passed over; a larger leaf that the part cuts is split. Tables that the part
    /// covers whole go.
    ///
    /// [Waiting](crate#contexts): for what else changes parts of the area; flushes before it
    /// returns.
    ///
    /// # Errors
    /// As [`map_pages`](Self::map_pages).
    pub fn unmap_pages(&self, offset: u64, size: u64) -> Result<Outcome, Error> {
        let range = self.part(offset, size)?;
        let vm = self.manager();
        vm.under_pressure(|| {
            let _busy = Busy::begin(vm, self.area());
            vm.unmap_part(self.area(), range)
        })
    }
}

impl<B: Backend> Vmalloc<B> {
    /// Maps a part of `area`, which is busy. An empty table of an earlier part may be where a block
    /// would go: that is taken out first.
    fn map_part<S: PhysSource<B::Granule>>(
        &self,
        area: &Area,
        range: VirtRange,
        source: &mut S,
        attributes: Attributes,
    ) -> Result<Outcome, Error> {
        let (tree, leaves) = (self.backend.tree(), self.config.leaves);
        let mut mapped = tree.map(range, source, attributes, leaves);
        if matches!(&mapped, Err(failure) if matches!(failure.error, paging::Error::EmptyTable { .. })) {
            self.prune_part(area, range)?;
            source.rewind();
            mapped = tree.map(range, source, attributes, leaves);
        }
        mapped.map_err(Error::of_map::<B::Granule>)
    }

    /// Calls `step` for the parts of `range` that lie in one span, each with the lock of the area's
    /// shard held: what looks at the area does so under that lock, and finds a table that goes
    /// before it does, or not at all.
    fn by_spans(
        &self,
        area: &Area,
        range: VirtRange,
        mut step: impl FnMut(VirtRange) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let shard = self.shard_of(area);
        let span = B::Granule::size(LAST_LEVEL - 1);
        let mut at = range.start;
        while range.contains(at) {
            let size = (span - (at.0 & (span - 1))).min(range.end().offset_from(at));
            let _held = shard.state.lock();
            step(VirtRange::new(at, size))?;
            at = at.add(size);
        }
        Ok(())
    }

    /// Unmaps and flushes a part of `area`, which is busy.
    fn unmap_part(&self, area: &Area, range: VirtRange) -> Result<Outcome, Error> {
        let tree = self.backend.tree();
        // Only what the ends cut may need a table, so both are cut before anything is unmapped.
        let mut batch = tree.batch();
        let mut outcome = tree.split(range, &mut batch)?;
        outcome.leaves = paging::LeafCounts::default();
        self.by_spans(area, range, |part| {
            outcome.merge(&tree.unmap(part, &mut batch)?);
            Ok(())
        })?;
        if self.shard_of(area).is_common() {
            // Of the tables that it covers in part, those may be empty now.
            self.prune_edges(area, range, &mut batch)?;
        }
        batch.flush();
        Ok(outcome)
    }

    /// Takes the tables out that `range` of `area`, which is busy, covers in part, and that are
    /// empty.
    fn prune_edges(&self, area: &Area, range: VirtRange, batch: &mut Batch<'_, B>) -> Result<(), Error> {
        let whole = Self::whole(area);
        for level in [LAST_LEVEL - 1, LAST_LEVEL - 2] {
            let span = B::Granule::size(level);
            let first = range.start.align_down(span);
            let last = range.last().align_down(span);
            for at in [first, last] {
                let around = VirtRange::new(at, span);
                if whole.covers(around) && !range.covers(around) && (at == first || first != last) {
                    self.prune_table(area, around, batch)?;
                }
            }
        }
        Ok(())
    }

    /// Takes the tables out that translate nothing but a part of `area`, which is busy, and are
    /// empty: those of the last level first, then those above.
    fn prune_part(&self, area: &Area, range: VirtRange) -> Result<(), Error> {
        let tree = self.backend.tree();
        let mut batch = tree.batch();
        for level in [LAST_LEVEL - 1, LAST_LEVEL - 2] {
            let span = B::Granule::size(level);
            let mut at = VirtAddr(range.start.0.next_multiple_of(span));
            while range.contains(at) && range.end().offset_from(at) >= span {
                self.prune_table(area, VirtRange::new(at, span), &mut batch)?;
                at = at.add(span);
            }
        }
        batch.flush();
        Ok(())
    }

    /// Takes out the table that translates `span`, all of it of `area`, which is busy, if there is
    /// one and it is empty.
    fn prune_table(&self, area: &Area, span: VirtRange, batch: &mut Batch<'_, B>) -> Result<(), Error> {
        // With the lock held, as `by_spans`. No other call maps here meanwhile.
        let _held = self.shard_of(area).state.lock();
        let mut is_empty = true;
        let tree = self.backend.tree();
        tree.visit(span, |_| {
            is_empty = false;
            Visit::Stop
        })
        .map_err(Error::Map)?;
        if is_empty {
            self.unmap_all(span, batch);
        }
        Ok(())
    }
}
