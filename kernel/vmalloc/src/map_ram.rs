//! `vm_map_ram`: a few pages for a short while, without a reservation.
//!
//! Each shard hands out parts of a block of [`BLOCK_PAGES`] pages: an area with bits for used pages
//! and for each mapping's first and last page. More than [`MAX_SMALL`] pages get an area of their
//! own. A replaced block is found by address, and freed with its last mapping.

use crate::backend::{Backend, Lock};
use crate::error::Error;
use crate::place::Phase;
use crate::record::{self, Area, Head, Kind};
use crate::region::{Context, Vmalloc};
use crate::shard::{Held, Shard, State};
use crate::va::{Fit, Vpn};
use core::panic::Location;
use paging::{Attributes, FrameArray, Granule, PageArray, VirtAddr, VirtRange};

/// Pages of a block, if a last-level table has room.
pub const BLOCK_PAGES: u64 = 64;
/// Of a block.
pub const MAX_SMALL: u64 = BLOCK_PAGES / 2;

#[derive(Clone, Copy, Default)]
pub(crate) struct Bits {
    used: u64,
    starts: u64,
    lasts: u64,
}

const fn pages_of_block<G: Granule>() -> u64 {
    let piece = 1 << G::INDEX_BITS;
    if BLOCK_PAGES < piece {
        BLOCK_PAGES
    } else {
        piece - 1
    }
}

#[inline(always)]
const fn bits(first: u64, nr: u64) -> u64 {
    (u64::MAX >> (BLOCK_PAGES - nr)) << first
}

#[inline(always)]
const fn clear_run(used: u64, nr: u64) -> Option<u64> {
    let first = (!used).trailing_zeros() as u64;
    if first < BLOCK_PAGES && ((used >> first).trailing_zeros() as u64) >= nr && BLOCK_PAGES - first >= nr {
        return Some(first);
    }
    // Bit i: `have` pages are free from page i. Each step at most doubles `have`.
    let (mut free, mut have) = (!used, 1);
    while have < nr {
        let more = if nr - have < have { nr - have } else { have };
        free &= free >> more;
        have += more;
    }
    if free == 0 {
        None
    } else {
        Some(free.trailing_zeros() as u64)
    }
}

impl Bits {
    #[inline(always)]
    fn of(block: &Area) -> Self {
        let [used, starts, lasts] = record::map_ram(block);
        Self { used, starts, lasts }
    }

    #[inline(always)]
    fn store(self, block: &Area) {
        record::set_map_ram(block, [self.used, self.starts, self.lasts]);
    }

    /// In a row.
    #[inline(always)]
    fn take(&mut self, nr: u64, pages: u64) -> Option<u64> {
        let first = clear_run(self.used | !bits(0, pages), nr)?;
        self.used |= bits(first, nr);
        self.starts |= 1 << first;
        self.lasts |= 1 << (first + nr - 1);
        Some(first)
    }

    /// The pages stay used.
    #[inline(always)]
    fn begin_end(&mut self, va: VirtAddr, first: u64, nr: u64, page_size: u64) -> Result<(), Error> {
        if self.starts >> first & 1 == 0 {
            return Err(Error::NotMapped(va));
        }
        let mapped = u64::from((self.lasts >> first).trailing_zeros()) + 1;
        if mapped != nr {
            return Err(Error::WrongLength {
                va,
                size: mapped * page_size,
                expected: nr.saturating_mul(page_size),
            });
        }
        self.starts &= !(1 << first);
        Ok(())
    }

    /// The block can be freed: pages stay used until flushed, unless that is deferred to the
    /// block's free.
    #[inline(always)]
    const fn is_idle(self, deferred: bool) -> bool {
        if deferred {
            self.starts == 0
        } else {
            self.used == 0
        }
    }

    /// No TLB knows them.
    #[inline(always)]
    fn free(&mut self, first: u64, nr: u64) {
        self.used &= !bits(first, nr);
        self.starts &= !bits(first, nr);
        self.lasts &= !bits(first, nr);
    }
}

/// With the bits around `page` and its index; keeps the bits unless `f` fails. `None` without a
/// block.
/// without a block.
#[inline(always)]
fn with_block<G: Granule, R>(
    state: &mut State<G>,
    page: Vpn,
    f: impl FnOnce(&mut Bits, u64) -> Result<R, Error>,
) -> Option<Result<R, Error>> {
    let apply = |block: &Area| {
        let index = page.0.wrapping_sub(block.first().0);
        if index >= pages_of_block::<G>() {
            return None;
        }
        let mut bits = Bits::of(block);
        let result = f(&mut bits, index);
        if result.is_ok() {
            bits.store(block);
        }
        Some(result)
    };
    if let Some(block) = &state.block
        && page.0.wrapping_sub(block.first().0) < pages_of_block::<G>()
    {
        return apply(block);
    }
    let lent = state.space.lend(page)?;
    if Head::of(&lent).kind() == Kind::MapRam {
        apply(&lent)
    } else {
        None
    }
}

impl<B: Backend> Vmalloc<B> {
    const BLOCK: u64 = pages_of_block::<B::Granule>();
    const SMALL: u64 = Self::BLOCK / 2;

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

    #[inline(always)]
    fn take_of_block(state: &mut State<B::Granule>, nr: u64) -> Option<Vpn> {
        let block = state.block.as_ref()?;
        let mut bits = Bits::of(block);
        let first = bits.take(nr, Self::BLOCK)?;
        bits.store(block);
        Some(Vpn(block.first().0 + first))
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

    fn free_block(&self, shard: &Shard<B>, held: Held<'_, B>, block: Area, by: &'static Location<'static>) {
        record::set_freer(&block, by);
        if self.free_held(shard, held, block) {
            self.flush_if_due(shard);
        }
    }

    /// If it has no mapping and is not the shard's current one.
    #[inline(always)]
    fn free_if_idle(
        &self,
        shard: &Shard<B>,
        mut held: Held<'_, B>,
        page: Vpn,
        caller: &'static Location<'static>,
    ) {
        let current = held
            .block
            .as_ref()
            .is_some_and(|block| page.0.wrapping_sub(block.first().0) < Self::BLOCK);
        if current {
            return;
        }
        let deferred = self.defers_foreign();
        let idle = with_block(&mut *held, page, |bits, _| Ok(bits.is_idle(deferred)));
        let start = held.space.find(page).map_or(page, |segment| segment.start());
        if let Some(Ok(true)) = idle
            && let Ok(block) = held.space.claim(start)
        {
            self.free_block(shard, held, block, caller);
        }
    }

    #[track_caller]
    pub(crate) fn drop_idle_block(&self, shard: &Shard<B>) {
        let mut held = shard.state.lock();
        let deferred = self.defers_foreign();
        let idle = held.block.take_if(|block| Bits::of(block).is_idle(deferred));
        if let Some(idle) = idle {
            self.free_block(shard, held, idle, Location::caller());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_clear_bits_in_a_row_are_found() {
        for seed in 0..2000u64 {
            let used = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15)
                & seed.rotate_left(40).wrapping_mul(0xd1b5_4a32_d192_ed03);
            for nr in 1..=MAX_SMALL {
                let plain = (0..=BLOCK_PAGES - nr).find(|first| used & bits(*first, nr) == 0);
                assert_eq!(clear_run(used, nr), plain, "{nr} of {used:#x}");
            }
        }
        assert_eq!(clear_run(u64::MAX, 1), None);
        assert_eq!(clear_run(0, MAX_SMALL), Some(0));
    }
}
