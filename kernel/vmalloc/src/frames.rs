//! [`Blocks`]: the frames of an area that owns them.
//!
//! A block is one allocation of frames. Up to four are kept with the area; of more, all but three
//! in a list of frames full of blocks. So small or contiguous areas need no list.

use crate::backend::Backend;
use crate::error::Error;
use crate::record::{self, Area, BLOCK_BITS, Head, INLINE_BLOCKS, Kind};
use paging::{FrameArray, Granule, Pfn, PhysSource, Run};

/// The first frame's number, in 40 bits, and the order plus one in bits 7:0: never 0.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Block(u64);

impl Block {
    const fn new(first: Pfn, order: u32) -> Self {
        debug_assert!(Self::holds(first));
        Self(first.0 << 8 | (order as u64 + 1))
    }
    const fn holds(frame: Pfn) -> bool {
        frame.0 >> (BLOCK_BITS - 8) == 0
    }
    const fn first(self) -> Pfn {
        Pfn(self.0 >> 8)
    }
    const fn order(self) -> u32 {
        (self.0 & 0xff) as u32 - 1
    }
    const fn pages(self) -> u64 {
        1 << self.order()
    }
}

/// The last one links to the next page: its number plus one, or 0.
const fn list_words<G: Granule>() -> usize {
    (G::PAGE_SIZE / 8) as usize
}

fn list_page(link: u64) -> Option<Pfn> {
    link.checked_sub(1).map(Pfn)
}

/// In order. Dropping them frees them.
pub(crate) struct Blocks<'b, B: Backend> {
    backend: &'b B,
    inline: [u64; INLINE_BLOCKS],
    nr_inline: usize,
    /// The first and last page as links, and the words used in the last.
    list: u64,
    tail: u64,
    nr_tail: usize,
    /// It always owns its list.
    owns: bool,
    /// From a caller, with the list.
    taken_over: bool,
}

impl<'b, B: Backend> Blocks<'b, B> {
    pub fn new(backend: &'b B) -> Self {
        Self {
            backend,
            inline: [0; INLINE_BLOCKS],
            nr_inline: 0,
            list: 0,
            tail: 0,
            nr_tail: 0,
            owns: true,
            taken_over: false,
        }
    }

    /// In the largest blocks up to order `max_order`.
    pub fn allocate(backend: &'b B, pages: u64, max_order: u32, zero: bool) -> Result<Self, Error> {
        let mut blocks = Self::new(backend);
        blocks.fill(pages, max_order, zero)?;
        Ok(blocks)
    }

    /// A failure keeps what it got.
    pub fn fill(&mut self, pages: u64, max_order: u32, zero: bool) -> Result<(), Error> {
        let backend = self.backend;
        let mut remaining = pages;
        let mut cap = max_order;
        while remaining != 0 {
            let mut order = cap.min(remaining.ilog2());
            let none = Error::OutOfFrames {
                size: pages << B::Granule::PAGE_SHIFT,
            };
            if !self.make_room() {
                return Err(none);
            }
            let first = loop {
                match backend.alloc_frames(order) {
                    Some(first) => break first,
                    // Blocks of this order and above are gone.
                    None if order != 0 => {
                        order -= 1;
                        cap = order;
                    }
                    None => return Err(none),
                }
            };
            if zero {
                backend.zero_frames(first, order);
            }
            self.push(Block::new(first, order));
            remaining -= 1 << order;
        }
        Ok(())
    }

    /// For a [push](Self::push). False if the list lacks a page.
    fn make_room(&mut self) -> bool {
        let last = list_words::<B::Granule>() - 1;
        self.is_inline() || (self.tail != 0 && self.nr_tail != last) || self.add_list_page()
    }

    const fn is_inline(&self) -> bool {
        self.list == 0 && self.nr_inline < INLINE_BLOCKS
    }

