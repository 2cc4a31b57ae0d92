use alloc::vec;
use alloc::vec::Vec;
use core::hint::black_box;

use kernel::arch::percpu::{cpu_index, this_cpu};
use kernel::layout;
use kernel::mm::areas::{KernelArea, kernel_vmalloc};
use kernel::mm::frames::fail_page_alloc;
use kernel::mm::layout::{VMALLOC_BASE, VMALLOC_END};
use kernel::mm::{self, heap};
use kernel::smp;
use paging::{Attributes, LeafSize, Pfn, PhysAddr, VirtAddr};

use super::faults::expect_unreachable;
use crate::options::Planted;
use crate::selftest::context::Context;
use crate::selftest::failure::{Failure, TestResult, expect, expect_value};
use crate::selftest::fault_injection::invalidate_all;
use crate::selftest::memory::{Block, Chunks};
use crate::selftest::source::{BLOCK, BLOCK_ORDER, BLOCK_SIZE, GROUP, PAGE, Source, Walker};
use crate::selftest::verify::{Expected, Memory, read, verify_pages, write};

fn verify_area(ctx: &Context, area: &KernelArea, pa: impl Fn(u64) -> PhysAddr) -> Result<(), Failure> {
    let range = area.range();
    verify_pages(
        &ctx.tree(),
        range.start,
        range.size / PAGE,
        |page| {
            Some(Expected {
                pa: pa(page),
                attributes: Attributes::KERNEL_DATA,
            })
        },
        ctx.owned(),
    )
}

fn frames_of(area: &KernelArea) -> Result<Vec<PhysAddr>, Failure> {
    let range = area.range();
    (0..range.size / PAGE)
        .map(|page| {
            let pfn = mm::vmalloc_to_pfn(range.start.add(page * PAGE))?;
            Ok(PhysAddr(pfn.0 * PAGE))
        })
        .collect()
}

fn free_and_verify(ctx: &Context, area: KernelArea) -> Result<(), Failure> {
    let range = area.range();
    area.free();
    // Lazily freed pages may still be reached.
    kernel_vmalloc().vm_unmap_aliases();
    verify_pages(
        &ctx.tree(),
        range.start,
        range.size / PAGE,
        |_| None,
        Memory::Untouched,
    )
}

pub fn vmalloc_maps_its_own_frames(ctx: &Context) -> TestResult {
    const MUCH: u64 = if BLOCK_SIZE < 32 << 20 {
        BLOCK_SIZE
    } else {
        32 << 20
    };
    for size in [
        1,
        PAGE,
        PAGE + 1,
        15 * PAGE,
        GROUP * PAGE,
        MUCH / 2 + 5,
        MUCH,
        2 * MUCH + MUCH / 2 + PAGE,
    ] {
        let area = mm::vmalloc(size)?;
        let range = area.range();
        expect_value("pages of a vmalloc", range.size / PAGE, size.div_ceil(PAGE))?;
        let inside = range.start.0 >= VMALLOC_BASE as u64 && range.last().0 < VMALLOC_END as u64;
        expect("a vmalloc lies outside of its region", range.start.0, inside)?;
        let frames = frames_of(&area)?;
        let mut sorted = frames.clone();
        sorted.sort_unstable();
        let shared = sorted.windows(2).find(|pair| pair[0] == pair[1]);
        expect(
            "two pages share a frame",
            shared.map_or(0, |pair| pair[0].0),
            shared.is_none(),
        )?;
        verify_area(ctx, &area, |page| frames[page as usize])?;
        free_and_verify(ctx, area)?;
    }
    Ok(())
}

/// A large block is freed first, so that RAM has such pieces.
pub fn vmalloc_uses_blocks(ctx: &Context) -> TestResult {
    drop(Block::allocate(ctx, BLOCK_ORDER + 2)?);
    let area = mm::vmalloc(3 * BLOCK_SIZE)?;
    let leaves = area.outcome().leaves;
    let large = [LeafSize::BLOCK2, LeafSize::BLOCK2_GROUP]
        .iter()
        .map(|size| u64::from(leaves.get(*size)) * size.bytes::<layout::Granule>())
        .sum::<u64>();
    expect_value("bytes in blocks", large, 3 * BLOCK_SIZE)?;
    Ok(())
}

pub fn vzalloc_is_zero(_ctx: &Context) -> TestResult {
    let size: u64 = 265 * PAGE;
    for _ in 0..2 {
        let area = mm::vzalloc(size)?;
        let words = (area.va().0..area.va().0 + size).step_by(8);
        let dirty = words.clone().find(|va| read(*va as usize) != 0);
        words.for_each(|va| write(va as usize, !va));
        expect(
            "vzalloc gave memory that is not zero",
            dirty.unwrap_or(0),
            dirty.is_none(),
        )?;
    }
    Ok(())
}

