//! [`Vmalloc`]: the subsystem for one region, and how it reserves.

use crate::backend::{Backend, Lock, WalkLock};
use crate::cpu::{CpuSlots, Shares};
use crate::deferred::{Deferred, Settling};
use crate::error::Error;
use crate::give_back::{FlushPolicy, Purge, Waiting};
use crate::parts::PartsLocks;
use crate::place::{self, Phase};
use crate::record::{self, Area, Freed, WORDS};
use crate::va::{self, Cache, Fit, LargeCache, Space, Vpn};
use core::fmt;
use core::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use paging::{Attributes, Failure, Granule, LeafSet, Outcome, PhysSource, VirtRange};

/// Policy, fixed when a [`Vmalloc`] is made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Config {
    /// Leaf sizes that mappings may use. The tree's own policy limits them further.
    pub leaves: LeafSet,
    /// When what was taken out is flushed.
    pub flush: FlushPolicy,
    /// Ranges of up to [`MAX_CACHED_PAGES`](va::MAX_CACHED_PAGES) pages, guards included, that each CPU keeps for its next
    /// of the same size; and a quarter as many larger ones, of up to [`MAX_LARGE_CACHED_PAGES`](va::MAX_LARGE_CACHED_PAGES), are kept for all.
    pub cached_areas: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            leaves: LeafSet::ALL,
            flush: FlushPolicy::Strict,
            cached_areas: 256,
        }
    }
}

/// What the subsystem holds at a moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Usage {
    /// Areas in use.
    pub areas: usize,
    /// Pages of addresses in use, guards included.
    pub pages: u64,
    /// Areas that were taken out and wait for a flush; and their pages, guards included.
    pub waiting: (usize, u64),
    /// Ranges kept for the next of the same size; and their pages.
    pub cached: (usize, u64),
    /// Areas that were given back where nothing could be waited for, and are dealt with by the next call that can wait; and their
    /// pages, guards included.
    pub deferred: (usize, u64),
    /// Addresses that [`Vmalloc::vfree_atomic`] took without looking, for the same call. What is there is counted as in use
    /// so far.
    pub deferred_addresses: usize,
    /// Of these, how many could not be freed when their turn came, ever: see
    /// [`Backend::deferred_free_refused`].
    pub refused: usize,
}

/// Areas given back that are remembered, so that who frees twice is told who freed once.
const REMEMBERED: usize = 64;

/// One large range is kept for so many small ones that a CPU may keep: what is kept takes addresses apart, and with them tables.
const LARGE_SHARE: usize = 4;

/// What the state lock guards.
pub(crate) struct State<G> {
    pub space: Space<WORDS>,
    /// Ranges that are too large for the CPUs' caches.
    pub large: LargeCache<WORDS>,
    /// What the CPUs have passed on.
    pub waiting: Waiting<G>,
    freed: [Option<Freed>; REMEMBERED],
    next_freed: usize,
}

impl<G: Granule> State<G> {
    /// Remembers an area whose pages become nobody's.
    fn remember(&mut self, freed: Option<Freed>) {
        if freed.is_none() {
            // It was never in use.
            return;
        }
        self.freed[self.next_freed % REMEMBERED] = freed;
        self.next_freed = self.next_freed.wrapping_add(1);
    }

    /// The area that was given back last where `va` is.
    pub fn recall(&self, va: paging::VirtAddr) -> Option<Freed> {
        let newest = self.next_freed.wrapping_sub(1);
        (0..REMEMBERED)
            .filter_map(|back| self.freed[newest.wrapping_sub(back) % REMEMBERED])
            .find(|freed| freed.area.range.contains(va))
    }

    /// Reserves what `fit` asks for: a range that is kept, or one of the address space.
    #[inline]
    pub fn reserve(&mut self, fit: &Fit, words: &[u64; WORDS]) -> Result<Area, va::Error> {
        match self.large.take(fit, words) {
            Some(area) => Ok(area),
            None => self.space.reserve(fit, words),
        }
    }

