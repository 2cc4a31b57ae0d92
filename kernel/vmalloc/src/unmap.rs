//! How an area is freed: **retire** it, so that lookups no longer find it; **unmap**; **queue** for
//! the shard's flush, or flush at once if its frames are foreign; then **free** its frames and
//! addresses.
//!
//! A small area takes one hold: at most a table's descriptors. On another CPU it is only retired
//! (`deferred`). A large one is unmapped without the lock, by whole spans, so that its tables go
//! with it.

use crate::backend::{Backend, Lock};
use crate::frames::free_frames_of;
use crate::policy::{FlushPolicy, ForeignPages};
use crate::record::{self, Area, Head};
use crate::region::{Batch, Vmalloc};
use crate::shard::{Held, Shard};
use paging::{Granule, LAST_LEVEL, VirtRange};

impl<B: Backend> Vmalloc<B> {
    #[inline(always)]
    pub(crate) fn waits(&self, head: Head) -> bool {
        self.config.flush != FlushPolicy::Strict
            && (head.can_wait() || self.config.foreign == ForeignPages::Defer)
            && !head.permissions_changed()
    }

    #[inline(always)]
    pub(crate) fn defers_foreign(&self) -> bool {
        self.config.flush != FlushPolicy::Strict && self.config.foreign == ForeignPages::Defer
    }

    /// Whether a flush is due. `shard` is locked.
    #[inline(always)]
    pub(crate) fn free_held(&self, shard: &Shard<B>, mut held: Held<'_, B>, mut area: Area) -> bool {
        let head = Head::of(&area);
        if !head.may_be_mapped() {
            held.release(area);
            return false;
        }
        area.retire();
        let waits = self.waits(head);
        if shard.is_common() || head.may_have_holes() {
            drop(held);
            return self.free_unlocked(shard, area, waits);
        }
        // It covers no whole table, so its tables stay.
        let mut batch = self.backend.tree().batch();
        self.unmap_all(record::range::<B::Granule>(&area), &mut batch);
        if waits {
            return self.queue(held, area, &mut batch);
        }
        drop(held);
        self.flush_and_free(shard, area, &mut batch);
        false
    }

    /// What has more descriptors than a table, or holes, where the walker reads descriptors twice.
    #[inline(never)]
    fn free_unlocked(&self, shard: &Shard<B>, area: Area, waits: bool) -> bool {
        let mut batch = self.backend.tree().batch();
        if shard.is_common() {
            self.unmap_spans(&area, &mut batch);
        } else {
            self.unmap_all(record::range::<B::Granule>(&area), &mut batch);
        }
        if waits {
            return self.queue(shard.state.lock(), area, &mut batch);
        }
        self.flush_and_free(shard, area, &mut batch);
        false
    }

    /// Whether a flush is due.
    #[inline(always)]
    fn queue(&self, mut held: Held<'_, B>, area: Area, batch: &mut Batch<'_, B>) -> bool {
        batch.defer_to(&mut held.lazy.pending);
        held.lazy.push(area);
        self.share.is_reached_by(held.lazy.usage())
    }

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

    /// Its map failed.
    #[cold]
    pub(crate) fn abandon(&self, mut area: Area) {
        let shard = self.shard_of(&area);
        let mut held = shard.state.lock();
        area.retire();
        if !shard.is_common() {
            // At most empty tables were left, which the piece keeps.
            held.release(area);
            return;
        }
        drop(held);
        let mut batch = self.backend.tree().batch();
        self.unmap_spans(&area, &mut batch);
        batch.flush();
        shard.state.lock().release(area);
    }

    fn unmap_spans(&self, area: &Area, batch: &mut Batch<'_, B>) {
        let body = record::range::<B::Granule>(area);
        self.unmap_all(body, batch);
        let span = B::Granule::size(LAST_LEVEL - 1);
        let (first, last) = (body.start.align_down(span), body.last().align_down(span));
        if first != body.start {
            self.unmap_all(VirtRange::new(first, span), batch);
        }
        if last.add(span) != body.end() && (last != first || first == body.start) {
            self.unmap_all(VirtRange::new(last, span), batch);
        }
    }

    #[inline]
    pub(crate) fn unmap_all(&self, range: VirtRange, batch: &mut Batch<'_, B>) {
        if let Err(failure) = self.backend.tree().unmap(range, batch) {
            // No leaf spans an area's end, and only a split could fail.
            panic!("unmapping {range:?}: {failure}");
        }
    }
}
