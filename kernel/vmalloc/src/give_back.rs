//! How an area ends: taken out of the tables, withheld, flushed, given back.
//!
//! The order is DESIGN rule 6: neither the frames, nor the tables, nor the addresses of an area may be used again before
//! no TLB can hold a translation of it. When the flush comes is policy:
//!
//! - [`FlushPolicy::Strict`]: at once, for each area alone;
//! - [`FlushPolicy::Lazy`]: one flush for many, when enough of them wait.
//!
//! Lazy is only what can be withheld. The pages of a `vmap` and of a reserved area are somebody else's, who may use them for
//! something else as soon as the call returns: these are flushed at once under either policy.
//!
//! # What is withheld at most
//! Under the lazy policy, fewer areas and fewer pages than the policy says, and what each CPU brings that is just giving an
//! area back: whoever reaches a threshold purges before the call returns. Memory or addresses that run out, and
//! [`Vmalloc::vm_unmap_aliases`], purge whatever there is.
//!
//! # Tables
//! An unmap leaves the tables linked that it empties, so that it may run beside maps: an unlinked table whose link is still in
//! a walk cache, and a new one in its place, would be two links for one address (DESIGN rule 3). The next map there finds its table
//! ready. [`EMPTIED_LIMIT`] times that a table was left empty, a purge that is asked for, and memory that runs out have the
//! empty ones pruned. Only a table that an area covers whole is unlinked by the unmap itself; nobody maps there before the flush,
//! since its addresses are withheld.
//!
//! Either way a table goes back with all walks kept out: someone may still be reading it.

use crate::backend::{Backend, Lock, WalkLock};
use crate::frames::free_area;
use crate::record::{self, Area};
use crate::state::{State, Vmalloc};
use core::panic::Location;
use core::sync::atomic::Ordering;
use paging::{Failure, FlushBatch, Granule, Outcome, Pending, VirtRange};

/// A batch on the backend's tree.
pub(crate) type Batch<'t, B> =
    FlushBatch<'t, <B as Backend>::Granule, <B as Backend>::Tables, <B as Backend>::Mmu>;

/// When what was taken out is flushed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum FlushPolicy {
    /// Before the call that gives an area back returns.
    Strict,
    /// When this many areas, or pages of addresses, wait; when memory or addresses run out; or when
    /// [`Vmalloc::vm_unmap_aliases`] asks.
    Lazy {
        /// Areas.
        areas: usize,
        /// Pages of addresses, guards included.
        pages: u64,
    },
}

/// What the purge lock guards: that whoever takes it finds nothing that another is about to give back.
pub(crate) struct Purge;

/// Areas that were taken out, and what must be flushed before they go back.
pub(crate) struct Waiting<G> {
    areas: Option<Area>,
    nr_areas: usize,
    pages: u64,
    pending: Pending<G>,
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

    pub const fn nr_areas(&self) -> usize {
        self.nr_areas
    }

    pub const fn pages(&self) -> u64 {
        self.pages
    }

    /// Whether as much waits as `policy` lets wait.
    const fn is_due(&self, policy: FlushPolicy) -> bool {
        match policy {
            FlushPolicy::Strict => self.nr_areas != 0,
            FlushPolicy::Lazy { areas, pages } => self.nr_areas >= areas || self.pages >= pages,
        }
    }

    fn push(&mut self, mut area: Area) {
        self.nr_areas += 1;
        self.pages += area.reserved();
        let none = area.link(self.areas.take());
        debug_assert!(none.is_none(), "an area was on two lists");
        self.areas = Some(area);
    }

    fn pop(&mut self) -> Option<Area> {
        let mut area = self.areas.take()?;
        self.areas = area.link(None);
        self.nr_areas -= 1;
        self.pages -= area.reserved();
        Some(area)
    }
}

/// Unmaps that left an empty table linked, between one pruning and the next. More tables than these can not be empty.
pub(crate) const EMPTIED_LIMIT: usize = 64;

/// Where tables may be linked that are empty.
#[derive(Clone, Copy, Default)]
pub(crate) struct Emptied {
    span: Option<VirtRange>,
    nr: usize,
}

