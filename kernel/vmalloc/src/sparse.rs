//! Sparse areas, mapped and unmapped in parts. Two calls may want the same leaf, so an area's busy
//! bit admits one at a time; others wait with interrupts enabled.

use crate::area::VmArea;
use crate::backend::{Backend, Lock};
use crate::error::Error;
use crate::live_batch::LiveBatch;
use crate::ram::{self, NoRam};
use crate::record::{self, Area, Head, Kind};
use crate::region::Vmalloc;
use paging::{
    Attributes, FrameArray, Granule, LAST_LEVEL, Outcome, PageArray, PhysSource, VirtAddr, VirtRange, Visit,
};

/// Others may not change the area's parts.
pub(crate) struct Busy<'a, B: Backend> {
    vm: &'a Vmalloc<B>,
    area: &'a Area,
}

impl<'a, B: Backend> Busy<'a, B> {
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
    fn part(&self, offset: u64, size: u64) -> Result<VirtRange, Error> {
        if self.kind() != Kind::Reserved {
            return Err(Error::wrong_kind::<B::Granule>(self.area(), Kind::Reserved));
        }
        self.pages_at(offset, size)
    }

    /// Maps `frames` at `offset` in a reserved area (Linux's `vm_area_map_pages`).
    /// [Waiting](crate#contexts): for other changes of the area's parts.
    ///
    /// # Errors
    ///
    /// [`Error::WrongKind`] for another kind of area, [`Error::Misaligned`], [`Error::Empty`],
    /// [`Error::OutOfBounds`]; [`Error::Ram`] if one is RAM and the attributes are not of its
    /// memory type; or [`Error::Map`].
    pub fn map_pages<A: FrameArray + ?Sized>(
        &self,
        offset: u64,
        frames: &A,
        attributes: Attributes,
    ) -> Result<Outcome, Error> {
        let most = u64::MAX >> B::Granule::PAGE_SHIFT;
        let size = (frames.nr_frames() as u64).min(most) << B::Granule::PAGE_SHIFT;
        let range = self.part(offset, size)?;
        let vm = self.vm;
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

    /// Unmaps pages in a reserved area, and flushes (Linux's `vm_area_unmap_pages`). Holes are
    /// passed over, larger leaves split, tables covered whole freed. [Waiting](crate#contexts).
    ///
    /// # Errors
    ///
    /// As [`map_pages`](Self::map_pages).
    pub fn unmap_pages(&self, offset: u64, size: u64) -> Result<Outcome, Error> {
        let range = self.part(offset, size)?;
        let vm = self.vm;
        vm.under_pressure(|| {
            let _busy = Busy::begin(vm, self.area());
            vm.unmap_part(self.area(), range)
        })
    }
}

impl<B: Backend> Vmalloc<B> {
    /// Empty tables of earlier parts are in a block's way.
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

    fn unmap_part(&self, area: &Area, range: VirtRange) -> Result<Outcome, Error> {
        let mut batch = LiveBatch::new(self, area);
        let outcome = batch.unmap(range)?;
        if self.shard_of(area).is_common() {
            self.prune_edges(area, range, &mut batch)?;
        }
        Ok(outcome)
    }

    /// Unlinks empty tables that `range` covers in part.
    fn prune_edges(&self, area: &Area, range: VirtRange, batch: &mut LiveBatch<'_, B>) -> Result<(), Error> {
        let whole = Self::whole(area);
        for level in [LAST_LEVEL - 1, LAST_LEVEL - 2] {
            let span = B::Granule::size(level);
            let first = range.start.align_down(span);
            let last = range.last().align_down(span);
            for at in [first, last] {
                let around = VirtRange::new(at, span);
                if whole.covers(around) && !range.covers(around) && (at == first || first != last) {
                    self.prune_table(around, batch)?;
                }
            }
        }
        Ok(())
    }

    /// Unlinks empty tables that `range` covers whole, the last level first.
    fn prune_part(&self, area: &Area, range: VirtRange) -> Result<(), Error> {
        let mut batch = LiveBatch::new(self, area);
        for level in [LAST_LEVEL - 1, LAST_LEVEL - 2] {
            let span = B::Granule::size(level);
            let mut at = VirtAddr(range.start.0.next_multiple_of(span));
            while range.contains(at) && range.end().offset_from(at) >= span {
                self.prune_table(VirtRange::new(at, span), &mut batch)?;
                at = at.add(span);
            }
        }
        Ok(())
    }

    /// No other call maps here.
    fn prune_table(&self, span: VirtRange, batch: &mut LiveBatch<'_, B>) -> Result<(), Error> {
        let mut is_empty = true;
        self.backend
            .tree()
            .visit(span, |_| {
                is_empty = false;
                Visit::Stop
            })
            .map_err(Error::Map)?;
        if is_empty {
            batch.unmap(span)?;
        }
        Ok(())
    }
}
