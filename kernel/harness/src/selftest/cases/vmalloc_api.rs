use alloc::vec;
use alloc::vec::Vec;

use kernel::arch::mmu::at_s1e1w;
use kernel::arch::probe::{probe_read, probe_write};
use kernel::mm::areas::{KernelArea, kernel_vmalloc};
use kernel::mm::frames::fail_page_alloc;
use kernel::mm::{self, frames, linear_va};
use paging::{Pfn, VirtAddr};
use vmalloc::{Error, VmArea};

use crate::selftest::audit;
use crate::selftest::context::Context;
use crate::selftest::failure::{Failure, Stop, TestResult, expect, expect_leaves, expect_value};
use crate::selftest::memory::Block;
use crate::selftest::source::{BLOCK, BLOCK_ORDER, BLOCK_SIZE, GROUP, PAGE};
use crate::selftest::verify::{read, write};

/// And that in the linear map.
fn page_of(area: &KernelArea, page: u64) -> Result<(usize, usize), Failure> {
    let va = area.range().start.add(page * PAGE);
    let pfn = mm::vmalloc_to_pfn(va)?;
    Ok((va.0 as usize, linear_va(pfn.0 * PAGE)))
}

fn pages(area: &KernelArea) -> u64 {
    area.range().size / PAGE
}

fn stamp(page: u64) -> u64 {
    page << 20 ^ 0x1357_9bdf_0246_8ace
}

fn fill(area: &KernelArea) {
    for page in 0..pages(area) {
        write((area.range().start.0 + page * PAGE) as usize, stamp(page));
    }
}

pub fn lazy_purge(_ctx: &Context) -> TestResult {
    let vm = kernel_vmalloc();
    vm.vm_unmap_aliases();
    let area = mm::vmalloc(7 * PAGE)?;
    let va = area.va();
    let used = frames::stats().used();
    area.free();
    expect_value("areas that wait", vm.usage().lazy.0 as u64, 1)?;
    expect_value("frames while it waits", frames::stats().used(), used)?;
    let next = mm::vmalloc(7 * PAGE)?;
    expect(
        "addresses were used again before the flush",
        va.0,
        next.va() != va,
    )?;
    expect(
        "a double free is not known",
        va.0,
        // SAFETY: it was freed, which is refused.
        matches!(unsafe { mm::vfree(va) }, Err(Error::Freed(_))),
    )?;
    vm.vm_unmap_aliases();
    expect_value("areas that wait", vm.usage().lazy.0 as u64, 0)?;
    expect(
        "a page is reached after the flush",
        va.0,
        probe_read(va.0 as usize).is_err(),
    )?;
    Ok(())
}

pub fn vrealloc_moves_no_page(_ctx: &Context) -> TestResult {
    let mut area = mm::vmalloc(PAGE)?;
    fill(&area);
    let mut size = PAGE;
    for more in [1, 3, 20, 600] {
        let old = area.range();
        let before = (0..pages(&area))
            .map(|page| mm::vmalloc_to_pfn(old.start.add(page * PAGE)))
            .collect::<Result<Vec<Pfn>, _>>()?;
        fill(&area);
        size += more * PAGE;
        area.vrealloc(size)?;
        for (page, frame) in (0..).zip(&before) {
            let (va, _) = page_of(&area, page)?;
            expect_value(
                "frame of a page",
                mm::vmalloc_to_pfn(VirtAddr(va as u64))?.0,
                frame.0,
            )?;
            expect_value("data of a page", read(va), stamp(page))?;
        }
        expect(
            "the old address is reached",
            old.start.0,
            probe_read(old.start.0 as usize).is_err(),
        )?;
        let at = area.va();
        area.vrealloc(size - 1)?;
        expect("what fits was moved", at.0, area.va() == at)?;
    }
    Ok(())
}

pub fn vread_copies(_ctx: &Context) -> TestResult {
    let area = mm::vmalloc(3 * PAGE)?;
    fill(&area);
    area.set_memory_invalid(PAGE, PAGE)?;
    let mut out = vec![0xaa; 4 * PAGE as usize];
    let read = kernel_vmalloc().vread(area.va(), &mut out)?;
    expect(
        "more or less was read than there is",
        read as u64,
        read >= 2 * PAGE as usize,
    )?;
    for page in [0, 2] {
        let at = (page * PAGE) as usize;
        expect(
            "a page was read wrong",
            page,
            out[at..at + 8] == stamp(page).to_le_bytes(),
        )?;
    }
    let zero = |page: usize| {
        out[page * PAGE as usize..(page + 1) * PAGE as usize]
            .iter()
            .all(|byte| *byte == 0)
    };
    expect("an invalid page was read", 1, zero(1))?;
    expect("a guard was read", 3, zero(3))?;
    let refused = kernel_vmalloc().vread(VirtAddr(linear_va(0) as u64), &mut out);
    expect(
        "the linear map was read",
        0,
        matches!(refused, Err(Error::Outside(_))),
    )?;
    Ok(())
}

