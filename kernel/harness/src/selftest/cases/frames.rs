use alloc::vec::Vec;

use core::time::Duration;

use kernel::arch::time::Deadline;
use kernel::mm::frames::{self, MAX_ORDER};
use kernel::mm::layout::VMALLOC_END;
use kernel::mm::memory_plan;
use kernel::mm::regions::PhysRegion;
use kernel::smp;
use paging::{Attributes, Pfn, VirtAddr};

use super::bad_input::AllFrames;
use crate::selftest::context::Context;
use crate::selftest::failure::{Failure, Stop, TestResult, expect, expect_value};
use crate::selftest::mapping::Mapping;
use crate::selftest::memory::{Block, Window};
use crate::selftest::source::{PAGE, Source, Walker};

const BLOCK: u8 = 9;
/// Frames; with pages of 64 KiB a section has half of it.
const MOST_AT_BOOT: u64 = 1 << 17;
const OFF_BY_THEN: Duration = Duration::from_millis(500);

/// Were a bit of an address lost, two frames would be one.
pub fn pages_from_all_over(ctx: &Context) -> TestResult {
    let nr_free = frames::stats().free;
    let mut blocks: Vec<Block> = Vec::new();
    for order in (BLOCK..=MAX_ORDER).rev() {
        while frames::stats().free >= (1 << order) + 1024
            && let Ok(block) = Block::allocate(ctx, order)
        {
            blocks.push(block);
        }
    }
    let nr: u64 = blocks.iter().map(Block::pages).sum();
    expect("less than half of what is free was had", nr, 2 * nr > nr_free)?;
    let ends = |block: &Block| [block.first, Pfn(block.first.0 + block.pages() - 1)];
    let source = Source::Array(blocks.iter().flat_map(ends).collect());
    let window = Window::reserve(source.size(), PAGE, 0)?;
    Mapping::map(ctx, window.start, &source, Attributes::KERNEL_DATA, ctx.owned())?.verify_and_unmap()?;
    Ok(())
}

pub fn aligned_and_disjoint(ctx: &Context) -> TestResult {
    let mut blocks: Vec<Block> = Vec::new();
    let mut largest = 0;
    for round in 0..3 {
        for order in 0..=MAX_ORDER {
            if frames::stats().free < (2 << order) + 1024 {
                break;
            }
            match Block::allocate(ctx, order) {
                Ok(block) => {
                    largest = largest.max(order);
                    blocks.push(block);
                }
                Err(Failure::NoFrames(_)) if round != 0 || order > 9 => break,
                Err(failure) => return Err(failure.into()),
            }
        }
    }
    expect("no block of 2 MiB", u64::from(largest), largest >= 9)?;
    for block in &blocks {
        let region = frames::region(block.first, block.order);
        expect(
            "a block is not aligned to its size",
            region.start,
            region.start.is_multiple_of(PAGE << block.order),
        )?;
        expect(
            "a block does not lie in RAM",
            region.start,
            memory_plan().ram.contains(&region),
        )?;
        let taken: [PhysRegion; 2] = [
            PhysRegion {
                start: ctx.info.image.start,
                end: ctx.info.image.end,
            },
            PhysRegion {
                start: ctx.info.device_tree.pa,
                end: ctx.info.device_tree.pa + ctx.info.device_tree.size as u64,
            },
        ];
        for taken in taken.iter().chain(memory_plan().initrd.as_ref()) {
            expect(
                "a block lies in what is taken",
                region.start,
                taken.intersection(&region).is_empty(),
            )?;
        }
    }
    blocks.sort_unstable_by_key(|block| block.first.0);
    for pair in blocks.windows(2) {
        let end = pair[0].first.0 + pair[0].pages();
        expect("two blocks overlap", pair[1].first.0, end <= pair[1].first.0)?;
    }
    Ok(())
}

