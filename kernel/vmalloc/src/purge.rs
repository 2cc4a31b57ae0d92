//! When unmapped areas are flushed and freed, and what is done where something has run out.
//!
//! Frames, tables and addresses of an area may not be reused while a TLB can hold a translation of
//! it (DESIGN rule 6). When the flush comes is policy:
//!
//! - [`Strict`](crate::FlushPolicy::Strict): before the call that frees the area returns, for each
//!   area alone;
//! - [`Lazy`](crate::FlushPolicy::Lazy): one flush for many, when enough of them wait.
//!
//! Only what can be freed lazily waits. The pages of a `vmap` and of a reserved area are the
//! caller's, which may reuse them as soon as the call returns: they are flushed at once under
//! either policy.
//!
//! # One flush a shard
//! Each shard has its own list of areas that wait, and its own flush. A flush takes the list under
//! the shard's lock, invalidates, frees the frames, and gives the addresses back to the shard,
//! [`STEP`] areas under one hold of the lock. All that is done inside the shard's purge gate, with
//! interrupts enabled. So a call that passes the gate and finds nothing to flush knows that nothing
//! is on its way back.
//!
//! # What is lazy at most
//! A shard's share is the policy's limit divided by the number of shards, and what the freeing CPU
//! adds to it; twice that while a flush of the shard is under way, and then it is waited for. Half
//! as much more may be in its deferred-free list.
//!
//! # Where something has run out
//! A call that lacks frames, tables, nodes or addresses flushes all shards, and tries once more if
//! something was freed. If what is kept (ranges for the next of their size, pieces without an area
//! and their tables) could help, that is freed, too, and it tries a last time. So a call ends, no
//! matter what others do (DESIGN rule 14), and a request that cannot be met takes nothing from
//! others.

use crate::backend::{Backend, Lock};
use crate::error::Error;
use crate::frames::free_frames_of;
use crate::owner::COMMON;
use crate::record::{Area, Head, WORDS};
use crate::region::Vmalloc;
use crate::shard::{Flushing, STEP, Shard};
use crate::va;
use paging::{Granule, Pending, VirtAddr, VirtRange};

/// Pieces without an area that a shard keeps at a purge, with their tables.
const IDLE_PIECES: u64 = 2;

/// Pieces that are unlinked for one flush.
const PIECES_AT_ONCE: usize = 16;

/// What could be had if everything that is lazy or kept went back: no less than that.
#[derive(Clone, Copy, Default)]
struct Potential {
    /// Frames that wait for a flush.
    frames: u64,
    /// Pages of addresses that are in no area in use.
    addresses: u64,
    /// Pages of addresses that CPUs have and could return.
    in_pieces: u64,
}

impl<B: Backend> Vmalloc<B> {
    /// Flushes `shard`, which has reached its share. One flush at a time: while another one is
    /// under way, it is left to wait, up to a limit.
    #[inline(never)]
    pub(crate) fn flush_if_due(&self, shard: &Shard<B>) {
        let inside = match shard.purge.try_enter() {
            Some(inside) => inside,
            None => {
                let (nr, pages) = shard.state.lock().lazy.usage();
                if !self.share.is_reached_by((nr / 2, pages / 2)) {
                    return;
                }
                shard.purge.enter(&self.backend)
            }
        };
        self.flush_inside(shard);
        drop(inside);
    }

    /// Flushes `shard` if it has reached its share. Inside its purge gate.
    pub(crate) fn flush_inside(&self, shard: &Shard<B>) {
        let usage = shard.state.lock().lazy.usage();
        if self.share.is_reached_by(usage) {
            self.flush_shard(shard);
            self.return_pieces(shard, IDLE_PIECES);
        }
    }

