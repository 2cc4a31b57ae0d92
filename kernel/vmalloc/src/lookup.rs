//! What is at an address, and giving back by address.

use crate::backend::{Backend, Lock, WalkLock};
use crate::error::Error;
use crate::record::{self, Area, AreaInfo, Kind};
use crate::state::{State, Vmalloc};
use crate::va::{self, Vpn};
use core::panic::Location;
use paging::{Granule, Pfn, PhysAddr, VirtAddr};

impl<B: Backend> Vmalloc<B> {
    /// Whether `va` is in the region.
    ///
    /// Any [context](crate#contexts).
    #[inline]
    pub fn is_vmalloc_addr(&self, va: VirtAddr) -> bool {
        self.range().contains(va)
    }

    /// The area in use whose pages hold `va`, guards not counted.
    ///
    /// [Waiting](crate#contexts): for the state lock.
    pub fn find_vm_area(&self, va: VirtAddr) -> Option<AreaInfo> {
        let page = Vpn(va.0 >> B::Granule::PAGE_SHIFT);
        let segment = self.state.lock().space.find(page)?;
        let live = segment.state.is_live() && record::is_ready(&segment.words);
        (live && segment.contains(page))
            .then(|| record::info::<B::Granule>(&segment))
            .flatten()
    }

    /// The first area in use that begins at `va` or above: for listings, which hold no lock between one area and the next.
    ///
    /// [Waiting](crate#contexts): for the state lock.
    pub fn next_vm_area(&self, va: VirtAddr) -> Option<AreaInfo> {
        let from = if self.range().contains(va) {
            va
        } else if va < self.range().start {
            self.range().start
        } else {
            return None;
        };
        let page = Vpn(from.0 >> B::Granule::PAGE_SHIFT);
        let state = self.state.lock();
        state
            .space
            .segments_from(page)
            .filter(|segment| segment.state.is_live() && record::is_ready(&segment.words))
            .filter_map(|segment| record::info::<B::Granule>(&segment))
            .find(|area| area.va >= va)
    }

    /// The physical address that the area of an ioremap begins at.
    ///
    /// [Waiting](crate#contexts): for the state lock.
    pub fn physical_address(&self, va: VirtAddr) -> Option<PhysAddr> {
        let page = Vpn(va.0 >> B::Granule::PAGE_SHIFT);
        let segment = self.state.lock().space.find(page)?;
        (segment.state.is_live() && segment.contains(page))
            .then(|| record::physical(&segment.words))
            .flatten()
    }

    /// What `va` is mapped to.
    #[inline]
    pub(crate) fn translate(&self, va: VirtAddr) -> Option<PhysAddr> {
        let _walk = self.backend.walks().walk();
        let leaf = self.backend.tree().translate(va)?;
        Some(leaf.translate(va))
    }

    /// The frame that `va` is mapped to, in leaves of any size.
    ///
    /// [Waiting](crate#contexts): shares the walk lock.
    ///
    /// # Errors
    /// [`Error::Outside`], [`Error::NotMapped`].
    pub fn vmalloc_to_pfn(&self, va: VirtAddr) -> Result<Pfn, Error> {
        if !self.is_vmalloc_addr(va) {
            return Err(Error::Outside(va));
        }
        let pa = self.translate(va).ok_or(Error::NotMapped(va))?;
        Ok(Pfn(pa.0 >> B::Granule::PAGE_SHIFT))
    }

    /// Gives back memory of [`vmalloc`](Self::vmalloc) and its kin, or a stack.
    ///
    /// [Waiting](crate#contexts); for other contexts see [`vfree_atomic`](Self::vfree_atomic). Takes the state lock to find the area, shares the walk lock to unmap it, takes this CPU's
    /// lock to give its addresses back. Under a lazy policy the flush, the frames and the addresses wait for a purge; the call that reaches a
    /// limit makes it, under the purge lock. An area that a `set_memory_*` changed is flushed at once, with all walks kept out.
    ///
    /// # Errors
    /// [`Error::Misaligned`] or [`Error::Outside`] for an address that cannot be; [`Error::Freed`] for one that was freed
    /// already, naming the area and who freed it; [`Error::NoArea`], [`Error::Interior`], [`Error::Guard`],
    /// [`Error::Owned`], [`Error::WrongKind`]. Nothing has changed then.
    ///
    /// # Safety
    /// An address that is refused takes no promise. If an area of the right kind was made [raw](crate::VmArea::into_raw) there, then, as for `Box::from_raw`:
    /// 1. it is the caller's to end;
    /// 2. nothing is used any more that lies in it: no reference, no stack, no code, on any CPU.
    #[track_caller]
    pub unsafe fn vfree(&self, va: VirtAddr) -> Result<(), Error> {
        self.free(va, Kind::Vmalloc, Location::caller())
    }

