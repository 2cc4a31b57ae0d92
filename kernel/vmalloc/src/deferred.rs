//! What an exception handler gives back: [`Vmalloc::vfree_atomic`] and [`VmArea::free_atomic`].
//!
//! A handler may have interrupted the holder of any lock, on its own CPU, so it must not wait for one. What it gives back is put
//! where the next call that can wait finds it: an allocation, a free, a purge. Until then it stays mapped, and its frames and
//! addresses are withheld.
//!
//! - An [area](VmArea::free_atomic) goes into an [`Inbox`], linked by its own node: there is always room.
//! - An address means a look into the address space, under the state lock. If that is free, the area goes into the inbox, and a wrong
//!   address is refused at once. If not, the address goes into one of [`MAX_DEFERRED_ADDRESSES`] slots, and is looked at later. Nobody is there then to
//!   be told that it was wrong, so [`Backend::deferred_free_refused`] is, and [`Usage::refused`](crate::Usage::refused)
//!   counts it.
//!
//! # A slot
//! ```text
//!   FREE (0) --compare-exchange--> TAKEN (1) --store-release--> the address --swap-acquire--> TAKEN --store-release--> FREE
//!            whoever fills it      he writes who he is                       whoever empties it
//! ```
//! A handler that interrupts another one at any of these steps finds the slot not free, and takes the next: nobody ever
//! waits for a slot to become anything.
//!
//! # Whose turn it is
//! One call at a time deals with what was deferred, under the settling lock, from when it takes areas out of the inbox until they are out of the
//! tables and flushed, or wait for a flush. Most calls leave it to whoever has the lock. [`Vmalloc::vm_unmap_aliases`], and whoever finds no
//! memory, waits for him: an area in his hands is in the inbox no more, and on no other list yet.

use crate::area::VmArea;
use crate::backend::{Backend, Lock};
use crate::error::Error;
use crate::record::{self, Area, Head, Kind, WORDS};
use crate::state::Vmalloc;
use crate::va::Inbox;
use core::panic::Location;
use core::ptr::null_mut;
use core::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use core::sync::atomic::{AtomicPtr, AtomicU64, AtomicUsize};
use paging::{Granule, VirtAddr};

/// Addresses that can wait for a call that frees them.
pub const MAX_DEFERRED_ADDRESSES: usize = 64;

/// What the settling lock guards: areas that are out of the inbox, and not yet out of the tables.
pub(crate) struct Settling;

type SettlingGuard<'a, B> = <<B as Backend>::Lock<Settling> as Lock<Settling>>::Guard<'a>;

/// A slot's word when there is no address in it. Addresses are whole pages, so neither is one.
const FREE: u64 = 0;
const TAKEN: u64 = 1;

struct Slot {
    /// `FREE`, `TAKEN`, or the address.
    va: AtomicU64,
    /// Who wants it freed.
    by: AtomicPtr<Location<'static>>,
}

/// What waits for a call that can wait.
pub(crate) struct Deferred {
    areas: Inbox<WORDS>,
    slots: [Slot; MAX_DEFERRED_ADDRESSES],
    /// Areas and addresses: what every call that can wait looks at.
    nr: AtomicUsize,
    nr_areas: AtomicUsize,
    pages: AtomicU64,
    nr_addresses: AtomicUsize,
    nr_refused: AtomicUsize,
}

impl Deferred {
    pub const fn new() -> Self {
        Self {
            areas: Inbox::new(),
            slots: [const {
                Slot {
                    va: AtomicU64::new(FREE),
                    by: AtomicPtr::new(null_mut()),
                }
            }; MAX_DEFERRED_ADDRESSES],
            nr: AtomicUsize::new(0),
            nr_areas: AtomicUsize::new(0),
            pages: AtomicU64::new(0),
            nr_addresses: AtomicUsize::new(0),
            nr_refused: AtomicUsize::new(0),
        }
    }

    /// Areas and their pages; addresses; and how many of those were refused so far.
    pub fn usage(&self) -> ((usize, u64), usize, usize) {
        (
            (self.nr_areas.load(Relaxed), self.pages.load(Relaxed)),
            self.nr_addresses.load(Relaxed),
            self.nr_refused.load(Relaxed),
        )
    }

    /// Whether anything waits. What has just come may be missed: then it waits for the call after this one.
    #[inline(always)]
    fn any(&self) -> bool {
        self.nr.load(Relaxed) != 0
    }

    /// Takes an area that is retired.
    pub fn push(&self, area: Area) {
        self.nr_areas.fetch_add(1, Relaxed);
        self.pages.fetch_add(area.reserved(), Relaxed);
        self.areas.push(area);
        // Behind it, so that whoever sees the number finds as many.
        self.nr.fetch_add(1, Release);
    }

    /// Takes an address, if there is room.
    fn push_address(&self, va: VirtAddr, by: &'static Location<'static>) -> Result<(), Error> {
        let slot = self
            .slots
            .iter()
            .find(|slot| slot.va.compare_exchange(FREE, TAKEN, Acquire, Relaxed).is_ok())
            .ok_or(Error::TooManyDeferred { va })?;
        slot.by.store(core::ptr::from_ref(by).cast_mut(), Relaxed);
        self.nr_addresses.fetch_add(1, Relaxed);
        slot.va.store(va.0, Release);
        self.nr.fetch_add(1, Release);
        Ok(())
    }

