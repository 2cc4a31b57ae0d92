use alloc::vec::Vec;

use paging::{Attributes, Extent, LeafSet, MemoryType, Pfn};

use crate::selftest::context::Context;
use crate::selftest::failure::{TestResult, expect_leaves};
use crate::selftest::mapping::Mapping;
use crate::selftest::memory::{Block, Chunks, Window};
use crate::selftest::source::{BLOCK, BLOCK_GROUP, BLOCK_ORDER, BLOCK_SIZE, GROUP, PAGE, Source, Walker};
use crate::selftest::verify::Memory;

const K64: u64 = GROUP * PAGE;
const M2: u64 = BLOCK_SIZE;
const M32: u64 = BLOCK_GROUP * BLOCK_SIZE;

/// On and around a block and a group, and in the middle.
const OFFSETS_2M: [u64; 6] = [0, PAGE, K64, M2 - K64, M2 - PAGE, M2 / 2];
const OFFSETS_32M: [u64; 4] = [0, M2, M32 - M2, M32 - K64];

fn source(walker: Walker, start: u64, pages: u64) -> Source {
    Source::Range {
        start: paging::PhysAddr(start),
        pages,
        walker,
    }
}

/// 5 MiB and 3 pages, so that leaves end as oddly as they begin.
pub fn every_offset_modulo_2m<const WALKER: usize>(ctx: &Context) -> TestResult {
    let block = Block::allocate(ctx, BLOCK_ORDER + 2)?;
    let size = 5 * M2 / 2 + 3 * PAGE;
    for va_offset in OFFSETS_2M {
        for pa_offset in OFFSETS_2M {
            let window = Window::reserve(size, M2, va_offset)?;
            let source = source(Walker::ALL[WALKER], block.start().0 + pa_offset, size / PAGE);
            Mapping::map(ctx, window.start, &source, Attributes::KERNEL_DATA, ctx.owned())?
                .verify_and_unmap()?;
        }
    }
    Ok(())
}

pub fn every_offset_modulo_32m<const WALKER: usize>(ctx: &Context) -> TestResult {
    let size = M32 + M32 / 4 + K64 + PAGE;
    for va_offset in OFFSETS_32M {
        for pa_offset in OFFSETS_32M {
            let window = Window::reserve(size, M32, va_offset)?;
            let start = ctx.untouched(2 * size, M32, pa_offset)?;
            let source = source(Walker::ALL[WALKER], start.0, size / PAGE);
            let mapping = Mapping::map(ctx, window.start, &source, Attributes::DEVICE, Memory::Untouched)?;
            if source.pages() < 1 << 16 {
                mapping.verify_and_unmap()?;
            } else {
                mapping.verify_sampled()?;
                mapping.unmap()?;
            }
        }
    }
    Ok(())
}

fn mixed_runs(ctx: &Context, block: &Block) -> Vec<Extent> {
    let mut rng = ctx.rng();
    let mut extents = Vec::new();
    let mut at = 0;
    while at < block.pages() {
        let most = match rng.u32(0..4) {
            0 => 1,
            1 => 20,
            2 => 200,
            _ => 700,
        };
        let pages = rng.u64(1..=most).min(block.pages() - at);
        extents.push(Extent {
            start: Pfn(block.first.0 + at),
            pages,
        });
        at += pages;
    }
    rng.shuffle(&mut extents);
    extents
}

fn check_mixed(ctx: &Context, source: &Source) -> TestResult {
    for offset in [0, PAGE, K64] {
        let window = Window::reserve(source.size(), M2, offset)?;
        Mapping::map(ctx, window.start, source, Attributes::KERNEL_DATA, ctx.owned())?.verify_and_unmap()?;
    }
    Ok(())
}

pub fn mixed_runs_as_array(ctx: &Context) -> TestResult {
    let block = Block::allocate(ctx, BLOCK_ORDER + 2)?;
    check_mixed(ctx, &Source::array_of(&mixed_runs(ctx, &block)))
}

pub fn mixed_runs_as_extents(ctx: &Context) -> TestResult {
    let block = Block::allocate(ctx, BLOCK_ORDER + 2)?;
    check_mixed(ctx, &Source::Extents(mixed_runs(ctx, &block)))
}

pub fn all_sources_get_the_same_leaves(ctx: &Context) -> TestResult {
    let block = Block::allocate(ctx, BLOCK_ORDER + 2)?;
    let (first, pages) = (block.first.0 + 7, block.pages() - 7);
    let short: Vec<Extent> = (0..pages)
        .step_by(13)
        .map(|at| Extent {
            start: Pfn(first + at),
            pages: 13.min(pages - at),
        })
        .collect();
    let window = Window::reserve(pages * PAGE, M2, 7 * PAGE)?;
    let sources = [
        source(Walker::Range, first * PAGE, pages),
        Source::array_of(&short),
        Source::Extents(short),
    ];
    let mut leaves = None;
    for source in &sources {
        let mapping = Mapping::map(ctx, window.start, source, Attributes::KERNEL_DATA, ctx.owned())?;
        let found = mapping.leaves()?;
        expect_leaves(found, *leaves.get_or_insert(found))?;
        mapping.verify_and_unmap()?;
    }
    Ok(())
}

pub fn shuffled_frames(ctx: &Context) -> TestResult {
    shuffled(ctx, 0, 1500)
}

pub fn shuffled_groups(ctx: &Context) -> TestResult {
    shuffled(ctx, GROUP.ilog2() as u8, (1536 / GROUP) as usize)
}

fn shuffled(ctx: &Context, order: u8, nr: usize) -> TestResult {
    let mut orders = Vec::new();
    orders.resize(nr, order);
    let mut chunks = Chunks::allocate(ctx, &orders)?;
    chunks.shuffle(&mut ctx.rng());
    let source = Source::Array(chunks.frames());
    check_mixed(ctx, &source)
}

pub fn memory_types(ctx: &Context) -> TestResult {
    let size = M2 + K64 + PAGE;
    let start = ctx.untouched(2 * M2, M2, 0)?;
    let source = source(Walker::Range, start.0, size / PAGE);
    for memory in [
        MemoryType::DEVICE_NGNRNE,
        MemoryType::DEVICE_NGNRE,
        MemoryType::NORMAL_NC,
        MemoryType::NORMAL_WT,
        MemoryType::NORMAL,
    ] {
        let read_only = Attributes::kernel(memory);
        for attributes in [read_only, read_only.writable()] {
            let window = Window::reserve(size, M2, 0)?;
            Mapping::map(ctx, window.start, &source, attributes, Memory::Untouched)?.verify_and_unmap()?;
        }
    }
    Ok(())
}

/// A walk cache that kept the freed table would lead to the old frames.
pub fn block_after_pages(ctx: &Context) -> TestResult {
    let blocks = [
        Block::allocate(ctx, BLOCK_ORDER)?,
        Block::allocate(ctx, BLOCK_ORDER)?,
    ];
    let window = Window::reserve(M2, M2, 0)?;
    for round in 0..4 {
        let allowed = if round % 2 == 0 {
            LeafSet::PAGES
        } else {
            LeafSet::ALL
        };
        let source = source(Walker::Array, blocks[round % 2].start().0, BLOCK);
        Mapping::map_data(ctx, window.start, &source, allowed)?.verify_and_unmap()?;
    }
    Ok(())
}
