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
use crate::region::{Batch, TreeOf, Vmalloc};
use crate::shard::{Held, Shard};
use paging::{Failure, Granule, LAST_LEVEL, VirtRange};

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

    /// Frees `area`, whose body is `range`, of the locked `shard`; returns whether a flush is due.
    #[inline(always)]
    pub(crate) fn free_held(
        &self,
        shard: &Shard<B>,
        mut held: Held<'_, B>,
        mut area: Area,
        range: VirtRange,
    ) -> bool {
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
        {
            let tree = self.backend.tree();
            let mut batch = tree.batch();
            Self::unmap_all(tree, range, &mut batch);
            if waits {
                return self.queue(held, area, &mut batch);
            }
            drop(held);
            batch.flush();
        }
        self.free_flushed(shard, area);
        false
    }

    /// What has more descriptors than a table, or holes, where the walker reads descriptors twice.
    #[inline(never)]
    fn free_unlocked(&self, shard: &Shard<B>, area: Area, waits: bool) -> bool {
        let tree = self.backend.tree();
        let mut batch = tree.batch();
        Self::unmap_spans(tree, &area, shard.is_common(), &mut batch);
        if waits {
            return self.queue(shard.state.lock(), area, &mut batch);
        }
        batch.flush();
        self.free_flushed(shard, area);
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
    fn free_flushed(&self, shard: &Shard<B>, area: Area) {
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
        // Of a small one at most empty tables were left, which the piece keeps.
        if shard.is_common() {
            drop(held);
            let tree = self.backend.tree();
            let mut batch = tree.batch();
            Self::unmap_spans(tree, &area, true, &mut batch);
            batch.flush();
            held = shard.state.lock();
        }
        held.release(area);
    }

    /// With the rest of the spans where it begins and ends, if they are the area's (`whole`).
    #[inline(always)]
    fn unmap_spans(tree: &TreeOf<B>, area: &Area, whole: bool, batch: &mut Batch<'_, B>) {
        let body = record::range::<B::Granule>(area);
        Self::unmap_all(tree, body, batch);
        let span = B::Granule::size(LAST_LEVEL - 1);
        let (first, last) = (body.start.align_down(span), body.last().align_down(span));
        let begins_within = first != body.start;
        let ends_within = last.add(span) != body.end() && (last != first || !begins_within);
        for (at, is_cut) in [(first, begins_within), (last, ends_within)] {
            if whole && is_cut {
                Self::unmap_all(tree, VirtRange::new(at, span), batch);
            }
        }
    }

    #[inline(always)]
    pub(crate) fn unmap_all(tree: &TreeOf<B>, range: VirtRange, batch: &mut Batch<'_, B>) {
        if let Err(failure) = tree.unmap(range, batch) {
            not_unmapped(range, &failure)
        }
    }
}

/// No leaf spans an area's end, and only a split could fail.
#[cold]
#[inline(never)]
fn not_unmapped(range: VirtRange, failure: &Failure) -> ! {
    panic!("unmapping {range:?}: {failure}");
}