    /// Flushes once for all that waits in `shard`, then frees all of it. Inside the shard's
    /// purge gate.
    pub(crate) fn flush_shard(&self, shard: &Shard<B>) {
        let mut state = shard.state.lock();
        if state.lazy.is_empty() {
            return;
        }
        let mut due = state.lazy.take();
        let (nr_areas, pages) = due.usage();
        state.flushing = Flushing { nr_areas, pages };
        drop(state);
        let pending = core::mem::replace(&mut due.pending, Pending::new());
        // Other CPUs may have written the invalid descriptors: the shard's lock handed them over,
        // and the leading barrier must wait for stores observed as well as for this CPU's own (DSB
        // ISH, Arm ARM B2.3.12).
        self.backend.tree().flush(pending, true);
        // The oldest first, which suits the tree.
        let mut flushed: Option<Area> = None;
        while let Some(mut area) = due.pop() {
            free_frames_of(&self.backend, &area, Head::of(&area));
            area.link(flushed.take());
            flushed = Some(area);
        }
        let mut age_from = Some(0);
        while flushed.is_some() || age_from.is_some() {
            let mut state = shard.state.lock();
            let mut left = STEP;
            while left != 0
                && let Some(mut area) = flushed.take()
            {
                flushed = area.link(None);
                state.flushing.nr_areas -= 1;
                state.flushing.pages -= area.reserved();
                state.nr_freed += 1;
                state.release(area);
                left -= 1;
            }
            if flushed.is_none()
                && left != 0
                && let Some(from) = age_from
            {
                let mut gone: Option<Area> = None;
                age_from = state.cache.age(from, left, |mut area| {
                    area.link(gone.take());
                    gone = Some(area);
                });
                while let Some(mut area) = gone {
                    gone = area.link(None);
                    state.join(area);
                }
            }
        }
    }

    /// Gives a CPU's pieces without an area back to the common shard, less `keep` of them: a
    /// quarter of them, or all if none is to be kept. Inside the shard's purge gate, or not: others
    /// may do the same.
    fn return_pieces(&self, shard: &Shard<B>, keep: u64) -> u64 {
        if shard.is_common() {
            return 0;
        }
        let mut returned = 0;
        loop {
            let mut idle: [Option<Area>; PIECES_AT_ONCE] = [const { None }; PIECES_AT_ONCE];
            let mut batch = self.backend.tree().batch();
            for place in &mut idle {
                let mut state = shard.state.lock();
                let vacant = (state.space.pages() - state.space.reserved()) / Self::SPAN_PAGES;
                if vacant <= keep {
                    break;
                }
                // An area for now: the piece is the shard's until no TLB knows its table.
                let Ok(mut area) = state.space.reserve(&Self::PIECE, &[0; WORDS]) else {
                    break;
                };
                area.retire();
                // With the lock held: it keeps out those that look at this shard's tables.
                self.unmap_all(Self::whole(&area), &mut batch);
                *place = Some(area);
                if keep != 0 && returned + 1 >= vacant.div_ceil(4) {
                    break;
                }
            }
            batch.flush();
            let mut all = true;
            for area in idle.into_iter().flatten() {
                if self.return_piece(shard, area) {
                    returned += 1;
                } else {
                    all = false;
                }
            }
            let full = returned != 0 && returned.is_multiple_of(PIECES_AT_ONCE as u64);
            if !all || !full || keep != 0 {
                return returned;
            }
        }
    }

    /// Gives a piece back that is unmapped and flushed. False if the common shard has no node for
    /// it: then it stays.
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

    /// Returns all pages of an area, guards included.
    pub(crate) fn whole(area: &Area) -> VirtRange {
        VirtRange::new(
            VirtAddr(area.first().0 << B::Granule::PAGE_SHIFT),
            area.reserved() << B::Granule::PAGE_SHIFT,
        )
    }

    /// Makes sure that no TLB holds a translation of an area that was freed before this call by
    /// this CPU, or by one that this CPU has since heard from.
    ///
    /// Under [`Strict`](crate::FlushPolicy::Strict) no TLB ever does, except for areas freed where
    /// nothing may wait.
    ///
    /// [Waiting](crate#contexts): for each shard's purge gate in turn, in which another CPU may be
    /// freeing what it has flushed.
    pub fn vm_unmap_aliases(&self) {
        self.flush_all();
    }

