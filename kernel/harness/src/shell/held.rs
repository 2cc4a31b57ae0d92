//! The areas that the shell holds, each under a number that is never used again.

use alloc::vec::Vec;

use arrayvec::ArrayVec;
use kernel::mm::KernelArea;
use kernel::mm::frames;
use kernel::mm::layout::PAGE_SIZE;
use paging::{Pfn, VirtAddr};

use super::parse::MAX_BLOCKS;
use super::refusal::Refusal;

/// Areas at most.
pub const MAX_HELD: usize = 64;
/// The part of all frames that the shell may hold.
const SHARE: u64 = 4;

/// Blocks of frames that go back when this is dropped.
#[derive(Debug, Default)]
pub struct Blocks(ArrayVec<(Pfn, u8), MAX_BLOCKS>);

impl Blocks {
    /// Takes a block of 2^`order` frames, zeroed, beside those that there are.
    ///
    /// # Errors
    /// There is none.
    pub fn take(&mut self, order: u8) -> Result<(), Refusal<'static>> {
        let block = frames::allocate(order).ok_or(Refusal::NoBlock(order))?;
        if self.0.try_push((block, order)).is_err() {
            frames::free(block, order);
            return Err(Refusal::NoBlock(order));
        }
        for page in block.0..block.0 + (1 << order) {
            // SAFETY: a page of a block that was just allocated, in the linear map, in no table.
            unsafe { kernel::mm::zero_page(kernel::mm::linear_va(page * PAGE_SIZE as u64)) };
        }
        Ok(())
    }

    /// Their frames, in order.
    pub fn frames(&self) -> Vec<Pfn> {
        let frames = |&(block, order): &(Pfn, u8)| (block.0..block.0 + (1 << order)).map(Pfn);
        let mut all = Vec::with_capacity(self.0.iter().map(|(_, order)| 1 << order).sum());
        all.extend(self.0.iter().flat_map(frames));
        all
    }
}

impl Drop for Blocks {
    fn drop(&mut self) {
        self.0
            .iter()
            .for_each(|&(block, order)| frames::free(block, order));
    }
}

/// An area, and what is behind it. The fields are dropped in order: first the mapping, then the
/// frames.
#[derive(Debug)]
pub struct HeldArea {
    /// What the commands call it.
    pub id: u64,
    /// The area.
    pub area: KernelArea,
    /// For a vmap: its frames.
    _blocks: Blocks,
    /// Frames behind it.
    frames: u64,
}

/// All of them.
#[derive(Debug)]
pub struct Held {
    areas: Vec<HeldArea>,
    last_id: u64,
}

impl Held {
    /// None, with room for all that there may be.
    pub fn new() -> Self {
        Self {
            areas: Vec::with_capacity(MAX_HELD),
            last_id: 0,
        }
    }

    /// Returns how many there are.
    pub fn nr(&self) -> usize {
        self.areas.len()
    }

    /// Whether one more area with `frames` frames may be held.
    ///
    /// # Errors
    /// It may not.
    pub fn admit(&self, frames: u64) -> Result<(), Refusal<'static>> {
        if self.areas.len() == MAX_HELD {
            return Err(Refusal::TooManyAreas(MAX_HELD));
        }
        let held = self.areas.iter().map(|held| held.frames).sum::<u64>();
        let left = (frames::nr_total() / SHARE).saturating_sub(held);
        if frames > left {
            return Err(Refusal::TooMuchMemory {
                size: frames.saturating_mul(PAGE_SIZE as u64),
                left: left * PAGE_SIZE as u64,
            });
        }
        Ok(())
    }

    /// Holds an area that was [admitted](Self::admit).
    pub fn hold(&mut self, area: KernelArea, blocks: Blocks, frames: u64) -> &HeldArea {
        self.last_id += 1;
        let index = self.areas.len();
        self.areas.push(HeldArea {
            id: self.last_id,
            area,
            _blocks: blocks,
            frames,
        });
        &self.areas[index]
    }

    /// Returns the area of this number.
    ///
    /// # Errors
    /// There is none.
    pub fn find(&self, id: u64) -> Result<&HeldArea, Refusal<'static>> {
        let found = self.areas.iter().find(|held| held.id == id);
        found.ok_or(Refusal::NoSuchId(id))
    }

    /// Returns the area whose pages hold `va`.
    pub fn at(&self, va: VirtAddr) -> Option<&HeldArea> {
        self.areas.iter().find(|held| held.area.range().contains(va))
    }

    /// Takes the area of this number out.
    ///
    /// # Errors
    /// There is none.
    pub fn take(&mut self, id: u64) -> Result<HeldArea, Refusal<'static>> {
        let index = self.areas.iter().position(|held| held.id == id);
        Ok(self.areas.remove(index.ok_or(Refusal::NoSuchId(id))?))
    }
}