impl Emptied {
    /// Whether an empty table may be linked in `range`.
    pub fn may_be_in(&self, range: VirtRange) -> bool {
        self.span.is_some_and(|span| span.overlaps(range))
    }

    fn note(&mut self, range: VirtRange, tables: u32) {
        if tables == 0 {
            return;
        }
        self.nr += tables as usize;
        self.span = Some(match self.span {
            None => range,
            Some(span) => {
                let start = span.start.min(range.start);
                let last = span.last().max(range.last());
                VirtRange::new(start, last.offset_from(start) + 1)
            }
        });
    }
}

impl<B: Backend> Vmalloc<B> {
    /// Ends `area`, which nobody else can take any more.
    pub(crate) fn give_back(&self, mut area: Area, by: &'static Location<'static>) {
        record::set_freer(&area, by);
        area.retire();
        self.settle();
        self.end(area);
    }

    /// Ends `area`, which is retired.
    pub(crate) fn end(&self, area: Area) {
        let range = record::range::<B::Granule>(&area);
        if !self.may_wait(&area) {
            // Most often one table holds all of it, and nothing has to be collected.
            let walk = self.backend.walks().walk();
            let taken = self.backend.tree().unmap_one_table(range);
            drop(walk);
            if let Some(outcome) = taken {
                return self.end_flushed(area, range, outcome.tables_emptied);
            }
        }
        let mut batch = self.backend.tree().batch();
        let emptied = match self.unmap(range, &mut batch) {
            Ok(outcome) => outcome.tables_emptied,
            // No leaf reaches over the end of an area, so nothing needs a split, which is all that could fail.
            Err(failure) => panic!("unmapping {range:?}: {failure}"),
        };
        let policy = self.config.flush;
        let waits = self.may_wait(&area) && !batch.pending().is_empty();
        let mut state;
        let due = if waits {
            let pending = batch.detach().0;
            state = self.state.lock();
            state.waiting.push(area);
            state.waiting.pending.merge(self.backend.tree().tables(), pending);
            state.waiting.is_due(policy)
        } else {
            self.flush(batch);
            if record::permissions_changed(&area) {
                self.reset_alias(&area);
            }
            free_area(&self.backend, &area);
            state = self.state.lock();
            Self::release(&mut state, area);
            false
        };
        state.emptied.note(range, emptied);
        let prune = state.emptied.nr >= EMPTIED_LIMIT;
        drop(state);
        if due {
            self.purge_if(|waiting| waiting.is_due(policy));
        }
        if prune {
            self.prune();
        }
    }

    /// Whether the policy lets `area` wait for a flush.
    #[inline]
    fn may_wait(&self, area: &Area) -> bool {
        self.config.flush != FlushPolicy::Strict
            && record::can_wait(area)
            && !record::permissions_changed(area)
    }

    /// Ends `area`, which is flushed, and left `emptied` tables empty.
    #[inline]
    fn end_flushed(&self, area: Area, range: VirtRange, emptied: u32) {
        if record::permissions_changed(&area) {
            self.reset_alias(&area);
        }
        free_area(&self.backend, &area);
        let mut state = self.state.lock();
        Self::release(&mut state, area);
        state.emptied.note(range, emptied);
        let prune = state.emptied.nr >= EMPTIED_LIMIT;
        drop(state);
        if prune {
            self.prune();
        }
    }

