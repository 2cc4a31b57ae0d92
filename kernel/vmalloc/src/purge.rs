//! When unmapped areas are flushed and freed. A caller's pages are flushed at once; others by
//! policy, but before any reuse (DESIGN rule 6).
//!
//! A call that lacks something flushes all shards and retries if that freed anything, then frees
//! what is kept if that could help, and retries once more. So it ends regardless of others (DESIGN
//! rule 14), and an impossible request takes nothing from others.

use crate::backend::{Backend, Lock};
use crate::error::Error;
use crate::flush::PIECES_AT_ONCE;
use crate::region::Vmalloc;
use crate::shard::STEP;
use crate::va::{self, MAX_CACHED_PAGES};
use paging::Granule;

impl<B: Backend> Vmalloc<B> {
    /// Ensures that no TLB holds a translation of an area freed before by this CPU, or by one that
    /// it has heard from. [Waiting](crate#contexts): for each shard's purge gate.
    pub fn vm_unmap_aliases(&self) {
        self.flush_all();
    }

    fn flush_all(&self) -> u64 {
        self.drain_addresses(true);
        let mut nr_freed = 0;
        for shard in self.shards.iter() {
            let before = shard.state.lock().nr_freed;
            let _inside = shard.purge.enter(&self.backend);
            self.drain_all(shard);
            self.flush_shard(shard, MAX_CACHED_PAGES);
            nr_freed += shard.state.lock().nr_freed - before;
        }
        nr_freed
    }

    /// Frees all that is lazy or kept: areas, ranges, idle `vm_map_ram` blocks and pieces, and
    /// their tables. [Waiting](crate#contexts).
    pub fn shrink(&self) {
        self.give_up_all();
    }

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
                    let Some(area) = state.cache.give_up() else {
                        break;
                    };
                    state.join(area);
                    freed += 1;
                }
                if state.cache.nr_areas == 0 {
                    break;
                }
            }
            // The last round is one that is not full.
            loop {
                let nr = self.return_pieces(shard, 0);
                pieces += nr;
                if nr < PIECES_AT_ONCE as u64 {
                    break;
                }
            }
        }
        (freed, pieces)
    }

    /// Freeing all that is lazy or kept could suffice.
    fn could_help(&self, error: &Error) -> bool {
        let (usage, in_pieces) = self.tally();
        match *error {
            Error::OutOfFrames { size } => {
                let kept = usage.lazy.1 + usage.deferred.1 + in_pieces / Self::SPAN_PAGES;
                self.backend.nr_free_frames().saturating_add(kept) >= size >> B::Granule::PAGE_SHIFT
            }
            Error::OutOfSpace(va::Error::NoSpace { pages } | va::Error::NoAlignedSpace { pages, .. }) => {
                (self.range().size >> B::Granule::PAGE_SHIFT) - usage.pages >= pages
            }
            _ => true,
        }
    }

    /// Without locks, and up to twice more: see the module.
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