/// Counted when boot was done with them, so that it holds in each round.
pub fn states_at_boot(_ctx: &Context) -> TestResult {
    let touched = frames::touched();
    if touched.all <= MOST_AT_BOOT {
        return Err(Stop::Skip(
            "boot may make a state for each frame of so little RAM",
        ));
    }
    expect(
        "boot has made states of more frames",
        touched.at_boot,
        touched.at_boot <= MOST_AT_BOOT,
    )?;
    expect(
        "frames have a state",
        touched.now,
        (touched.at_boot..=touched.all).contains(&touched.now),
    )?;
    Ok(())
}

pub fn bad_frees_are_refused(ctx: &Context) -> TestResult {
    let before = frames::stats().used();
    let refused = |what, frame: Pfn, order| match frames::try_free(frame, order) {
        Err(bad) => {
            expect_value("the frame that the refusal names", bad.frame.0, frame.0)?;
            expect_value(
                "the order that the refusal names",
                u64::from(bad.order),
                u64::from(order),
            )
        }
        Ok(()) => Err(Failure::NotRefused(what)),
    };
    for order in [0, 1, 5, 9] {
        let frame = frames::allocate(order).ok_or(Failure::NoFrames(order))?;
        refused("a free with a larger order", frame, order + 1)?;
        if order != 0 {
            refused("a free with a smaller order", frame, order - 1)?;
            refused("a free of the middle of a block", Pfn(frame.0 + 1), 0)?;
        }
        frames::free(frame, order);
        refused("a double free", frame, order)?;
    }
    refused("a free of the kernel's text", Pfn(ctx.info.image.start / PAGE), 0)?;
    let beyond = ctx.untouched(PAGE, PAGE, 0)?;
    refused("a free of what is no RAM", Pfn(beyond.0 / PAGE), 0)?;
    expect_value(
        "frames in use after refused frees",
        frames::stats().used(),
        before,
    )?;
    Ok(())
}

pub fn exhausted_and_freed(ctx: &Context) -> TestResult {
    let window = Window::reserve(PAGE, PAGE, 0)?;
    let before = frames::free_blocks();
    let nr_blocks: u64 = before.iter().sum();
    // Nothing can be allocated later.
    let mut blocks: Vec<(Pfn, u8)> = Vec::with_capacity((nr_blocks + frames::stats().cached) as usize + 64);
    let nr_free = frames::stats().free;
    let mut nr = 0;
    for order in (0..=MAX_ORDER).rev() {
        while blocks.len() < blocks.capacity()
            && let Some(first) = frames::allocate(order)
        {
            blocks.push((first, order));
            nr += 1 << order;
        }
    }
    let left = frames::stats().free;
    let refusals = refusals_without_memory(ctx, &window);
    for (first, order) in blocks.iter().rev() {
        frames::free(*first, *order);
    }
    refusals?;
    expect_value("frames that could not be had", left, 0)?;
    expect_value("frames that were had", nr, nr_free)?;
    expect_value("free frames afterwards", frames::stats().free, nr_free)?;
    let largest = |blocks: &[u64]| blocks.iter().rposition(|nr| *nr != 0).unwrap_or(0);
    let after = largest(&frames::free_blocks());
    expect(
        "large blocks did not come back",
        after as u64,
        after + 1 >= largest(&before),
    )?;
    Ok(())
}

