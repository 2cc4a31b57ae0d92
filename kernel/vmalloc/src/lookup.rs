//! Lookups by address, and frees by address.

use crate::backend::{Backend, Lock};
use crate::error::Error;
use crate::record::{self, Area, AreaInfo, Head, Kind, WORDS};
use crate::region::Context;
use crate::region::Vmalloc;
use crate::shard::State;
use crate::va::{Segment, Unclaimed, Vpn};
use core::panic::Location;
use paging::{Granule, Leaf, Pfn, PhysAddr, VirtAddr};

impl<B: Backend> Vmalloc<B> {
    /// Returns whether `va` is in the region.
    ///
    /// Any [context](crate#contexts).
    #[inline]
    pub fn is_vmalloc_addr(&self, va: VirtAddr) -> bool {
        self.range().contains(va)
    }

    /// Returns what is at `va`, if an area in use that may be told of has that page. `look` is
    /// called with the lock of its shard held: as long as it is, the area is not unmapped, and
    /// neither its tables nor its frames go back.
    #[inline]
    pub(crate) fn look_at<R>(
        &self,
        va: VirtAddr,
        look: impl FnOnce(&Segment<WORDS>) -> Option<R>,
    ) -> Option<R> {
        let page = Self::page_of(va);
        let (_, held) = self.shard_at(page)?;
        let segment = held.space.find(page)?;
        let in_use =
            segment.state.is_live() && segment.contains(page) && Head::in_words(&segment.words).is_ready();
        if in_use { look(&segment) } else { None }
    }

    /// The same, with the valid leaf that maps `va`, if there is one. Where a call changes parts of
    /// the area, a leaf may be broken for a moment (DESIGN rule 3): then that call is waited for,
    /// with no lock held.
    pub(crate) fn look_at_leaf<R>(
        &self,
        va: VirtAddr,
        mut look: impl FnMut(&Segment<WORDS>, &Leaf) -> Option<R>,
    ) -> Option<R> {
        loop {
            let seen = self.look_at(va, |segment| match self.backend.tree().translate(va) {
                Some(leaf) => look(segment, &leaf).map(Some),
                // Nothing for certain, or nothing at this moment.
                None => Head::in_words(&segment.words).is_busy().then_some(None),
            });
            match seen {
                Some(None) => self.backend.relax(),
                seen => return seen.flatten(),
            }
        }
    }

    /// Returns the area in use whose pages hold `va`, guards not counted.
    ///
    /// Waits for the lock of the shard that has the address.
    pub fn find_vm_area(&self, va: VirtAddr) -> Option<AreaInfo> {
        self.look_at(va, record::info::<B::Granule>)
    }

    /// Returns the first area in use that begins at `va` or above: for listings, which hold no lock
    /// between one area and the next.
    ///
    /// Waits for each shard's lock in turn.
    pub fn next_vm_area(&self, va: VirtAddr) -> Option<AreaInfo> {
        let from = if self.range().contains(va) {
            va
        } else if va < self.range().start {
            self.range().start
        } else {
            return None;
        };
        // The area around `from` begins before it, but its bytes may not.
        self.next_segment(Self::page_of(from), |segment| {
            record::info::<B::Granule>(segment).filter(|area| area.va >= va)
        })
    }

    /// Returns the lowest of what `say` has to say of the areas in use that end behind `page`, by
    /// their first page: of each shard its first.
    pub(crate) fn next_segment<R>(&self, page: Vpn, say: impl Fn(&Segment<WORDS>) -> Option<R>) -> Option<R> {
        let mut lowest: Option<(Vpn, R)> = None;
        for shard in self.shards.iter() {
            let held = shard.state.lock();
            let found = held
                .space
                .segments_from(page)
                .filter(|segment| segment.state.is_live() && Head::in_words(&segment.words).is_ready())
                .find_map(|segment| Some((segment.start(), say(&segment)?)));
            drop(held);
            if let Some(found) = found
                && lowest.as_ref().is_none_or(|lowest| found.0 < lowest.0)
            {
                lowest = Some(found);
            }
        }
        lowest.map(|(_, said)| said)
    }

    /// Returns the physical address that the area of an ioremap begins at.
    ///
    /// Waits for the lock of the shard that has the address.
    pub fn physical_address(&self, va: VirtAddr) -> Option<PhysAddr> {
        self.look_at(va, |segment| record::physical(&segment.words))
    }

    /// Returns the frame that `va` is mapped to, in leaves of any size.
    ///
    /// Waits for the lock of the shard that has the address; and where nothing is mapped, for a
    /// call that changes parts of the area. The holder of an area needs neither:
    /// [`VmArea::translate`](crate::VmArea::translate).
    ///
    /// # Errors
    /// [`Error::Outside`], [`Error::NotMapped`].
    pub fn vmalloc_to_pfn(&self, va: VirtAddr) -> Result<Pfn, Error> {
        if !self.is_vmalloc_addr(va) {
            return Err(Error::Outside(va));
        }
        let pa = self.look_at_leaf(va, |_, leaf| Some(leaf.translate(va)));
        let pa = pa.ok_or(Error::NotMapped(va))?;
        Ok(Pfn(pa.0 >> B::Granule::PAGE_SHIFT))
    }