    /// Unmaps `range`, which is the caller's alone, beside whatever others do. `batch` has what is to be flushed.
    #[inline]
    pub(crate) fn unmap<'t>(
        &'t self,
        range: VirtRange,
        batch: &mut Batch<'t, B>,
    ) -> Result<Outcome, Failure> {
        let _walk = self.backend.walks().walk();
        self.backend.tree().unmap_keeping_tables(range, batch)
    }

    /// Notes what an unmap outside of [`give_back`](Self::give_back) left empty.
    pub(crate) fn note_emptied(&self, range: VirtRange, outcome: &Outcome) {
        if outcome.tables_emptied != 0 {
            self.state.lock().emptied.note(range, outcome.tables_emptied);
        }
    }

    /// Flushes `batch`. Where tables go back, all walks are kept out meanwhile.
    #[inline]
    pub(crate) fn flush(&self, batch: Batch<'_, B>) {
        let _release = (batch.pending().nr_dead_tables() != 0).then(|| self.backend.walks().release());
        batch.flush();
    }

    /// Remembers the area and lets its range be reserved again. It is flushed.
    fn release(state: &mut State<B::Granule>, area: Area) {
        state.remember(record::freed_area::<B::Granule>(&area));
        state.release(area);
    }

    /// Flushes once for all of `due`, then gives all of it back. The purge lock is held.
    fn finish(&self, mut due: Waiting<B::Granule>) {
        let pending = core::mem::take(&mut due.pending);
        let release = (pending.nr_dead_tables() != 0).then(|| self.backend.walks().release());
        // Other CPUs may have written the invalid descriptors: the state lock handed them over, and the leading barrier
        // must wait for stores observed as well as for this CPU's own (DSB ISH, Arm ARM B2.3.12).
        self.backend.tree().flush(pending, true);
        drop(release);
        let mut flushed = Waiting::<B::Granule>::new();
        while let Some(area) = due.pop() {
            free_area(&self.backend, &area);
            flushed.push(area);
        }
        let mut state = self.state.lock();
        while let Some(area) = flushed.pop() {
            Self::release(&mut state, area);
        }
    }

    /// Flushes what waits, if `wanted` says so of it, and gives it back. When it returns, what another CPU had begun to flush is
    /// given back as well.
    fn purge_if(&self, wanted: impl FnOnce(&Waiting<B::Granule>) -> bool) {
        let _purge = self.purge.lock();
        let mut state = self.state.lock();
        if !wanted(&state.waiting) {
            return;
        }
        let due = core::mem::replace(&mut state.waiting, Waiting::new());
        drop(state);
        self.finish(due);
        self.nr_purges.fetch_add(1, Ordering::Relaxed);
    }

    /// Gives back the tables that are linked and empty, and waits for whoever is doing so.
    fn prune(&self) {
        let _purge = self.purge.lock();
        let emptied = core::mem::take(&mut self.state.lock().emptied);
        let Some(span) = emptied.span else {
            return;
        };
        let _release = self.backend.walks().release();
        match self.backend.tree().prune(span) {
            Ok(outcome) if outcome.tables_removed == 0 => {}
            Ok(_) => {
                self.nr_purges.fetch_add(1, Ordering::Relaxed);
            }
            // The span is made of areas, so it is whole pages of the region.
            Err(failure) => panic!("pruning {span:?}: {failure}"),
        }
    }

    /// How often a purge or a pruning has given something back. What is read under no lock is a number of before.
    #[inline]
    pub(crate) fn nr_purges(&self) -> usize {
        self.nr_purges.load(Ordering::Relaxed)
    }

    /// Gives back the empty tables that are linked within `range`, which is the caller's and about to be mapped by blocks, with
    /// all walks kept out.
    pub(crate) fn prune_before_blocks(&self, range: VirtRange) {
        let emptied = self.state.lock().emptied;
        if emptied.may_be_in(range) {
            let _release = self.backend.walks().release();
            if let Err(failure) = self.backend.tree().prune(range) {
                panic!("pruning {range:?}: {failure}");
            }
        }
    }

    /// Gives back whatever is withheld, and waits for what is on its way back: for whoever finds no memory, before he gives up.
    /// Whether anything was given back since there were `purges`, by whomever: then it is worth another try.
    pub(crate) fn purge_and_prune(&self, purges: usize) -> bool {
        self.settle();
        let dropped = self.drop_idle_blocks();
        self.purge_if(|waiting| waiting.nr_areas != 0);
        self.prune();
        dropped || self.nr_purges() != purges
    }

    /// Makes sure that no TLB holds a translation of an area that was given back before this call by this CPU, or by one that
    /// this CPU has since heard from; and gives back the tables that those areas left empty.
    ///
    /// Under [`FlushPolicy::Strict`] no TLB ever does.
    pub fn vm_unmap_aliases(&self) {
        self.purge_and_prune(0);
    }
}
