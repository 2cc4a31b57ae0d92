use kernel::layout;
use paging::mmu::MmuCounts;
use paging::{Attributes, LeafSet, LeafSize};

use crate::selftest::context::Context;
use crate::selftest::failure::{Failure, TestResult, expect_value};
use crate::selftest::fault_injection::Work;
use crate::selftest::mapping::{Mapping, expect_fresh};
use crate::selftest::memory::{Block, Window};
use crate::selftest::source::{BLOCK, BLOCK_GROUP, BLOCK_SIZE, GROUP, PAGE, Source, Walker};
use crate::selftest::verify::Memory;

/// DSB ISHST, `tlbi` TLBIs, DSB ISH, ISB; one more TLBI and DSB ISH with the erratum that completes
/// a TLBI too early.
fn expect_flush(ctx: &Context, counts: &MmuCounts, tlbi: u64) -> Result<(), Failure> {
    let repeated = u64::from(kernel::mm::kernel_tree().config().repeat_tlbi);
    expect_value("TLBIs of a flush", counts.tlbi, tlbi + repeated)?;
    expect_value("DSB ISHST of a flush", counts.dsb_ishst, 1)?;
    expect_value("DSBs of a flush", counts.dsb, 2 + repeated)?;
    expect_value("ISBs of a flush", counts.isb, 1)?;
    if !ctx.features.tlbi_range {
        expect_value("TLBIs by range without FEAT_TLBIRANGE", counts.tlbi_range, 0)?;
    }
    Ok(())
}

/// By range if that takes fewer.
fn nr_tlbis(ctx: &Context, entries: u64, pages: u64) -> u64 {
    if !ctx.features.tlbi_range {
        return entries;
    }
    // One by range covers 1 to 32 times 2, 2^6, 2^11 or 2^16 pages, and two may overlap.
    let all = entries * pages;
    let one =
        all == 1 || (0..4).any(|scale| all.is_multiple_of(2 << (5 * scale)) && all >> (5 * scale + 1) <= 32);
    let operations = if one { 1 } else { all.div_ceil(1 << 21).max(2) };
    entries.min(operations)
}

fn unmap_takes(ctx: &Context, pages: u64, align: u64, allowed: LeafSet, entry_pages: u64) -> TestResult {
    // The neighbour keeps the table at the end of the range, so all TLBIs are last-level ones.
    let size = (pages + 1) * PAGE;
    let window = Window::reserve(size + align, 2 * (size + align).next_power_of_two(), 0)?;
    let start = ctx.untouched(size, align, 0)?;
    let source = Source::Range {
        start,
        pages: pages + 1,
        walker: Walker::Range,
    };
    let mapping = Mapping::map_untouched(ctx, window.start, &source, allowed)?;
    let (outcome, counts) = mapping.unmap_part(0, pages)?;
    expect_flush(ctx, &counts, nr_tlbis(ctx, pages / entry_pages, entry_pages))?;
    if entry_pages == 1 {
        expect_value("tables removed", u64::from(outcome.tables_removed), 0)?;
    }
    Ok(())
}

pub fn unmap_one_page(ctx: &Context) -> TestResult {
    unmap_takes(ctx, 1, PAGE, LeafSet::PAGES, 1)
}

pub fn unmap_many_pages(ctx: &Context) -> TestResult {
    for pages in [2, 3, 15, 16, 63, 64, 65, 200] {
        unmap_takes(ctx, pages, GROUP * PAGE, LeafSet::PAGES, 1)?;
    }
    Ok(())
}

pub fn unmap_page_group(ctx: &Context) -> TestResult {
    ctx.needs_groups()?;
    unmap_takes(ctx, GROUP, GROUP * PAGE, LeafSet::of(&[LeafSize::PAGE_GROUP]), 1)
}

pub fn unmap_block(ctx: &Context) -> TestResult {
    unmap_takes(ctx, BLOCK, BLOCK_SIZE, LeafSet::of(&[LeafSize::BLOCK2]), BLOCK)
}

pub fn unmap_block_group(ctx: &Context) -> TestResult {
    ctx.needs_groups()?;
    unmap_takes(
        ctx,
        BLOCK_GROUP * BLOCK,
        BLOCK_GROUP * BLOCK_SIZE,
        LeafSet::ALL,
        BLOCK,
    )
}

pub fn unmap_above_the_threshold(ctx: &Context) -> TestResult {
    let above = u64::from(kernel::mm::kernel_tree().config().flush_all_above);
    let size = 8 * (512 * PAGE).max(BLOCK_SIZE);
    let window = Window::reserve(size, BLOCK_SIZE, 0)?;
    let start = ctx.untouched(size, BLOCK_SIZE, 0)?;
    let pages = (above + 1) * if ctx.features.tlbi_range { 1 } else { 2 };
    let source = Source::Range {
        start,
        pages,
        walker: Walker::Range,
    };
    let mapping = Mapping::map_untouched(ctx, window.start, &source, LeafSet::PAGES)?;
    let (_, counts) = mapping.unmap_part(0, pages)?;
    if ctx.features.tlbi_range {
        expect_value("TLBIs of everything", counts.tlbi_all, 0)?;
        expect_value("TLBIs within the threshold", u64::from(counts.tlbi <= above), 1)?;
    } else {
        expect_flush(ctx, &counts, 1)?;
        expect_value("TLBIs of everything", counts.tlbi_all, 1)?;
    }
    mapping.verify_gone()?;
    Ok(())
}

