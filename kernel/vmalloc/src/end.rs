//! How an area ends, by four verbs:
//!
//! 1. **retire**: under its shard's lock, it stops being one that is in use. From then on nothing looks at what it maps: a look holds that lock from when it
//!    finds the area in use until it is done with its tables and frames (`lookup`).
//! 2. **unmap**: whatever is mapped there is taken out of the tables.
//! 3. **queue**: it waits for the shard's next flush; or it is flushed at once, where its frames are not its own.
//! 4. **free**: after the flush, its frames go back, then its addresses.
//!
//! # Bounds
//! A small area is retired, unmapped and queued under one hold of its shard's lock, which a table's descriptors bound. A large one is unmapped with no lock
//! held: it is retired by then, and its tables are its own.
//!
//! # Tables
//! A piece keeps its table, however empty, as long as it is a CPU's. A large area is unmapped by all of its spans, so its tables are unlinked with it, and go
//! back with its flush.

use crate::backend::{Backend, Lock};
use crate::frames::free_area;
use crate::purge::FlushPolicy;
use crate::record::{self, Area, Head};
use crate::region::Vmalloc;
use crate::reserve::Context;
use crate::shard::{Shard, State};
use core::panic::Location;
use paging::{FlushBatch, Pending, VirtRange};

/// A batch on the backend's tree.
pub(crate) type Batch<'t, B> =
    FlushBatch<'t, <B as Backend>::Granule, <B as Backend>::Tables, <B as Backend>::Mmu>;

/// A shard's lock, held.
pub(crate) type Held<'a, B> =
    <<B as Backend>::Lock<State<<B as Backend>::Granule>> as Lock<State<<B as Backend>::Granule>>>::Guard<'a>;

impl<B: Backend> Vmalloc<B> {
    /// Ends `area`, which nobody else can take any more.
    #[inline(never)]
    pub(crate) fn give_back(&self, area: Area, by: &'static Location<'static>) {
        self.settle(Context::Waiting);
        let shard = self.shard_of(&area);
        record::set_freer(&area, by);
        let held = shard.state.lock();
        if self.end(shard, held, area) {
            self.flush_if_due(shard);
        }
    }

    /// Ends `area` of `shard`, whose lock is held. Whether the shard is due for a flush by now.
    #[inline(always)]
    pub(crate) fn end(&self, shard: &Shard<B>, mut held: Held<'_, B>, mut area: Area) -> bool {
        area.retire();
        let head = Head::of(&area);
        if !head.may_be_mapped() {
            held.release(area);
            return false;
        }
        // A policy may let it wait for a flush.
        let waits =
            self.config.flush != FlushPolicy::Strict && head.can_wait() && !head.permissions_changed();
        if shard.is_common() {
            drop(held);
            return self.end_large(shard, area, waits);
        }
        let range = record::range::<B::Granule>(&area);
        if waits {
            self.unmap_leaves(range, &mut held.waiting.pending);
            held.waiting.push(area);
            return self.share.is_reached(&held.waiting, 1);
        }
        let mut pending = Pending::new();
        self.unmap_leaves(range, &mut pending);
        drop(held);
        self.free_flushed(shard, area, pending);
        false
    }

    /// The same for an area that is retired, and has whole spans.
    #[inline(never)]
    fn end_large(&self, shard: &Shard<B>, area: Area, waits: bool) -> bool {
        let mut batch = self.backend.tree().batch();
        self.unmap_all(Self::whole(&area), &mut batch);
        let (mut pending, _) = batch.detach();
        if !waits {
            self.free_flushed(shard, area, pending);
            return false;
        }
        let mut held = shard.state.lock();
        held.waiting.leave(self.backend.tree(), &mut pending);
        held.waiting.push(area);
        self.share.is_reached(&held.waiting, 1)
    }

    /// Flushes what was unmapped of `area`, and frees it.
    #[inline(always)]
    fn free_flushed(&self, shard: &Shard<B>, area: Area, pending: Pending<B::Granule>) {
        self.backend.tree().flush(pending, false);
        let head = Head::of(&area);
        if head.permissions_changed() {
            self.reset_alias(&area);
        }
        free_area(&self.backend, &area, head);
        shard.state.lock().release(area);
    }

    /// Ends `area`, whose map failed, and which has no frames.
    #[cold]
    pub(crate) fn abandon(&self, mut area: Area) {
        let shard = self.shard_of(&area);
        let mut held = shard.state.lock();
        area.retire();
        if !shard.is_common() {
            // What the map has made are empty tables, or none: the piece keeps them.
            held.release(area);
            return;
        }
        drop(held);
        let mut batch = self.backend.tree().batch();
        self.unmap_all(Self::whole(&area), &mut batch);
        batch.flush();
        shard.state.lock().release(area);
    }

    /// Takes the leaves of `range` out, which is in a piece: it covers no table whole, so its tables stay.
    #[inline(always)]
    pub(crate) fn unmap_leaves(&self, range: VirtRange, pending: &mut Pending<B::Granule>) {
        let mut batch = self.backend.tree().batch();
        self.unmap_all(range, &mut batch);
        batch.leave_to(pending);
    }

    /// Takes all of `range` out, and the tables that it covers whole.
    #[inline]
    pub(crate) fn unmap_all(&self, range: VirtRange, batch: &mut Batch<'_, B>) {
        if let Err(failure) = self.backend.tree().unmap(range, batch) {
            // No leaf reaches over the end of an area, so nothing needs a split, which is all that could fail.
            panic!("unmapping {range:?}: {failure}");
        }
    }
}
