//! Blocks of `vm_map_ram`: an area with bits for used pages and for each mapping's first and last
//! page.

use crate::backend::{Backend, Lock};
use crate::error::Error;
use crate::record::{self, Area, Head, Kind, WORDS};
use crate::region::Vmalloc;
use crate::shard::{Held, Shard, State};
use crate::va::{Lent, Vpn};
use core::panic::Location;
use paging::{Granule, VirtAddr};

/// Pages of a block, if a last-level table has room.
pub const BLOCK_PAGES: u64 = 64;
/// Of a block.
pub const MAX_SMALL: u64 = BLOCK_PAGES / 2;

/// Under its shard's lock.
pub(crate) struct Block<'s>(Lent<'s, WORDS>);

const USED: usize = record::MAP_RAM;
const STARTS: usize = USED + 1;
const LASTS: usize = USED + 2;

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
fn clear_run(used: u64, nr: u64) -> Option<u64> {
    let first = u64::from((!used).trailing_zeros());
    if first < BLOCK_PAGES && u64::from((used >> first).trailing_zeros()) >= nr && BLOCK_PAGES - first >= nr {
        return Some(first);
    }
    // Bit i: `have` pages are free from page i. Each step at most doubles `have`.
    let (mut free, mut have) = (!used, 1);
    while have < nr {
        let more = have.min(nr - have);
        free &= free >> more;
        have += more;
    }
    (free != 0).then(|| u64::from(free.trailing_zeros()))
}

#[cold]
#[inline(never)]
fn no_such<G: Granule>(page: Vpn, nr: u64, begins: bool, mapped: u64) -> Error {
    let va = VirtAddr(page.0 << G::PAGE_SHIFT);
    if !begins {
        return Error::NotMapped(va);
    }
    Error::WrongLength {
        va,
        size: mapped << G::PAGE_SHIFT,
        expected: nr.saturating_mul(G::PAGE_SIZE),
    }
}

impl<'s> Block<'s> {
    #[inline(always)]
    pub const fn of(block: &'s Area) -> Self {
        Self(block.lend())
    }

    #[inline(always)]
    fn bits(&self, of: usize) -> u64 {
        self.0.word(of)
    }

    #[inline(always)]
    fn set(&self, of: usize, bits: u64) {
        self.0.set_word(of, bits);
    }

    #[inline(always)]
    fn index(&self, page: Vpn) -> u64 {
        page.0.wrapping_sub(self.0.first().0)
    }

    /// In a row, of a block of `pages` pages.
    #[inline(always)]
    pub fn take(&self, nr: u64, pages: u64) -> Option<Vpn> {
        let used = self.bits(USED);
        let first = clear_run(used | !bits(0, pages), nr)?;
        self.set(USED, used | bits(first, nr));
        self.set(STARTS, self.bits(STARTS) | 1 << first);
        self.set(LASTS, self.bits(LASTS) | 1 << (first + nr - 1));
        Some(Vpn(self.0.first().0 + first))
    }

    /// The pages stay used.
    #[inline(always)]
    pub fn begin_end<G: Granule>(&self, page: Vpn, nr: u64) -> Result<(), Error> {
        let (first, starts) = (self.index(page), self.bits(STARTS));
        let mapped = u64::from((self.bits(LASTS) >> first).trailing_zeros()) + 1;
        if starts >> first & 1 == 0 || mapped != nr {
            return Err(no_such::<G>(page, nr, starts >> first & 1 != 0, mapped));
        }
        self.set(STARTS, starts & !(1 << first));
        Ok(())
    }

    /// The block can be freed: pages stay used until flushed, unless that is deferred to the
    /// block's free.
    #[inline(always)]
    pub fn is_idle(&self, deferred: bool) -> bool {
        self.bits(if deferred { STARTS } else { USED }) == 0
    }

    /// Of a mapping that [ended](Self::begin_end), and that no TLB knows.
    #[inline(always)]
    pub fn free(&self, page: Vpn, nr: u64) {
        let freed = bits(self.index(page), nr);
        self.set(USED, self.bits(USED) & !freed);
        self.set(LASTS, self.bits(LASTS) & !freed);
    }
}

impl<G: Granule> State<G> {
    /// Returns the shard's current block, if `page` is in it.
    #[inline(always)]
    pub fn current_block(&self, page: Vpn) -> Option<Block<'_>> {
        let block = Block::of(self.block.as_ref()?);
        (block.index(page) < pages_of_block::<G>()).then_some(block)
    }

    #[inline(always)]
    pub fn take_of_block(&self, nr: u64) -> Option<Vpn> {
        Block::of(self.block.as_ref()?).take(nr, pages_of_block::<G>())
    }

    /// As [`Block::begin_end`]. `None` without a block.
    pub fn end_in_block(&self, page: Vpn, nr: u64) -> Option<Result<(), Error>> {
        if let Some(block) = self.current_block(page) {
            return Some(block.begin_end::<G>(page, nr));
        }
        Some(self.old_block(page)?.begin_end::<G>(page, nr))
    }

    /// Returns another block around `page`.
    pub fn old_block(&self, page: Vpn) -> Option<Block<'_>> {
        let area = self.space.find(page).filter(|area| area.state().is_live())?;
        let block = Block(area);
        let is_block = Head::of(&block.0).kind() == Kind::MapRam && block.index(page) < pages_of_block::<G>();
        is_block.then_some(block)
    }
}

impl<B: Backend> Vmalloc<B> {
    pub(crate) const BLOCK: u64 = pages_of_block::<B::Granule>();
    pub(crate) const SMALL: u64 = Self::BLOCK / 2;

    pub(crate) fn free_block(
        &self,
        shard: &Shard<B>,
        held: Held<'_, B>,
        block: Area,
        by: &'static Location<'static>,
    ) {
        record::set_freer(&block, by);
        let range = record::range::<B::Granule>(&block);
        self.free_and_flush(shard, held, block, range);
    }

    /// Frees pages that no TLB knows, and their block with its last mapping unless it is current.
    #[inline(always)]
    pub(crate) fn free_of_block(
        &self,
        shard: &Shard<B>,
        held: Held<'_, B>,
        page: Vpn,
        nr: u64,
        caller: &'static Location<'static>,
    ) {
        if let Some(block) = held.current_block(page) {
            return block.free(page, nr);
        }
        self.free_of_old_block(shard, held, page, nr, caller);
    }

    /// No pages are freed where they wait for the block's flush.
    #[inline(never)]
    pub(crate) fn free_of_old_block(
        &self,
        shard: &Shard<B>,
        mut held: Held<'_, B>,
        page: Vpn,
        nr: u64,
        caller: &'static Location<'static>,
    ) {
        let Some(block) = held.old_block(page) else {
            return;
        };
        let deferred = self.defers_foreign();
        if !deferred {
            block.free(page, nr);
        }
        let (idle, start) = (block.is_idle(deferred), block.0.start());
        if idle && let Ok(block) = held.space.claim(start) {
            self.free_block(shard, held, block, caller);
        }
    }

    #[track_caller]
    pub(crate) fn drop_idle_block(&self, shard: &Shard<B>) {
        let mut held = shard.state.lock();
        let deferred = self.defers_foreign();
        let idle = held.block.take_if(|block| Block::of(block).is_idle(deferred));
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
