use alloc::vec::Vec;

use kernel::mm::areas::KernelArea;
use kernel::mm::frames;
use paging::{Extent, Pfn, PhysAddr, VirtAddr};

use super::context::Context;
use super::failure::Failure;
use super::live;
use super::source::PAGE;
use crate::options::Planted;

#[derive(Debug)]
pub struct Block {
    pub first: Pfn,
    pub order: u8,
    leak: bool,
}

impl Block {
    pub fn allocate(ctx: &Context, order: u8) -> Result<Self, Failure> {
        let first = frames::allocate(order).ok_or_else(|| {
            let is_small = frames::nr_total() < 4 << order;
            if is_small && PAGE > 4096 {
                Failure::TooLittleRam(order)
            } else {
                Failure::NoFrames(order)
            }
        })?;
        Ok(Self {
            first,
            order,
            leak: ctx.planted == Some(Planted::LeakFrame) && order == 0,
        })
    }

    #[must_use]
    pub fn start(&self) -> PhysAddr {
        PhysAddr(self.first.0 * PAGE)
    }

    #[must_use]
    pub fn pages(&self) -> u64 {
        1 << self.order
    }

    #[must_use]
    pub fn extent(&self) -> Extent {
        Extent {
            start: self.first,
            pages: self.pages(),
        }
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        if !self.leak {
            frames::free(self.first, self.order);
        }
    }
}

/// Blocks of which no two neighbours are physically consecutive.
#[derive(Debug)]
pub struct Chunks(Vec<Block>);

impl Chunks {
    pub fn allocate(ctx: &Context, orders: &[u8]) -> Result<Self, Failure> {
        let mut chunks: Vec<Block> = Vec::with_capacity(orders.len());
        // Kept, so that they are not allocated again.
        let mut set_aside = Vec::new();
        for order in orders {
            loop {
                let block = Block::allocate(ctx, *order)?;
                let follows = chunks
                    .last()
                    .is_some_and(|last| last.first.0 + last.pages() == block.first.0);
                if follows {
                    set_aside.push(block);
                } else {
                    chunks.push(block);
                    break;
                }
            }
        }
        Ok(Self(chunks))
    }

    #[must_use]
    pub fn extents(&self) -> Vec<Extent> {
        self.0.iter().map(Block::extent).collect()
    }

    pub fn shuffle(&mut self, rng: &mut fastrand::Rng) {
        rng.shuffle(&mut self.0);
    }

    #[must_use]
    pub fn frames(&self) -> Vec<Pfn> {
        self.0
            .iter()
            .flat_map(|block| (block.first.0..block.first.0 + block.pages()).map(Pfn))
            .collect()
    }
}

#[derive(Debug)]
pub struct Window {
    _area: KernelArea,
    pub start: VirtAddr,
}

impl Window {
    /// Reserves `size` bytes at `phase` modulo `align`, and a guard page.
    ///
    /// # Errors
    /// There is no such range.
    pub fn reserve(size: u64, align: u64, phase: u64) -> Result<Self, Failure> {
        let area = live::reserve(size + phase, align)?;
        Ok(Self {
            start: area.va().add(phase),
            _area: area,
        })
    }
}