    fn add_list_page(&mut self) -> bool {
        let last = list_words::<B::Granule>() - 1;
        let Some(page) = self.backend.alloc_frames(0) else {
            return false;
        };
        if self.taken_over {
            // A caller might hand over a frame that it does not have.
            let taken = self.backend.take_over(page);
            debug_assert!(taken, "a new frame is somebody's");
        }
        self.backend.zero_frames(page, 0);
        let link = page.0 + 1;
        match list_page(self.tail) {
            Some(tail) => self.backend.write_word(tail, last, link),
            None => self.list = link,
        }
        self.tail = link;
        self.nr_tail = 0;
        if self.nr_inline == INLINE_BLOCKS {
            // The list takes the place of the last block.
            self.nr_inline -= 1;
            self.push(Block(self.inline[self.nr_inline]));
        }
        true
    }

    fn push(&mut self, block: Block) {
        if self.is_inline() {
            self.inline[self.nr_inline] = block.0;
            self.nr_inline += 1;
            return;
        }
        if let Some(tail) = list_page(self.tail) {
            self.backend.write_word(tail, self.nr_tail, block.0);
        }
        self.nr_tail += 1;
    }

    fn take_in(&mut self, block: Block) -> Result<(), Error> {
        if !self.make_room() {
            return Err(Error::OutOfFrames {
                size: B::Granule::PAGE_SIZE,
            });
        }
        self.push(block);
        Ok(())
    }

    pub fn of_area(backend: &'b B, area: &Area) -> Self {
        let (inline, nr_inline, list) = record::blocks(area);
        Self {
            backend,
            inline,
            nr_inline,
            list,
            tail: 0,
            nr_tail: 0,
            owns: true,
            taken_over: Head::of(area).kind() == Kind::Vmap,
        }
    }

    /// In a new list that does not own the frames.
    pub fn joined(a: &Self, b: &Self) -> Result<Self, Error> {
        let mut joined = Self::new(a.backend).without_frames();
        for block in a.cursor().chain(b.cursor()) {
            joined.take_in(block)?;
        }
        Ok(joined)
    }

    /// Takes over the first `nr` of `frames`, single ones. [`hand_to`](Self::hand_to) makes an area
    /// own them; otherwise they are handed back. Each is read once.
    pub fn of_single_frames<A: FrameArray + ?Sized>(
        backend: &'b B,
        frames: &A,
        nr: u64,
    ) -> Result<Self, Error> {
        let mut blocks = Self::new(backend).without_frames();
        blocks.taken_over = true;
        for page in 0..nr {
            let frame = frames
                .frame(page as usize)
                .ok_or(Error::Map(paging::Error::NoFrame { page }))?;
            if !Block::holds(frame) || !backend.take_over(frame) {
                return Err(Error::NotToBeTakenOver(frame));
            }
            blocks
                .take_in(Block::new(frame, 0))
                .inspect_err(|_| backend.hand_back(frame))?;
        }
        // The fast path for one block would not hand back.
        if blocks.list == 0 && !blocks.add_list_page() {
            return Err(Error::OutOfFrames {
                size: B::Granule::PAGE_SIZE,
            });
        }
        Ok(blocks)
    }

    /// They are another's.
    pub fn without_frames(mut self) -> Self {
        self.owns = false;
        self
    }

    pub fn hand_to(self, area: &Area) {
        record::set_blocks(area, &self.inline[..self.nr_inline], self.list);
        core::mem::forget(self);
    }

    pub fn source(&self, pages: u64) -> BlockSource<'_, 'b, B> {
        let mut next = self.cursor();
        BlockSource {
            current: next.next(),
            next,
            begins: 0,
            pages,
        }
    }

    fn cursor(&self) -> Cursor<'_, 'b, B> {
        Cursor {
            blocks: self,
            index: 0,
            list: self.list,
        }
    }
}

