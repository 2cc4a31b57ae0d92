use kernel::arch::mmu::{at_s1e1r, at_s1e1w};
use kernel::bootargs::LinearLeaves;
use kernel::layout;
use kernel::mm::layout::{DTB_WINDOW, DTB_WINDOW_SIZE, PAGE_SIZE, TABLE_SPAN};
use kernel::mm::regions::PhysRegion;
use kernel::mm::{self, linear, linear_va};
use paging::{Attributes, LeafCounts, LeafSet, PhysAddr, VirtAddr, VirtRange};

use crate::selftest::audit;
use crate::selftest::context::Context;
use crate::selftest::failure::{TestResult, expect, expect_leaves, expect_value};
use crate::selftest::mapping::Mapping;
use crate::selftest::memory::{Block, Window};
use crate::selftest::source::{BLOCK, BLOCK_ORDER, BLOCK_SIZE, GROUP, PAGE, Source, Walker};
use crate::selftest::verify::{Expected, verify_pages};

pub fn audit_finds_nothing(ctx: &Context) -> TestResult {
    let audit = audit::audit(ctx.info)?;
    expect_value(
        "table pages that are linked nowhere",
        audit::unlinked_tables(&audit),
        0,
    )?;
    let ram = mm::memory_plan().ram.size();
    let mapped = audit.report.leaves.pages::<layout::Granule>() * PAGE;
    expect("the tree maps less than all RAM", mapped, mapped > ram)?;
    Ok(())
}

pub fn device_tree_window_has_its_pages_only(ctx: &Context) -> TestResult {
    let tree = &ctx.info.device_tree;
    let pages = tree.pa..tree.pa + tree.size as u64;
    let first = tree.pa & !(TABLE_SPAN as u64 - 1);
    for offset in (0..DTB_WINDOW_SIZE).step_by(PAGE_SIZE) {
        let va = DTB_WINDOW + offset;
        let pa = first + offset as u64;
        let is_of_tree = pa + PAGE > pages.start && pa < pages.end;
        let read = at_s1e1r(va).ok().map(|found| found.pa);
        expect(
            "only the tree's pages",
            va as u64,
            read == is_of_tree.then_some(pa),
        )?;
        expect("read-only", va as u64, at_s1e1w(va).is_err())?;
    }
    Ok(())
}

pub fn audit_of_groups_and_blocks(ctx: &Context) -> TestResult {
    let block = Block::allocate(ctx, BLOCK_ORDER + 2)?;
    let window = Window::reserve(4 * BLOCK_SIZE, BLOCK_SIZE, 0)?;
    let source = Source::Range {
        start: block.start(),
        pages: 2 * BLOCK + GROUP + 1,
        walker: Walker::Range,
    };
    let mapping = Mapping::map(ctx, window.start, &source, Attributes::KERNEL_DATA, ctx.owned())?;
    audit::audit(ctx.info)?;
    mapping.verify_and_unmap()?;
    Ok(())
}

pub fn linear_map_has_the_largest_leaves(ctx: &Context) -> TestResult {
    let allowed = match kernel::args().linear {
        LinearLeaves::Largest => ctx.leaves(),
        LinearLeaves::Pages => LeafSet::PAGES,
    };
    let constant = linear::constant_part(ctx.info);
    let cuts = [0, constant.start, constant.end, u64::MAX];
    let mut expected = LeafCounts::default();
    for region in mm::memory_plan().ram.iter() {
        for pair in cuts.windows(2) {
            let part = region.intersection(&PhysRegion {
                start: pair[0],
                end: pair[1],
            });
            if part.is_empty() {
                continue;
            }
            let source = Source::Range {
                start: PhysAddr(part.start),
                pages: part.size() / PAGE,
                walker: Walker::Range,
            };
            let va = VirtAddr(linear_va(part.start) as u64);
            expected.merge(&source.expected_leaves(va, 0, source.pages(), allowed));
        }
    }
    expect_leaves(mm::linear_map_outcome().leaves, expected)?;
    Ok(())
}

pub fn linear_map_can_be_cut(ctx: &Context) -> TestResult {
    let before = audit::audit(ctx.info)?.report;
    let block = Block::allocate(ctx, BLOCK_ORDER)?;
    let page = linear_va(block.start().0 + 100 * PAGE);
    let tree = ctx.tree();
    let around = |read_only: bool| {
        verify_pages(
            &tree,
            VirtAddr(linear_va(block.start().0) as u64),
            block.pages(),
            |page| {
                let attributes = if read_only && page == 100 {
                    Attributes::KERNEL_RODATA
                } else {
                    Attributes::KERNEL_DATA
                };
                let pa = block.start().add(page * PAGE);
                Some(Expected { pa, attributes })
            },
            crate::selftest::verify::Memory::Untouched,
        )
    };
    around(false)?;
    let range = VirtRange::new(VirtAddr(page as u64), PAGE_SIZE as u64);
    let protect = |change: fn(Attributes) -> Attributes| {
        mm::with_linear_map_tables(|tree| {
            let mut batch = tree.batch();
            let result = tree.protect(range, change, &mut batch);
            batch.flush();
            result
        })
    };
    protect(Attributes::read_only)?;
    let cut = around(true).and_then(|()| super::faults::expect_read_only(page));
    protect(Attributes::writable)?;
    if kernel::args().linear == LinearLeaves::Largest {
        let largest = 16u64 << 30;
        mm::with_linear_map_tables(|tree| {
            let mut batch = tree.batch();
            let start = VirtAddr(page as u64).align_down(largest);
            let result = tree.coalesce(VirtRange::new(start, largest), &mut batch);
            batch.flush();
            result
        })?;
    }
    cut?;
    around(false)?;
    let after = audit::audit(ctx.info)?.report;
    expect_leaves(after.leaves, before.leaves)?;
    expect_value("tables", after.tables, before.tables)?;
    Ok(())
}
