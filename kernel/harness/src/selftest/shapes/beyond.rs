use alloc::vec::Vec;

use kernel::layout;
use kernel::mm::areas::{KernelArea, kernel_vmalloc};
use kernel::mm::{self, kernel_tree, linear_va};
use paging::{Attributes, LeafCounts, LeafSet, LeafSize, Pfn, PhysAddr, VirtRange};

use super::check::{after_cut, has_leaves, is_frame, pages_to_check, translates};
use super::{BLOCK_ORDER, DEVICE_SIZE, Run, loops, page_at};
use crate::selftest::context::has_leaf;
use crate::selftest::failure::{Failure, expect, expect_leaves};
use crate::selftest::source::{BLOCK, BLOCK_SIZE, GROUP, PAGE, Source};
use crate::selftest::verify::{is_writable, read, write};

const PART_PAGES: u64 = if layout::PAGE_SHIFT == 16 { 1024 } else { 2 * BLOCK };

fn allowed() -> LeafSet {
    kernel_tree().config().leaves
}

fn random_part(run: &mut Run<'_>, pages: u64) -> core::ops::Range<u64> {
    let first = run.rng.u64(0..pages);
    first..first + run.rng.u64(1..=pages - first)
}

/// With the largest leaves that their order allows.
fn maps_frames(run: &mut Run<'_>, area: &KernelArea, frames: Vec<Pfn>) -> Result<(), Failure> {
    let start = area.range().start;
    for page in pages_to_check(run, frames.len() as u64) {
        is_frame(start, page, frames[page as usize])?;
    }
    let nr = frames.len() as u64;
    let expected = Source::Array(frames).expected_leaves(start, 0, nr, allowed());
    expect_leaves(area.outcome().leaves, expected)?;
    has_leaves(area.range(), expected)
}

pub(super) fn mixed_order_vmap(run: &mut Run<'_>) -> Result<u64, Failure> {
    let mut extents = run.backing.mixed.extents();
    loops(run, |run| {
        run.rng.shuffle(&mut extents);
        let frames: Vec<Pfn> = extents
            .iter()
            .flat_map(|extent| (extent.start.0..extent.start.0 + extent.pages).map(Pfn))
            .collect();
        let area = mm::vmap(frames.as_slice())?;
        maps_frames(run, &area, frames).map(|()| true)
    })
}

/// From inside a block on.
pub(super) fn vmap_inside_a_block(run: &mut Run<'_>) -> Result<u64, Failure> {
    loops(run, |run| {
        let (block, end) = (run.backing.block.first.0, 1 << BLOCK_ORDER);
        let first = run.rng.u64(1..BLOCK.min(end / 4));
        let frames: Vec<Pfn> = (block + first..block + end).map(Pfn).collect();
        let area = mm::vmap(frames.as_slice())?;
        let blocks = area.outcome().leaves.get(LeafSize::BLOCK2);
        let (size, expected) = if end == 4 * BLOCK {
            (BLOCK_SIZE, 3)
        } else {
            (GROUP * PAGE, 0)
        };
        let phase = |address: u64| address % size;
        expect(
            "memory is not placed where its blocks can be blocks",
            area.range().start.0,
            phase(area.range().start.0) == phase(frames[0].0 * PAGE) && blocks == expected,
        )?;
        maps_frames(run, &area, frames).map(|()| true)
    })
}

