use alloc::vec::Vec;

use kernel::mm::layout::PAGE_SIZE;
use kernel::mm::{frames, linear_va};
use paging::{Extent, Pfn};

const SEED: u64 = 0x5eed_0001;

pub struct Random(u64);

impl Random {
    /// Returns a generator; `seed` is not 0.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32) % bound
    }
}

/// Frames in chunks of 2^`order`, in random order. All are of one block, so that the seed alone
/// decides which are neighbours. The array lies in frames too: a case leaves the heap alone.
pub struct Pages {
    array: &'static mut [Pfn],
    array_block: Block,
    block: Option<Block>,
    order: u8,
}

type Block = (Pfn, u8);

const fn order_for(nr: usize) -> u8 {
    nr.next_power_of_two().ilog2() as u8
}

impl Pages {
    /// Returns `None` if no block has `nr` frames.
    #[must_use]
    pub fn allocate(nr: usize, order: u8) -> Option<Self> {
        let mut pages = Self::array(nr, order)?;
        let block_order = order_for(nr);
        let first = frames::allocate(block_order)?;
        pages.block = Some((first, block_order));
        pages.fill(first);
        Some(pages)
    }

    #[must_use]
    pub fn elsewhere(nr: usize, frame: impl Fn(usize) -> u64) -> Option<Self> {
        let pages = Self::array(nr, 0)?;
        for (page, entry) in pages.array.iter_mut().enumerate() {
            *entry = Pfn(frame(page));
        }
        Some(pages)
    }

    fn array(nr: usize, order: u8) -> Option<Self> {
        let array_order = order_for((nr * size_of::<Pfn>()).div_ceil(PAGE_SIZE));
        let block = frames::allocate(array_order)?;
        let at = linear_va(block.0 * PAGE_SIZE as u64) as *mut Pfn;
        for i in 0..nr {
            // SAFETY: within the block, which is ours and in the linear map.
            unsafe { at.add(i).write(Pfn(0)) };
        }
        // SAFETY: as above, initialised, and not aliased until it is dropped.
        let array = unsafe { core::slice::from_raw_parts_mut(at, nr) };
        Some(Self {
            array,
            array_block: (block, array_order),
            block: None,
            order,
        })
    }

    fn chunk(&self) -> usize {
        1 << self.order
    }

    fn fill(&mut self, first: Pfn) {
        let chunk = self.chunk();
        let nr_chunks = self.array.len() / chunk;
        for i in 0..nr_chunks {
            self.array[i * chunk] = Pfn(first.0 + (i * chunk) as u64);
        }
        let mut random = Random::new(SEED);
        for i in (1..nr_chunks).rev() {
            let other = random.below(i as u64 + 1) as usize;
            self.array.swap(i * chunk, other * chunk);
        }
        for chunk in self.array.chunks_mut(chunk) {
            let head = chunk[0].0;
            for (page, frame) in (head..).zip(chunk) {
                *frame = Pfn(page);
            }
        }
    }

    #[must_use]
    pub fn extents(&self) -> Vec<Extent> {
        let chunk = self.chunk();
        let extent = |frames: &[Pfn]| Extent {
            start: frames[0],
            pages: chunk as u64,
        };
        self.array.chunks(chunk).map(extent).collect()
    }

    #[must_use]
    pub fn frames(&self) -> &[Pfn] {
        self.array
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        let (first, order) = self.array_block;
        frames::free(first, order);
        if let Some((first, order)) = self.block {
            frames::free(first, order);
        }
    }
}
