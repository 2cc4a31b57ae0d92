//! `vm_map_ram`: a few pages for a short while, without the address space being asked.
//!
//! Each CPU has a block of [`BLOCK_PAGES`] pages, of which it hands out parts; a bit for each page that is in use, for the first
//! and for the last page of each mapping. More than [`MAX_SMALL`] pages get an area of their own. Unlike Linux's, an unmap flushes at once: the pages are
//! somebody else's, who may use them for something else when it returns.

use crate::backend::{Backend, Lock};
use crate::error::Error;
use crate::record::{self, Kind};
use crate::state::Vmalloc;
use crate::va::{Fit, Vpn};
use core::panic::Location;
use paging::{Attributes, FrameArray, Granule, PageArray, VirtAddr, VirtRange};

/// Pages of a block.
pub const BLOCK_PAGES: u64 = 64;
/// The most pages that come from a block.
pub const MAX_SMALL: u64 = BLOCK_PAGES / 2;
/// Blocks that are handed out from at a time.
pub(crate) const NR_CURRENT: usize = 16;

/// The bits of `nr` pages from `first` on.
const fn bits(first: u64, nr: u64) -> u64 {
    (u64::MAX >> (BLOCK_PAGES - nr)) << first
}

/// The lowest `nr` clear bits in a row.
fn clear_run(used: u64, nr: u64) -> Option<u64> {
    (0..=BLOCK_PAGES - nr).find(|first| used & bits(*first, nr) == 0)
}

impl<B: Backend> Vmalloc<B> {
    /// Maps pages of somebody else's, readable and writable, for a short while. [`vm_unmap_ram`](Self::vm_unmap_ram) ends it.
    ///
    /// # Errors
    /// As [`vmap`](Self::vmap).
    #[track_caller]
    pub fn vm_map_ram<A: FrameArray + ?Sized>(&self, frames: &A) -> Result<VirtAddr, Error> {
        let caller = Location::caller();
        let nr = frames.nr_frames() as u64;
        if nr == 0 {
            return Err(Error::Empty);
        }
        if nr > MAX_SMALL {
            return Ok(self.vmap(frames)?.into_raw());
        }
        let (block, first) = self.take_small(nr, caller)?;
        let va = VirtAddr((block.0 + first) << B::Granule::PAGE_SHIFT);
        let range = VirtRange::new(va, nr << B::Granule::PAGE_SHIFT);
        match self.map(range, &mut PageArray::new(frames), Attributes::KERNEL_DATA) {
            Ok(_) => Ok(va),
            Err(error) => {
                self.give_small_back(block, first, nr, caller);
                Err(error)
            }
        }
    }

    /// Ends a mapping of [`vm_map_ram`](Self::vm_map_ram) of `nr` pages. It is flushed when this returns.
    ///
    /// # Errors
    /// [`Error::WrongLength`] if it has another number of pages; [`Error::NotMapped`] if no mapping of a block begins there; else
    /// as [`vfree`](Self::vfree). Nothing has changed then.
    #[track_caller]
    pub fn vm_unmap_ram(&self, va: VirtAddr, nr: u64) -> Result<(), Error> {
        let caller = Location::caller();
        if !va.is_aligned(B::Granule::PAGE_SIZE) {
            return Err(Error::Misaligned(va));
        }
        let page = Vpn(va.0 >> B::Granule::PAGE_SHIFT);
        let state = self.state.lock();
        let segment = state.space.find(page).ok_or(Error::Outside(va))?;
        let live = segment.state.is_live() && segment.contains(page);
        if !live || record::kind_of(&segment.words) != Kind::MapRam {
            let expected = nr.saturating_mul(B::Granule::PAGE_SIZE);
            let size = record::size_of(&segment.words);
            let starts = segment.first.0 + u64::from(segment.lead) == page.0;
            if live && starts && record::kind_of(&segment.words) == Kind::Vmap && size != expected {
                return Err(Error::WrongLength { va, size, expected });
            }
            drop(state);
            return self.free(va, Kind::Vmap, caller);
        }
        let block = Vpn(segment.first.0 + u64::from(segment.lead));
        let first = page.0 - block.0;
        let [_, starts, lasts] = record::map_ram(&segment.words);
        if starts >> first & 1 == 0 {
            return Err(Error::NotMapped(va));
        }
        let mapped = u64::from((lasts >> first).trailing_zeros()) + 1;
        if mapped != nr {
            return Err(Error::WrongLength {
                va,
                size: mapped << B::Granule::PAGE_SHIFT,
                expected: nr.saturating_mul(B::Granule::PAGE_SIZE),
            });
        }
        // From here on a second unmap is refused; the pages stay taken until the flush.
        state
            .space
            .set_word(block, record::MAP_RAM_STARTS, starts & !(1 << first));
        drop(state);
        let range = VirtRange::new(va, nr << B::Granule::PAGE_SHIFT);
        let mut batch = self.backend.tree().batch();
        let outcome = match self.unmap(range, &mut batch) {
            Ok(outcome) => outcome,
            // Leaves end where the mapping does, so nothing needs a split.
            Err(failure) => panic!("unmapping {range:?}: {failure}"),
        };
        self.flush(batch);
        self.note_emptied(range, &outcome);
        self.give_small_back(block, first, nr, caller);
        Ok(())
    }