pub fn vmallocinfo_lists(_ctx: &Context) -> TestResult {
    let area = mm::vmalloc((2 << 20) + 3 * PAGE)?;
    let (mut found, mut nr) = (None, 0);
    kernel_vmalloc().vmallocinfo(|listing| {
        nr += 1;
        if listing.info == area.info() {
            found = Some(*listing);
        }
    });
    let Some(listing) = found else {
        return Err(Failure::NotRefused("an area that vmallocinfo does not list").into());
    };
    expect_leaves(listing.leaves, area.outcome().leaves)?;
    expect_value("areas listed", nr, kernel_vmalloc().usage().areas as u64)?;
    Ok(())
}

pub fn pages_handed_over(_ctx: &Context) -> TestResult {
    let before = frames::stats().used();
    let mut taken = Vec::new();
    for _ in 0..40 {
        taken.push(frames::allocate(0).ok_or(Failure::NoFrames(0))?);
    }
    // SAFETY: the test's own, each a single one, and used no more when the area has ended.
    let area = unsafe { kernel_vmalloc().vmap_put_pages(&taken[..]) }?;
    for (page, frame) in (0..).zip(&taken) {
        let (va, alias) = page_of(&area, page)?;
        write(va, stamp(page));
        expect_value("what the alias reads", read(alias), stamp(page))?;
        expect_value("frame of a page", (alias - linear_va(0)) as u64 / PAGE, frame.0)?;
    }
    let va = area.into_raw();
    // SAFETY: raw, the test's own, and nothing lies in it.
    unsafe { mm::vunmap(va) }?;
    kernel_vmalloc().vm_unmap_aliases();
    expect(
        "frames were not freed",
        frames::stats().used(),
        frames::stats().used() <= before + 8,
    )?;
    Ok(())
}

pub fn map_ram(_ctx: &Context) -> TestResult {
    let vm = kernel_vmalloc();
    let block = mm::vmalloc(8 * PAGE)?;
    let own = (0..8)
        .map(|page| mm::vmalloc_to_pfn(block.va().add(page * PAGE)))
        .collect::<Result<Vec<Pfn>, _>>()?;
    fill(&block);
    let a = vm.vm_map_ram(&own[..3])?;
    let b = vm.vm_map_ram(&own[3..])?;
    for (page, at) in (0..3)
        .map(|page| (page, a.add(page * PAGE)))
        .chain((3..8).map(|page| (page, b.add((page - 3) * PAGE))))
    {
        expect_value("data of a page", read(at.0 as usize), stamp(page))?;
    }
    for nr in [0, 2, 4] {
        // SAFETY: another length is refused.
        let refused = unsafe { vm.vm_unmap_ram(a, nr) };
        expect(
            "a wrong length is taken",
            nr,
            matches!(refused, Err(Error::WrongLength { .. })),
        )?;
    }
    // SAFETY: the test's own mapping, and nothing lies in it.
    unsafe { vm.vm_unmap_ram(a, 3) }?;
    expect(
        "a page is reached after its unmap",
        a.0,
        probe_read(a.0 as usize).is_err(),
    )?;
    expect(
        "a second unmap is taken",
        a.0,
        // SAFETY: it was unmapped, which is refused.
        matches!(unsafe { vm.vm_unmap_ram(a, 3) }, Err(Error::NotMapped(_))),
    )?;
    // SAFETY: as the other.
    unsafe { vm.vm_unmap_ram(b, 5) }?;
    Ok(())
}

fn expect_writable(area: &KernelArea, expected: impl Fn(u64) -> bool) -> Result<(), Failure> {
    for page in 0..pages(area) {
        let (va, alias) = page_of(area, page)?;
        for at in [va, alias] {
            expect(
                "a page cannot be read",
                at as u64,
                probe_read(at) == Ok(stamp(page)),
            )?;
            // SAFETY: a page of the area, or its alias, which hold what is written.
            let written = unsafe { probe_write(at, stamp(page)) }.is_ok();
            expect(
                "a page is writable, or is not, against what was set",
                at as u64,
                written == expected(page),
            )?;
        }
    }
    Ok(())
}

/// Linux bugs 10 and 11.
pub fn set_memory_slice(ctx: &Context) -> TestResult {
    let before = audit::audit(ctx.info)?.report;
    let nr_pages = BLOCK.min(2048);
    for (first, nr) in [
        (0, 1),
        (100, 9),
        (GROUP, GROUP),
        (nr_pages - 12, 40),
        (0, nr_pages),
    ] {
        let area = mm::vmalloc(2 * nr_pages * PAGE)?;
        fill(&area);
        area.set_memory_ro(first * PAGE, nr * PAGE)?;
        expect_writable(&area, |page| !(first..first + nr).contains(&page))?;
        area.set_memory_rw(first * PAGE, nr * PAGE)?;
        expect_writable(&area, |_| true)?;
        area.set_memory_ro(first * PAGE, nr * PAGE)?;
        area.free();
    }
    kernel_vmalloc().vm_unmap_aliases();
    let after = audit::audit(ctx.info)?.report;
    expect_leaves(after.leaves, before.leaves)?;
    Ok(())
}

