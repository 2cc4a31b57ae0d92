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
    /// Whether `va` is in the region. Any [context](crate#contexts).
    #[inline]
    pub fn is_vmalloc_addr(&self, va: VirtAddr) -> bool {
        self.range().contains(va)
    }

    /// `look` gets an area that is in use and ready, under the shard's lock: meanwhile neither the
    /// area is unmapped nor its tables or frames freed.
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

    /// `look` gets the valid leaf. Without one, a call that changes the area may have broken it
    /// (DESIGN rule 3), and is waited for without a lock.
    pub(crate) fn look_at_leaf<R>(
        &self,
        va: VirtAddr,
        mut look: impl FnMut(&Segment<WORDS>, &Leaf) -> Option<R>,
    ) -> Option<R> {
        loop {
            let seen = self.look_at(va, |segment| match self.backend.tree().translate(va) {
                Some(leaf) => look(segment, &leaf).map(Some),
                None => Head::in_words(&segment.words).is_busy().then_some(None),
            });
            match seen {
                Some(None) => self.backend.relax(),
                seen => return seen.flatten(),
            }
        }
    }

    /// Returns the area in use whose pages hold `va`, guards excluded. Waits for the shard's lock.
    pub fn find_vm_area(&self, va: VirtAddr) -> Option<AreaInfo> {
        self.look_at(va, record::info::<B::Granule>)
    }

    /// Returns the first area in use from `va` upwards. Waits for each shard's lock in turn.
    pub fn next_vm_area(&self, va: VirtAddr) -> Option<AreaInfo> {
        let from = if self.range().contains(va) {
            va
        } else if va < self.range().start {
            self.range().start
        } else {
            return None;
        };
        self.next_segment(Self::page_of(from), |segment| {
            record::info::<B::Granule>(segment).filter(|area| area.va >= va)
        })
    }

    /// For areas in use that end behind `page`.
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

    /// Returns where an ioremap begins. Waits for the shard's lock.
    pub fn physical_address(&self, va: VirtAddr) -> Option<PhysAddr> {
        self.look_at(va, |segment| record::physical(&segment.words))
    }

    /// Returns the frame that `va` is mapped to. Waits for the shard's lock and, if nothing is
    /// mapped, for a change of the area's parts.
    ///
    /// # Errors
    ///
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
    /// [Waiting](crate#contexts); elsewhere [`vfree_atomic`](Self::vfree_atomic). Under a lazy
    /// policy the call that reaches the shard's share purges; an area that a `set_memory_*` changed
    /// is flushed at once.
    ///
    /// # Errors
    ///
    /// [`Error::Misaligned`], [`Error::Outside`]; [`Error::Freed`] for a double free, naming the
    /// area and who freed it; [`Error::NoArea`], [`Error::Interior`], [`Error::Guard`],
    /// [`Error::Owned`], [`Error::WrongKind`]. Nothing has changed then.
    ///
    /// # Safety
    ///
    /// A refused address takes no promise. If an area of the right kind was made
    /// [raw](crate::VmArea::into_raw) there:
    ///
    /// 1. it is the caller's to free;
    /// 2. nothing in it is used any more, on any CPU: no reference, stack or code.
    #[track_caller]
    pub unsafe fn vfree(&self, va: VirtAddr) -> Result<(), Error> {
        self.free_at(va, Kind::Vmalloc, Location::caller())
    }

    /// Frees a mapping of [`vmap`](Self::vmap) and its kin. [Waiting](crate#contexts), and flushed
    /// on return unless [`ForeignPages::Defer`](crate::ForeignPages::Defer).
    ///
    /// # Errors
    ///
    /// As [`vfree`](Self::vfree).
    ///
    /// # Safety
    ///
    /// As [`vfree`](Self::vfree).
    #[track_caller]
    pub unsafe fn vunmap(&self, va: VirtAddr) -> Result<(), Error> {
        self.free_at(va, Kind::Vmap, Location::caller())
    }

    /// Frees a mapping of [`ioremap`](Self::ioremap) and its kin, by any address in its first page.
    ///
    /// # Errors
    ///
    /// As [`vfree`](Self::vfree), in the same contexts.
    ///
    /// # Safety
    ///
    /// As [`vfree`](Self::vfree).
    #[track_caller]
    pub unsafe fn iounmap(&self, va: VirtAddr) -> Result<(), Error> {
        let first = va.align_down(B::Granule::PAGE_SIZE);
        self.free_at(first, Kind::Ioremap, Location::caller())
    }

    /// Frees an area of [`get_vm_area`](Self::get_vm_area) and its mappings, as
    /// [`vunmap`](Self::vunmap). Nothing is flushed if nothing was ever mapped.
    ///
    /// # Errors
    ///
    /// As [`vfree`](Self::vfree).
    ///
    /// # Safety
    ///
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