pub fn vmalloc_to_pfn_in_any_leaf(ctx: &Context) -> TestResult {
    let block = Block::allocate(ctx, BLOCK_ORDER + 2)?;
    let source = Source::Range {
        start: block.start().add(BLOCK_SIZE).add(3 * PAGE),
        pages: 2 * BLOCK,
        walker: Walker::Range,
    };
    let frames: Vec<Pfn> = (0..source.pages())
        .map(|page| Pfn(source.pa(page).0 / PAGE))
        .collect();
    let area = mm::vmap(frames.as_slice())?;
    let start = area.range().start;
    for (page, frame) in frames.iter().enumerate() {
        for offset in [0, 1, PAGE - 1] {
            let found = mm::vmalloc_to_pfn(start.add(page as u64 * PAGE + offset))?;
            expect_value("frame number", found.0, frame.0)?;
        }
    }
    let refused = |va: VirtAddr, expected: vmalloc::Error| match mm::vmalloc_to_pfn(va) {
        Err(error) if error == expected => Ok(()),
        Err(error) => Err(error.into()),
        Ok(_) => Err(Failure::NotRefused("a frame number where nothing is mapped")),
    };
    let guard = area.range().end();
    refused(guard, vmalloc::Error::NotMapped(guard))?;
    let linear = VirtAddr(mm::linear_va(block.start().0) as u64);
    refused(linear, vmalloc::Error::Outside(linear))?;
    free_and_verify(ctx, area)?;
    refused(start, vmalloc::Error::NotMapped(start))?;
    Ok(())
}

pub fn vmap_places_by_phase(ctx: &Context) -> TestResult {
    let block = Block::allocate(ctx, BLOCK_ORDER + 2)?;
    for first in [0, GROUP, BLOCK - GROUP, BLOCK - 1, 1] {
        let frames: Vec<Pfn> = (first..4 * BLOCK).map(|page| Pfn(block.first.0 + page)).collect();
        let area = mm::vmap(frames.as_slice())?;
        let phase = |address: u64| address % BLOCK_SIZE;
        expect_value(
            "address modulo a block",
            phase(area.range().start.0),
            phase(frames[0].0 * PAGE),
        )?;
        let blocks = if first == 0 { 4 } else { 3 };
        expect_value(
            "blocks",
            u64::from(area.outcome().leaves.get(LeafSize::BLOCK2)),
            blocks,
        )?;
        verify_area(ctx, &area, |page| PhysAddr(frames[page as usize].0 * PAGE))?;
        free_and_verify(ctx, area)?;
    }
    Ok(())
}

pub fn vmap_of_order_lists(ctx: &Context) -> TestResult {
    for orders in super::order_lists::LISTS {
        let chunks = Chunks::allocate(ctx, orders)?;
        let frames = chunks.frames();
        let area = mm::vmap(frames.as_slice())?;
        verify_area(ctx, &area, |page| PhysAddr(frames[page as usize].0 * PAGE))?;
        free_and_verify(ctx, area)?;
        let extents = chunks.extents();
        let area = kernel_vmalloc().vmap_extents(&extents)?;
        verify_area(ctx, &area, |page| PhysAddr(frames[page as usize].0 * PAGE))?;
        free_and_verify(ctx, area)?;
    }
    Ok(())
}

pub fn guard_pages(ctx: &Context) -> TestResult {
    let block = Block::allocate(ctx, 2)?;
    let frames: Vec<Pfn> = (0..4).map(|page| Pfn(block.first.0 + page)).collect();
    let device = ctx.untouched(4 * PAGE, PAGE, 0)?;
    let areas = [
        mm::vmalloc(3 * PAGE)?,
        mm::vzalloc(PAGE)?,
        mm::vmap(frames.as_slice())?,
        mm::ioremap(device, 2 * PAGE)?,
        mm::alloc_stack(16 << 10)?,
        mm::vmalloc(512 * PAGE)?,
    ];
    if ctx.planted == Some(Planted::NoGuard) {
        return planted_guard(ctx, &areas[0], frames[0]);
    }
    for area in &areas {
        guard_is_unmapped(area)?;
    }
    Ok(())
}

fn guard_is_unmapped(area: &KernelArea) -> Result<(), Failure> {
    let page = PAGE as usize;
    for guard in [
        area.range().end().0 as usize,
        area.range().start.0 as usize - page,
    ] {
        expect_unreachable(guard)?;
        expect_unreachable(guard + page - 8)?;
    }
    Ok(())
}

