//! [`Shard`]: the address space, or the part of it that is a CPU's, with all that belongs to it.
//!
//! There is one for each CPU, and the common one. Each has a lock, on cache lines of its own, and behind it its ranges of addresses, those that it keeps for
//! the next of their size, the areas that wait for its next flush, and its block of `vm_map_ram`. An area belongs to the shard that it was reserved from
//! to its end, whichever CPU ends it.
//!
//! - **A CPU's shard** gets addresses in pieces, each what one last-level table translates. Small areas come from it.
//! - **The common shard** has all addresses that no CPU has. An area from it has whole spans of last-level tables.
//!
//! So no last-level table has descriptors of areas of two shards, nor of two large ones: DESIGN section 2, "Nothing shared on a hot path".

use crate::backend::{Backend, Lock, LockClass};
use crate::deferred::DeferredAreas;
use crate::gate::Gate;
use crate::owner::COMMON;
use crate::record::{self, Area, Freed, WORDS};
use crate::va::{self, Cache, Fit, NodePage, Space};
use core::sync::atomic::AtomicI32;
use core::sync::atomic::Ordering::Relaxed;
use paging::{Granule, Pending, VirtAddr};

/// Areas, frames or pieces that are dealt with under one hold of a lock, at most.
pub(crate) const STEP: usize = 64;

/// Areas given back that a shard remembers, so that who frees twice is told who freed once.
const REMEMBERED: usize = 64;

/// Calls of a CPU from one look into its inbox to the next, less one.
const CALLS_TO_A_LOOK: i32 = 15;

/// Shards that there may be.
const MAX_SHARDS: usize = 512;

/// Areas that were unmapped, and what must be flushed before they go back.
pub(crate) struct Waiting<G> {
    areas: Option<Area>,
    nr_areas: usize,
    pages: u64,
    pub pending: Pending<G>,
}

impl<G: Granule> Waiting<G> {
    pub const fn new() -> Self {
        Self {
            areas: None,
            nr_areas: 0,
            pages: 0,
            pending: Pending::new(),
        }
    }

    /// Areas, and their pages.
    #[inline(always)]
    pub const fn usage(&self) -> (usize, u64) {
        (self.nr_areas, self.pages)
    }

    #[inline(always)]
    pub fn push(&mut self, mut area: Area) {
        self.nr_areas += 1;
        self.pages += area.reserved();
        let none = area.link(self.areas.take());
        debug_assert!(none.is_none(), "an area was on two lists");
        self.areas = Some(area);
    }

    pub fn pop(&mut self) -> Option<Area> {
        let mut area = self.areas.take()?;
        self.areas = area.link(None);
        self.nr_areas -= 1;
        self.pages -= area.reserved();
        Some(area)
    }

    /// Takes all of it, and leaves nothing.
    pub const fn take(&mut self) -> Self {
        core::mem::replace(self, Self::new())
    }
}

/// What is being flushed, and given back.
#[derive(Clone, Copy, Default)]
pub(crate) struct Flushing {
    pub nr_areas: usize,
    pub pages: u64,
}

/// What a shard's lock guards.
pub(crate) struct State<G: 'static> {
    pub space: Space<WORDS>,
    pub cache: Cache<WORDS>,
    pub waiting: Waiting<G>,
    pub flushing: Flushing,
    /// Areas that were flushed and given back, ever.
    pub nr_given_back: u64,
    /// Out of the inbox, and not dealt with yet.
    pub deferred: Option<Area>,
    /// The block that `vm_map_ram` takes from. Its words have its bits.
    pub block: Option<Area>,
    freed: &'static mut [Option<Freed>; REMEMBERED],
    next_freed: usize,
}

impl<G: Granule> State<G> {
    /// Remembers an area whose pages become free.
    fn remember(&mut self, freed: Option<Freed>) {
        if freed.is_some() {
            self.freed[self.next_freed % REMEMBERED] = freed;
            self.next_freed = self.next_freed.wrapping_add(1);
        }
    }

    /// The area that was given back last where `va` is.
    pub fn recall(&self, va: VirtAddr) -> Option<Freed> {
        let newest = self.next_freed.wrapping_sub(1);
        (0..REMEMBERED)
            .filter_map(|back| self.freed[newest.wrapping_sub(back) % REMEMBERED])
            .find(|freed| freed.area.range.contains(va))
    }

    /// Reserves what `fit` asks for: a range that is kept, or one of the space.
    #[inline(always)]
    pub fn reserve(&mut self, fit: &Fit, words: &[u64; WORDS]) -> Result<Area, va::Error> {
        match self.cache.take(fit, words) {
            Some(area) => Ok(area),
            None => self.space.reserve(fit, words),
        }
    }

    /// Lets a range be reserved again: kept for the next of its size, or joined with its neighbours. No TLB knows it.
    #[inline(always)]
    pub fn release(&mut self, area: Area) {
        if let Some(area) = self.cache.put(area) {
            self.join(area);
        }
    }

    /// Lets a range be reserved again, and joined with its neighbours. Until then its own words say who freed it.
    pub fn join(&mut self, area: Area) {
        self.remember(record::freed_area::<G>(&area));
        self.space.release(area);
    }
}

