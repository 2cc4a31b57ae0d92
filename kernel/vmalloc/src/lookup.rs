use crate::backend::{Backend, Lock};
use crate::error::Error;
use crate::owner::COMMON;
use crate::record::{self, Area, AreaInfo, Head, Kind, WORDS};
use crate::region::Vmalloc;
use crate::shard::{Held, Shard, State};
use crate::va::{Segment, Unclaimed, Vpn};
use core::sync::atomic::AtomicU16;
use core::sync::atomic::Ordering::Relaxed;
use paging::{Granule, Leaf, Pfn, PhysAddr, VirtAddr};

impl<B: Backend> Vmalloc<B> {
    /// Whether `va` is in the region. Any [context](crate#contexts).
    #[inline]
    pub fn is_vmalloc_addr(&self, va: VirtAddr) -> bool {
        self.range().contains(va)
    }

    /// Locked; `None` outside the region.
    #[inline]
    pub(crate) fn shard_at(&self, page: Vpn) -> Option<(&'static Shard<B>, Held<'static, B>)> {
        let first = self.range().start.0 >> B::Granule::PAGE_SHIFT;
        if page.0.wrapping_sub(first) >= self.range().size >> B::Granule::PAGE_SHIFT {
            return None;
        }
        let span = self.span_of(page);
        loop {
            let slot = self.owners.slot(span);
            let owner = |slot: &AtomicU16| usize::from(slot.load(Relaxed));
            let shard = self.shards.get(slot.map_or(COMMON, owner));
            let held = shard.state.lock();
            if slot.map_or_else(|| self.owners.of(span), owner) == shard.number() {
                return Some((shard, held));
            }
        }
    }

    pub(crate) fn try_shard_at(&self, page: Vpn) -> Option<(&'static Shard<B>, Held<'static, B>)> {
        let span = self.span_of(page);
        let shard = self.shards.get(self.owners.of(span));
        let held = shard.state.try_lock()?;
        (self.owners.of(span) == shard.number()).then_some((shard, held))
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