fn planted_guard(ctx: &Context, area: &KernelArea, frame: Pfn) -> TestResult {
    let tree = ctx.tree();
    let guard = area.range().end();
    let source = Source::Range {
        start: PhysAddr(frame.0 * PAGE),
        pages: 1,
        walker: Walker::Range,
    };
    source.map(&tree, guard, Attributes::KERNEL_DATA, ctx.leaves())?;
    let found = guard_is_unmapped(area);
    let mut batch = tree.batch();
    tree.unmap(paging::VirtRange::new(guard, PAGE), &mut batch)?;
    batch.flush();
    invalidate_all();
    found?;
    Ok(())
}

pub fn stack_guards(ctx: &Context) -> TestResult {
    for cpu in smp::online() {
        let (stack, here) = smp::run_on(cpu, || {
            let here = 0u64;
            (
                this_cpu().stack(),
                core::hint::black_box(&raw const here) as usize,
            )
        })
        .map_err(|_| Failure::Cpu {
            cpu,
            what: "does not run a closure",
        })?;
        expect("a CPU is not on its stack", here as u64, stack.contains(&here))?;
        expect_unreachable(stack.start - 8)?;
        expect_unreachable(stack.start - PAGE as usize)?;
        if cpu == cpu_index() {
            expect_value(
                "boot stack",
                stack.start as u64,
                ctx.info.sections.boot_stack.start as u64,
            )?;
        } else {
            let vmalloc = (VMALLOC_BASE..VMALLOC_END).contains(&stack.start);
            expect("a CPU's stack is not from vmalloc", stack.start as u64, vmalloc)?;
        }
    }
    expect_unreachable(ctx.info.sections.boot_stack_guard.start)?;
    Ok(())
}

pub fn bad_frees_are_refused(_ctx: &Context) -> TestResult {
    let va = mm::vmalloc(4 * PAGE)?.into_raw();
    let refusal = |result: Result<(), vmalloc::Error>| match result {
        Err(error) => Ok(error),
        Ok(()) => Err(Failure::NotRefused("a bad free")),
    };
    let wrong = |what, at: VirtAddr| Failure::Claim { what, at: at.0 };
    // SAFETY: refused, as all bad frees below are.
    match refusal(unsafe { mm::vunmap(va) })? {
        vmalloc::Error::WrongKind { area, .. } if area.va == va => {}
        _ => return Err(wrong("vunmap of a vmalloc is not refused as the wrong kind", va).into()),
    }
    // SAFETY: as above.
    match refusal(unsafe { mm::vfree(va.add(PAGE)) })? {
        vmalloc::Error::Interior { area, .. } if area.va == va => {}
        _ => return Err(wrong("vfree of the middle is not refused as such", va).into()),
    }
    // SAFETY: as above.
    match refusal(unsafe { mm::vfree(va.add(4 * PAGE)) })? {
        vmalloc::Error::Guard { area, .. } if area.va == va => {}
        _ => return Err(wrong("vfree of a guard page is not refused as such", va).into()),
    }
    // SAFETY: as above.
    match refusal(unsafe { mm::vfree(va.add(8)) })? {
        vmalloc::Error::Misaligned(_) => {}
        _ => return Err(wrong("vfree of an odd address is not refused as such", va).into()),
    }
    // SAFETY: raw, the test's own, and nothing lies in it.
    unsafe { mm::vfree(va) }?;
    // SAFETY: it was freed, which is refused.
    match refusal(unsafe { mm::vfree(va) })? {
        vmalloc::Error::Freed(freed) if freed.area.va == va => {}
        _ => return Err(wrong("a double vfree does not name who freed first", va).into()),
    }
    // SAFETY: as above.
    match refusal(unsafe { mm::vfree(VirtAddr(mm::linear_va(0) as u64)) })? {
        vmalloc::Error::Outside(_) => {}
        _ => return Err(wrong("vfree outside of the region is not refused as such", va).into()),
    }
    Ok(())
}

pub fn bad_sizes_are_refused(_ctx: &Context) -> TestResult {
    for size in [0, mm::frames::stats().total * PAGE + 1, 1 << 47, u64::MAX] {
        if mm::vmalloc(size).is_ok() {
            return Err(Failure::NotRefused("a vmalloc of an impossible size").into());
        }
    }
    let none: [Pfn; 0] = [];
    if mm::vmap(none.as_slice()).is_ok() {
        return Err(Failure::NotRefused("a vmap of no pages").into());
    }
    for (pa, size) in [(0, 0), (u64::MAX, 1), (u64::MAX - 10, 100), (1 << 52, PAGE)] {
        if mm::ioremap(PhysAddr(pa), size).is_ok() {
            return Err(Failure::NotRefused("an ioremap of an impossible range").into());
        }
    }
    Ok(())
}

