//! How an area is freed, by four verbs:
//!
//! 1. **retire**: it is no longer in use. No lookup finds it from then on.
//! 2. **unmap**: its leaves are cleared, under its shard's lock or after that was held: a lookup
//!    holds that lock from when it finds the area until it is done with its tables and frames
//!    (`lookup`).
//! 3. **queue**: it waits for the shard's next flush; or it is flushed at once, if its frames are
//!    not its own.
//! 4. **free**: after the flush its frames are freed, then its addresses.
//!
//! # Bounds
//! A small area is retired, unmapped and queued under one hold of its shard's lock: at most a
//! table's descriptors. On another CPU than the shard's it is retired, and left to that CPU
//! (`deferred`). A large area is retired under the lock and unmapped without: its tables are its
//! own.
//!
//! # Tables
//! A piece keeps its table, even if empty, as long as a CPU has it. A large area is unmapped by
//! whole spans, so its tables are unlinked with it and freed by its flush.

use crate::backend::{Backend, Lock};
use crate::frames::free_frames_of;
use crate::owner::COMMON;
use crate::policy::{FlushPolicy, ForeignPages};
use crate::record::{self, Area, Head};
use crate::region::{Batch, Context, Vmalloc};
use crate::shard::{Held, Shard};
use core::panic::Location;
use paging::{Granule, LAST_LEVEL, VirtRange};

impl<B: Backend> Vmalloc<B> {
    /// Frees `area`, which cannot be found any more, and whose body is `range`.
    #[inline(never)]
    pub(crate) fn free_area(&self, area: Area, range: VirtRange, by: &'static Location<'static>) {
        let here = self.drain_some(Context::Waiting);
        record::set_freer(&area, by);
        let owner = usize::from(area.owner());
        let shard = if owner == here.number() {
            here
        } else {
            let shard = self.shards.get(owner);
            // Nothing of another CPU's shard is read here. It stays mapped, which is only for what
            // is freed lazily.
            let head = Head::of(&area);
            if owner != COMMON && head.can_wait() && self.waits(head) {
                return self.defer_to_owner(shard, area, range.size >> B::Granule::PAGE_SHIFT);
            }
            shard
        };
        let held = shard.state.lock();
        if self.free_held(shard, held, area) {
            self.flush_if_due(shard);
        }
    }

    /// Returns whether the policy lets such an area wait for a flush.
    #[inline(always)]
    fn waits(&self, head: Head) -> bool {
        self.config.flush != FlushPolicy::Strict
            && (head.can_wait() || self.config.foreign == ForeignPages::Defer)
            && !head.permissions_changed()
    }

    /// Returns whether mappings of another owner's pages wait for a flush.
    #[inline(always)]
    pub(crate) fn defers_foreign(&self) -> bool {
        self.config.flush != FlushPolicy::Strict && self.config.foreign == ForeignPages::Defer
    }

    /// Frees `area` of `shard`, whose lock is held. Returns whether the shard is due for a flush.
    #[inline(always)]
    pub(crate) fn free_held(&self, shard: &Shard<B>, mut held: Held<'_, B>, mut area: Area) -> bool {
        let head = Head::of(&area);
        if !head.may_be_mapped() {
            held.release(area);
            return false;
        }
        area.retire();
        let waits = self.waits(head);
        if shard.is_common() {
            drop(held);
            return self.free_large(shard, area, waits);
        }
        // It covers no table whole, so its tables stay.
        let mut batch = self.backend.tree().batch();
        self.unmap_all(record::range::<B::Granule>(&area), &mut batch);
        if waits {
            return self.queue(held, area, &mut batch);
        }
        drop(held);
        self.flush_and_free(shard, area, &mut batch);
        false
    }

    /// The same for a retired area that has whole spans.
    #[inline(never)]
    fn free_large(&self, shard: &Shard<B>, area: Area, waits: bool) -> bool {
        let mut batch = self.backend.tree().batch();
        self.unmap_spans(&area, &mut batch);
        if waits {
            return self.queue(shard.state.lock(), area, &mut batch);
        }
        self.flush_and_free(shard, area, &mut batch);
        false
    }

    /// Queues `area`, with what was unmapped of it, for the next flush of its shard, whose lock is
    /// held. Returns whether that is due.
    #[inline(always)]
    fn queue(&self, mut held: Held<'_, B>, area: Area, batch: &mut Batch<'_, B>) -> bool {
        batch.defer_to(&mut held.lazy.pending);
        held.lazy.push(area);
        self.share.is_reached_by(held.lazy.usage())
    }

    /// Flushes what was unmapped of `area`, and frees its frames and addresses.
    #[inline(always)]
    fn flush_and_free(&self, shard: &Shard<B>, area: Area, batch: &mut Batch<'_, B>) {
        batch.flush();
        let head = Head::of(&area);
        if head.permissions_changed() {
            self.reset_alias(&area);
        }
        free_frames_of(&self.backend, &area, head);
        shard.state.lock().release(area);
    }

    /// Frees `area`, whose map failed, and which has no frames.
    #[cold]
    pub(crate) fn abandon(&self, mut area: Area) {
        let shard = self.shard_of(&area);
        let mut held = shard.state.lock();
        area.retire();
        if !shard.is_common() {
            // The map has made empty tables at most, which the piece keeps.
            held.release(area);
            return;
        }
        drop(held);
        let mut batch = self.backend.tree().batch();
        self.unmap_spans(&area, &mut batch);
        batch.flush();
        shard.state.lock().release(area);
    }

    /// Unmaps a large area, and its tables.
    fn unmap_spans(&self, area: &Area, batch: &mut Batch<'_, B>) {
        let body = record::range::<B::Granule>(area);
        // Most tables are full, or full up to the end of the body, and are quickly recognised.
        self.unmap_all(body, batch);
        // This unlinked the tables that the body covers whole. The first and the last may be left,
        // empty.
        let span = B::Granule::size(LAST_LEVEL - 1);
        let (first, last) = (body.start.align_down(span), body.last().align_down(span));
        if first != body.start {
            self.unmap_all(VirtRange::new(first, span), batch);
        }
        if last.add(span) != body.end() && (last != first || first == body.start) {
            self.unmap_all(VirtRange::new(last, span), batch);
        }
    }

    /// Unmaps all of `range`, with the tables that it covers whole.
    #[inline]
    pub(crate) fn unmap_all(&self, range: VirtRange, batch: &mut Batch<'_, B>) {
        if let Err(failure) = self.backend.tree().unmap(range, batch) {
            // No leaf spans the end of an area, so no split is needed, and only a split could fail.
            panic!("unmapping {range:?}: {failure}");
        }
    }
}
