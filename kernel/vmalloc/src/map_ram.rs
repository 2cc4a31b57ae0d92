//! `vm_map_ram`: a few pages for a short while, without a reservation.
//!
//! Each shard hands out parts of a block of [`BLOCK_PAGES`] pages: an area with bits for used pages
//! and for each mapping's first and last page. More than [`MAX_SMALL`] pages get an area of their
//! own. A replaced block is found by address, and freed with its last mapping.

use crate::backend::{Backend, Lock};
use crate::block::Block;
use crate::error::Error;
use crate::place::Phase;
use crate::record::{self, Kind};
use crate::region::{Context, Vmalloc};
use crate::va::{Fit, Vpn};
use core::panic::Location;
use paging::{Attributes, FrameArray, Granule, PageArray, VirtAddr, VirtRange};

impl<B: Backend> Vmalloc<B> {
    /// Maps the caller's pages, readable and writable, until [`vm_unmap_ram`](Self::vm_unmap_ram).
    /// [Waiting](crate#contexts).
    ///
    /// # Errors
    ///
    /// As [`vmap`](Self::vmap).
    #[track_caller]
    pub fn vm_map_ram<A: FrameArray + ?Sized>(&self, frames: &A) -> Result<VirtAddr, Error> {
        let nr = frames.nr_frames() as u64;
        if nr.wrapping_sub(1) >= Self::SMALL {
            if nr == 0 {
                return Err(Error::Empty);
            }
            return Ok(self.vmap(frames)?.into_raw());
        }
        let taken = self.this_shard().state.lock().take_of_block(nr);
        let page = match taken {
            Some(page) => page,
            None => self.take_of_a_new_block(nr, Location::caller())?,
        };
        let va = VirtAddr(page.0 << B::Granule::PAGE_SHIFT);
        let range = VirtRange::new(va, nr << B::Granule::PAGE_SHIFT);
        let mut source = PageArray::new(frames);
        match self.map(range, &mut source, Attributes::KERNEL_DATA, Context::Waiting) {
            Ok(_) => Ok(va),
            Err(error) => {
                if let Some((shard, held)) = self.shard_at(page) {
                    let ended = held.end_in_block(page, nr);
                    debug_assert_eq!(ended, Some(Ok(())), "it was not handed out");
                    self.free_of_block(shard, held, page, nr, Location::caller());
                }
                Err(error)
            }
        }
    }

    /// Ends a mapping of [`vm_map_ram`](Self::vm_map_ram) of `nr` pages, flushed unless
    /// [`ForeignPages::Defer`](crate::ForeignPages::Defer). [Waiting](crate#contexts).
    ///
    /// # Errors
    ///
    /// [`Error::WrongLength`] for another number of pages; [`Error::NotMapped`] if no mapping of a
    /// block begins there; else as [`vfree`](Self::vfree). Nothing has changed then.
    ///
    /// # Safety
    ///
    /// As [`vfree`](Self::vfree).
    #[track_caller]
    pub unsafe fn vm_unmap_ram(&self, va: VirtAddr, nr: u64) -> Result<(), Error> {
        let caller = Location::caller();
        if !va.is_aligned(B::Granule::PAGE_SIZE) {
            return Err(Error::Misaligned(va));
        }
        let page = Self::page_of(va);
        let mut shard = self.this_shard();
        let mut held = shard.state.lock();
        if let Some(block) = held.current_block(page) {
            block.begin_end::<B::Granule>(page, nr)?;
        } else {
            drop(held);
            (shard, held) = self.shard_at(page).ok_or(Error::Outside(va))?;
            match held.end_in_block(page, nr) {
                Some(ended) => ended?,
                None => {
                    drop(held);
                    let size = nr.saturating_mul(B::Granule::PAGE_SIZE);
                    return self.free_at(va, Kind::Vmap, Some(size), caller);
                }
            }
        }
        {
            // Under the lock, for readers.
            let tree = self.backend.tree();
            let mut batch = tree.batch();
            Self::unmap_all(tree, VirtRange::new(va, nr << B::Granule::PAGE_SHIFT), &mut batch);
            if self.defers_foreign() {
                batch.defer_to(&mut held.lazy.pending);
                if held.current_block(page).is_none() {
                    self.free_of_old_block(shard, held, page, nr, caller);
                }
                return Ok(());
            }
            drop(held);
            batch.flush();
        }
        self.free_of_block(shard, shard.state.lock(), page, nr, caller);
        Ok(())
    }

    #[inline(never)]
    fn take_of_a_new_block(&self, nr: u64, caller: &'static Location<'static>) -> Result<Vpn, Error> {
        let size = Self::BLOCK << B::Granule::PAGE_SHIFT;
        let words = record::new(Kind::MapRam, size, caller);
        let align = B::Granule::PAGE_SIZE;
        let block = self.reserve(
            Fit::new(Self::BLOCK),
            Phase::NONE,
            align,
            &words,
            Context::Waiting,
        )?;
        let shard = self.shard_of(&block);
        let Some(page) = Block::of(&block).take(nr, Self::BLOCK) else {
            unreachable!("an empty block has no room for {nr} pages")
        };
        record::set_ready(&block, &words);
        // Neither a handle nor another call can own it.
        block.expose();
        let mut held = shard.state.lock();
        match held.block.replace(block) {
            Some(idle) if Block::of(&idle).is_idle(self.defers_foreign()) => {
                self.free_block(shard, held, idle, caller)
            }
            _ => {}
        }
        Ok(page)
    }
}
