//! Chunks of the orders for which the 2026 series mapped wrong pages on Linux: a map size from
//! "bytes left" and 64K alignment alone ran past the end of a chunk.

use alloc::vec::Vec;

use paging::Attributes;

use crate::selftest::context::Context;
use crate::selftest::failure::{TestResult, expect};
use crate::selftest::mapping::Mapping;
use crate::selftest::memory::{Chunks, Window};
use crate::selftest::source::Source;

const M2: u64 = 2 << 20;

pub const LISTS: [&[u8]; 9] = [
    &[8, 8, 8, 8],
    &[4, 8, 8, 8],
    &[8, 4, 8, 8],
    &[4, 9, 9],
    &[5, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7],
    &[9, 8, 4],
    &[8, 8, 4, 4, 0],
    &[7, 7],
    &[7, 7, 7, 7, 7, 7],
];

pub fn list<const LIST: usize, const OFFSET_64K: u64>(ctx: &Context) -> TestResult {
    let chunks = Chunks::allocate(ctx, LISTS[LIST])?;
    let extents = chunks.extents();
    for pair in extents.windows(2) {
        let behind = pair[0].start.0 + pair[0].pages;
        expect("two chunks of the list touch", behind, behind != pair[1].start.0)?;
    }
    let sources: Vec<Source> = [Source::Array(chunks.frames()), Source::Extents(extents)].into();
    for source in &sources {
        let window = Window::reserve(source.size(), M2, OFFSET_64K << 16)?;
        Mapping::map(ctx, window.start, source, Attributes::KERNEL_DATA, ctx.owned())?.verify_and_unmap()?;
    }
    Ok(())
}