pub fn set_memory_invalid(_ctx: &Context) -> TestResult {
    let area = mm::vmalloc(512 * PAGE)?;
    fill(&area);
    let aliases = (0..pages(&area))
        .map(|page| page_of(&area, page))
        .collect::<Result<Vec<_>, _>>()?;
    area.set_memory_invalid(40 * PAGE, 3 * PAGE)?;
    for (page, (va, alias)) in (0..).zip(&aliases) {
        let valid = !(40..43).contains(&page);
        for at in [*va, *alias] {
            expect(
                "a page is valid, or is not, against what was set",
                at as u64,
                probe_read(at).is_ok() == valid,
            )?;
        }
    }
    area.set_memory_valid(40 * PAGE, 3 * PAGE)?;
    expect_writable(&area, |_| true)?;
    Ok(())
}

pub fn set_memory_all_or_nothing(ctx: &Context) -> TestResult {
    drop(Block::allocate(ctx, BLOCK_ORDER)?);
    let before = audit::audit(ctx.info)?.report;
    let mut k = 1;
    loop {
        let area = mm::vmalloc(BLOCK_SIZE)?;
        fill(&area);
        kernel_vmalloc().vm_unmap_aliases();
        let injection = fail_page_alloc::fail_nth(k);
        let result = area.set_memory_ro(7 * PAGE, 3 * PAGE);
        let fired = injection.fired();
        drop(injection);
        let done = match result {
            Ok(_) => {
                expect("a failed allocation was made up for", k, !fired)?;
                true
            }
            Err(Error::Map(paging::Error::OutOfTables(_))) if fired => {
                expect_writable(&area, |_| true)?;
                false
            }
            Err(error) => return Err(error.into()),
        };
        VmArea::free(area);
        if done {
            break;
        }
        k += 1;
    }
    expect("no table was asked for", k, k > 1)?;
    kernel_vmalloc().vm_unmap_aliases();
    let after = audit::audit(ctx.info)?.report;
    expect_leaves(after.leaves, before.leaves)?;
    let device = mm::ioremap(ctx.untouched(PAGE, PAGE, 0)?, PAGE)?;
    let refused = device.set_memory_ro(0, PAGE);
    expect(
        "a device is changed",
        k,
        matches!(refused, Err(Error::WrongKind { .. })),
    )?;
    Ok(())
}

/// A third's free folds the block around them; folded whole, the first could not be made writable
/// without a table.
pub fn neighbours_stay_apart(ctx: &Context) -> TestResult {
    const SIZE: u64 = 256 * PAGE;
    let before = audit::audit(ctx.info)?.report;
    let mut others: Vec<(u64, KernelArea)> = Vec::with_capacity(65);
    let (first, second) = loop {
        let area = mm::vmalloc(SIZE)?;
        let frame = mm::vmalloc_to_pfn(area.va())?.0;
        if let Some(at) = others
            .iter()
            .position(|(other, _)| frame / BLOCK == other / BLOCK)
        {
            break (others.swap_remove(at).1, area);
        }
        if others.len() == 64 {
            return Err(Stop::Skip("no two areas share a block"));
        }
        others.push((frame, area));
    };
    drop(others);
    let (_, alias_of_first) = page_of(&first, 0)?;
    let (_, alias_of_second) = page_of(&second, 0)?;
    first.set_memory_ro(0, SIZE)?;
    second.set_memory_ro(0, SIZE)?;
    let third = mm::vmalloc(PAGE)?;
    third.set_memory_ro(0, PAGE)?;
    third.free();
    let injection = fail_page_alloc::fail_nth(1);
    first.free();
    drop(injection);
    let writable = |alias: usize| at_s1e1w(alias).is_ok();
    expect(
        "memory that was freed is read-only",
        alias_of_first as u64,
        writable(alias_of_first),
    )?;
    expect(
        "a neighbour's memory is writable",
        alias_of_second as u64,
        !writable(alias_of_second),
    )?;
    second.free();
    kernel_vmalloc().vm_unmap_aliases();
    let after = audit::audit(ctx.info)?.report;
    expect_leaves(after.leaves, before.leaves)?;
    Ok(())
}

pub fn end_needs_no_table(ctx: &Context) -> TestResult {
    let before = audit::audit(ctx.info)?.report;
    for first in [0, 511, 700] {
        // Pieces of 2^9, 2^8, ... pages, each in its own block of the linear map or in the middle
        // of one.
        let area = mm::vmalloc(1023 * PAGE)?;
        area.set_memory_ro(first * PAGE, PAGE)?;
        let injection = fail_page_alloc::fail_nth(1);
        area.free();
        let fired = injection.fired();
        drop(injection);
        expect("an area's end has asked for a frame", first, !fired)?;
    }
    kernel_vmalloc().vm_unmap_aliases();
    let after = audit::audit(ctx.info)?.report;
    expect_leaves(after.leaves, before.leaves)?;
    Ok(())
}
