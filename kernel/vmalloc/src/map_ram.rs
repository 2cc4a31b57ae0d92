//! `vm_map_ram`: a few pages for a short while, without the address space being asked.
//!
//! Each CPU has a block of [`BLOCK_PAGES`] pages, of which it hands out parts; a bit for each page that is in use, for the first
//! and for the last page of each mapping. More than [`MAX_SMALL`] pages get an area of their own. Unlike Linux's, an unmap flushes at once: the pages are
//! somebody else's, who may use them for something else when it returns.
//!
//! # Where the bits are
//! While a block is a CPU's, in the CPU's slot, under its lock, and the block's own words say whose it is. When the CPU takes a new one, the bits
//! of the old one go into its words, under the state lock, and it is nobody's: it never becomes a CPU's again, and goes with the last of its
//! mappings. So whoever unmaps looks into his own slot first, then asks the address space, then looks into the slot that the words name; and if
//! the block is no longer there, its words have the bits by now.

use crate::backend::{Backend, Lock};
use crate::cpu::{CpuSlot, NR_CPU_SLOTS};
use crate::error::Error;
use crate::place::Phase;
use crate::record::{self, Area, Kind};
use crate::state::{State, Vmalloc};
use crate::va::{Fit, Segment, Vpn};
use core::panic::Location;
use core::sync::atomic::Ordering::Relaxed;
use paging::{Attributes, FrameArray, Granule, PageArray, VirtAddr, VirtRange};

/// Pages of a block.
pub const BLOCK_PAGES: u64 = 64;
/// The most pages that come from a block.
pub const MAX_SMALL: u64 = BLOCK_PAGES / 2;

/// The pages of a block.
#[derive(Clone, Copy, Default)]
pub(crate) struct Bits {
    used: u64,
    starts: u64,
    lasts: u64,
}

/// The bits of `nr` pages from `first` on. `nr` is at least 1 and at most all.
#[inline(always)]
const fn bits(first: u64, nr: u64) -> u64 {
    (u64::MAX >> (BLOCK_PAGES - nr)) << first
}

/// The lowest `nr` clear bits in a row.
#[inline(always)]
const fn clear_run(used: u64, nr: u64) -> Option<u64> {
    // Bit i: as many pages as `have` are free from page i on. Each step adds up to as many again.
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
    fn of(segment: &Segment<{ record::WORDS }>) -> Self {
        let [used, starts, lasts] = record::map_ram(&segment.words);
        Self { used, starts, lasts }
    }

    /// Takes the lowest `nr` pages in a row. Gives the first.
    #[inline(always)]
    fn take(&mut self, nr: u64) -> Option<u64> {
        let first = clear_run(self.used, nr)?;
        self.used |= bits(first, nr);
        self.starts |= 1 << first;
        self.lasts |= 1 << (first + nr - 1);
        Some(first)
    }

    /// The mapping of `nr` pages from `first` on ends: a second time is refused from now on, and the pages stay taken.
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

    /// The pages, which no TLB knows, may be taken again.
    #[inline(always)]
    fn give_back(&mut self, first: u64, nr: u64) {
        self.used &= !bits(first, nr);
        self.starts &= !bits(first, nr);
        self.lasts &= !bits(first, nr);
    }
}

/// The block that a CPU hands out from.
#[derive(Clone, Copy)]
pub(crate) struct Current {
    start: Vpn,
    bits: Bits,
}

impl Current {
    /// The number of `page` in the block, if it is there.
    #[inline(always)]
    fn index_of(&self, page: Vpn) -> Option<u64> {
        let index = page.0.wrapping_sub(self.start.0);
        (index < BLOCK_PAGES).then_some(index)
    }
}

/// The bits of `page`'s block in a slot.
#[inline(always)]
fn in_slot(block: &mut Option<Current>, page: Vpn) -> Option<(&mut Bits, u64)> {
    let current = block.as_mut()?;
    let index = current.index_of(page)?;
    Some((&mut current.bits, index))
}

/// Who has the bits of the block around an address.
enum Holder {
    /// A slot, when it was looked at.
    Slot(usize),
    /// Its words: the first page of the block.
    Words(Vpn),
    /// It is in no such block.
    None,
}

