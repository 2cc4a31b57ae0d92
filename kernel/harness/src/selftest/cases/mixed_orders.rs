//! Small enough to follow in a debugger (`vmw trace-walk kernel::mm::areas::vmap`), with every
//! reason for and against a group.

use kernel::mm;
use paging::{Attributes, LeafSize, PhysAddr};

use crate::selftest::context::Context;
use crate::selftest::failure::{TestResult, expect_value};
use crate::selftest::memory::Chunks;
use crate::selftest::source::{GROUP, PAGE};
use crate::selftest::verify::{Expected, Memory, verify_pages};

/// 256 pages. A piece of order 4 or more may be a group, but for that at page 129.
const ORDERS: [u8; 15] = [6, 4, 2, 1, 1, 3, 5, 0, 4, 1, 0, 2, 3, 5, 6];

pub fn one_mebibyte(ctx: &Context) -> TestResult {
    let chunks = Chunks::allocate(ctx, &ORDERS)?;
    let frames = chunks.frames();
    expect_value("pages", frames.len() as u64, 256)?;
    let area = mm::vmap(frames.as_slice())?;
    let leaves = area.outcome().leaves;
    let expected = |page: u64| {
        Some(Expected {
            pa: PhysAddr(frames[page as usize].0 * PAGE),
            attributes: Attributes::KERNEL_DATA,
        })
    };
    let range = area.range();
    verify_pages(&ctx.tree(), range.start, 256, expected, ctx.owned())?;
    let groups = match GROUP {
        16 => 4 + 1 + 2 + 2 + 4,
        32 => 2 + 1 + 1 + 2,
        _ => 0,
    };
    expect_value("groups", leaves.get(LeafSize::PAGE_GROUP).into(), groups)?;
    expect_value("pages", leaves.get(LeafSize::PAGE).into(), 256 - groups * GROUP)?;
    area.free();
    verify_pages(&ctx.tree(), range.start, 256, |_| None, Memory::Untouched)?;
    Ok(())
}
