use kernel::layout;
use paging::{Attributes, Granule as _, LeafCounts, LeafSize};

use crate::selftest::context::Context;
use crate::selftest::failure::{Failure, Stop, TestResult, expect_leaves};
use crate::selftest::mapping::Mapping;
use crate::selftest::memory::{Block, Window};
use crate::selftest::source::{BLOCK_ORDER, PAGE, Source, Walker};
use crate::selftest::verify::Memory;

pub const SIZES: [LeafSize; 7] = [
    LeafSize::PAGE,
    LeafSize::PAGE_GROUP,
    LeafSize::BLOCK2,
    LeafSize::BLOCK2_GROUP,
    LeafSize::BLOCK1,
    LeafSize::BLOCK1_GROUP,
    LeafSize::BLOCK0,
];

/// Pages of a leaf that are sampled: each page takes an AT.
const MANY: u64 = 1 << 22;

/// RAM if there is a free block, else never touched; 16G never RAM.
fn backing(
    ctx: &Context,
    size: LeafSize,
) -> Result<(Option<Block>, paging::PhysAddr, Attributes, Memory), Failure> {
    let bytes = size.bytes::<layout::Granule>();
    let order = (bytes / PAGE).ilog2() as u8;
    let block = if size == LeafSize::BLOCK1_GROUP {
        None
    } else {
        Block::allocate(ctx, order).ok()
    };
    Ok(match block {
        Some(block) => {
            let start = block.start();
            (Some(block), start, Attributes::KERNEL_DATA, ctx.owned())
        }
        None => (
            None,
            ctx.untouched(bytes, bytes, 0)?,
            Attributes::DEVICE,
            Memory::Untouched,
        ),
    })
}

fn one_leaf(ctx: &Context, walker: Walker, size: LeafSize) -> TestResult {
    ctx.needs_leaf(size)?;
    let bytes = size.bytes::<layout::Granule>();
    if 1 << u32::from(ctx.features.pa_bits).min(layout::Granule::PA_BITS) <= 2 * bytes {
        return Err(Stop::Skip("physical addresses are too short for this leaf"));
    }
    if bytes / PAGE > MANY && walker == Walker::Array {
        return Err(Stop::Skip("so many frame numbers take too long to read"));
    }
    let window = Window::reserve(bytes, bytes, 0)?;
    let (_block, start, attributes, memory) = backing(ctx, size)?;
    let source = Source::Range {
        start,
        pages: bytes / PAGE,
        walker,
    };
    let mapping = Mapping::map(ctx, window.start, &source, attributes, memory)?;
    let mut one = LeafCounts::default();
    one.add(size, 1);
    expect_leaves(mapping.leaves()?, one)?;
    if bytes / PAGE >= MANY {
        mapping.verify_sampled()?;
    } else {
        mapping.verify()?;
    }
    mapping.unmap()?;
    Ok(())
}

pub fn one<const WALKER: usize, const SIZE: usize>(ctx: &Context) -> TestResult {
    one_leaf(ctx, Walker::ALL[WALKER], SIZES[SIZE])
}

pub fn limited_leaves(ctx: &Context) -> TestResult {
    let size = LeafSize::BLOCK2.bytes::<layout::Granule>();
    let block = Block::allocate(ctx, BLOCK_ORDER + 1)?;
    let window = Window::reserve(2 * size, 2 * size, 0)?;
    let source = Source::Range {
        start: block.start(),
        pages: block.pages(),
        walker: Walker::Range,
    };
    for most in SIZES.into_iter().filter(|size| ctx.leaves().contains(*size)) {
        let allowed = ctx.leaves().at_most(most);
        let mapping = Mapping::map_data(ctx, window.start, &source, allowed)?;
        let leaves = mapping.leaves()?;
        for larger in SIZES.iter().filter(|size| !allowed.contains(**size)) {
            let mut without = leaves;
            without.remove(*larger, leaves.get(*larger));
            expect_leaves(leaves, without)?;
        }
        mapping.verify_and_unmap()?;
    }
    Ok(())
}