    /// Lets a range be reserved again: kept for the next of its size, or joined with its neighbours.
    #[inline]
    pub fn release(&mut self, area: Area) {
        if let Err(area) = self.large.put(area) {
            self.join(area);
        }
    }

    /// Lets a range be reserved again, and joined with its neighbours. Until then its own words say who freed it.
    #[inline]
    pub fn join(&mut self, area: Area) {
        self.remember(record::freed_area::<G>(&area));
        self.space.release(area);
    }
}

/// The vmalloc subsystem of one region of kernel addresses.
///
/// Every call may be made on any CPU at any time, in the [contexts](crate#contexts) that it names.
pub struct Vmalloc<B: Backend> {
    pub(crate) backend: B,
    pub(crate) state: B::Lock<State<B::Granule>>,
    pub(crate) cpus: CpuSlots<B>,
    pub(crate) shares: Shares,
    pub(crate) config: Config,
    pub(crate) deferred: Deferred,
    /// Held by whoever deals with it.
    pub(crate) settling: B::Lock<Settling>,
    /// Frames of RAM in all.
    pub(crate) nr_frames: u64,
    /// Held by whoever changes parts of an area.
    pub(crate) parts: PartsLocks<B>,
    /// Held from when areas are taken out of those that wait until they are given back, and while tables are pruned.
    pub(crate) purge: B::Lock<Purge>,
    /// How often either has given something back.
    pub(crate) nr_purges: AtomicUsize,
    /// Leaf sizes that both policies allow, this one's and the tree's.
    pub(crate) leaves: LeafSet,
    range: VirtRange,
}

impl<B: Backend> Vmalloc<B> {
    /// The subsystem for `range`, of which nothing is mapped yet.
    ///
    /// # Errors
    /// [`Error::OutOfNodes`] if there is no page for the book-keeping.
    ///
    /// # Panics
    /// If `range` is empty, not a multiple of the page size, or not in the tree's half.
    pub fn new(range: VirtRange, backend: B, config: Config) -> Result<Self, Error> {
        let all = backend.tree().range();
        assert!(
            range.size != 0
                && (range.start.0 | range.size) & (B::Granule::PAGE_SIZE - 1) == 0
                && all.contains(range.start)
                && all.contains(range.last()),
            "{range:?} is no region of {all:?}"
        );
        let page = backend.node_page().ok_or(Error::OutOfNodes)?;
        let cpus = CpuSlots::new(&backend, config.cached_areas).ok_or(Error::OutOfNodes)?;
        let start = Vpn(range.start.0 >> B::Granule::PAGE_SHIFT);
        let state = State {
            space: Space::new(start, range.size >> B::Granule::PAGE_SHIFT, page),
            large: LargeCache::new(config.cached_areas / LARGE_SHARE),
            waiting: Waiting::new(),
            freed: [None; REMEMBERED],
            next_freed: 0,
        };
        Ok(Self {
            nr_frames: backend.nr_frames(),
            leaves: config.leaves.intersection(backend.tree().config().leaves),
            backend,
            state: B::Lock::new(state),
            config,
            cpus,
            shares: Shares::of(config.flush),
            deferred: Deferred::new(),
            settling: B::Lock::new(Settling),
            parts: PartsLocks::new(),
            purge: B::Lock::new(Purge),
            nr_purges: AtomicUsize::new(0),
            range,
        })
    }

    /// The region.
    pub fn range(&self) -> VirtRange {
        self.range
    }

    /// The backend.
    pub fn backend(&self) -> &B {
        &self.backend
    }

