//! Addresses of more than 48 bits: `VA=52 PA=52`.

use alloc::vec::Vec;

use kernel::layout::Granule;
use kernel::mm;
use paging::{Attributes, Granule as _, Pfn, PhysAddr, VirtAddr};

use crate::selftest::context::Context;
use crate::selftest::failure::{Stop, TestResult};
use crate::selftest::mapping::Mapping;
use crate::selftest::memory::{Block, Window};
use crate::selftest::source::{BLOCK, BLOCK_ORDER, GROUP, PAGE, Source, Walker};
use crate::selftest::verify::Memory;

pub fn highest_bits_tell_addresses_apart(ctx: &Context) -> TestResult {
    if Granule::VA_BITS <= 48 {
        return Err(Stop::Skip("virtual addresses have 48 bits at most"));
    }
    let window = Window::reserve(BLOCK * PAGE, BLOCK * PAGE, 0)?;
    let blocks = (0..5)
        .map(|_| Block::allocate(ctx, BLOCK_ORDER))
        .collect::<Result<Vec<_>, _>>()?;
    let sources: Vec<_> = blocks
        .iter()
        .map(|block| Source::Array((0..block.pages()).map(|page| Pfn(block.first.0 + page)).collect()))
        .collect();
    let mut mappings = Vec::new();
    for (i, source) in sources.iter().enumerate() {
        let va = VirtAddr(window.start.0 + ((i as u64) << 48));
        mappings.push(Mapping::map(
            ctx,
            va,
            source,
            Attributes::KERNEL_DATA,
            ctx.owned(),
        )?);
    }
    for mapping in &mappings {
        mapping.verify()?;
    }
    for mapping in mappings {
        let range = mapping.range();
        mapping.unmap()?;
        ctx.prune(range)?;
    }
    Ok(())
}

/// Nothing answers there: only what the MMU says.
pub fn memory_above_48_bits_is_what_par_says(ctx: &Context) -> TestResult {
    let pa_bits = mm::kernel_tree().config().pa_bits;
    if pa_bits <= 48 {
        return Err(Stop::Skip("physical addresses have 48 bits"));
    }
    let size = 4 * GROUP * PAGE;
    for bit in 48..=pa_bits {
        let end = if bit == pa_bits {
            1 << bit
        } else {
            (1 << bit) + size / 2
        };
        for start in [PhysAddr(end - size), PhysAddr(end - size - PAGE)] {
            for walker in Walker::ALL {
                let window = Window::reserve(size, size, start.0 & (size - 1))?;
                let pages = size / PAGE;
                let source = Source::Range { start, pages, walker };
                Mapping::map(ctx, window.start, &source, Attributes::DEVICE, Memory::Untouched)?
                    .verify_and_unmap()?;
            }
        }
        let first = (end - size) / PAGE;
        let backwards = (first..first + 4 * GROUP).rev().map(Pfn).collect();
        let window = Window::reserve(size, size, 0)?;
        let source = Source::Array(backwards);
        Mapping::map(ctx, window.start, &source, Attributes::DEVICE, Memory::Untouched)?
            .verify_and_unmap()?;
    }
    Ok(())
}
