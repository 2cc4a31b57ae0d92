use alloc::vec::Vec;

use kernel::layout;
use kernel::mm::areas::{self, KernelArea, kernel_vmalloc};
use kernel::mm::{self, frames, linear_va};
use paging::{Attributes, Granule as _, LeafSize, Pfn, VirtAddr};
use vmalloc::{Error, Request, SpaceError};

use super::refused;
use crate::selftest::context::Context;
use crate::selftest::failure::{Failure, TestResult, expect};
use crate::selftest::memory::Block;
use crate::selftest::source::{BLOCK, BLOCK_SIZE, BLOCKS_SPAN, PAGE};
use crate::selftest::verify::{read, write};

const MOST_AREAS: usize = 4096;
const RECORDS_OF_PAGE: usize = PAGE as usize / 64;

const PIECE: u64 = BLOCK;

/// Guards included: whole tables if it is larger than one.
const fn reserved(pages: u64) -> u64 {
    if pages > PIECE {
        pages.next_multiple_of(PIECE)
    } else {
        pages
    }
}

pub fn addresses_run_out(ctx: &Context) -> TestResult {
    let vm = kernel_vmalloc();
    let mut held: Vec<KernelArea> = Vec::with_capacity(MOST_AREAS);
    let block = Block::allocate(ctx, 6)?;
    let frames: [Pfn; 64] = core::array::from_fn(|page| Pfn(block.first.0 + page as u64));
    let device = ctx.untouched(PAGE, PAGE, 0)?;
    let mut grows = mm::vmalloc(PAGE)?;
    vm.shrink();
    let mut size = 1 << (vm.range().size - 1).ilog2();
    while size >= PAGE {
        match vm.get_vm_area(size, 1) {
            Ok(area) if held.len() < MOST_AREAS => held.push(area),
            Ok(area) => {
                return Err(Failure::Claim {
                    what: "addresses do not run out",
                    at: area.va().0,
                }
                .into());
            }
            Err(Error::OutOfSpace(SpaceError::NoSpace { pages })) => {
                expect(
                    "other pages are missing",
                    pages,
                    pages == reserved(size / PAGE + 1),
                )?;
                size /= 2;
            }
            Err(error) => return Err(error.into()),
        }
    }
    let none = |pages| Error::OutOfSpace(SpaceError::NoSpace { pages });
    refused("a page of addresses", none(2), || vm.get_vm_area(1, 1))?;
    refused("a vmalloc", none(2), || mm::vmalloc(PAGE))?;
    refused(
        "a vmalloc of blocks",
        none(reserved((4 << 20) / PAGE + 1)),
        || vm.vmalloc_huge(4 << 20),
    )?;
    refused("a stack, with two guards", none(6), || mm::alloc_stack(4 * PAGE))?;
    refused("a vmap", none(65), || mm::vmap(&frames[..]))?;
    refused("a block for vm_map_ram", none(65), || vm.vm_map_ram(&frames[..3]))?;
    refused("an ioremap", none(2), || mm::ioremap(device, PAGE))?;
    refused("a move by vrealloc", none(101), || grows.vrealloc(100 * PAGE))?;
    let align = 1 << 40;
    let aligned = none(PIECE);
    refused("a page at an alignment", aligned, || {
        vm.allocate(&Request::new(PAGE).aligned(align))
    })?;
    let last = held.pop().ok_or(Failure::NotRefused("all areas"))?;
    let (va, size) = (last.va(), last.size());
    last.free();
    let again = vm.get_vm_area(size, 1)?;
    expect("the addresses went elsewhere", again.va().0, again.va() == va)?;
    refused("a page more", none(2), || mm::vmalloc(PAGE))?;
    drop(again);
    drop(held);
    let error = Error::OutOfSpace(SpaceError::NoAlignedSpace {
        pages: PIECE,
        align: (1 << 63) / PAGE,
        phase: 0,
    });
    refused("a page at an alignment that no gap has", error, || {
        vm.allocate(&Request::new(PAGE).aligned(1 << 63))
    })?;
    Ok(())
}

/// Blocks linked through their first words: holding them takes no memory.
pub struct AllFrames {
    /// Its order is in bits 7:0.
    head: u64,
}

