use alloc::vec::Vec;

use arrayvec::ArrayVec;
use kernel::mm::KernelArea;
use kernel::mm::frames;
use kernel::mm::layout::PAGE_SIZE;
use paging::{Pfn, VirtAddr};

use super::parse::MAX_BLOCKS;
use super::refusal::Refusal;

pub const MAX_HELD: usize = 64;
const SHARE: u64 = 4;

#[derive(Debug, Default)]
pub struct Blocks(ArrayVec<(Pfn, u8), MAX_BLOCKS>);

impl Blocks {
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

/// Dropped in order: first the mapping, then the frames.
#[derive(Debug)]
pub struct HeldArea {
    pub id: u64,
    pub area: KernelArea,
    _blocks: Blocks,
    frames: u64,
}

#[derive(Debug)]
pub struct Held {
    areas: Vec<HeldArea>,
    last_id: u64,
}

impl Held {
    pub fn new() -> Self {
        Self {
            areas: Vec::with_capacity(MAX_HELD),
            last_id: 0,
        }
    }

    pub fn nr(&self) -> usize {
        self.areas.len()
    }

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

    pub fn find(&self, id: u64) -> Result<&HeldArea, Refusal<'static>> {
        let found = self.areas.iter().find(|held| held.id == id);
        found.ok_or(Refusal::NoSuchId(id))
    }

    pub fn at(&self, va: VirtAddr) -> Option<&HeldArea> {
        self.areas.iter().find(|held| held.area.range().contains(va))
    }

    pub fn take(&mut self, id: u64) -> Result<HeldArea, Refusal<'static>> {
        let index = self.areas.iter().position(|held| held.id == id);
        Ok(self.areas.remove(index.ok_or(Refusal::NoSuchId(id))?))
    }
}