    /// Flushes all shards. Returns how many areas were freed meanwhile, by any CPU.
    fn flush_all(&self) -> u64 {
        self.drain_addresses(true);
        let mut nr_freed = 0;
        for shard in self.shards.iter() {
            let before = shard.state.lock().nr_freed;
            let _inside = shard.purge.enter(&self.backend);
            self.drain_all(shard);
            self.flush_shard(shard);
            nr_freed += shard.state.lock().nr_freed - before;
        }
        nr_freed
    }

    /// Frees all that is lazy or kept for later: what waits for a flush, ranges that are kept
    /// for the next of their size, blocks of `vm_map_ram` and pieces without a mapping, and the
    /// tables of those. For a kernel that is short of memory.
    ///
    /// [Waiting](crate#contexts), as [`vm_unmap_aliases`](Self::vm_unmap_aliases).
    pub fn shrink(&self) {
        self.give_up_all();
    }

    /// The same. Returns how many areas and ranges became free, and how many pieces.
    fn give_up_all(&self) -> (u64, u64) {
        for shard in self.shards.iter() {
            self.drop_idle_block(shard);
        }
        let mut freed = self.flush_all();
        let mut pieces = 0;
        for shard in self.shards.iter() {
            let _inside = shard.purge.enter(&self.backend);
            loop {
                let mut state = shard.state.lock();
                for _ in 0..STEP {
                    if let Some(area) = state.cache.drain() {
                        state.join(area);
                        freed += 1;
                    }
                }
                if state.cache.nr_areas() == 0 {
                    break;
                }
            }
            pieces += self.return_pieces(shard, 0);
        }
        (freed, pieces)
    }

    fn potential(&self) -> Potential {
        let mut all = Potential::default();
        for shard in self.shards.iter() {
            let state = shard.state.lock();
            let lazy = state.lazy.usage().1 + state.flushing.pages;
            all.frames += lazy;
            all.addresses += state.space.pages() - state.space.reserved() + lazy + state.cache.pages();
            if !shard.is_common() {
                all.in_pieces += state.space.pages() - state.space.reserved() + lazy + state.cache.pages();
            }
            drop(state);
            let deferred = shard.deferred_list.usage();
            all.frames += deferred.1;
            all.addresses += deferred.1;
        }
        all
    }

    /// Returns whether what `error` lacks could be there if all that is lazy and kept were
    /// freed.
    fn could_help(&self, error: &Error) -> bool {
        let all = self.potential();
        match *error {
            Error::OutOfFrames { size } => {
                let tables = all.in_pieces / Self::SPAN_PAGES;
                self.backend.nr_free_frames().saturating_add(all.frames + tables)
                    >= size >> B::Granule::PAGE_SHIFT
            }
            Error::OutOfSpace(va::Error::NoSpace { pages } | va::Error::NoAlignedSpace { pages, .. }) => {
                all.addresses >= pages
            }
            _ => true,
        }
    }

    /// Calls `once`, with no lock held; again after a flush of all that waits, and a last time
    /// after all that is kept was freed, each if what it lacked was freed by that.
    #[inline(always)]
    pub(crate) fn under_pressure<R>(&self, mut once: impl FnMut() -> Result<R, Error>) -> Result<R, Error> {
        match once() {
            Err(error) if error.is_for_want() => self.again(error, once),
            done => done,
        }
    }

    #[cold]
    #[inline(never)]
    fn again<R>(&self, error: Error, mut once: impl FnMut() -> Result<R, Error>) -> Result<R, Error> {
        if !self.could_help(&error) {
            return Err(error);
        }
        let mut error = error;
        // What another CPU has freed just before this counts, too: for frames it can be seen.
        if self.flush_all() != 0 || self.has_frames_for(&error) {
            match once() {
                Err(again) if again.is_for_want() && self.could_help(&again) => error = again,
                done => return done,
            }
        }
        let (freed, pieces) = self.give_up_all();
        let helps = match error {
            Error::OutOfSpace(_) | Error::OutOfNodes => freed + pieces != 0,
            _ => pieces != 0 || self.has_frames_for(&error),
        };
        if helps { once() } else { Err(error) }
    }

    fn has_frames_for(&self, error: &Error) -> bool {
        match *error {
            Error::OutOfFrames { size } => self.backend.has_free_frames(size >> B::Granule::PAGE_SHIFT),
            _ => false,
        }
    }
}