pub fn kept_by_other_cpus(ctx: &Context) -> TestResult {
    const EACH: usize = 24;
    const KEPT: u64 = 16;
    let other = ctx.another_cpu()?;
    for cpu in smp::online() {
        let ran = smp::run_on(cpu, || {
            let frames: [Option<Pfn>; EACH] = core::array::from_fn(|_| frames::allocate(0));
            let had = frames.into_iter().flatten();
            had.map(|frame| frames::free(frame, 0)).count()
        });
        expect("a CPU had frames", cpu as u64, ran == Ok(EACH))?;
    }
    // On a busy host it may not be off in time.
    Deadline::after(OFF_BY_THEN).wait_until(|| smp::is_turned_off(other));
    let kept = frames::stats().cached;
    let first = frames::allocate(1).ok_or(Failure::NoFrames(1))?;
    frames::split(first, 1);
    let second = Pfn(first.0 + 1);
    let all = AllFrames::take();
    let left = frames::stats().free;
    let keep_there = |frame| smp::run_on(other, || frames::free(frame, 0)).is_ok();
    let is_there = keep_there(second);
    let single = frames::allocate(0);
    let is_there = is_there && single.is_none_or(keep_there);
    frames::free(first, 0);
    let pair = frames::allocate(1);
    pair.into_iter().for_each(|first| frames::free(first, 1));
    drop(all);
    let least = KEPT * (smp::nr_online() as u64 - 1);
    expect("CPUs keep few frames", kept, kept >= least)?;
    expect_value("frames that could not be had", left, 0)?;
    expect("another CPU frees a frame", other as u64, is_there)?;
    expect("the frame that it keeps is had", second.0, single == Some(second))?;
    expect("with its neighbour, as a pair", first.0, pair == Some(first))?;
    Ok(())
}

fn refusals_without_memory(ctx: &Context, window: &Window) -> Result<(), Failure> {
    if frames::allocate(0).is_some() || frames::allocate(9).is_some() {
        return Err(Failure::NotRefused("a frame when there is none"));
    }
    match kernel::mm::vmalloc(PAGE) {
        Err(vmalloc::Error::OutOfFrames { .. }) => {}
        Err(error) => return Err(error.into()),
        Ok(_) => return Err(Failure::NotRefused("a vmalloc when there is no frame")),
    }
    let tree = ctx.tree();
    let source = Source::Range {
        start: ctx.untouched(PAGE, PAGE, 0)?,
        pages: 1,
        walker: Walker::Range,
    };
    let far = VirtAddr(VMALLOC_END as u64 - 2 * PAGE);
    match source.map(&tree, far, Attributes::DEVICE, ctx.leaves()) {
        Err(failure) if matches!(failure.error, paging::Error::OutOfTables(_)) => {}
        Err(failure) => return Err(failure.into()),
        Ok(_) => return Err(Failure::NotRefused("a map without a table")),
    }
    expect(
        "a page is mapped by a map that failed",
        far.0,
        tree.translate(far).is_none(),
    )?;
    expect(
        "a page of a reserved window is mapped",
        window.start.0,
        tree.translate(window.start).is_none(),
    )
}

pub fn split_block(ctx: &Context) -> TestResult {
    let order = 6;
    let first = frames::allocate(order).ok_or(Failure::NoFrames(order))?;
    frames::split(first, order);
    let mut each: Vec<u64> = (first.0..first.0 + (1 << order)).collect();
    ctx.rng().shuffle(&mut each);
    for frame in each {
        frames::try_free(Pfn(frame), 0).map_err(|bad| Failure::Claim {
            what: "a frame of a block that was split cannot be freed",
            at: bad.frame.0,
        })?;
    }
    Ok(())
}

pub fn zeroed_frames_are_zero(_ctx: &Context) -> TestResult {
    for _ in 0..64 {
        let frame = frames::allocate_zeroed().ok_or(Failure::NoFrames(0))?;
        let at = kernel::mm::linear_va(frame.0 * PAGE);
        let dirty = (0..PAGE as usize)
            .step_by(8)
            .find(|offset| crate::selftest::verify::read(at + offset) != 0);
        (0..PAGE as usize)
            .step_by(8)
            .for_each(|offset| crate::selftest::verify::write(at + offset, !0));
        frames::free(frame, 0);
        if let Some(offset) = dirty {
            return Err(Stop::Fail(Failure::Claim {
                what: "a zeroed frame is not zero",
                at: (at + offset) as u64,
            }));
        }
    }
    Ok(())
}