impl<B: Backend> Vmalloc<B> {
    /// Maps pages of somebody else's, readable and writable, for a short while. [`vm_unmap_ram`](Self::vm_unmap_ram) ends it.
    ///
    /// Not from an exception handler. Up to [`MAX_SMALL`] pages take this CPU's lock, which is waited for, and share the walk lock;
    /// more of them as [`vmap`](Self::vmap).
    ///
    /// # Errors
    /// As [`vmap`](Self::vmap).
    #[track_caller]
    pub fn vm_map_ram<A: FrameArray + ?Sized>(&self, frames: &A) -> Result<VirtAddr, Error> {
        let nr = frames.nr_frames() as u64;
        if nr.wrapping_sub(1) >= MAX_SMALL {
            if nr == 0 {
                return Err(Error::Empty);
            }
            return Ok(self.vmap(frames)?.into_raw());
        }
        let slot = self.this_cpu();
        let mut cpu = slot.state.lock();
        let taken = match &mut cpu.block {
            Some(block) => block.bits.take(nr).map(|first| Vpn(block.start.0 + first)),
            None => None,
        };
        drop(cpu);
        let page = match taken {
            Some(page) => page,
            None => self.take_of_a_new_block(nr, Location::caller())?,
        };
        let va = VirtAddr(page.0 << B::Granule::PAGE_SHIFT);
        let range = VirtRange::new(va, nr << B::Granule::PAGE_SHIFT);
        match self.map(range, &mut PageArray::new(frames), Attributes::KERNEL_DATA) {
            Ok(_) => Ok(va),
            Err(error) => {
                self.give_small_back(slot, page, nr, Location::caller());
                Err(error)
            }
        }
    }

    /// Ends a mapping of [`vm_map_ram`](Self::vm_map_ram) of `nr` pages. It is flushed when this returns.
    ///
    /// Not from an exception handler. On the CPU that mapped it, a small one takes that CPU's lock and shares the walk lock; on another
    /// one the state lock too.
    ///
    /// # Errors
    /// [`Error::WrongLength`] if it has another number of pages; [`Error::NotMapped`] if no mapping of a block begins there; else
    /// as [`vfree`](Self::vfree). Nothing has changed then.
    ///
    /// # Safety
    /// As [`vfree`](Self::vfree), of a mapping of [`vm_map_ram`](Self::vm_map_ram).
    #[track_caller]
    pub unsafe fn vm_unmap_ram(&self, va: VirtAddr, nr: u64) -> Result<(), Error> {
        let caller = Location::caller();
        if !va.is_aligned(B::Granule::PAGE_SIZE) {
            return Err(Error::Misaligned(va));
        }
        let page = Vpn(va.0 >> B::Granule::PAGE_SHIFT);
        let slot = self.this_cpu();
        let mut cpu = slot.state.lock();
        let own = in_slot(&mut cpu.block, page)
            .map(|(bits, first)| bits.begin_end(va, first, nr, B::Granule::PAGE_SIZE));
        drop(cpu);
        let found = match own {
            Some(Ok(())) => slot,
            Some(Err(error)) => return Err(error),
            None => match self.begin_end_elsewhere(va, nr)? {
                Some(slot) => slot,
                None => return self.free(va, Kind::Vmap, caller),
            },
        };
        let range = VirtRange::new(va, nr << B::Granule::PAGE_SHIFT);
        self.take_out_now(range);
        self.give_small_back(found, page, nr, caller);
        Ok(())
    }

    /// As [`Bits::begin_end`] where `va` is not in this CPU's block: gives the slot to look into first later on. `None` if it
    /// is in no block.
    #[inline(never)]
    fn begin_end_elsewhere(&self, va: VirtAddr, nr: u64) -> Result<Option<&CpuSlot<B>>, Error> {
        let page = Vpn(va.0 >> B::Granule::PAGE_SHIFT);
        let page_size = B::Granule::PAGE_SIZE;
        loop {
            let state = self.state.lock();
            let segment = state.space.find(page).ok_or(Error::Outside(va))?;
            match Self::holder_of(&segment, page) {
                Holder::None => {
                    let live = segment.state.is_live() && segment.start() == page;
                    let expected = nr.saturating_mul(page_size);
                    let size = record::size_of(&segment.words);
                    if live && record::kind_of(&segment.words) == Kind::Vmap && size != expected {
                        return Err(Error::WrongLength { va, size, expected });
                    }
                    return Ok(None);
                }
                Holder::Words(block) => {
                    let mut bits = Bits::of(&segment);
                    bits.begin_end(va, page.0 - block.0, nr, page_size)?;
                    Self::set_words(&state, block, bits);
                    return Ok(Some(self.this_cpu()));
                }
                Holder::Slot(index) => {
                    drop(state);
                    let slot = self.cpus.of(index);
                    if let Some((bits, first)) = in_slot(&mut slot.state.lock().block, page) {
                        bits.begin_end(va, first, nr, page_size)?;
                        return Ok(Some(slot));
                    }
                    // It is nobody's by now, for good: the words have the bits.
                }
            }
        }
    }

    fn holder_of(segment: &Segment<{ record::WORDS }>, page: Vpn) -> Holder {
        let live = segment.state.is_live() && segment.contains(page) && record::is_ready(&segment.words);
        if !live || record::kind_of(&segment.words) != Kind::MapRam {
            return Holder::None;
        }
        match segment.words[record::MAP_RAM_SLOT].checked_sub(1) {
            Some(slot) => Holder::Slot(slot as usize % NR_CPU_SLOTS),
            None => Holder::Words(segment.start()),
        }
    }