    /// Takes `nr` pages of this CPU's block, or of a new one. Gives the block, and the first of them in it.
    fn take_small(&self, nr: u64, caller: &'static Location<'static>) -> Result<(Vpn, u64), Error> {
        let cpu = self.backend.cpu() % NR_CURRENT;
        loop {
            let state = self.state.lock();
            if let Some(block) = state.current[cpu]
                && let Some(segment) = state.space.find(block)
            {
                let [used, starts, lasts] = record::map_ram(&segment.words);
                if let Some(first) = clear_run(used, nr) {
                    let space = &state.space;
                    space.set_word(block, record::MAP_RAM_USED, used | bits(first, nr));
                    space.set_word(block, record::MAP_RAM_STARTS, starts | 1 << first);
                    space.set_word(block, record::MAP_RAM_LASTS, lasts | 1 << (first + nr - 1));
                    return Ok((block, first));
                }
            }
            drop(state);
            let size = BLOCK_PAGES << B::Granule::PAGE_SHIFT;
            let words = record::new(Kind::MapRam, size, caller);
            let area = self.reserve(core::iter::once(Fit::new(BLOCK_PAGES)), &words)?;
            record::set_ready(&area);
            let mut state = self.state.lock();
            let start = area.start();
            state.space.entrust(area);
            // The one before is found by its mappings, and goes with the last of them; unless it has none already.
            let before = state.current[cpu].replace(start);
            drop(state);
            if let Some(before) = before {
                self.drop_block_if_idle(before, caller);
            }
        }
    }

    /// The pages, which no TLB knows, may be taken again.
    fn give_small_back(&self, block: Vpn, first: u64, nr: u64, caller: &'static Location<'static>) {
        let state = self.state.lock();
        if let Some(segment) = state.space.find(block) {
            let [used, starts, lasts] = record::map_ram(&segment.words);
            let mask = !bits(first, nr);
            state.space.set_word(block, record::MAP_RAM_USED, used & mask);
            state.space.set_word(block, record::MAP_RAM_STARTS, starts & mask);
            state.space.set_word(block, record::MAP_RAM_LASTS, lasts & mask);
        }
        drop(state);
        self.drop_block_if_idle(block, caller);
    }

    /// Gives a block back that no CPU hands out from, and that has no mapping.
    fn drop_block_if_idle(&self, block: Vpn, caller: &'static Location<'static>) {
        let mut state = self.state.lock();
        let idle = !state.current.contains(&Some(block))
            && state.space.find(block).is_some_and(|segment| {
                segment.state.is_live()
                    && record::kind_of(&segment.words) == Kind::MapRam
                    && record::map_ram(&segment.words)[0] == 0
            });
        if !idle {
            return;
        }
        let claimed = state.space.claim(block);
        drop(state);
        if let Ok(area) = claimed {
            self.give_back(area, caller);
        }
    }

    /// Gives back the blocks that have no mapping. Whether there was any.
    #[track_caller]
    pub(crate) fn drop_idle_blocks(&self) -> bool {
        let caller = Location::caller();
        let mut any = false;
        for cpu in 0..NR_CURRENT {
            let mut state = self.state.lock();
            let Some(block) = state.current[cpu] else {
                continue;
            };
            let segment = state.space.find(block);
            if segment.is_some_and(|segment| record::map_ram(&segment.words)[0] == 0) {
                state.current[cpu] = None;
                drop(state);
                self.drop_block_if_idle(block, caller);
                any = true;
            }
        }
        any
    }
}
