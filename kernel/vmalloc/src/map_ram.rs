//! `vm_map_ram`: a few pages for a short while, without a reservation.
//!
//! Each shard hands out parts of a block of [`BLOCK_PAGES`] pages: an area with bits for used pages
//! and for each mapping's first and last page. More than [`MAX_SMALL`] pages get an area of their
//! own. A replaced block is found by address, and freed with its last mapping.

use crate::backend::{Backend, Lock};
use crate::block::{Bits, with_block};
use crate::error::Error;
use crate::place::Phase;
use crate::record::{self, Head, Kind};
use crate::region::{Context, Vmalloc};
use crate::shard::State;
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
        let taken = Self::take_of_block(&mut self.this_shard().state.lock(), nr);
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
                if let Some((shard, mut held)) = self.shard_at(page) {
                    with_block(&mut *held, page, |bits, first| {
                        bits.free(first, nr);
                        Ok(())
                    });
                    self.free_if_idle(shard, held, page, Location::caller());
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
        let page_size = B::Granule::PAGE_SIZE;
        let (shard, mut held) = self.shard_at(page).ok_or(Error::Outside(va))?;
        let begun = with_block(&mut *held, page, |bits, first| {
            bits.begin_end(va, first, nr, page_size)
        });
        match begun {
            Some(Ok(())) => {}
            Some(Err(error)) => return Err(error),
            None => {
                Self::check_length(&held, va, nr)?;
                drop(held);
                return self.free_at(va, Kind::Vmap, caller);
            }
        }
        // Under the lock, for readers.
        let mut batch = self.backend.tree().batch();
        self.unmap_all(VirtRange::new(va, nr << B::Granule::PAGE_SHIFT), &mut batch);
        let held = if self.defers_foreign() {
            batch.defer_to(&mut held.lazy.pending);
            held
        } else {
            drop(held);
            batch.flush();
            let mut held = shard.state.lock();
            with_block(&mut *held, page, |bits, first| {
                bits.free(first, nr);
                Ok(())
            });
            held
        };
        self.free_if_idle(shard, held, page, caller);
        Ok(())
    }

    fn check_length(state: &State<B::Granule>, va: VirtAddr, nr: u64) -> Result<(), Error> {
        let page = Self::page_of(va);
        let expected = nr.saturating_mul(B::Granule::PAGE_SIZE);
        if let Some(segment) = state.space.find(page)
            && segment.state.is_live()
            && segment.start() == page
            && Head::in_words(&segment.words).kind() == Kind::Vmap
        {
            let size = Head::in_words(&segment.words).size();
            if size != expected {
                return Err(Error::WrongLength { va, size, expected });
            }
        }
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
        let mut bits = Bits::default();
        let Some(first) = bits.take(nr, Self::BLOCK) else {
            unreachable!("an empty block has no room for {nr} pages")
        };
        bits.store(&block);
        record::set_ready(&block, &words);
        // Neither a handle nor another call can own it.
        block.expose();
        let page = Vpn(block.start().0 + first);
        let mut held = shard.state.lock();
        match held.block.replace(block) {
            Some(idle) if Bits::of(&idle).is_idle(self.defers_foreign()) => {
                self.free_block(shard, held, idle, caller)
            }
            _ => {}
        }
        Ok(page)
    }
}
