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
//! An unmap takes a table out only if the area covers all that it translates: its addresses are withheld until the flush, so
//! that no other table can come into its place meanwhile (DESIGN rule 3). A table of which an area covers a part stays linked,
//! though it may be empty, for the next map there. Those are as many as were ever in use at once, at most. They are pruned when
//! memory runs out, by a purge that is asked for, and where one is in the way of a block.
//!
//! Either way a table goes back with all walks kept out: someone may still be reading it.

use crate::backend::{Backend, Lock, WalkLock};
use crate::frames::free_area;
use crate::record::{self, Area, Head, WORDS};
use crate::state::Vmalloc;
use crate::va::Cache;
use core::panic::Location;
use core::sync::atomic::Ordering::Relaxed;
use paging::{Failure, FlushBatch, Granule, Mmu, Outcome, Pending, Tables, Tree, VirtRange};

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

impl<G: Granule> Default for Waiting<G> {
    fn default() -> Self {
        Self::new()
    }
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

    /// Takes in all of `other`, where nothing waits then.
    pub fn absorb<T: Tables, M: Mmu>(&mut self, tree: &Tree<G, T, M>, other: &mut Self) {
        if self.nr_areas == 0 {
            // Nothing is pending either.
            core::mem::swap(self, other);
            return;
        }
        tree.leave_all(&mut other.pending, &mut self.pending);
        while let Some(area) = other.pop() {
            self.push(area);
        }
    }

    fn pop(&mut self) -> Option<Area> {
        let mut area = self.areas.take()?;
        self.areas = area.link(None);
        self.nr_areas -= 1;
        self.pages -= area.reserved();
        Some(area)
    }
}

impl<B: Backend> Vmalloc<B> {
    /// Ends `area`, which nobody else can take any more.
    #[inline(never)]
    pub(crate) fn give_back(&self, mut area: Area, by: &'static Location<'static>) {
        record::set_freer(&area, by);
        area.retire();
        self.settle();
        self.end(area);
    }

    /// Ends `area`, which is retired.
    #[inline(always)]
    fn end(&self, area: Area) {
        let range = record::range::<B::Granule>(&area);
        let head = Head::of(&area);
        if !head.may_be_mapped() {
            return self.release(area);
        }
        let mut batch = self.backend.tree().batch();
        self.take_out(range, &mut batch);
        // A policy may let it wait for a flush. Where nothing was mapped, there is none to wait for.
        let waits =
            self.config.flush != FlushPolicy::Strict && head.can_wait() && !head.permissions_changed();
        if waits && !batch.pending().is_empty() {
            return self.let_wait(area, &mut batch);
        }
        self.flush(&mut batch);
        self.end_flushed(area);
    }

