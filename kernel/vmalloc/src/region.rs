//! [`Vmalloc`]: the subsystem for one region.

use crate::backend::{Backend, Lock, LockClass};
use crate::deferred::Addresses;
use crate::error::Error;
use crate::gate::Gate;
use crate::owner::{MAX_SPANS, Owners};
use crate::policy::{Config, FlushPolicy};
use crate::shard::{Apart, Shard, Shards};
use crate::va::{self, Vpn};
use core::fmt;
use core::sync::atomic::AtomicBool;
use paging::{FlushBatch, Granule, LeafSet, VirtAddr, VirtRange};

/// What a call may wait for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Context {
    /// Waits for locks and gates, and purges.
    Waiting,
    /// Waits for locks, which mask interrupts: an interrupt handler.
    Interrupt,
    /// Tries each lock once: a handler that may have interrupted the holder of any.
    Exception,
}

/// A batch on the backend's tree.
pub(crate) type Batch<'t, B> =
    FlushBatch<'t, <B as Backend>::Granule, <B as Backend>::Tables, <B as Backend>::Mmu>;

/// What is in use at one moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Usage {
    /// Areas in use.
    pub areas: usize,
    /// Pages of addresses in use, guards included. An area that does not come from a CPU's piece
    /// has whole tables, so the rest of its last one is counted as a guard.
    pub pages: u64,
    /// Areas that were unmapped and wait for a flush; and their pages, guards included.
    pub lazy: (usize, u64),
    /// Ranges kept for the next of the same size; and their pages.
    pub cached: (usize, u64),
    /// Pages of addresses that CPUs have for their small areas, in use or not.
    pub pieces: u64,
    /// Areas whose free was deferred to a later call: freed on another CPU than theirs, or where
    /// nothing may wait; and their pages, guards included.
    pub deferred: (usize, u64),
    /// Addresses that [`Vmalloc::vfree_atomic`] queued without a lookup. Their areas are counted as
    /// in use so far.
    pub deferred_addresses: usize,
    /// Of these, how many could not be freed when their turn came, ever: see
    /// [`Backend::deferred_free_refused`].
    pub refused: usize,
}

/// The vmalloc subsystem of one region of kernel addresses.
///
/// Every call may be made on any CPU, in the [contexts](crate#contexts) that it names.
///
/// It has no destructor. A handle borrows it, so it is dropped after the last one; an area that was
/// turned into an address stays mapped, as a kernel's does. Node pages are given for ever: a node
/// is never anything else, which is why following a link needs no `unsafe`.
pub struct Vmalloc<B: Backend> {
    // All of this is read by all CPUs and rarely written, so that they share its cache lines.
    pub(crate) backend: B,
    pub(crate) config: Config,
    /// Leaf sizes that both policies allow, this one's and the tree's.
    pub(crate) leaves: LeafSet,
    /// Frames of RAM in all.
    pub(crate) nr_frames: u64,
    range: VirtRange,
    /// Which shard has which span.
    pub(crate) owners: Owners,
    pub(crate) shards: Shards<B>,
    /// How much may wait in one shard before it flushes.
    pub(crate) share: FlushPolicy,
    pub(crate) addresses: Addresses,
    /// Whether there may be deferred addresses, or areas in the common shard's list.
    pub(crate) shared_work: AtomicBool,
    /// The gate around changes of the linear map.
    pub(crate) linear_map: Apart<Gate<B>>,
}

impl<B: Backend> Vmalloc<B> {
    /// Pages of a span: what a last-level table translates. A CPU gets addresses for its small
    /// areas in pieces of one span.
    pub(crate) const SPAN_PAGES: u64 = 1 << B::Granule::INDEX_BITS;

    /// Returns the subsystem for `range`, of which nothing is mapped yet, and none of whose
    /// last-level tables translates anything else.
    ///
    /// # Errors
    /// [`Error::OutOfNodes`] if there are no pages for the book-keeping: three for each CPU and for
    /// what CPUs share.
    ///
    /// # Panics
    /// If `range` is empty, does not consist of whole spans of last-level tables (2 MiB with pages
    /// of 4 KiB), is larger than 2^27 of them, or not in the tree's half.
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
            share: config.flush.share_of(shards.nr()),
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

    /// Returns the page that `va` is in.
    #[inline(always)]
    pub(crate) const fn page_of(va: VirtAddr) -> Vpn {
        Vpn(va.0 >> B::Granule::PAGE_SHIFT)
    }

    /// Returns the span that `page`, in the region, is in: its number.
    #[inline(always)]
    pub(crate) const fn span_of(&self, page: Vpn) -> u64 {
        (page.0 - (self.range.start.0 >> B::Granule::PAGE_SHIFT)) / Self::SPAN_PAGES
    }

    /// Returns what is in use at this moment.
    ///
    /// [Waiting](crate#contexts): for each shard's lock. Exact when nothing else happens meanwhile.
    pub fn usage(&self) -> Usage {
        let mut usage = Usage::default();
        for shard in self.shards.iter() {
            let state = shard.state.lock();
            let (lazy, cached) = (&state.lazy, &state.cache);
            usage.lazy.0 += lazy.usage().0 + state.flushing.nr_areas;
            usage.lazy.1 += lazy.usage().1 + state.flushing.pages;
            usage.cached.0 += cached.nr_areas();
            usage.cached.1 += cached.pages();
            usage.areas += state.space.nr_areas();
            usage.pages += state.space.reserved();
            if !shard.is_common() {
                usage.pieces += state.space.pages();
            }
            drop(state);
            let deferred = shard.deferred_list.usage();
            usage.deferred.0 += deferred.0;
            usage.deferred.1 += deferred.1;
        }
        // What is deferred comes and goes without a lock.
        usage.areas = usage
            .areas
            .saturating_sub(usage.lazy.0 + usage.cached.0 + usage.deferred.0);
        usage.pages = usage
            .pages
            .saturating_sub(usage.lazy.1 + usage.cached.1 + usage.deferred.1);
        (usage.deferred_addresses, usage.refused) = self.addresses.usage();
        usage
    }

    /// Checks every invariant of the address space. For tests: it takes time in proportion to the
    /// number of areas, with one shard's lock held after the other, and the sums are exact only
    /// when nothing else happens meanwhile.
    ///
    /// # Errors
    /// The first that does not hold.
    pub fn check(&self) -> Result<va::Census, va::Violation> {
        let mut all = va::Census::default();
        for shard in self.shards.iter() {
            let state = shard.state.lock();
            state.cache.check()?;
            let census = state.space.check()?;
            if census.parked != state.cache.nr_areas() {
                return Err(va::Violation::Count);
            }
            for segment in state.space.segments() {
                let last = Vpn(segment.first.0 + segment.reserved - 1);
                for page in [segment.first, last] {
                    if self.owners.of(self.span_of(page)) != shard.number() {
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

/// The shard of the area, by the number of its space.
impl<B: Backend> Vmalloc<B> {
    /// Returns the shard that `area` is of: nothing is looked up, since its node bears the number.
    #[inline(always)]
    pub(crate) fn shard_of(&self, area: &crate::record::Area) -> &'static Shard<B> {
        self.shards.get(usize::from(area.owner()))
    }

    /// Returns the shard of the CPU that this runs on.
    #[inline(always)]
    pub(crate) fn this_shard(&self) -> &'static Shard<B> {
        self.shards.of_cpu(self.backend.cpu())
    }
}