pub(super) fn partial_unmap(run: &mut Run<'_>) -> Result<u64, Failure> {
    let block = run.backing.block.first.0;
    let frames: Vec<Pfn> = (block..block + PART_PAGES).map(Pfn).collect();
    loops(run, |run| {
        let align = LeafSize::BLOCK2.bytes::<layout::Granule>();
        let area = kernel_vmalloc().get_vm_area(PART_PAGES * PAGE, align)?;
        let (range, start) = (area.range(), area.range().start);
        area.map_pages(0, &frames[..], Attributes::KERNEL_DATA)?;
        has_leaves(range, after_cut(PART_PAGES, 0..0, true, allowed()))?;
        let part = random_part(run, PART_PAGES);
        area.unmap_pages(part.start * PAGE, (part.end - part.start) * PAGE)?;
        has_leaves(range, after_cut(PART_PAGES, part.clone(), false, allowed()))?;
        for page in pages_to_check(run, PART_PAGES) {
            let va = start.add(page * PAGE);
            if part.contains(&page) {
                let gone = mm::vmalloc_to_pfn(va) == Err(vmalloc::Error::NotMapped(va));
                expect("a page is there that was unmapped", va.0, gone)?;
            } else {
                is_frame(start, page, frames[page as usize])?;
            }
        }
        let again = &frames[part.start as usize..part.end as usize];
        area.map_pages(part.start * PAGE, again, Attributes::KERNEL_DATA)?;
        for page in pages_to_check(run, PART_PAGES) {
            is_frame(start, page, frames[page as usize])?;
        }
        Ok(true)
    })
}

pub(super) fn partial_permission_change(run: &mut Run<'_>) -> Result<u64, Failure> {
    loops(run, |run| {
        let area = mm::vmalloc(PART_PAGES * PAGE)?;
        let start = area.range().start;
        let mark = run.rng.u64(..);
        (0..PART_PAGES).for_each(|page| write(page_at(start, page), mark ^ page));
        let before = area.outcome().leaves;
        let part = random_part(run, PART_PAGES);
        let (offset, size) = (part.start * PAGE, (part.end - part.start) * PAGE);
        area.set_memory_ro(offset, size)?;
        if before.get(LeafSize::BLOCK2) == 2 {
            has_leaves(area.range(), after_cut(PART_PAGES, part.clone(), true, allowed()))?;
        }
        for page in pages_to_check(run, PART_PAGES).chain([part.start, part.end - 1]) {
            let va = page_at(start, page);
            let alias = linear_va(mm::vmalloc_to_pfn(start.add(page * PAGE))?.0 * PAGE);
            for at in [va, alias] {
                let writable = is_writable(at);
                expect(
                    "a page is writable, or is not, against what was set",
                    at as u64,
                    writable != part.contains(&page),
                )?;
                expect("a page has other contents", at as u64, read(at) == mark ^ page)?;
            }
        }
        area.set_memory_rw(offset, size)?;
        let writable = pages_to_check(run, PART_PAGES).all(|page| is_writable(page_at(start, page)));
        expect("a page is not writable again", start.0, writable)?;
        Ok(true)
    })
}

pub(super) fn ioremap_of_every_leaf(run: &mut Run<'_>) -> Result<u64, Failure> {
    const SIZES: [(LeafSize, LeafSize); 5] = [
        (LeafSize::PAGE, LeafSize::PAGE),
        (LeafSize::PAGE_GROUP, LeafSize::PAGE),
        (LeafSize::BLOCK2, LeafSize::BLOCK2),
        (LeafSize::BLOCK2_GROUP, LeafSize::BLOCK2),
        (LeafSize::BLOCK1, LeafSize::BLOCK1),
    ];
    let device = run.backing.device;
    loops(run, |run| {
        for (size, without_groups) in SIZES {
            if !has_leaf(size) || size.bytes::<layout::Granule>() > DEVICE_SIZE {
                continue;
            }
            let bytes = size.bytes::<layout::Granule>();
            let leaf = if allowed().contains(size) {
                size
            } else {
                without_groups
            };
            let area = mm::ioremap(device, bytes)?;
            let start = area.range().start;
            let mut expected = LeafCounts::default();
            expected.add(leaf, (bytes / leaf.bytes::<layout::Granule>()) as u32);
            expect_leaves(area.outcome().leaves, expected)?;
            has_leaves(VirtRange::new(start, bytes), expected)?;
            for part in 0..64 {
                let page = run.rng.u64(0..(bytes / PAGE).div_ceil(64)) + part * (bytes / PAGE) / 64;
                let page = page.min(bytes / PAGE - 1);
                let va = page_at(start, page);
                translates(va, PhysAddr(device.0 + page * PAGE))?;
            }
        }
        Ok(true)
    })
}
