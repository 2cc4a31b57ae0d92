//! [`Shard`]: one CPU's part of the address space, or the common part. An area belongs to the shard
//! of its reservation until freed. So a last-level table has descriptors of one shard, or of one
//! large area (docs/DESIGN.md, "Nothing shared on a hot path").

use crate::backend::{Backend, Lock, LockClass};
use crate::deferred::DeferredAreas;
use crate::gate::Gate;
use crate::owner::COMMON;
use crate::record::{Area, Facts, Freed, List, WORDS};
use crate::va::{self, Cache, Fit, Space};
use core::sync::atomic::AtomicI32;
use core::sync::atomic::Ordering::Relaxed;
use paging::{Granule, Pending, VirtAddr};

/// Areas, frames or pieces per hold of a lock, at most (DESIGN rule 14).
pub(crate) const STEP: usize = 64;

/// A double free names the first.
const REMEMBERED: usize = 64;

const CALLS_TO_A_LOOK: i32 = 15;

const MAX_SHARDS: usize = 512;

/// And what is to be flushed before their free.
pub(crate) struct LazyList<G> {
    pub areas: List,
    nr_areas: usize,
    pages: u64,
    pub pending: Pending<G>,
}

impl<G: Granule> LazyList<G> {
    pub const fn new() -> Self {
        Self {
            areas: List::new(),
            nr_areas: 0,
            pages: 0,
            pending: Pending::new(),
        }
    }

    #[inline(always)]
    pub const fn usage(&self) -> (usize, u64) {
        (self.nr_areas, self.pages)
    }

    pub fn is_empty(&self) -> bool {
        self.nr_areas == 0 && self.pending.is_empty()
    }

    #[inline(always)]
    pub fn push(&mut self, area: Area) {
        self.nr_areas += 1;
        self.pages += area.reserved();
        self.areas.push(area);
    }

    pub const fn take(&mut self) -> Self {
        core::mem::replace(self, Self::new())
    }
}

#[derive(Clone, Copy, Default)]
pub(crate) struct Flushing {
    pub nr_areas: usize,
    pub pages: u64,
}

pub(crate) struct State<G: 'static> {
    pub space: Space<WORDS>,
    pub cache: Cache<WORDS>,
    pub lazy: LazyList<G>,
    pub flushing: Flushing,
    pub nr_freed: u64,
    /// Not unmapped yet.
    pub deferred: List,
    /// Current one of `vm_map_ram`.
    pub block: Option<Area>,
    freed: &'static mut [Facts; REMEMBERED],
    next_freed: usize,
}

impl<G: Granule> State<G> {
    #[inline(always)]
    fn remember(&mut self, area: &Area) {
        let facts = Facts::of::<G>(area);
        if facts.know_the_freer() {
            self.freed[self.next_freed % REMEMBERED] = facts;
            self.next_freed = self.next_freed.wrapping_add(1);
        }
    }

    pub fn recall(&self, va: VirtAddr) -> Option<Freed> {
        let newest = self.next_freed.wrapping_sub(1);
        (0..REMEMBERED)
            .map(|back| &self.freed[newest.wrapping_sub(back) % REMEMBERED])
            .find(|facts| facts.range.contains(va))?
            .freed::<G>()
    }

    #[inline(always)]
    pub fn reserve(&mut self, fit: &Fit, words: &[u64; WORDS]) -> Result<Area, va::Error> {
        match self.cache.take(fit, words) {
            Some(area) => Ok(area),
            None => self.space.reserve(fit, words),
        }
    }

    /// No TLB knows it.
    #[inline(always)]
    pub fn release(&mut self, area: Area) {
        if let Some(area) = self.cache.put(area) {
            self.join(area);
        }
    }

    pub fn join(&mut self, area: Area) {
        self.remember(&area);
        self.space.release(area);
    }
}

pub(crate) type Held<'a, B> =
    <<B as Backend>::Lock<State<<B as Backend>::Granule>> as Lock<State<<B as Backend>::Granule>>>::Guard<'a>;

