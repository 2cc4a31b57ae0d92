//! Blocks of `vm_map_ram`: an area with bits for used pages and for each mapping's first and last
//! page.

use crate::backend::{Backend, Lock};
use crate::error::Error;
use crate::record::{self, Area, Head, Kind};
use crate::region::Vmalloc;
use crate::shard::{Held, Shard, State};
use crate::va::Vpn;
use core::panic::Location;
use paging::{Granule, VirtAddr};

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
    pub fn of(block: &Area) -> Self {
        let [used, starts, lasts] = record::map_ram(block);
        Self { used, starts, lasts }
    }

    #[inline(always)]
    pub fn store(self, block: &Area) {
        record::set_map_ram(block, [self.used, self.starts, self.lasts]);
    }

    /// In a row.
    #[inline(always)]
    pub fn take(&mut self, nr: u64, pages: u64) -> Option<u64> {
        let first = clear_run(self.used | !bits(0, pages), nr)?;
        self.used |= bits(first, nr);
        self.starts |= 1 << first;
        self.lasts |= 1 << (first + nr - 1);
        Some(first)
    }

    /// The pages stay used.
    #[inline(always)]
    pub fn begin_end(&mut self, va: VirtAddr, first: u64, nr: u64, page_size: u64) -> Result<(), Error> {
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
    pub const fn is_idle(self, deferred: bool) -> bool {
        if deferred {
            self.starts == 0
        } else {
            self.used == 0
        }
    }

    /// No TLB knows them.
    #[inline(always)]
    pub fn free(&mut self, first: u64, nr: u64) {
        self.used &= !bits(first, nr);
        self.starts &= !bits(first, nr);
        self.lasts &= !bits(first, nr);
    }
}

/// With the bits around `page` and its index; keeps the bits unless `f` fails. `None` without a
/// block.
#[inline(always)]
pub(crate) fn with_block<G: Granule, R>(
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
    pub(crate) const BLOCK: u64 = pages_of_block::<B::Granule>();
    pub(crate) const SMALL: u64 = Self::BLOCK / 2;

    #[inline(always)]
    pub(crate) fn take_of_block(state: &mut State<B::Granule>, nr: u64) -> Option<Vpn> {
        let block = state.block.as_ref()?;
        let mut bits = Bits::of(block);
        let first = bits.take(nr, Self::BLOCK)?;
        bits.store(block);
        Some(Vpn(block.first().0 + first))
    }

    pub(crate) fn free_block(
        &self,
        shard: &Shard<B>,
        held: Held<'_, B>,
        block: Area,
        by: &'static Location<'static>,
    ) {
        record::set_freer(&block, by);
        if self.free_held(shard, held, block) {
            self.flush_if_due(shard);
        }
    }

    /// If it has no mapping and is not the shard's current one.
    #[inline(always)]
    pub(crate) fn free_if_idle(
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