    /// The policy.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// What is held at this moment.
    ///
    /// [Waiting](crate#contexts): for each CPU's lock, then the state lock. Exact when nothing else happens meanwhile.
    pub fn usage(&self) -> Usage {
        // One lock after the other: exact when nothing else happens meanwhile.
        let (waiting, cached) = self.in_slots();
        let state = self.state.lock();
        let cached = (cached.0 + state.large.nr_areas(), cached.1 + state.large.pages());
        let waiting = (
            waiting.0 + state.waiting.nr_areas(),
            waiting.1 + state.waiting.pages(),
        );
        let areas = state.space.nr_areas().saturating_sub(waiting.0 + cached.0);
        let pages = state.space.reserved().saturating_sub(waiting.1 + cached.1);
        drop(state);
        let (deferred, deferred_addresses, refused) = self.deferred.usage();
        Usage {
            // What is deferred comes and goes without a lock.
            areas: areas.saturating_sub(deferred.0),
            pages: pages.saturating_sub(deferred.1),
            waiting,
            cached,
            deferred,
            deferred_addresses,
            refused,
        }
    }

    /// Checks every invariant of the address space. For tests: it takes time in proportion to the number of areas, with
    /// the state lock held, and nobody else may be using the subsystem, who would be counted twice or not at all.
    ///
    /// # Errors
    /// The first that does not hold.
    pub fn check(&self) -> Result<va::Census, va::Violation> {
        let mut parked = 0;
        for slot in self.cpus.iter() {
            let cpu = slot.state.lock();
            cpu.cache.check()?;
            parked += cpu.cache.nr_areas();
        }
        let state = self.state.lock();
        state.large.check()?;
        parked += state.large.nr_areas();
        let census = state.space.check()?;
        drop(state);
        if census.parked != parked {
            return Err(va::Violation::Count);
        }
        Ok(census)
    }

    /// Checks every invariant of the address space that holds at any time, whatever others do meanwhile: all of them, but for how many
    /// ranges the CPUs keep.
    ///
    /// # Errors
    /// The first that does not hold.
    pub fn check_space(&self) -> Result<va::Census, va::Violation> {
        self.state.lock().space.check()
    }

    /// Reserves the best place for `fit` at `phase`, or the next best, and so on.
    #[inline(always)]
    pub(crate) fn reserve(
        &self,
        fit: Fit,
        phase: Phase,
        align: u64,
        words: &[u64; WORDS],
    ) -> Result<Area, Error> {
        self.settle();
        let best = place::best::<B::Granule>(fit, phase, align);
        if LargeCache::<WORDS>::has_class(fit.pages)
            && let Some(area) = self.reserve_kept(&best, words)
        {
            return Ok(area);
        }
        let mut state = self.state.lock();
        if let Ok(area) = state.space.reserve(&best, words) {
            return Ok(area);
        }
        drop(state);
        self.reserve_anywhere(fit, phase, align, words)
    }

    /// A range of the same size that is kept: by this CPU, or for all.
    #[inline(always)]
    fn reserve_kept(&self, fit: &Fit, words: &[u64; WORDS]) -> Option<Area> {
        if Cache::<WORDS>::has_class(fit.reserved()) {
            self.this_cpu().state.lock().cache.take(fit, words)
        } else {
            self.state.lock().large.take(fit, words)
        }
    }

    /// The same where the first place is taken, or there is no node for it.
    #[cold]
    #[inline(never)]
    fn reserve_anywhere(
        &self,
        fit: Fit,
        phase: Phase,
        align: u64,
        words: &[u64; WORDS],
    ) -> Result<Area, Error> {
        let mut purges = self.nr_purges();
        let places = place::candidates::<B::Granule>(fit, phase, align, self.leaves);
        let mut result = self.try_reserve(places.clone(), words);
        while matches!(result, Err(Error::OutOfSpace(_) | Error::OutOfNodes)) && self.reclaim(purges) {
            purges = self.nr_purges();
            result = self.try_reserve(places.clone(), words);
        }
        result
    }

    fn try_reserve(&self, places: impl Iterator<Item = Fit>, words: &[u64; WORDS]) -> Result<Area, Error> {
        let mut refused = Error::Empty;
        for fit in places {
            match self.try_reserve_at(&fit, words) {
                Err(error @ Error::OutOfSpace(_)) => refused = error,
                done => return done,
            }
        }
        Err(refused)
    }

