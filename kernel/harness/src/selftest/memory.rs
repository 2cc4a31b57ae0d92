//! Frames and addresses of a test, freed when they are dropped.

use alloc::vec::Vec;

use kernel::mm::areas::KernelArea;
use kernel::mm::frames;
use paging::{Extent, Pfn, PhysAddr, VirtAddr};

use super::context::Context;
use super::failure::Failure;
use super::live;
use super::source::PAGE;
use crate::options::Planted;

/// A block of frames.
#[derive(Debug)]
pub struct Block {
    /// The first.
    pub first: Pfn,
    /// log2 of how many.
    pub order: u8,
    leak: bool,
}

impl Block {
    /// Returns a block of 2^`order` frames, aligned to its size.
    ///
    /// # Errors
    /// There is none.
    pub fn allocate(ctx: &Context, order: u8) -> Result<Self, Failure> {
        let first = frames::allocate(order).ok_or_else(|| {
            let is_small = frames::nr_total() < 4 << order;
            // With pages of 4 KiB nothing that a test wants is as large.
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

    /// Its first address.
    #[must_use]
    pub fn start(&self) -> PhysAddr {
        PhysAddr(self.first.0 * PAGE)
    }

    /// Returns how many pages.
    #[must_use]
    pub fn pages(&self) -> u64 {
        1 << self.order
    }

    /// Its frames as a run.
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

/// Blocks of the orders in a list, no two of them neighbours in physical memory where they are
/// neighbours in the list.
#[derive(Debug)]
pub struct Chunks(Vec<Block>);

impl Chunks {
    /// Allocates them, in order.
    ///
    /// # Errors
    /// A block is not to be had.
    pub fn allocate(ctx: &Context, orders: &[u8]) -> Result<Self, Failure> {
        let mut chunks: Vec<Block> = Vec::with_capacity(orders.len());
        // Blocks that would continue the one before: kept until the end, so that they do not come
        // again.
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

    /// Returns the runs, in order.
    #[must_use]
    pub fn extents(&self) -> Vec<Extent> {
        self.0.iter().map(Block::extent).collect()
    }

    /// Puts them into another order.
    pub fn shuffle(&mut self, rng: &mut fastrand::Rng) {
        rng.shuffle(&mut self.0);
    }

    /// Returns the frames, in order.
    #[must_use]
    pub fn frames(&self) -> Vec<Pfn> {
        self.0
            .iter()
            .flat_map(|block| (block.first.0..block.first.0 + block.pages()).map(Pfn))
            .collect()
    }
}

/// A range of addresses of the vmalloc region in which nothing is mapped. It is freed when it
/// is dropped.
#[derive(Debug)]
pub struct Window {
    _area: KernelArea,
    /// Its first address.
    pub start: VirtAddr,
}

impl Window {
    /// `size` bytes from an address that is `phase` modulo `align`, with a guard page behind.
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
