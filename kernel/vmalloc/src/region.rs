//! [`Vmalloc`]: the subsystem for one region.

use crate::backend::{Backend, Lock, LockClass};
use crate::deferred::Addresses;
use crate::error::Error;
use crate::gate::Gate;
use crate::owner::{MAX_SPANS, Owners};
use crate::policy::{Config, FlushPolicy};
use crate::record::Area;
use crate::shard::{Apart, Shard, Shards};
use crate::va::{self, Fit, Vpn};
use core::fmt;
use core::sync::atomic::AtomicBool;
use paging::{FlushBatch, Granule, LeafSet, Tree, VirtAddr, VirtRange};

/// What a call may wait for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Context {
    /// Locks and gates; purges.
    Waiting,
    /// Locks, which mask interrupts.
    Interrupt,
    /// Nothing: it may have interrupted any lock's holder.
    Exception,
}

pub(crate) type TreeOf<B> = Tree<<B as Backend>::Granule, <B as Backend>::Tables, <B as Backend>::Mmu>;

pub(crate) type Batch<'t, B> =
    FlushBatch<'t, <B as Backend>::Granule, <B as Backend>::Tables, <B as Backend>::Mmu>;

/// What is in use.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Usage {
    /// In use.
    pub areas: usize,
    /// Of addresses, guards included.
    pub pages: u64,
    /// That wait for a flush, and their pages.
    pub lazy: (usize, u64),
    /// Ranges kept for reuse, and their pages.
    pub cached: (usize, u64),
    /// In CPUs' pieces.
    pub pieces: u64,
    /// Deferred areas, and their pages.
    pub deferred: (usize, u64),
    /// Deferred without a lookup. Their areas count as in use.
    pub deferred_addresses: usize,
    /// Refused ever ([`Backend::deferred_free_refused`]).
    pub refused: usize,
}

/// The vmalloc subsystem of one region. Calls may be made on any CPU, in the
/// [contexts](crate#contexts) that they name.
///
/// It has no destructor: areas turned into addresses stay mapped. Node pages are given for ever, so
/// following a link needs no `unsafe`.
pub struct Vmalloc<B: Backend> {
    pub(crate) backend: B,
    pub(crate) config: Config,
    pub(crate) leaves: LeafSet,
    pub(crate) nr_frames: u64,
    range: VirtRange,
    pub(crate) owners: Owners,
    pub(crate) shards: Shards<B>,
    pub(crate) share: FlushPolicy,
    pub(crate) addresses: Addresses,
    /// Addresses, or common areas, may be deferred.
    pub(crate) shared_work: AtomicBool,
    pub(crate) linear_map: Apart<Gate<B>>,
}

impl<B: Backend> Vmalloc<B> {
    pub(crate) const SPAN_PAGES: u64 = 1 << B::Granule::INDEX_BITS;
    pub(crate) const PIECE: Fit = Fit::new(Self::SPAN_PAGES)
        .guarded(0, 0)
        .congruent(Self::SPAN_PAGES, 0);

    /// Returns the subsystem for `range`, of which nothing is mapped, and whose last-level tables
    /// translate nothing else.
    ///
    /// # Errors
    ///
    /// [`Error::OutOfNodes`] without three pages for each CPU and for the common shard.
    ///
    /// # Panics
    ///
    /// If `range` is empty, not whole spans of last-level tables (2 MiB with pages of 4 KiB), more
    /// than 2^27 of them, or not in the tree's half.
    pub fn new(range: VirtRange, backend: B, config: Config) -> Result<Self, Error> {
        let all = backend.tree().range();
        let span = Self::SPAN_PAGES << B::Granule::PAGE_SHIFT;
        assert!(
            range.size != 0
                && (range.start.0 | range.size) & (span - 1) == 0
                && range.size / span <= MAX_SPANS
                && all.contains(range.start)
                && all.contains(range.last()),
            "{range:?} is no region of {all:?}, in whole spans of {span:#x}"
        );
        let pages = range.size >> B::Granule::PAGE_SHIFT;
        let shards = Shards::new(&backend, config.cached_areas, pages).ok_or(Error::OutOfNodes)?;
        let added = shards
            .common()
            .state
            .lock()
            .space
            .add(Vpn(range.start.0 >> B::Granule::PAGE_SHIFT), pages);
        added.map_err(|_| Error::OutOfNodes)?;
        Ok(Self {
            nr_frames: backend.nr_frames(),
            leaves: config.leaves.intersection(backend.tree().config().leaves),
            owners: Owners::new(),
            share: config.flush.share_of(shards.nr),
            shards,
            addresses: Addresses::new(),
            shared_work: AtomicBool::new(false),
            linear_map: Apart(Gate::new(LockClass::Gate)),
            backend,
            config,
            range,
        })
    }