impl AllFrames {
    pub fn take() -> Self {
        kernel_vmalloc().shrink();
        let mut all = Self { head: 0 };
        for order in (0..=frames::MAX_ORDER).rev() {
            while let Some(first) = frames::allocate(order) {
                all.put(first, order);
            }
        }
        all
    }

    fn put(&mut self, first: Pfn, order: u8) {
        write(linear_va(first.0 * PAGE), self.head);
        self.head = first.0 << 8 | u64::from(order);
    }

    fn pop(&mut self) -> Option<(Pfn, u8)> {
        let (first, order) = (Pfn(self.head >> 8), self.head as u8);
        if self.head == 0 {
            return None;
        }
        self.head = read(linear_va(first.0 * PAGE));
        Some((first, order))
    }

    pub fn free(&mut self, nr: u64) {
        let mut left = nr;
        while left != 0
            && let Some((first, order)) = self.pop()
        {
            if 1 << order <= left {
                left -= 1 << order;
                frames::free(first, order);
                continue;
            }
            frames::split(first, order);
            let (free, keep) = (first.0..first.0 + left, first.0 + left..first.0 + (1 << order));
            free.for_each(|frame| frames::free(Pfn(frame), 0));
            keep.for_each(|frame| self.put(Pfn(frame), 0));
            left = 0;
        }
    }
}

impl Drop for AllFrames {
    fn drop(&mut self) {
        while let Some((first, order)) = self.pop() {
            frames::free(first, order);
        }
    }
}

pub fn frames_run_out(ctx: &Context) -> TestResult {
    let vm = kernel_vmalloc();
    let mut held: Vec<VirtAddr> =
        Vec::with_capacity((areas::nr_node_frames() as usize + 1) * RECORDS_OF_PAGE);
    let mut area = mm::vmalloc(PAGE)?;
    let large = mm::vmalloc(BLOCK_SIZE.min(32 << 20))?;
    let has_block = large.outcome().leaves.get(LeafSize::BLOCK2) != 0;
    let block = Block::allocate(ctx, 6)?;
    // So there is no table of level 2, or of level 3 where the root is level 2.
    let entry = BLOCKS_SPAN;
    let table_level = layout::Granule::ROOT_LEVEL.max(1) + 1;
    let far = vm.get_vm_area(4 * entry, entry)?;
    let mut all = AllFrames::take();
    let none = |size| Error::OutOfFrames { size };
    refused("a vmalloc of a byte", none(PAGE), || mm::vmalloc(1))?;
    refused("a vmalloc", none(5 * PAGE), || mm::vmalloc(5 * PAGE))?;
    refused("a vmalloc of blocks", none(4 << 20), || vm.vmalloc_huge(4 << 20))?;
    refused("a stack", none(4 * PAGE), || mm::alloc_stack(4 * PAGE))?;
    refused("vrealloc", none(99 * PAGE), || area.vrealloc(100 * PAGE))?;
    let pages = [block.first];
    let no_table = |level| Error::Map(paging::Error::OutOfTables(level));
    refused("a map where no table is", no_table(table_level), || {
        far.map_pages(2 * entry, &pages[..], Attributes::KERNEL_DATA)
    })?;
    if has_block {
        refused("a cut of a block", no_table(3), || {
            large.set_memory_ro(3 * PAGE, PAGE)
        })?;
    }
    nodes_run_out(&mut held)?;
    // `drain` keeps the list's memory, which the heap might free.
    for va in held.drain(..) {
        // SAFETY: raw, the test's own, and nothing is mapped there.
        unsafe { vm.free_vm_area(va) }?;
    }
    // Five frames, and those of its tables.
    all.free(5 + 3);
    let five = mm::vmalloc(5 * PAGE)?;
    refused("more pages than there are", none(9 * PAGE), || {
        mm::vmalloc(9 * PAGE)
    })?;
    drop(five);
    drop(all);
    Ok(())
}

fn nodes_run_out(held: &mut Vec<VirtAddr>) -> Result<(), Failure> {
    let vm = kernel_vmalloc();
    while held.len() < held.capacity() {
        match vm.get_vm_area(PAGE, 1) {
            Ok(area) => held.push(area.into_raw()),
            Err(_) => break,
        }
    }
    refused("an area that no record is left for", Error::OutOfNodes, || {
        vm.get_vm_area(PAGE, 1)
    })
}
