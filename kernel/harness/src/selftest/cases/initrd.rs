use alloc::vec::Vec;
use core::slice;

use crc::{CRC_32_ISO_HDLC, Crc};
use kernel::mm::{self, linear_va, memory_plan};

use crate::selftest::context::Context;
use crate::selftest::failure::{Stop, TestResult, expect_value};
use crate::selftest::memory::Block;
use crate::selftest::source::PAGE;

/// As in Ethernet and zip.
fn crc32(va: usize, size: usize) -> u64 {
    // SAFETY: mapped and readable for so many bytes, and nothing writes there.
    let bytes = unsafe { slice::from_raw_parts(va as *const u8, size) };
    u64::from(Crc::<u32>::new(&CRC_32_ISO_HDLC).checksum(bytes))
}

pub fn copy_has_the_same_crc(ctx: &Context) -> TestResult {
    let Some(initrd) = memory_plan().initrd else {
        return Err(Stop::Skip("the loader passed no initrd"));
    };
    let size = initrd.size() as usize;
    let original = linear_va(initrd.start);
    let expected = crc32(original, size);
    let nr_pages = size.div_ceil(PAGE as usize);
    let mut blocks = Vec::with_capacity(nr_pages);
    for _ in 0..nr_pages {
        blocks.push(Block::allocate(ctx, 0)?);
    }
    ctx.rng().shuffle(&mut blocks);
    for (i, block) in blocks.iter().enumerate() {
        let from = original + i * PAGE as usize;
        let bytes = (size - i * PAGE as usize).min(PAGE as usize);
        let to = linear_va(block.start().0) as *mut u8;
        // SAFETY: a frame of the test, and the initrd, which nothing writes; both in the linear
        // map.
        unsafe { core::ptr::copy_nonoverlapping(from as *const u8, to, bytes) };
    }
    let frames: Vec<paging::Pfn> = blocks.iter().map(|block| block.first).collect();
    let area = mm::vmap(frames.as_slice())?;
    let found = crc32(area.va().0 as usize, size);
    area.free();
    expect_value("CRC-32 of the copy of the initrd", found, expected)?;
    Ok(())
}