    /// Returns the region.
    pub fn range(&self) -> VirtRange {
        self.range
    }

    /// Returns the backend.
    pub fn backend(&self) -> &B {
        &self.backend
    }

    /// Returns the policy.
    pub fn config(&self) -> &Config {
        &self.config
    }

    #[inline(always)]
    pub(crate) const fn page_of(va: VirtAddr) -> Vpn {
        Vpn(va.0 >> B::Granule::PAGE_SHIFT)
    }

    #[inline(always)]
    pub(crate) const fn span_of(&self, page: Vpn) -> u64 {
        (page.0 - (self.range.start.0 >> B::Granule::PAGE_SHIFT)) / Self::SPAN_PAGES
    }

    #[inline(always)]
    pub(crate) fn shard_of(&self, area: &Area) -> &'static Shard<B> {
        self.shards.get(usize::from(area.owner()))
    }

    #[inline(always)]
    pub(crate) fn this_shard(&self) -> &'static Shard<B> {
        self.shards.of_cpu(self.backend.cpu())
    }

    /// Returns what is in use, exactly if nothing else happens meanwhile.
    /// [Waiting](crate#contexts).
    pub fn usage(&self) -> Usage {
        self.tally().0
    }

    /// And the pages of CPUs' pieces that are not in use.
    pub(crate) fn tally(&self) -> (Usage, u64) {
        let (mut usage, mut vacant) = (Usage::default(), 0);
        for shard in self.shards.iter() {
            let state = shard.state.lock();
            let (lazy, cached) = (&state.lazy, &state.cache);
            let lazy_pages = lazy.usage().1 + state.flushing.pages;
            usage.lazy.0 += lazy.usage().0 + state.flushing.nr_areas;
            usage.lazy.1 += lazy_pages;
            usage.cached.0 += cached.nr_areas;
            usage.cached.1 += cached.pages();
            usage.areas += state.space.nr_areas;
            usage.pages += state.space.reserved;
            if !shard.is_common() {
                usage.pieces += state.space.pages;
                vacant += state.space.pages - state.space.reserved + lazy_pages + cached.pages();
            }
            drop(state);
            let deferred = shard.deferred_list.usage();
            usage.deferred.0 += deferred.0;
            usage.deferred.1 += deferred.1;
        }
        usage.areas = usage
            .areas
            .saturating_sub(usage.lazy.0 + usage.cached.0 + usage.deferred.0);
        usage.pages = usage
            .pages
            .saturating_sub(usage.lazy.1 + usage.cached.1 + usage.deferred.1);
        (usage.deferred_addresses, usage.refused) = self.addresses.usage();
        (usage, vacant)
    }

    /// Checks the invariants of the address space, in time proportional to the areas. For tests.
    ///
    /// # Errors
    ///
    /// The first that is broken.
    pub fn check(&self) -> Result<va::Census, va::Violation> {
        let mut all = va::Census::default();
        for shard in self.shards.iter() {
            let state = shard.state.lock();
            state.cache.check()?;
            let census = state.space.check()?;
            if census.parked != state.cache.nr_areas {
                return Err(va::Violation::Count);
            }
            for segment in state.space.segments_from(Vpn(0)) {
                let first = segment.first();
                for page in [first, Vpn(first.0 + segment.reserved() - 1)] {
                    if self.owners.of(self.span_of(page)) != shard.number {
                        return Err(va::Violation::Foreign(page));
                    }
                }
            }
            drop(state);
            all.add(&census);
        }
        Ok(all)
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