pub fn protect_in_place(ctx: &Context) -> TestResult {
    for (pages, allowed, entry_pages) in [
        (1, LeafSet::PAGES, 1),
        (48, LeafSet::PAGES, 1),
        (GROUP, LeafSet::ALL, 1),
        (BLOCK, LeafSet::ALL, BLOCK),
    ] {
        let window = Window::reserve(BLOCK_SIZE, BLOCK_SIZE, 0)?;
        let source = Source::Range {
            start: ctx.untouched(BLOCK_SIZE, BLOCK_SIZE, 0)?,
            pages,
            walker: Walker::Range,
        };
        let mapping = Mapping::map_untouched(ctx, window.start, &source, allowed)?;
        let (_, counts) = mapping.protect_part(0, pages, Attributes::read_only)?;
        expect_flush(ctx, &counts, nr_tlbis(ctx, pages / entry_pages, entry_pages))?;
    }
    Ok(())
}

/// One break (DSB ISHST, TLBI, DSB ISH), then one DSB ISHST and ISB publish the tables.
pub fn cut_block(ctx: &Context) -> TestResult {
    for size in [LeafSize::BLOCK2, LeafSize::BLOCK1] {
        if ctx.needs_leaf_by_page(size).is_err() {
            continue;
        }
        let bytes = size.bytes::<layout::Granule>();
        let window = Window::reserve(bytes, bytes, 0)?;
        let source = Source::Range {
            start: ctx.untouched(bytes, bytes, 0)?,
            pages: bytes / PAGE,
            walker: Walker::Range,
        };
        let mapping = Mapping::map(ctx, window.start, &source, Attributes::DEVICE, Memory::Untouched)?;
        mapping.tree.mmu().begin(Work::Other);
        let mut batch = mapping.tree.batch();
        mapping.tree.split(mapping.part(100, 1), &mut batch)?;
        batch.flush();
        let counts = mapping.tree.mmu().take();
        let repeated = u64::from(mapping.tree.config().repeat_tlbi);
        expect_value("TLBIs of a cut", counts.tlbi, 1 + repeated)?;
        expect_value("DSB ISHST of a cut", counts.dsb_ishst, 2)?;
        expect_value("DSBs of a cut", counts.dsb, 3 + repeated)?;
        expect_value("ISBs of a cut", counts.isb, 1)?;
        mapping.verify()?;
    }
    Ok(())
}

pub fn many_unmaps_one_flush(ctx: &Context) -> TestResult {
    let block = Block::allocate(ctx, 5)?;
    let window = Window::reserve(32 * PAGE, 2 << 20, 0)?;
    let source = Source::Range {
        start: block.start(),
        pages: 32,
        walker: Walker::Range,
    };
    let mapping = Mapping::map_data(ctx, window.start, &source, LeafSet::PAGES)?;
    mapping.verify()?;
    mapping.tree.mmu().begin(Work::Unmap);
    let mut batch = mapping.tree.batch();
    for page in (0..20).step_by(4) {
        mapping.tree.unmap(mapping.part(page, 1), &mut batch)?;
    }
    let before = mapping.tree.mmu().take();
    expect_value(
        "barriers and TLBIs before the flush",
        before.dsb + before.isb + before.tlbi,
        0,
    )?;
    batch.flush();
    let counts = mapping.tree.mmu().take();
    mapping.tree.mmu().begin(Work::Other);
    expect_flush(ctx, &counts, 5)?;
    mapping.verify_as(|page| (page >= 20 || page % 4 != 0).then(|| mapping.expected(page)))?;
    Ok(())
}

pub fn fresh_map(ctx: &Context) -> TestResult {
    let most = PAGE << 18;
    let window = Window::reserve(2 * most, most, 0)?;
    let tree = ctx.tree();
    for pages in [
        1,
        GROUP,
        GROUP + 1,
        BLOCK,
        BLOCK + 1,
        BLOCK_GROUP * BLOCK,
        100_000,
        1 << 18,
    ] {
        let source = Source::Range {
            start: ctx.untouched(most, most, 0)?,
            pages,
            walker: Walker::Range,
        };
        for va in [window.start, window.start.add(PAGE)] {
            ctx.prune(paging::VirtRange::new(va, pages * PAGE))?;
            tree.mmu().begin(Work::Map);
            let outcome = source.map(&tree, va, Attributes::DEVICE, ctx.leaves())?;
            let counts = tree.mmu().take();
            tree.mmu().begin(Work::Other);
            let mut batch = tree.batch();
            tree.unmap(paging::VirtRange::new(va, pages * PAGE), &mut batch)?;
            batch.flush();
            expect_fresh(&counts)?;
            expect_value("pages mapped", outcome.leaves.pages::<layout::Granule>(), pages)?;
        }
    }
    Ok(())
}