    /// Takes the address out that is in `slot`, if one is.
    fn take_address(&self, slot: &Slot) -> Option<(VirtAddr, &'static Location<'static>)> {
        let va = slot.va.load(Relaxed);
        if va == FREE || va == TAKEN || slot.va.compare_exchange(va, TAKEN, AcqRel, Relaxed).is_err() {
            return None;
        }
        let by = slot.by.load(Relaxed);
        slot.va.store(FREE, Release);
        self.nr_addresses.fetch_sub(1, Relaxed);
        self.nr.fetch_sub(1, Relaxed);
        // SAFETY: whoever filled the slot put a `&'static Location` there before the address, which was acquired.
        let by = unsafe { by.as_ref() }?;
        Some((VirtAddr(va), by))
    }

    /// Takes all areas out, linked behind each other.
    fn take_areas(&self) -> Option<Area> {
        self.areas.take_all()
    }

    /// `area` is out.
    fn gone(&self, area: &Area) {
        self.nr_areas.fetch_sub(1, Relaxed);
        self.pages.fetch_sub(area.reserved(), Relaxed);
        self.nr.fetch_sub(1, Relaxed);
    }
}

impl<B: Backend> Vmalloc<B> {
    /// Gives back memory of [`vmalloc`](Self::vmalloc) and its kin from any context: also from the handler of an exception that
    /// interrupted the holder of a lock of the subsystem on this CPU. Never waits. The area goes with the next call that can
    /// wait; until then it stays mapped, and [`Usage::deferred`](crate::Usage::deferred) counts it.
    ///
    /// # Errors
    /// [`Error::Misaligned`] and [`Error::Outside`]. If the state lock is free: all those of [`vfree`](Self::vfree). If it is taken:
    /// [`Error::TooManyDeferred`] when [`MAX_DEFERRED_ADDRESSES`] wait already; an address that is wrong, or comes twice, is
    /// found out when its turn comes, and told to [`Backend::deferred_free_refused`]. Nothing has changed after an error.
    ///
    /// # Safety
    /// As [`vfree`](Self::vfree).
    #[track_caller]
    pub unsafe fn vfree_atomic(&self, va: VirtAddr) -> Result<(), Error> {
        let by = Location::caller();
        if !va.is_aligned(B::Granule::PAGE_SIZE) {
            return Err(Error::Misaligned(va));
        }
        if !self.is_vmalloc_addr(va) {
            return Err(Error::Outside(va));
        }
        let Some(mut state) = self.state.try_lock() else {
            return self.deferred.push_address(va, by);
        };
        let claimed = Self::claim(&mut state, va, Kind::Vmalloc);
        drop(state);
        self.defer(claimed?, by);
        Ok(())
    }

    /// Leaves `area`, which is the caller's alone, to the next call that can wait.
    pub(crate) fn defer(&self, mut area: Area, by: &'static Location<'static>) {
        record::set_freer(&area, by);
        area.retire();
        self.deferred.push(area);
    }

    /// Gives back what waits for a call that can wait, as this one. No lock is held. If another call is about it, it is left
    /// to that one.
    #[inline(always)]
    pub(crate) fn settle(&self) {
        if self.deferred.any() {
            self.settle_with(|| self.settling.try_lock());
        }
    }

    /// The same, and waits for whoever is about it: what was deferred before this call is out of the tables when it returns,
    /// and is flushed or on a list of those that wait for a flush.
    #[cold]
    pub(crate) fn settle_and_wait(&self) {
        // Even where nothing seems to be left: the number goes down before the area is out.
        self.settle_with(|| Some(self.settling.lock()));
    }

    #[cold]
    #[inline(never)]
    fn settle_with<'a>(&'a self, turn: impl Fn() -> Option<SettlingGuard<'a, B>>) {
        let Some(mut held) = turn() else {
            return;
        };
        let mut list = self.deferred.take_areas();
        while let Some(mut area) = list {
            list = area.link(None);
            self.deferred.gone(&area);
            self.end_retired(area);
        }
        // Each slot once: whoever fills them all the time does not keep this call here, nor from those that were filled before.
        let slots = if self.deferred.nr_addresses.load(Relaxed) == 0 {
            // It is counted before it is in its slot, and until it is out.
            &[]
        } else {
            &self.deferred.slots[..]
        };
        for slot in slots {
            let Some((va, by)) = self.deferred.take_address(slot) else {
                continue;
            };
            let mut state = self.state.lock();
            let claimed = Self::claim(&mut state, va, Kind::Vmalloc);
            drop(state);
            match claimed {
                Ok(mut area) => {
                    record::set_freer(&area, by);
                    area.retire();
                    self.end_retired(area);
                }
                Err(error) => {
                    self.deferred.nr_refused.fetch_add(1, Relaxed);
                    // Told with no lock held; what is left then is in its slot, for whoever comes first.
                    drop(held);
                    self.backend.deferred_free_refused(va, by, &error);
                    let Some(again) = turn() else {
                        return;
                    };
                    held = again;
                }
            }
        }
        drop(held);
    }
}

impl<B: Backend> VmArea<'_, B> {
    /// Gives all of it back from any context, as [`Vmalloc::vfree_atomic`], and always finds room. Never waits. (Dropping it
    /// waits.)
    ///
    /// # Errors
    /// The area itself, if its pages are somebody else's: they would stay mapped behind his back for a while.
    #[track_caller]
    pub fn free_atomic(self) -> Result<(), Self> {
        if !Head::of(self.area()).can_wait() {
            return Err(self);
        }
        let by = Location::caller();
        let vm = self.manager();
        if let Some(area) = self.into_area() {
            vm.defer(area, by);
        }
        Ok(())
    }
}
