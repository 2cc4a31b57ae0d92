use crate::backend::{Backend, Lock};
use crate::error::Error;
use crate::owner::COMMON;
use crate::record::{self, Area, AreaInfo, Facts, Head, Kind};
use crate::region::Vmalloc;
use crate::shard::{Held, Shard, State};
use crate::va::{Unclaimed, Vpn};
use core::sync::atomic::AtomicU16;
use core::sync::atomic::Ordering::Relaxed;
use paging::{Granule, Leaf, Pfn, PhysAddr, VirtAddr};

impl<B: Backend> Vmalloc<B> {
    /// Whether `va` is in the region. Any [context](crate#contexts).
    #[inline]
    pub fn is_vmalloc_addr(&self, va: VirtAddr) -> bool {
        self.range().contains(va)
    }

    /// For a call that takes an area by its first page.
    #[inline(always)]
    pub(crate) fn first_page_at(&self, va: VirtAddr) -> Result<Vpn, Error> {
        if !va.is_aligned(B::Granule::PAGE_SIZE) {
            return Err(Error::Misaligned(va));
        }
        if !self.is_vmalloc_addr(va) {
            return Err(Error::Outside(va));
        }
        Ok(Self::page_of(va))
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
            if slot.map_or_else(|| self.owners.of(span), owner) == shard.number {
                return Some((shard, held));
            }
        }
    }

    pub(crate) fn try_shard_at(&self, page: Vpn) -> Option<(&'static Shard<B>, Held<'static, B>)> {
        let span = self.span_of(page);
        let shard = self.shards.get(self.owners.of(span));
        let held = shard.state.try_lock()?;
        (self.owners.of(span) == shard.number).then_some((shard, held))
    }

    /// `look` gets an area that is in use and ready, under the shard's lock: meanwhile neither the
    /// area is unmapped nor its tables or frames freed.
    #[inline]
    pub(crate) fn look_at<R>(&self, va: VirtAddr, look: impl FnOnce(&Area) -> Option<R>) -> Option<R> {
        let page = Self::page_of(va);
        let (_, held) = self.shard_at(page)?;
        let area = held.space.find(page)?;
        if Self::in_use(&area) && area.contains(page) {
            look(&area)
        } else {
            None
        }
    }

    fn in_use(area: &Area) -> bool {
        area.state().is_live() && Head::of(area).is_ready()
    }

    /// `look` gets the valid leaf. Without one, a call that changes the area may have broken it
    /// (DESIGN rule 3), and is waited for without a lock.
    pub(crate) fn look_at_leaf<R>(
        &self,
        va: VirtAddr,
        mut look: impl FnMut(&Area, &Leaf) -> Option<R>,
    ) -> Option<R> {
        loop {
            let seen = self.look_at(va, |area| match self.backend.tree().translate(va) {
                Some(leaf) => look(area, &leaf).map(Some),
                None => Head::of(area).is_busy().then_some(None),
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
        self.next_area(Self::page_of(from), |area| {
            record::info::<B::Granule>(area).filter(|area| area.va >= va)
        })
    }

    /// For areas in use that end behind `page`.
    pub(crate) fn next_area<R>(&self, page: Vpn, say: impl Fn(&Area) -> Option<R>) -> Option<R> {
        let mut lowest: Option<(Vpn, R)> = None;
        for shard in self.shards.iter() {
            let held = shard.state.lock();
            let found = held
                .space
                .segments_from(page)
                .filter(|area| Self::in_use(area))
                .find_map(|area| Some((area.start(), say(&area)?)));
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
        self.look_at(va, record::physical)
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
        let error = Error::wrong_kind::<B::Granule>(&area, expected);
        area.entrust();
        Err(error)
    }

    fn info_at(state: &State<B::Granule>, page: Vpn) -> Option<AreaInfo> {
        let area = state.space.find(page)?;
        record::info::<B::Granule>(&area)
    }

    #[cold]
    pub(crate) fn explain(state: &State<B::Granule>, va: VirtAddr, why: Unclaimed) -> Error {
        let page = Vpn(va.0 >> B::Granule::PAGE_SHIFT);
        let area = || Self::info_at(state, page);
        let explained = match why {
            Unclaimed::Interior => area().map(|area| Error::Interior { va, area }),
            Unclaimed::Guard => area().map(|area| Error::Guard { va, area }),
            Unclaimed::Owned => area().map(Error::Owned),
            Unclaimed::Freed => state
                .space
                .find(page)
                .and_then(|area| Facts::of::<B::Granule>(&area).freed::<B::Granule>())
                .map(Error::Freed),
            _ => state.recall(va).map(Error::Freed),
        };
        explained.unwrap_or(Error::NoArea(va))
    }
}
