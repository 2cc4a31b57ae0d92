//! [`VmArea`]: an area as its owner holds it.

use crate::backend::Backend;
use crate::error::Error;
use crate::record::{self, Area, AreaInfo, Head, Kind};
use crate::region::Vmalloc;
use core::fmt;
use core::mem::ManuallyDrop;
use core::panic::Location;
use paging::{Granule, Outcome, PhysAddr, VirtAddr, VirtRange};

/// An area and what is mapped there. Dropping it frees all of it.
#[must_use = "the area is freed where this is dropped, which is here"]
pub struct VmArea<'v, B: Backend> {
    pub(crate) vm: &'v Vmalloc<B>,
    /// `None` only after [`into_raw`](Self::into_raw).
    area: Option<Area>,
    range: VirtRange,
    offset: u64,
    outcome: Outcome,
}

impl<'v, B: Backend> VmArea<'v, B> {
    #[inline(always)]
    pub(crate) const fn new(
        vm: &'v Vmalloc<B>,
        area: Area,
        range: VirtRange,
        offset: u64,
        outcome: &Outcome,
    ) -> Self {
        Self {
            vm,
            range,
            area: Some(area),
            offset,
            outcome: outcome.copied(),
        }
    }

    pub(crate) fn adopt(vm: &'v Vmalloc<B>, area: Area) -> Self {
        let range = record::range::<B::Granule>(&area);
        Self::new(vm, area, range, 0, &Outcome::default())
    }

    /// Returns the address, with the offset of a physical range.
    #[must_use]
    pub fn va(&self) -> VirtAddr {
        self.range.start.add(self.offset)
    }

    /// Returns the address as a pointer. Its user upholds what the memory is for.
    #[must_use]
    pub fn as_ptr(&self) -> *mut u8 {
        core::ptr::with_exposed_provenance_mut(self.va().0 as usize)
    }

    pub(crate) fn area(&self) -> &Area {
        match &self.area {
            Some(area) => area,
            None => unreachable!("only what consumes the handle takes the area out of it"),
        }
    }

    /// Returns the bytes asked for.
    #[must_use]
    pub fn size(&self) -> u64 {
        Head::of(self.area()).size()
    }

    /// Returns the pages, without guards.
    #[must_use]
    pub fn range(&self) -> VirtRange {
        self.range
    }

    /// Returns what it is for.
    #[must_use]
    pub fn kind(&self) -> Kind {
        Head::of(self.area()).kind()
    }

    /// Returns what mapping it took.
    #[must_use]
    pub fn outcome(&self) -> &Outcome {
        &self.outcome
    }

    /// Returns the physical address at `offset`, without a lock.
    #[must_use]
    pub fn translate(&self, offset: u64) -> Option<PhysAddr> {
        if offset >= self.size() {
            return None;
        }
        let va = self.va().add(offset);
        Some(self.vm.backend.tree().translate(va)?.translate(va))
    }

    /// Leaves the area to the holder of its address, for `vfree`, `vunmap`, `iounmap` or
    /// `free_vm_area`. Any [context](crate#contexts).
    #[inline]
    pub fn into_raw(self) -> VirtAddr {
        let va = self.va();
        if let Some(area) = self.into_area() {
            area.entrust();
        }
        va
    }

    /// Frees it as a drop does, and records the caller. [Waiting](crate#contexts); elsewhere
    /// [`free_atomic`](Self::free_atomic).
    #[track_caller]
    #[inline(always)]
    pub fn free(self) {
        self.free_for(Location::caller());
    }

    /// Frees the area in any context. Never waits (a drop does).
    ///
    /// # Errors
    ///
    /// The area, if its pages are a caller's, who would not expect them to stay mapped.
    #[track_caller]
    pub fn free_atomic(self) -> Result<(), Self> {
        if !Head::of(self.area()).can_wait() {
            return Err(self);
        }
        let by = Location::caller();
        let vm = self.vm;
        if let Some(area) = self.into_area() {
            vm.defer(area, by);
        }
        Ok(())
    }

    #[inline(always)]
    pub(crate) fn into_area(self) -> Option<Area> {
        ManuallyDrop::new(self).area.take()
    }

    #[inline(always)]
    pub(crate) fn free_for(self, caller: &'static Location<'static>) {
        let (vm, range) = (self.vm, self.range);
        if let Some(area) = self.into_area() {
            vm.free_area(area, range, caller);
        }
    }

    /// Returns what [`Vmalloc::find_vm_area`] does.
    #[must_use]
    pub fn info(&self) -> AreaInfo {
        match record::info::<B::Granule>(self.area()) {
            Some(info) => info,
            None => unreachable!("an area without a caller"),
        }
    }

    pub(crate) fn pages_at(&self, offset: u64, size: u64) -> Result<VirtRange, Error> {
        let start = self.range.start.add(offset);
        if !(start.0 | size).is_multiple_of(B::Granule::PAGE_SIZE) {
            return Err(Error::Misaligned(start.add(size)));
        }
        if size == 0 {
            return Err(Error::Empty);
        }
        if size > self.range.size || offset > self.range.size - size {
            return Err(Error::OutOfBounds {
                offset,
                size,
                area: self.info(),
            });
        }
        Ok(VirtRange::new(start, size))
    }
}

impl<B: Backend> Drop for VmArea<'_, B> {
    fn drop(&mut self) {
        if let Some(area) = self.area.take() {
            self.vm.free_area(area, self.range, Location::caller());
        }
    }
}

impl<B: Backend> fmt::Debug for VmArea<'_, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {:?} ({:#x} bytes)", self.kind(), self.range, self.size())
    }
}