    fn try_reserve_at(&self, fit: &Fit, words: &[u64; WORDS]) -> Result<Area, Error> {
        if let Some(area) = self.this_cpu().state.lock().cache.take(fit, words) {
            return Ok(area);
        }
        let mut state = self.state.lock();
        loop {
            match state.reserve(fit, words) {
                Ok(area) => {
                    return Ok(area);
                }
                Err(va::Error::NoNodes) => {
                    // Memory is never asked for with the lock held.
                    drop(state);
                    let page = self.backend.node_page().ok_or(Error::OutOfNodes)?;
                    state = self.state.lock();
                    state.space.feed(page);
                }
                Err(error) => return Err(Self::refusal(error)),
            }
        }
    }

    /// Why the address space has no room.
    #[cold]
    pub(crate) fn refusal(error: va::Error) -> Error {
        let bytes = |pages: u64| pages.saturating_mul(B::Granule::PAGE_SIZE);
        match error {
            va::Error::NoNodes => Error::OutOfNodes,
            va::Error::TooLarge { pages, region } => Error::TooLarge {
                size: bytes(pages),
                limit: bytes(region),
            },
            error => Error::OutOfSpace(error),
        }
    }

    /// Frees what is withheld or kept for later. Whether there was any, or has been since there were `purges`.
    pub(crate) fn reclaim(&self, purges: usize) -> bool {
        let purged = self.purge_and_prune(purges);
        let _purge = self.purge.lock();
        if self.drain_caches() {
            self.nr_purges.fetch_add(1, Relaxed);
        }
        purged || self.nr_purges() != purges
    }

    /// Maps the body of `area`, all of it, to the pages of `source`.
    #[inline(always)]
    pub(crate) fn map<S: PhysSource<B::Granule>>(
        &self,
        range: VirtRange,
        source: &mut S,
        attributes: Attributes,
    ) -> Result<Outcome, Error> {
        let purges = self.nr_purges();
        match self.map_once(range, source, attributes) {
            Ok(outcome) => Ok(outcome),
            Err(failure) => self
                .map_again(range, source, attributes, failure, purges)
                .map_err(Error::of_map::<B::Granule>),
        }
    }

    /// Maps what failed for an empty table in the way, or for lack of a table, as often as there is hope.
    #[cold]
    #[inline(never)]
    fn map_again<S: PhysSource<B::Granule>>(
        &self,
        range: VirtRange,
        source: &mut S,
        attributes: Attributes,
        mut failure: Failure,
        mut purges: usize,
    ) -> Result<Outcome, Failure> {
        loop {
            let in_the_way = matches!(failure.error, paging::Error::EmptyTable { .. });
            if in_the_way || failure.tables_left != 0 {
                // The range is this call's, so none comes back into the way. What the call has made is to be had again.
                self.prune(range);
            }
            let short = matches!(failure.error, paging::Error::OutOfTables(_));
            if !in_the_way && !(short && self.purge_and_prune(purges)) {
                return Err(failure);
            }
            purges = self.nr_purges();
            source.rewind();
            match self.map_once(range, source, attributes) {
                Ok(outcome) => return Ok(outcome),
                Err(again) => failure = again,
            }
        }
    }

    /// Maps `range`, or gives the reason why it is not done at the first try.
    #[inline(always)]
    pub(crate) fn map_once<S: PhysSource<B::Granule>>(
        &self,
        range: VirtRange,
        source: &mut S,
        attributes: Attributes,
    ) -> Result<Outcome, Failure> {
        let _walk = self.backend.walks().walk();
        let leaves = self.config.leaves;
        self.backend.tree().map(range, source, attributes, leaves)
    }

    /// Gives up a range that was never mapped.
    #[cold]
    pub(crate) fn abandon(&self, area: Area) {
        self.release(area);
    }
}

impl<B: Backend> fmt::Debug for Vmalloc<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vmalloc")
            .field("range", &self.range)
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}
