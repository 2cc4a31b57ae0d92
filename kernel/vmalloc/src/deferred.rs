//! Where deferred frees are kept (`drain`): a list per shard, and slots for addresses.
//!
//! ```text
//!   FREE (0) --compare-exchange--> TAKEN (1) --store-release--> the address
//!            by what fills it                by what fills it
//!
//!   the address --compare-exchange--> TAKEN --store-release--> FREE
//!               by what empties it          by what empties it
//! ```
//!
//! A handler that interrupts any step finds the slot not free and takes the next.

use crate::atomic::{AtomicPtr, AtomicU64, AtomicUsize};
use crate::error::Error;
use crate::record::{Area, WORDS};
use crate::va::DeferredList;
use core::panic::Location;
use core::ptr::null_mut;
use core::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use paging::VirtAddr;

/// The most addresses that can be deferred.
pub const MAX_DEFERRED_ADDRESSES: usize = 64;

/// Slot values other than addresses, which are page aligned.
const FREE: u64 = 0;
const TAKEN: u64 = 1;

pub(crate) struct Slot {
    /// `FREE`, `TAKEN`, or the address.
    va: AtomicU64,
    by: AtomicPtr<Location<'static>>,
}

pub(crate) struct DeferredAreas {
    pub new: DeferredList<WORDS>,
    /// Areas above `NR_SHIFT`, pages below.
    usage: AtomicU64,
}

const NR_SHIFT: u32 = 38;

const fn one_of(pages: u64) -> u64 {
    1 << NR_SHIFT | pages
}

const fn counted(usage: u64) -> (usize, u64) {
    ((usage >> NR_SHIFT) as usize, usage & ((1 << NR_SHIFT) - 1))
}

impl DeferredAreas {
    pub const fn new() -> Self {
        Self {
            new: DeferredList::new(),
            usage: AtomicU64::new(0),
        }
    }

    pub fn usage(&self) -> (usize, u64) {
        counted(self.usage.load(Relaxed))
    }

    #[inline(always)]
    pub fn any(&self) -> bool {
        self.usage.load(Relaxed) != 0
    }

    /// Returns the counts.
    pub fn push(&self, area: Area, pages: u64) -> (usize, u64) {
        let one = one_of(pages);
        let before = self.usage.fetch_add(one, Relaxed);
        self.new.push(area);
        counted(before + one)
    }

    pub fn gone(&self, area: &Area) {
        self.usage.fetch_sub(one_of(area.reserved()), Relaxed);
    }
}

pub(crate) struct Addresses {
    pub slots: [Slot; MAX_DEFERRED_ADDRESSES],
    pub nr: AtomicUsize,
    pub nr_refused: AtomicUsize,
}

impl Addresses {
    pub const fn new() -> Self {
        Self {
            slots: [const {
                Slot {
                    va: AtomicU64::new(FREE),
                    by: AtomicPtr::new(null_mut()),
                }
            }; MAX_DEFERRED_ADDRESSES],
            nr: AtomicUsize::new(0),
            nr_refused: AtomicUsize::new(0),
        }
    }

    /// How many there are, and were ever refused.
    pub fn usage(&self) -> (usize, usize) {
        (self.nr.load(Relaxed), self.nr_refused.load(Relaxed))
    }

    pub fn push(&self, va: VirtAddr, by: &'static Location<'static>) -> Result<(), Error> {
        let slot = self
            .slots
            .iter()
            .find(|slot| slot.va.compare_exchange(FREE, TAKEN, Acquire, Relaxed).is_ok())
            .ok_or(Error::TooManyDeferred { va })?;
        slot.by.store(core::ptr::from_ref(by).cast_mut(), Relaxed);
        self.nr.fetch_add(1, Relaxed);
        slot.va.store(va.0, Release);
        Ok(())
    }
}

impl Slot {
    pub fn address(&self) -> Option<VirtAddr> {
        let va = self.va.load(Relaxed);
        (va != FREE && va != TAKEN).then_some(VirtAddr(va))
    }

    pub fn take(&self, va: VirtAddr) -> Option<&'static Location<'static>> {
        self.va.compare_exchange(va.0, TAKEN, AcqRel, Relaxed).ok()?;
        let by = self.by.load(Relaxed);
        self.va.store(FREE, Release);
        // SAFETY: a `&'static Location` was stored before the address, which was acquired.
        unsafe { by.as_ref() }
    }
}
