//! The shapes of work that `test_vmalloc=MASK` asks for: those of Linux's `lib/test_vmalloc.c` by
//! its numbers, and behind them what that one lacks.
//!
//! A shape prints nothing and measures nothing: it does its loops, checks what it got, and says how
//! many loops were right. So the suite runs them for what they find, and a bench for what they
//! take.

mod beyond;
mod check;
mod deferred;
mod linux;

use alloc::vec::Vec;

use kernel::layout;
use kernel::mm::areas::KernelArea;
use kernel::mm::{self, linear_va};
use paging::{Pfn, PhysAddr, VirtAddr};

use super::context::Context;
use super::failure::{Failure, go_on};
use super::memory::{Block, Chunks};
use super::source::{self, PAGE};
use super::verify::write;
use crate::options::CASES;

pub(crate) use deferred::Readers;

/// What all threads of a run share: memory and addresses that the shapes map and never change.
#[derive(Debug)]
pub(crate) struct Backing {
    /// Keeps `pages` alive.
    _area: KernelArea,
    /// `nr_pages` frames, in no particular order.
    pub pages: Vec<Pfn>,
    /// 8 MiB in one piece.
    pub block: Block,
    /// Blocks of mixed orders, no two of which are neighbours.
    pub mixed: Chunks,
    /// [`DEVICE_SIZE`] of physical addresses behind which nothing is, at a multiple of as much.
    pub device: PhysAddr,
    /// What readers and deferred frees share.
    pub readers: Readers,
}

/// log2 of the pages of [`Backing::block`]: four blocks of level 2, where those
/// are not of 512 MiB.
const BLOCK_ORDER: u8 = if layout::PAGE_SHIFT == 16 {
    11
} else {
    source::BLOCK_ORDER + 2
};
/// Bytes of [`Backing::device`]: the largest leaf that is tried.
const DEVICE_SIZE: u64 = if layout::PAGE_SHIFT == 16 {
    16 << 30
} else {
    1 << 30
};
/// The orders of [`Backing::mixed`].
const MIXED: [u8; 14] = [9, 4, 0, 8, 5, 0, 2, 9, 4, 7, 1, 0, 6, 3];

impl Backing {
    /// What runs with `nr_pages` need. Each page has its frame number in its first word.
    ///
    /// # Errors
    /// There is no such memory.
    pub fn new(ctx: &Context, nr_pages: u64) -> Result<Self, Failure> {
        let area = mm::vmalloc(nr_pages * PAGE)?;
        let pages = (0..nr_pages)
            .map(|page| mm::vmalloc_to_pfn(area.va().add(page * PAGE)))
            .collect::<Result<Vec<Pfn>, _>>()?;
        let backing = Self {
            _area: area,
            pages,
            block: Block::allocate(ctx, BLOCK_ORDER)?,
            mixed: Chunks::allocate(ctx, &MIXED)?,
            device: ctx.untouched(DEVICE_SIZE, DEVICE_SIZE, 0)?,
            readers: Readers::new(),
        };
        let block = backing.block.first.0;
        let stamp = |frame: u64| write(linear_va(frame * PAGE), frame);
        (block..block + (1 << BLOCK_ORDER)).for_each(stamp);
        backing.mixed.frames().iter().for_each(|frame| stamp(frame.0));
        backing.pages.iter().for_each(|frame| stamp(frame.0));
        Ok(backing)
    }
}

/// What one thread of a shape is given.
#[derive(Debug)]
pub(crate) struct Run<'a> {
    /// Pages of a shape whose size is fixed.
    pub nr_pages: u64,
    /// Whether these are asked for in the largest blocks.
    pub use_huge: bool,
    /// How often.
    pub loops: u64,
    /// Threads that run the same shape.
    pub threads: u64,
    /// The number of this one, which is that of its CPU.
    pub thread: usize,
    /// Every page is looked at, not just one of each kind.
    pub every_page: bool,
    /// Random numbers of this thread.
    pub rng: fastrand::Rng,
    /// What all threads share.
    pub backing: &'a Backing,
}

/// Does its loops, and gives how many of them were right.
pub(crate) type Body = fn(&mut Run<'_>) -> Result<u64, Failure>;

/// A shape.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    /// Its bit in the mask.
    pub bit: u32,
    /// Its name; Linux's where it is Linux's.
    pub name: &'static str,
    /// What it does.
    pub body: Body,
}

macro_rules! shapes {
    ($($bit:literal $name:ident = $body:expr,)*) => {
        /// All shapes.
        pub(crate) const ALL: &[Shape] = &[$(Shape { bit: $bit, name: stringify!($name), body: $body },)*];
        const _: () = assert!(0 $(| $bit)* == CASES, "a shape that `test_vmalloc=` does not know");
    };
}

shapes! {
    1 fix_size_alloc = linux::fix_size,
    2 full_fit_alloc = linux::full_fit,
    4 long_busy_list_alloc = linux::long_busy_list,
    8 random_size_alloc = linux::random_size,
    16 fix_align_alloc = linux::fix_align,
    32 random_size_align_alloc = linux::random_size_align,
    64 align_shift_alloc = linux::align_shift,
    128 pcpu_alloc = linux::percpu,
    256 kvfree_rcu_1_arg_vmalloc = deferred::noted_apart,
    512 kvfree_rcu_2_arg_vmalloc = deferred::linked_through,
    1024 vm_map_ram = linux::map_ram,
    2048 no_block_alloc = linux::no_block,
    4096 vrealloc = linux::vrealloc,
    0x1_0000 mixed_order_vmap = beyond::mixed_order_vmap,
    0x2_0000 partial_unmap = beyond::partial_unmap,
    0x4_0000 partial_permission_change = beyond::partial_permission_change,
    0x8_0000 ioremap_of_every_leaf = beyond::ioremap_of_every_leaf,
    0x10_0000 vmap_inside_a_block = beyond::vmap_inside_a_block,
}

/// Calls `each` once a loop, and counts those that were right.
fn loops(
    run: &mut Run<'_>,
    mut each: impl FnMut(&mut Run<'_>) -> Result<bool, Failure>,
) -> Result<u64, Failure> {
    let mut right = 0;
    for _ in 0..run.loops {
        go_on()?;
        right += u64::from(each(run)?);
    }
    Ok(right)
}

/// The address of page `page` of a mapping at `start`.
const fn page_at(start: VirtAddr, page: u64) -> usize {
    (start.0 + page * PAGE) as usize
}