    /// Takes whatever is mapped in `range` out.
    #[inline]
    fn take_out<'t>(&'t self, range: VirtRange, batch: &mut Batch<'t, B>) {
        if let Err(failure) = self.unmap(range, batch) {
            // No leaf reaches over the end of an area, so nothing needs a split, which is all that could fail.
            panic!("unmapping {range:?}: {failure}");
        }
    }

    /// The same, where it is not worth more code.
    #[inline(never)]
    pub(crate) fn end_retired(&self, area: Area) {
        self.end(area);
    }

    /// Lets `area`, which is out of the tables, wait for the flush of `batch`, which covers others too.
    #[inline]
    fn let_wait(&self, area: Area, batch: &mut Batch<'_, B>) {
        let slot = self.this_cpu();
        let mut cpu = slot.state.lock();
        cpu.waiting.push(area);
        batch.leave_to(&mut cpu.waiting.pending);
        let due = cpu.waiting.is_due(self.shares.cpu) && self.pass_on(&mut cpu.waiting);
        slot.nr_waiting.store(cpu.waiting.nr_areas(), Relaxed);
        drop(cpu);
        if due {
            self.purge_if_due();
        }
    }

    /// Moves a slot's share, whose lock is held, to the common list: nobody who looks into one after the other misses it. Whether
    /// the common list is due now.
    #[inline(never)]
    fn pass_on(&self, share: &mut Waiting<B::Granule>) -> bool {
        let mut state = self.state.lock();
        state.waiting.absorb(self.backend.tree(), share);
        state.waiting.is_due(self.shares.common)
    }

    /// Ends `area`, which is flushed.
    #[inline]
    fn end_flushed(&self, area: Area) {
        let head = Head::of(&area);
        if head.permissions_changed() {
            self.reset_alias(&area);
        }
        free_area(&self.backend, &area, head);
        self.release(area);
    }

    /// Unmaps `range`, which is the caller's alone, beside whatever others do. `batch` has what is to be flushed.
    #[inline]
    pub(crate) fn unmap<'t>(
        &'t self,
        range: VirtRange,
        batch: &mut Batch<'t, B>,
    ) -> Result<Outcome, Failure> {
        let _walk = self.backend.walks().walk();
        self.backend.tree().unmap(range, batch)
    }

    /// Unmaps `range`, no leaf of which reaches over its ends, and flushes.
    #[inline]
    pub(crate) fn take_out_now(&self, range: VirtRange) {
        let mut batch = self.backend.tree().batch();
        self.take_out(range, &mut batch);
        self.flush(&mut batch);
    }

    /// Flushes `batch`. Where tables go back, all walks are kept out meanwhile.
    #[inline]
    pub(crate) fn flush(&self, batch: &mut Batch<'_, B>) {
        let _release = (batch.pending().nr_dead_tables() != 0).then(|| self.backend.walks().release());
        batch.flush();
    }

    /// Flushes once for all of `due`, then gives all of it back. The purge lock is held.
    fn finish(&self, due: &mut Waiting<B::Granule>) {
        let pending = core::mem::take(&mut due.pending);
        let release = (pending.nr_dead_tables() != 0).then(|| self.backend.walks().release());
        // Other CPUs may have written the invalid descriptors: the state lock handed them over, and the leading barrier
        // must wait for stores observed as well as for this CPU's own (DSB ISH, Arm ARM B2.3.12).
        self.backend.tree().flush(pending, true);
        drop(release);
        // What this CPU may keep, and what becomes nobody's; either the oldest first, which suits the tree.
        let (mut flushed, mut rest): (Option<Area>, Option<Area>) = (None, None);
        while let Some(mut area) = due.pop() {
            free_area(&self.backend, &area, Head::of(&area));
            let list = if Cache::<WORDS>::has_class(area.reserved()) {
                &mut flushed
            } else {
                &mut rest
            };
            area.link(list.take());
            *list = Some(area);
        }
        if flushed.is_some() {
            let mut cpu = self.this_cpu().state.lock();
            while let Some(mut area) = flushed {
                flushed = area.link(None);
                if let Err(mut area) = cpu.cache.put(area) {
                    area.link(rest.take());
                    rest = Some(area);
                }
            }
        }
        if rest.is_some() {
            let mut state = self.state.lock();
            while let Some(mut area) = rest {
                rest = area.link(None);
                state.release(area);
            }
        }
    }

    /// Flushes the common list if it has reached its limit, and gives what was on it back.
    fn purge_if_due(&self) {
        let _purge = self.purge.lock();
        let mut state = self.state.lock();
        if !state.waiting.is_due(self.shares.common) {
            // Somebody else was faster.
            return;
        }
        let mut due = core::mem::take(&mut state.waiting);
        drop(state);
        self.finish(&mut due);
        self.nr_purges.fetch_add(1, Relaxed);
    }

    /// Flushes what waits, on all CPUs' lists, and gives it back. When it returns, what another CPU had begun to flush is
    /// given back as well.
    fn purge(&self) {
        let _purge = self.purge.lock();
        let mut due = Waiting::new();
        // In this order: what a CPU passes on meanwhile is on the common list before it is looked at.
        self.take_waiting(&mut due);
        let mut state = self.state.lock();
        if state.waiting.nr_areas != 0 {
            due.absorb(self.backend.tree(), &mut state.waiting);
        }
        drop(state);
        if due.nr_areas != 0 {
            self.finish(&mut due);
            self.nr_purges.fetch_add(1, Relaxed);
        }
    }

    /// Gives back the tables that are linked and empty within `range`, with all walks kept out. Whether there were any.
    #[cold]
    #[inline(never)]
    pub(crate) fn prune(&self, range: VirtRange) -> bool {
        let _release = self.backend.walks().release();
        match self.backend.tree().prune(range) {
            Ok(outcome) => outcome.tables_removed != 0,
            // The range is the region, or an area's, so it is whole pages of the tree's half.
            Err(failure) => panic!("pruning {range:?}: {failure}"),
        }
    }

    /// Gives back all tables of the region that are linked and empty, and waits for whoever is doing so.
    #[cold]
    #[inline(never)]
    fn prune_all(&self) {
        let _purge = self.purge.lock();
        if self.prune(self.range()) {
            self.nr_purges.fetch_add(1, Relaxed);
        }
    }

    /// How often a purge or a pruning has given something back. What is read under no lock is a number of before.
    #[inline]
    pub(crate) fn nr_purges(&self) -> usize {
        self.nr_purges.load(Relaxed)
    }

    /// Gives back whatever is withheld, and waits for what is on its way back: for whoever finds no memory, before he gives up.
    /// Whether anything was given back since there were `purges`, by whomever: then it is worth another try.
    pub(crate) fn purge_and_prune(&self, purges: usize) -> bool {
        self.settle_and_wait();
        let dropped = self.drop_idle_blocks();
        self.purge();
        self.prune_all();
        dropped || self.nr_purges() != purges
    }

    /// Makes sure that no TLB holds a translation of an area that was given back before this call by this CPU, or by one that
    /// this CPU has since heard from; and gives back the tables that those areas left empty.
    ///
    /// Under [`FlushPolicy::Strict`] no TLB ever does.
    ///
    /// [Waiting](crate#contexts): for the settling lock and the purge lock, which another CPU may hold to give back what it has, then for each of the others in
    /// turn; all walks are kept out while tables go back.
    pub fn vm_unmap_aliases(&self) {
        self.purge_and_prune(0);
    }
}