impl<B: Backend> Blocks<'_, B> {
    /// Like other frames.
    #[cold]
    #[inline(never)]
    fn hand_back(&mut self) {
        self.cursor()
            .for_each(|block| self.backend.hand_back(block.first()));
        let mut link = self.list;
        while let Some(page) = list_page(link) {
            link = self.backend.read_word(page, list_words::<B::Granule>() - 1);
            self.backend.hand_back(page);
        }
    }
}

impl<B: Backend> Drop for Blocks<'_, B> {
    fn drop(&mut self) {
        if self.taken_over {
            self.hand_back();
        }
        if self.owns {
            self.cursor()
                .for_each(|block| self.backend.free_frames(block.first(), block.order()));
        }
        let mut link = self.list;
        while let Some(page) = list_page(link) {
            link = self.backend.read_word(page, list_words::<B::Granule>() - 1);
            self.backend.free_frames(page, 0);
        }
    }
}

struct Cursor<'a, 'b, B: Backend> {
    blocks: &'a Blocks<'b, B>,
    /// Inline blocks first, then those of the page that `list` links to.
    index: usize,
    list: u64,
}

impl<B: Backend> Clone for Cursor<'_, '_, B> {
    fn clone(&self) -> Self {
        Self { ..*self }
    }
}

impl<B: Backend> Iterator for Cursor<'_, '_, B> {
    type Item = Block;

    #[inline]
    fn next(&mut self) -> Option<Block> {
        let nr_inline = self.blocks.nr_inline;
        if let Some(word) = self.blocks.inline[..nr_inline].get(self.index) {
            self.index += 1;
            return Some(Block(*word));
        }
        let backend = self.blocks.backend;
        let last = list_words::<B::Granule>() - 1;
        if self.index - nr_inline == last {
            self.list = backend.read_word(list_page(self.list)?, last);
            self.index = nr_inline;
        }
        let word = backend.read_word(list_page(self.list)?, self.index - nr_inline);
        self.index += 1;
        (word != 0).then_some(Block(word))
    }
}

pub(crate) struct BlockSource<'a, 'b, B: Backend> {
    current: Option<Block>,
    next: Cursor<'a, 'b, B>,
    begins: u64,
    pages: u64,
}

impl<G: Granule, B: Backend> PhysSource<G> for BlockSource<'_, '_, B> {
    const RUNS_ARE_FREE: bool = true;

    paging::passed_by_reference!();

    #[inline(always)]
    fn pages(&self) -> u64 {
        self.pages
    }

    #[cold]
    fn rewind(&mut self) {
        self.next = self.next.blocks.cursor();
        self.current = self.next.next();
        self.begins = 0;
    }

    #[inline]
    fn run_at(&mut self, page: u64, limit: u64) -> Option<Run> {
        debug_assert!(
            page >= self.begins,
            "page {page} is asked for after page {}",
            self.begins
        );
        let mut block = self.current?;
        while page - self.begins >= block.pages() {
            self.begins += block.pages();
            self.current = self.next.next();
            block = self.current?;
        }
        let first = block.first().0 + (page - self.begins);
        let mut pages = block.pages() - (page - self.begins);
        if pages < limit {
            for block in self.next.clone() {
                if pages >= limit || block.first().0 != first + pages {
                    break;
                }
                pages += block.pages();
            }
        }
        Some(Run {
            pa: paging::PhysAddr(first << G::PAGE_SHIFT),
            pages: pages.min(limit),
        })
    }
}

#[inline(always)]
pub(crate) const fn block_word(first: Pfn, order: u32) -> u64 {
    Block::new(first, order).0
}

#[inline(always)]
pub(crate) fn free_frames_of<B: Backend>(backend: &B, area: &Area, head: Head) {
    if let Some(word) = head.one_block(area) {
        let block = Block(word);
        backend.free_frames(block.first(), block.order());
    } else if head.owns_frames() {
        free_blocks(backend, area);
    }
}

#[inline(never)]
fn free_blocks<B: Backend>(backend: &B, area: &Area) {
    drop(Blocks::of_area(backend, area));
}