/// 128 bytes, since some CPUs fetch cache lines in pairs.
#[repr(C, align(128))]
pub(crate) struct Shard<B: Backend> {
    // Written by other CPUs.
    pub deferred_list: DeferredAreas,
    /// Around a flush or drain, until all is freed.
    pub purge: Gate<B>,
    // Not written by them.
    _apart: Apart<()>,
    pub number: usize,
    until_look: AtomicI32,
    pub state: B::Lock<State<B::Granule>>,
}

#[repr(C, align(128))]
pub(crate) struct Apart<T>(pub T);

impl<B: Backend> Shard<B> {
    fn new(backend: &B, number: usize, cached_areas: usize, region: u64) -> Option<&'static Self> {
        let freed = backend.node_page()?.hold_mut([Facts::NONE; REMEMBERED]);
        let nodes = backend.node_page()?;
        let (class, unit_shift) = if number == COMMON {
            (LockClass::CommonShard, B::Granule::INDEX_BITS)
        } else {
            (LockClass::Shard, 0)
        };
        let state = State {
            space: Space::empty(number as u16, region, nodes),
            cache: Cache::new(cached_areas, unit_shift),
            lazy: LazyList::new(),
            flushing: Flushing::default(),
            nr_freed: 0,
            deferred: List::new(),
            block: None,
            freed,
            next_freed: 0,
        };
        Some(backend.node_page()?.hold(Self {
            deferred_list: DeferredAreas::new(),
            purge: Gate::new(LockClass::Gate),
            _apart: Apart(()),
            number,
            until_look: AtomicI32::new(0),
            state: B::Lock::new(class, state),
        }))
    }

    #[inline(always)]
    pub fn is_common(&self) -> bool {
        self.number == COMMON
    }

    /// Every sixteenth call, so that the line that other CPUs write is fetched rarely.
    #[inline(always)]
    pub fn is_time_to_look(&self) -> bool {
        let left = self.until_look.load(Relaxed) - 1;
        self.until_look.store(left, Relaxed);
        left < 0
    }

    pub fn look_soon(&self) {
        self.until_look.store(0, Relaxed);
    }

    pub fn look_later(&self) {
        self.until_look.store(CALLS_TO_A_LOOK, Relaxed);
    }
}

type Table<B> = &'static [&'static Shard<B>; MAX_SHARDS];

pub(crate) struct Shards<B: Backend> {
    by_number: Table<B>,
    /// More CPUs than shards share all but the common one.
    by_cpu: Table<B>,
    pub nr: usize,
}

impl<B: Backend> Shards<B> {
    pub fn new(backend: &B, cached_areas: usize, region: u64) -> Option<Self> {
        let nr = (backend.nr_cpus().max(1) + 1).min(MAX_SHARDS);
        let common = Shard::new(backend, COMMON, cached_areas, region)?;
        let by_number = backend.node_page()?.hold_mut([common; MAX_SHARDS]);
        for (number, shard) in by_number.iter_mut().enumerate().take(nr).skip(1) {
            *shard = Shard::new(backend, number, cached_areas, region)?;
        }
        let of_cpu = |cpu| by_number[cpu % (nr - 1) + 1];
        let by_cpu = backend.node_page()?.hold(core::array::from_fn(of_cpu));
        Some(Self {
            by_number,
            by_cpu,
            nr,
        })
    }

    #[inline(always)]
    pub fn get(&self, number: usize) -> &'static Shard<B> {
        self.by_number[number % MAX_SHARDS]
    }

    #[inline(always)]
    pub fn common(&self) -> &'static Shard<B> {
        self.get(COMMON)
    }

    #[inline(always)]
    pub fn of_cpu(&self, cpu: usize) -> &'static Shard<B> {
        self.by_cpu[cpu % MAX_SHARDS]
    }

    pub fn iter(&self) -> impl Iterator<Item = &'static Shard<B>> {
        self.by_number.iter().take(self.nr).copied()
    }
}