pub fn any_allocation_may_fail(ctx: &Context) -> TestResult {
    for size in [PAGE, 40 * PAGE, (2 << 20) + PAGE] {
        let mut k = 1;
        loop {
            let injection = fail_page_alloc::fail_nth(k);
            let area = mm::vmalloc(size);
            let fired = injection.fired();
            drop(injection);
            match area {
                // Smaller blocks made up for one that failed.
                Ok(area) => {
                    let frames = frames_of(&area)?;
                    verify_area(ctx, &area, |page| frames[page as usize])?;
                    drop(area);
                    if !fired {
                        break;
                    }
                }
                Err(
                    vmalloc::Error::OutOfFrames { .. } | vmalloc::Error::Map(_) | vmalloc::Error::OutOfNodes,
                ) if fired => {}
                Err(error) => return Err(error.into()),
            }
            k += 1;
            expect("an allocation takes more frames than it could need", k, k < 2000)?;
        }
        expect("no allocation has failed", k, k > 1)?;
    }
    Ok(())
}

pub fn random_areas_keep_their_data(ctx: &Context) -> TestResult {
    let mut rng = ctx.rng();
    let mut areas: Vec<(KernelArea, u64)> = Vec::new();
    for step in 0..400u64 {
        if areas.len() < 24 && rng.u32(0..3) != 0 {
            let most = 1 << rng.u32(6..21);
            let size = rng.u64(1..=most);
            let area = mm::vmalloc(size)?;
            each_page(&area, |page, at| write(at, stamp(step, page)));
            areas.push((area, step));
        } else if !areas.is_empty() {
            let (area, stamped) = areas.swap_remove(rng.usize(0..areas.len()));
            let mut wrong = None;
            each_page(&area, |page, at| {
                if read(at) != stamp(stamped, page) {
                    wrong = Some(at as u64);
                }
            });
            expect("an area has lost its data", wrong.unwrap_or(0), wrong.is_none())?;
        }
    }
    Ok(())
}

fn stamp(step: u64, page: u64) -> u64 {
    (step << 32 | page) ^ 0x5aa5_5aa5_5aa5_5aa5
}

fn each_page(area: &KernelArea, mut f: impl FnMut(u64, usize)) {
    let range = area.range();
    for page in 0..range.size / PAGE {
        f(page, (range.start.0 + page * PAGE) as usize);
    }
}

pub fn heap_grows_by_vmalloc(_ctx: &Context) -> TestResult {
    let before = heap::stats();
    let small: Vec<u64> = (0..1000).collect();
    let words = before.size / 8 + 1000;
    let large: Vec<u64> = (0..words as u64).map(|n| n ^ 0xa5a5).collect();
    let after = heap::stats();
    expect_value(
        "regions of the heap",
        after.nr_regions as u64,
        before.nr_regions as u64 + 1,
    )?;
    let at = large.as_ptr() as usize;
    expect(
        "what the heap grew by is not in the vmalloc region",
        at as u64,
        (VMALLOC_BASE..VMALLOC_END).contains(&at),
    )?;
    let wrong = large.iter().zip(0u64..).find(|(found, n)| **found != n ^ 0xa5a5);
    expect("a word of a large vector has changed", at as u64, wrong.is_none())?;
    let wrong = small.iter().zip(0u64..).find(|(found, n)| **found != *n);
    expect(
        "a word of a small vector has changed",
        small.as_ptr() as u64,
        wrong.is_none(),
    )?;
    Ok(())
}

pub fn heap_frees(_ctx: &Context) -> TestResult {
    heap::trim();
    let before = heap::stats();
    let mut kept = None;
    for _ in 0..3 {
        let large: Vec<u8> = black_box(vec![1; before.size + 1]);
        let larger: Vec<u8> = black_box(vec![2; before.size + (1 << 20)]);
        let grown = heap::stats();
        expect_value("regions", grown.nr_regions as u64, before.nr_regions as u64 + 2)?;
        let wrong = large.iter().any(|byte| *byte != 1) || larger.iter().any(|byte| *byte != 2);
        expect("a byte of a vector has changed", large.as_ptr() as u64, !wrong)?;
        drop(large);
        drop(larger);
        let after = heap::stats();
        expect_value(
            "regions afterwards",
            after.nr_regions as u64,
            before.nr_regions as u64 + 1,
        )?;
        let kept = *kept.get_or_insert(after.size);
        expect_value("bytes of the heap afterwards", after.size as u64, kept as u64)?;
    }
    heap::trim();
    let trimmed = heap::stats();
    expect_value(
        "bytes of the trimmed heap",
        trimmed.size as u64,
        before.size as u64,
    )?;
    Ok(())
}
