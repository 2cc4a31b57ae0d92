//! How an area ends: taken out of the tables, withheld, flushed, given back.
//!
//! The order is DESIGN rule 6: neither the frames, nor the tables, nor the addresses of an area may be used again before
//! no TLB can hold a translation of it. When the flush comes is policy, but where a table was unlinked it comes at once:
//!
//! - [`FlushPolicy::Strict`]: at once, for each area alone;
//! - [`FlushPolicy::Lazy`]: one flush for many, when enough of them wait. At most the policy's pages and areas wait, plus
//!   what one more area brings.
//!
//! Lazy is only what can be withheld. The pages of a `vmap` and of a reserved area are somebody else's, who may use them for
//! something else as soon as the call returns: these are flushed at once under either policy.

use crate::backend::{Backend, Lock, WalkLock};
use crate::frames::free_area;
use crate::record::{self, Area};
use crate::state::{State, Vmalloc};
use core::panic::Location;
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

impl<B: Backend> Vmalloc<B> {
    /// Ends `area`, which nobody else can take any more.
    pub(crate) fn give_back(&self, mut area: Area, by: &'static Location<'static>) {
        record::set_freer(&area, by);
        area.retire();
        let range = record::range::<B::Granule>(&area);
        let mut batch = self.backend.tree().batch();
        if let Err(failure) = self.unmap(range, &mut batch) {
            // No leaf reaches over the end of an area, so nothing needs a split, which is all that could fail.
            panic!("unmapping {range:?}: {failure}");
        }
        let kind = record::kind(&area);
        match self.config.flush {
            // Where nothing is left to flush, a table went, or nothing was mapped.
            FlushPolicy::Lazy { areas, pages } if kind.can_wait() && !batch.pending().is_empty() => {
                let pending = batch.detach().0;
                let mut state = self.state.lock();
                state.waiting.push(area);
                state.waiting.pending.merge(self.backend.tree().tables(), pending);
                if state.waiting.nr_areas >= areas || state.waiting.pages >= pages {
                    let due = core::mem::replace(&mut state.waiting, Waiting::new());
                    drop(state);
                    self.finish(due);
                }
            }
            FlushPolicy::Strict | FlushPolicy::Lazy { .. } => {
                batch.flush();
                free_area(&self.backend, &area);
                Self::release(&mut self.state.lock(), area);
            }
        }
    }

    /// Unmaps `range`. `batch`, which is empty, has what became of it, but not where a table was unlinked: that is flushed
    /// here, with all others kept out.
    ///
    /// The reason is break-before-make (DESIGN rule 3). Once a link is gone, whoever maps something near may put a new
    /// table in its place, while a walk cache still holds the old link: two links for one address. So no map may come
    /// between the unlinking and the TLBI. Where no table goes, the lock is held for the stores alone.
    #[inline]
    pub(crate) fn unmap<'t>(
        &'t self,
        range: VirtRange,
        batch: &mut Batch<'t, B>,
    ) -> Result<Outcome, Failure> {
        let tree = self.backend.tree();
        let _release = self.backend.walks().release();
        let outcome = tree.unmap(range, batch)?;
        if batch.pending().nr_dead_tables() != 0 {
            core::mem::replace(batch, tree.batch()).flush();
        }
        Ok(outcome)
    }

    /// Remembers the area and lets its range be reserved again. It is flushed.
    fn release(state: &mut State<B::Granule>, area: Area) {
        state.remember(record::freed_area::<B::Granule>(&area));
        state.release(area);
    }

    /// Flushes once for all of `due`, then gives all of it back.
    fn finish(&self, mut due: Waiting<B::Granule>) {
        let pending = core::mem::take(&mut due.pending);
        // Other CPUs may have written the invalid descriptors: the state lock handed them over, and the leading barrier
        // must wait for stores observed as well as for this CPU's own.
        debug_assert_eq!(
            pending.nr_dead_tables(),
            0,
            "a table unlinked and not flushed at once"
        );
        self.backend.tree().flush(pending, true);
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

    /// Flushes what waits, and gives it back. Whether there was any.
    pub(crate) fn purge(&self) -> bool {
        let mut state = self.state.lock();
        let due = core::mem::replace(&mut state.waiting, Waiting::new());
        drop(state);
        let any = due.nr_areas != 0;
        if any {
            self.finish(due);
        }
        any
    }

    /// Makes sure that no TLB holds a translation of an area that was given back before this call by this CPU, or by one that
    /// this CPU has since heard from.
    ///
    /// Under [`FlushPolicy::Strict`] there never is one.
    pub fn vm_unmap_aliases(&self) {
        self.purge();
    }
}