    fn set_words(state: &State<B::Granule>, block: Vpn, bits: Bits) {
        let space = &state.space;
        space.set_word(block, record::MAP_RAM_USED, bits.used);
        space.set_word(block, record::MAP_RAM_STARTS, bits.starts);
        space.set_word(block, record::MAP_RAM_LASTS, bits.lasts);
    }

    /// Takes `nr` pages of a new block, which becomes this CPU's.
    #[inline(never)]
    fn take_of_a_new_block(&self, nr: u64, caller: &'static Location<'static>) -> Result<Vpn, Error> {
        let index = self.backend.cpu() % NR_CPU_SLOTS;
        let size = BLOCK_PAGES << B::Granule::PAGE_SHIFT;
        let mut words = record::new(Kind::MapRam, size, caller);
        words[record::MAP_RAM_SLOT] = index as u64 + 1;
        let area = self.reserve(Fit::new(BLOCK_PAGES), Phase::NONE, B::Granule::PAGE_SIZE, &words)?;
        let mut block = Current {
            start: area.start(),
            bits: Bits::default(),
        };
        let Some(first) = block.bits.take(nr) else {
            unreachable!("an empty block has no room for {nr} pages")
        };
        record::set_ready(&area, &words);
        area.entrust();
        let slot = self.cpus.of(index);
        let mut cpu = slot.state.lock();
        slot.has_block.store(true, Relaxed);
        let idle = cpu.block.replace(block).and_then(|old| self.disown(old));
        drop(cpu);
        if let Some(idle) = idle {
            self.give_back(idle, caller);
        }
        Ok(Vpn(block.start.0 + first))
    }

    /// Makes `block` nobody's, which has just been taken out of its slot, whose lock is held. Gives it, if it has no mapping.
    fn disown(&self, block: Current) -> Option<Area> {
        let mut state = self.state.lock();
        Self::set_words(&state, block.start, block.bits);
        state.space.set_word(block.start, record::MAP_RAM_SLOT, 0);
        Self::claim_if_idle(&mut state, block.start, block.bits)
    }

    /// Takes a block that is nobody's, if it has no mapping.
    fn claim_if_idle(state: &mut State<B::Granule>, block: Vpn, bits: Bits) -> Option<Area> {
        // Nobody else can claim it: its kind is no call's.
        (bits.used == 0).then(|| state.space.claim(block).ok()).flatten()
    }

    /// Pages of a block, in `slot` perhaps, may be taken again: no TLB knows them.
    #[inline(always)]
    fn give_small_back(&self, slot: &CpuSlot<B>, page: Vpn, nr: u64, caller: &'static Location<'static>) {
        let mut cpu = slot.state.lock();
        let here = in_slot(&mut cpu.block, page);
        if let Some((bits, first)) = here {
            bits.give_back(first, nr);
            return;
        }
        drop(cpu);
        self.give_small_back_elsewhere(page, nr, caller);
    }

    #[inline(never)]
    fn give_small_back_elsewhere(&self, page: Vpn, nr: u64, caller: &'static Location<'static>) {
        loop {
            let mut state = self.state.lock();
            let Some(segment) = state.space.find(page) else {
                return;
            };
            match Self::holder_of(&segment, page) {
                Holder::None => return,
                Holder::Words(block) => {
                    let mut bits = Bits::of(&segment);
                    bits.give_back(page.0 - block.0, nr);
                    Self::set_words(&state, block, bits);
                    let idle = Self::claim_if_idle(&mut state, block, bits);
                    drop(state);
                    if let Some(idle) = idle {
                        self.give_back(idle, caller);
                    }
                    return;
                }
                Holder::Slot(index) => {
                    drop(state);
                    if let Some((bits, first)) = in_slot(&mut self.cpus.of(index).state.lock().block, page) {
                        bits.give_back(first, nr);
                        return;
                    }
                }
            }
        }
    }

    /// Gives back the CPUs' blocks that have no mapping. Whether there was any.
    #[track_caller]
    pub(crate) fn drop_idle_blocks(&self) -> bool {
        let caller = Location::caller();
        let mut any = false;
        self.cpus.each(|slot| {
            if slot.has_block.load(Relaxed) {
                any |= self.drop_idle_block(slot, caller);
            }
        });
        any
    }

    #[inline(never)]
    fn drop_idle_block(&self, slot: &CpuSlot<B>, caller: &'static Location<'static>) -> bool {
        let mut cpu = slot.state.lock();
        let idle = cpu
            .block
            .take_if(|block| block.bits.used == 0)
            .and_then(|block| self.disown(block));
        slot.has_block.store(cpu.block.is_some(), Relaxed);
        drop(cpu);
        let any = idle.is_some();
        if let Some(idle) = idle {
            self.give_back(idle, caller);
        }
        any
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