/// A shard. On cache lines of its own: 128 bytes, since some CPUs fetch them in pairs.
#[repr(C, align(128))]
pub(crate) struct Shard<B: Backend> {
    // What other CPUs write, beside what is written for a flush.
    pub inbox: DeferredAreas,
    /// Entered by what flushes the shard, or deals with its inbox, until all of that is given back.
    pub purge: Gate<B>,
    own: Apart<Own<B>>,
}

/// What no other CPU than the shard's touches, as a rule.
#[repr(C)]
pub(crate) struct Own<B: Backend> {
    number: usize,
    /// Calls of the CPU until its next look into the inbox.
    until_look: AtomicI32,
    pub state: B::Lock<State<B::Granule>>,
}

impl<B: Backend> core::ops::Deref for Shard<B> {
    type Target = Own<B>;
    #[inline(always)]
    fn deref(&self) -> &Own<B> {
        &self.own
    }
}

/// On cache lines of its own.
#[repr(C, align(128))]
pub(crate) struct Apart<T>(pub T);

impl<T> core::ops::Deref for Apart<T> {
    type Target = T;
    #[inline(always)]
    fn deref(&self) -> &T {
        &self.0
    }
}

impl<B: Backend> Shard<B> {
    fn new(backend: &B, number: usize, cached_areas: usize, region: u64) -> Option<&'static Self> {
        let freed = backend.node_page()?.hold_mut([None; REMEMBERED]);
        let nodes = backend.node_page()?;
        let class = if number == COMMON {
            LockClass::CommonShard
        } else {
            LockClass::Shard
        };
        let place: &'static mut NodePage = backend.node_page()?;
        Some(place.hold(Self {
            own: Apart(Own {
                number,
                until_look: AtomicI32::new(0),
                state: B::Lock::new(
                    class,
                    State {
                        space: Space::empty(number as u16, region, nodes),
                        // All that the common shard has are whole spans.
                        cache: Cache::new(
                            cached_areas,
                            if number == COMMON {
                                B::Granule::INDEX_BITS
                            } else {
                                0
                            },
                        ),
                        waiting: Waiting::new(),
                        flushing: Flushing::default(),
                        nr_given_back: 0,
                        deferred: None,
                        block: None,
                        freed,
                        next_freed: 0,
                    },
                ),
            }),
            inbox: DeferredAreas::new(),
            purge: Gate::new(LockClass::Gate),
        }))
    }

    #[inline(always)]
    pub fn number(&self) -> usize {
        self.number
    }

    #[inline(always)]
    pub fn is_common(&self) -> bool {
        self.number == COMMON
    }

    /// Whether this call of the CPU is to look into the inbox: every sixteenth is. What another CPU has just written is not fetched more often.
    #[inline(always)]
    pub fn is_time_to_look(&self) -> bool {
        // By its CPU alone; or by another that frees where nothing can be waited for, and then it does not matter who is first.
        let left = self.until_look.load(Relaxed) - 1;
        self.until_look.store(left, Relaxed);
        left < 0
    }

    /// The next call is to look.
    pub fn look_soon(&self) {
        self.until_look.store(0, Relaxed);
    }

    /// The next look is some calls away.
    pub fn look_later(&self) {
        self.until_look.store(CALLS_TO_A_LOOK, Relaxed);
    }
}

/// All shards: the common one, and one for each CPU.
pub(crate) struct Shards<B: Backend> {
    /// By their numbers; and behind the last the first again, but for the common one, so that more CPUs than shards share them.
    table: &'static [&'static Shard<B>; MAX_SHARDS],
    nr: usize,
}

impl<B: Backend> Shards<B> {
    /// `None` if there is no page for them.
    pub fn new(backend: &B, cached_areas: usize, region: u64) -> Option<Self> {
        let nr = (backend.nr_cpus().max(1) + 1).min(MAX_SHARDS);
        let common = Shard::new(backend, COMMON, cached_areas, region)?;
        let table = backend.node_page()?.hold_mut([common; MAX_SHARDS]);
        for number in 1..MAX_SHARDS {
            table[number] = if number < nr {
                Shard::new(backend, number, cached_areas, region)?
            } else {
                table[number - (nr - 1)]
            };
        }
        Some(Self { table, nr })
    }

    pub const fn nr(&self) -> usize {
        self.nr
    }

    #[inline(always)]
    pub fn get(&self, number: usize) -> &'static Shard<B> {
        // In bounds whatever the number is, and so it is not looked at.
        self.table[number % MAX_SHARDS]
    }

    #[inline(always)]
    pub fn common(&self) -> &'static Shard<B> {
        self.get(COMMON)
    }

    /// The shard of CPU `cpu`.
    #[inline(always)]
    pub fn of_cpu(&self, cpu: usize) -> &'static Shard<B> {
        self.get((cpu + 1).min(MAX_SHARDS - 1))
    }

    pub fn iter(&self) -> impl Iterator<Item = &'static Shard<B>> {
        self.table.iter().take(self.nr).copied()
    }
}
