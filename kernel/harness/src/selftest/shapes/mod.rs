//! The shapes of `test_vmalloc=MASK`: Linux's by its numbers, then others. A shape returns how many
//! loops were right.

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

#[derive(Debug)]
pub(crate) struct Backing {
    _area: KernelArea,
    pub pages: Vec<Pfn>,
    pub block: Block,
    pub mixed: Chunks,
    /// [`DEVICE_SIZE`] with nothing behind.
    pub device: PhysAddr,
    pub readers: Readers,
}

const BLOCK_ORDER: u8 = if layout::PAGE_SHIFT == 16 {
    11
} else {
    source::BLOCK_ORDER + 2
};
const DEVICE_SIZE: u64 = if layout::PAGE_SHIFT == 16 {
    16 << 30
} else {
    1 << 30
};
const MIXED: [u8; 14] = [9, 4, 0, 8, 5, 0, 2, 9, 4, 7, 1, 0, 6, 3];

impl Backing {
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

#[derive(Debug)]
pub(crate) struct Run<'a> {
    pub nr_pages: u64,
    pub use_huge: bool,
    pub loops: u64,
    pub threads: u64,
    pub thread: usize,
    pub every_page: bool,
    pub rng: fastrand::Rng,
    pub backing: &'a Backing,
}

pub(crate) type Body = fn(&mut Run<'_>) -> Result<u64, Failure>;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub bit: u32,
    pub name: &'static str,
    pub body: Body,
}

macro_rules! shapes {
    ($($bit:literal $name:ident = $body:expr,)*) => {
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

const fn page_at(start: VirtAddr, page: u64) -> usize {
    (start.0 + page * PAGE) as usize
}
