//! A flush takes a shard's list under its lock, invalidates, frees the frames, and returns the
//! addresses, [`STEP`] areas per hold, inside the purge gate with interrupts enabled. It is due at
//! the shard's share of the policy's limit; while another one runs, at twice that.

use crate::backend::{Backend, Lock};
use crate::frames::free_frames_of;
use crate::gate::Inside;
use crate::owner::COMMON;
use crate::record::{Area, Head, List, WORDS};
use crate::region::Vmalloc;
use crate::shard::{Flushing, Held, STEP, Shard};
use crate::va::MAX_CACHED_PAGES;
use paging::{Granule, Pending, VirtAddr, VirtRange};

const IDLE_PIECES: u64 = 2;

/// Sizes that a flush ages for each area, and pages for which it ages one more. So what aging costs
/// an area does not depend on how many areas a CPU may have before they are flushed.
const AGED_PER_AREA: usize = 10;
const PAGES_PER_AGED: u64 = 8;

pub(crate) const PIECES_AT_ONCE: usize = 16;

impl<B: Backend> Vmalloc<B> {
    /// As [`free_held`](Self::free_held), and flushes if that is due.
    #[inline(always)]
    pub(crate) fn free_and_flush(&self, shard: &Shard<B>, held: Held<'_, B>, area: Area, range: VirtRange) {
        if self.free_held(shard, held, area, range) {
            self.flush_if_due(shard);
        }
    }

    /// Unless another flush is under way and twice the share is not reached.
    #[inline(never)]
    pub(crate) fn flush_if_due(&self, shard: &Shard<B>) {
        let is_urgent = || {
            let (nr, pages) = shard.state.lock().lazy.usage();
            self.share.is_reached_by((nr / 2, pages / 2))
        };
        if let Some(_inside) = self.enter_purge(shard, is_urgent) {
            self.flush_inside(shard);
        }
    }

    /// If another one is inside, only if it `waits`.
    pub(crate) fn enter_purge<'s>(
        &self,
        shard: &'s Shard<B>,
        waits: impl FnOnce() -> bool,
    ) -> Option<Inside<'s, B>> {
        let inside = shard.purge.try_enter();
        inside.or_else(|| waits().then(|| shard.purge.enter(&self.backend)))
    }

    /// If due, inside the purge gate.
    pub(crate) fn flush_inside(&self, shard: &Shard<B>) {
        let usage = shard.state.lock().lazy.usage();
        if self.share.is_reached_by(usage) {
            let to_age = usage.0 * AGED_PER_AREA + (usage.1 / PAGES_PER_AGED) as usize;
            self.flush_shard(shard, to_age);
            self.return_pieces(shard, IDLE_PIECES);
        }
    }

    /// Inside the purge gate. Ages `to_age` sizes of what the shard keeps.
    pub(crate) fn flush_shard(&self, shard: &Shard<B>, to_age: usize) {
        let mut state = shard.state.lock();
        if state.lazy.is_empty() {
            return;
        }
        let mut due = state.lazy.take();
        let (nr_areas, pages) = due.usage();
        state.flushing = Flushing { nr_areas, pages };
        drop(state);
        let pending = core::mem::replace(&mut due.pending, Pending::new());
        // The lock hands over invalid descriptors that other CPUs wrote: the leading barrier must
        // cover observed stores too (DSB ISH, Arm ARM B2.3.12).
        self.backend.tree().flush(pending, true);
        // Oldest first, which suits the tree.
        let mut flushed = List::new();
        for area in due.areas {
            free_frames_of(&self.backend, &area, Head::of(&area));
            flushed.push(area);
        }
        let mut to_age = to_age.min(MAX_CACHED_PAGES);
        while !flushed.is_empty() || to_age != 0 {
            let mut state = shard.state.lock();
            let mut left = STEP;
            while left != 0
                && let Some(area) = flushed.next()
            {
                state.flushing.nr_areas -= 1;
                state.flushing.pages -= area.reserved();
                state.nr_freed += 1;
                state.release(area);
                left -= 1;
            }
            if flushed.is_empty() && left != 0 {
                let mut gone = List::new();
                to_age = state.cache.age(to_age, left, |area| gone.push(area));
                gone.for_each(|area| state.join(area));
            }
        }
    }

    /// Returns up to [`PIECES_AT_ONCE`] idle pieces to the common shard: all, or if `keep` is not 0
    /// a quarter of those beyond it. Several may do so at once.
    pub(crate) fn return_pieces(&self, shard: &Shard<B>, keep: u64) -> u64 {
        if shard.is_common() {
            return 0;
        }
        let mut idle: [Option<Area>; PIECES_AT_ONCE] = [const { None }; PIECES_AT_ONCE];
        let tree = self.backend.tree();
        let mut batch = tree.batch();
        let mut due = None;
        for place in &mut idle {
            let mut state = shard.state.lock();
            let vacant = (state.space.pages - state.space.reserved) / Self::SPAN_PAGES;
            let left = due.unwrap_or(match keep {
                0 => u64::MAX,
                _ => vacant.saturating_sub(keep).div_ceil(4),
            });
            if left == 0 {
                break;
            }
            due = Some(left - 1);
            // An area for now: the piece stays until no TLB knows its table.
            let Ok(mut area) = state.space.reserve(&Self::PIECE, &[0; WORDS]) else {
                break;
            };
            area.retire();
            drop(state);
            // No lookup finds an area there.
            Self::unmap_all(tree, Self::whole(&area), &mut batch);
            *place = Some(area);
        }
        batch.flush();
        let returned = |area| u64::from(self.return_piece(shard, area));
        idle.into_iter().flatten().map(returned).sum()
    }

    /// False if the common shard lacks a node: the piece stays.
    fn return_piece(&self, shard: &Shard<B>, area: Area) -> bool {
        if self.shards.common().state.lock().space.nr_spare_nodes() == 0
            && let Some(page) = self.backend.node_page()
        {
            self.shards.common().state.lock().space.feed(page);
        }
        let start = area.first();
        let mut state = shard.state.lock();
        state.space.release(area);
        let mut common = self.shards.common().state.lock();
        if common.space.nr_spare_nodes() == 0 || state.space.remove(start, Self::SPAN_PAGES) != Ok(true) {
            return false;
        }
        let noted = self.owners.set(self.span_of(start), COMMON);
        debug_assert!(noted, "a piece was had without a note");
        let added = common.space.add(start, Self::SPAN_PAGES);
        debug_assert!(added.is_ok(), "a node was spare");
        true
    }

    /// Guards included.
    pub(crate) fn whole(area: &Area) -> VirtRange {
        VirtRange::new(
            VirtAddr(area.first().0 << B::Granule::PAGE_SHIFT),
            area.reserved() << B::Granule::PAGE_SHIFT,
        )
    }
}
