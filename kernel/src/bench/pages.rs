//! Arrays of frames for page-array cases: real frames, in chunks of one order, the chunks shuffled.

use alloc::vec::Vec;

use paging::{Extent, Pfn};

use crate::mm::layout::PAGE_SIZE;
use crate::mm::{frames, linear_va};

/// The seed of every shuffle: the same arrays in every boot.
const SEED: u64 = 0x5eed_0001;

/// A generator of 64-bit numbers (xorshift64*): small, and the same everywhere.
pub struct Random(u64);

impl Random {
    /// A sequence for `seed`, which is not 0.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number below `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32) % bound
    }
}

/// Frames in chunks of 2^`order`, each chunk contiguous and aligned to its size, the chunks in random order. Given back when dropped.
///
/// The array itself lies in a block of frames, and not on the heap, so that a case leaves the heap alone.
pub struct Pages {
    array: &'static mut [Pfn],
    block: Pfn,
    block_order: u8,
    order: u8,
    /// Whether the frames are to be given back.
    owned: bool,
}

impl Pages {
    /// `nr` frames, a multiple of 2^`order`. `None` if there are not that many.
    #[must_use]
    pub fn allocate(nr: usize, order: u8) -> Option<Self> {
        let mut pages = Self::array(nr, order)?;
        pages.fill().then_some(pages)
    }

    /// `nr` frames that are nobody's, as `frame` says: to be mapped and not touched. There is memory for the array alone.
    #[must_use]
    pub fn elsewhere(nr: usize, frame: impl Fn(usize) -> u64) -> Option<Self> {
        let mut pages = Self::array(nr, 0)?;
        pages.owned = false;
        for (page, entry) in pages.array.iter_mut().enumerate() {
            *entry = Pfn(frame(page));
        }
        Some(pages)
    }

    /// An array of `nr` zeroes.
    fn array(nr: usize, order: u8) -> Option<Self> {
        let block_order = (nr * size_of::<Pfn>())
            .div_ceil(PAGE_SIZE)
            .next_power_of_two()
            .ilog2() as u8;
        let block = frames::allocate(block_order)?;
        let at = linear_va(block.0 * PAGE_SIZE as u64) as *mut Pfn;
        for i in 0..nr {
            // SAFETY: within the block, which is ours and in the linear map.
            unsafe { at.add(i).write(Pfn(0)) };
        }
        // SAFETY: as above, initialised, and handed to nobody else before it is dropped.
        let array = unsafe { core::slice::from_raw_parts_mut(at, nr) };
        Some(Self {
            array,
            block,
            block_order,
            order,
            owned: true,
        })
    }

    fn chunk(&self) -> usize {
        1 << self.order
    }

    fn fill(&mut self) -> bool {
        let chunk = self.chunk();
        let nr_chunks = self.array.len() / chunk;
        for i in 0..nr_chunks {
            let Some(head) = frames::allocate(self.order) else {
                return false;
            };
            self.array[i * chunk] = head;
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
        true
    }

    /// The chunks, in order.
    #[must_use]
    pub fn extents(&self) -> Vec<Extent> {
        let chunk = self.chunk();
        let extent = |frames: &[Pfn]| Extent {
            start: frames[0],
            pages: chunk as u64,
        };
        self.array.chunks(chunk).map(extent).collect()
    }

    /// The frames, in order.
    #[must_use]
    pub fn frames(&self) -> &[Pfn] {
        self.array
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        for chunk in self.array.chunks(self.chunk()) {
            // A frame number of 0 was never allocated: `fill` came to its end.
            if self.owned && chunk[0].0 != 0 {
                frames::free(chunk[0], self.order);
            }
        }
        frames::free(self.block, self.block_order);
    }
}