    /// Gives back a mapping of [`vmap`](Self::vmap) and its kin. The pages stay their owner's.
    ///
    /// [Waiting](crate#contexts), as [`vfree`](Self::vfree), but flushed before it returns under any policy.
    ///
    /// # Errors
    /// As [`vfree`](Self::vfree).
    ///
    /// # Safety
    /// As [`vfree`](Self::vfree).
    #[track_caller]
    pub unsafe fn vunmap(&self, va: VirtAddr) -> Result<(), Error> {
        self.free(va, Kind::Vmap, Location::caller())
    }

    /// Gives back a mapping of [`ioremap`](Self::ioremap) and its kin. `va` may be any address of its first page.
    ///
    /// [Waiting](crate#contexts), as [`vfree`](Self::vfree).
    ///
    /// # Errors
    /// As [`vfree`](Self::vfree).
    ///
    /// # Safety
    /// As [`vfree`](Self::vfree).
    #[track_caller]
    pub unsafe fn iounmap(&self, va: VirtAddr) -> Result<(), Error> {
        let first = va.align_down(B::Granule::PAGE_SIZE);
        self.free(first, Kind::Ioremap, Location::caller())
    }

    /// Gives back what [`get_vm_area`](Self::get_vm_area) reserved, and unmaps whatever is mapped there.
    ///
    /// [Waiting](crate#contexts), as [`vunmap`](Self::vunmap). If no page was ever mapped there, nothing is flushed.
    ///
    /// # Errors
    /// As [`vfree`](Self::vfree).
    ///
    /// # Safety
    /// As [`vfree`](Self::vfree).
    #[track_caller]
    pub unsafe fn free_vm_area(&self, va: VirtAddr) -> Result<(), Error> {
        self.free(va, Kind::Reserved, Location::caller())
    }

    pub(crate) fn free(
        &self,
        va: VirtAddr,
        expected: Kind,
        by: &'static Location<'static>,
    ) -> Result<(), Error> {
        if !va.is_aligned(B::Granule::PAGE_SIZE) {
            return Err(Error::Misaligned(va));
        }
        if !self.is_vmalloc_addr(va) {
            return Err(Error::Outside(va));
        }
        let mut state = self.state.lock();
        let claimed = Self::claim(&mut state, va, expected);
        drop(state);
        self.give_back(claimed?, by);
        Ok(())
    }

    /// Takes the area of kind `expected` that begins at `va` away from whoever knows its address.
    pub(crate) fn claim(state: &mut State<B::Granule>, va: VirtAddr, expected: Kind) -> Result<Area, Error> {
        let page = Vpn(va.0 >> B::Granule::PAGE_SHIFT);
        let area = match state.space.claim(page) {
            Ok(area) => area,
            Err(error) => return Err(Self::explain(state, va, error)),
        };
        let kind = record::kind(&area);
        if kind == expected || (kind, expected) == (Kind::Stack, Kind::Vmalloc) {
            return Ok(area);
        }
        state.space.entrust(area);
        Err(match Self::info_at(state, page) {
            Some(area) => Error::WrongKind { area, expected },
            None => Error::NoArea(va),
        })
    }

    fn info_at(state: &State<B::Granule>, page: Vpn) -> Option<AreaInfo> {
        record::info::<B::Granule>(&state.space.find(page)?)
    }

    /// Says in words of areas why the address space refused to give up `va`.
    #[cold]
    pub(crate) fn explain(state: &State<B::Granule>, va: VirtAddr, error: va::Error) -> Error {
        let page = Vpn(va.0 >> B::Granule::PAGE_SHIFT);
        let segment = state.space.find(page);
        let area = || segment.as_ref().and_then(record::info::<B::Granule>);
        let explained = match error {
            va::Error::Interior { .. } => area().map(|area| Error::Interior { va, area }),
            va::Error::Guard { .. } => area().map(|area| Error::Guard { va, area }),
            va::Error::Owned { .. } => area().map(Error::Owned),
            va::Error::Freed { .. } => segment
                .as_ref()
                .filter(|segment| segment.state != va::State::Taken)
                .and_then(record::freed::<B::Granule>)
                .map(Error::Freed),
            va::Error::Outside(_) => Some(Error::Outside(va)),
            _ => state.recall(va).map(Error::Freed),
        };
        explained.unwrap_or(Error::NoArea(va))
    }
}