    /// Frees memory of [`vmalloc`](Self::vmalloc) and its kin, or a stack.
    ///
    /// [Waiting](crate#contexts); for other contexts see [`vfree_atomic`](Self::vfree_atomic).
    /// Takes the lock of the area's shard, and no other. Under a lazy policy the flush, the frames
    /// and the addresses wait for a purge; the call that reaches the shard's share makes it. An
    /// area that a `set_memory_*` changed is flushed at once.
    ///
    /// # Errors
    /// [`Error::Misaligned`] or [`Error::Outside`] for an address that cannot be; [`Error::Freed`]
    /// for one that was freed already, naming the area and who freed it; [`Error::NoArea`],
    /// [`Error::Interior`], [`Error::Guard`], [`Error::Owned`], [`Error::WrongKind`]. Nothing has
    /// changed then.
    ///
    /// # Safety
    /// An address that is refused takes no promise. If an area of the right kind was made
    /// [raw](crate::VmArea::into_raw) there, then, as for `Box::from_raw`:
    /// 1. it is the caller's to end;
    /// 2. nothing is used any more that lies in it: no reference, no stack, no code, on any CPU.
    #[track_caller]
    pub unsafe fn vfree(&self, va: VirtAddr) -> Result<(), Error> {
        self.free_at(va, Kind::Vmalloc, Location::caller())
    }

    /// Frees a mapping of [`vmap`](Self::vmap) and its kin. The pages stay their owner's.
    ///
    /// [Waiting](crate#contexts), as [`vfree`](Self::vfree), but flushed before it returns, unless
    /// [`ForeignPages::Defer`](crate::ForeignPages::Defer) lets it wait.
    ///
    /// # Errors
    /// As [`vfree`](Self::vfree).
    ///
    /// # Safety
    /// As [`vfree`](Self::vfree).
    #[track_caller]
    pub unsafe fn vunmap(&self, va: VirtAddr) -> Result<(), Error> {
        self.free_at(va, Kind::Vmap, Location::caller())
    }

    /// Frees a mapping of [`ioremap`](Self::ioremap) and its kin. `va` may be any address of its
    /// first page.
    ///
    /// # Errors
    /// As [`vfree`](Self::vfree), in the same contexts.
    ///
    /// # Safety
    /// As [`vfree`](Self::vfree).
    #[track_caller]
    pub unsafe fn iounmap(&self, va: VirtAddr) -> Result<(), Error> {
        let first = va.align_down(B::Granule::PAGE_SIZE);
        self.free_at(first, Kind::Ioremap, Location::caller())
    }

    /// Frees what [`get_vm_area`](Self::get_vm_area) reserved, and unmaps all that is mapped there.
    ///
    /// [Waiting](crate#contexts), as [`vunmap`](Self::vunmap). If no page was ever mapped there,
    /// nothing is flushed.
    ///
    /// # Errors
    /// As [`vfree`](Self::vfree).
    ///
    /// # Safety
    /// As [`vfree`](Self::vfree).
    #[track_caller]
    pub unsafe fn free_vm_area(&self, va: VirtAddr) -> Result<(), Error> {
        self.free_at(va, Kind::Reserved, Location::caller())
    }

    pub(crate) fn free_at(
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
        self.drain_some(Context::Waiting);
        let (shard, mut held) = self.shard_at(Self::page_of(va)).ok_or(Error::Outside(va))?;
        let area = Self::claim(&mut held, va, expected)?;
        record::set_freer(&area, by);
        if self.free_held(shard, held, area) {
            self.flush_if_due(shard);
        }
        Ok(())
    }

    /// Takes the area of kind `expected` that begins at `va` away from the holder of its address.
    pub(crate) fn claim(state: &mut State<B::Granule>, va: VirtAddr, expected: Kind) -> Result<Area, Error> {
        let page = Vpn(va.0 >> B::Granule::PAGE_SHIFT);
        let area = match state.space.claim(page) {
            Ok(area) => area,
            Err(why) => return Err(Self::explain(state, va, why)),
        };
        let kind = Head::of(&area).kind();
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
    pub(crate) fn explain(state: &State<B::Granule>, va: VirtAddr, why: Unclaimed) -> Error {
        let page = Vpn(va.0 >> B::Granule::PAGE_SHIFT);
        let segment = state.space.find(page);
        let area = || segment.as_ref().and_then(record::info::<B::Granule>);
        let explained = match why {
            Unclaimed::Interior => area().map(|area| Error::Interior { va, area }),
            Unclaimed::Guard => area().map(|area| Error::Guard { va, area }),
            Unclaimed::Owned => area().map(Error::Owned),
            Unclaimed::Freed => segment
                .as_ref()
                .and_then(record::freed::<B::Granule>)
                .map(Error::Freed),
            _ => state.recall(va).map(Error::Freed),
        };
        explained.unwrap_or(Error::NoArea(va))
    }
}
