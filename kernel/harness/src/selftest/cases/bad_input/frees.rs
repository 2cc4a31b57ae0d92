use kernel::mm::areas::kernel_vmalloc;
use kernel::mm::{self, linear_va};
use paging::{Attributes, Pfn, VirtAddr};
use vmalloc::{Error, Freed, Kind, MAX_CACHED_PAGES};

use super::{refused, refused_as, refuses};
use crate::selftest::by_address::ByAddress;
use crate::selftest::context::Context;
use crate::selftest::failure::{Failure, TestResult, expect};
use crate::selftest::memory::Block;
use crate::selftest::source::{BLOCK_SIZE, PAGE};

pub fn double_free(_ctx: &Context) -> TestResult {
    let vm = kernel_vmalloc();
    for (size, flushed) in [(PAGE, false), (PAGE, true), (3 << 20, false), (3 << 20, true)] {
        let (made, area) = (line!(), mm::vmalloc(size)?);
        let info = area.info();
        let va = area.into_raw();
        // SAFETY: raw, the test's own, and nothing lies in it.
        let (freed, result) = (line!(), unsafe { mm::vfree(va) });
        result?;
        if flushed {
            vm.vm_unmap_aliases();
        }
        let mut told = None;
        refused_as(
            "a double free",
            |found| {
                told = match found {
                    Error::Freed(freed) => Some(*freed),
                    _ => None,
                };
                let by = told.map_or(info.caller, |told| told.by);
                Error::Freed(Freed { area: info, by })
            },
            // SAFETY: it was freed, which is refused.
            || unsafe { mm::vfree(va) },
        )?;
        let by = told.map(|told| (told.by.file().ends_with("frees.rs"), told.by.line()));
        expect(
            "a double free does not say who freed first",
            va.0,
            by == Some((true, freed)),
        )?;
        expect(
            "a double free does not say who made the area",
            va.0,
            info.caller.line() == made,
        )?;
        // SAFETY: as above.
        let third = unsafe { mm::vfree(va) };
        expect(
            "a third free is not refused",
            va.0,
            matches!(third, Err(Error::Freed(_))),
        )?;
    }
    Ok(())
}

pub fn interior_address(ctx: &Context) -> TestResult {
    let area = mm::vmalloc(40 * PAGE)?;
    let info = area.info();
    let raw = area.into_raw();
    for page in [1, 16, 39] {
        let va = raw.add(page * PAGE);
        let error = Error::Interior { va, area: info };
        refuses(ByAddress::Vfree, va, error)?;
    }
    // SAFETY: raw, the test's own, and nothing lies in it.
    unsafe { mm::vfree(raw) }?;
    let device = ctx.untouched(8 * PAGE, PAGE, 0)?;
    let area = mm::ioremap(device, 8 * PAGE)?;
    let info = area.info();
    let raw = area.into_raw();
    let va = raw.add(PAGE);
    let error = Error::Interior { va, area: info };
    refuses(ByAddress::Iounmap, va.add(12), error)?;
    // SAFETY: as above.
    unsafe { mm::iounmap(raw) }?;
    Ok(())
}

pub fn guard_page(_ctx: &Context) -> TestResult {
    let area = mm::vmalloc(3 * PAGE)?;
    let va = area.range().end();
    let error = Error::Guard {
        va,
        area: area.info(),
    };
    refuses(ByAddress::Vfree, va, error)?;
    let stack = mm::alloc_stack(4 * PAGE)?;
    let va = VirtAddr(stack.range().start.0 - PAGE);
    let error = Error::Guard {
        va,
        area: stack.info(),
    };
    refuses(ByAddress::Vfree, va, error)?;
    Ok(())
}

pub fn foreign_address(_ctx: &Context) -> TestResult {
    let vm = kernel_vmalloc();
    let range = vm.range();
    for va in [
        VirtAddr(0),
        VirtAddr(linear_va(0) as u64),
        VirtAddr(range.start.0 - PAGE),
        range.end(),
        VirtAddr(!(PAGE - 1)),
    ] {
        let error = Error::Outside(va);
        for call in ByAddress::ALL {
            refuses(call, va, error)?;
        }
        refused("a frame number of another region", error, || {
            mm::vmalloc_to_pfn(va)
        })?;
        let mut out = [0; 8];
        refused("vread of another region", error, || vm.vread(va, &mut out))?;
    }
    forget_the_freed()?;
    let va = VirtAddr(range.end().0 - (1 << 36));
    let error = Error::NoArea(va);
    for call in ByAddress::ALL {
        refuses(call, va, error)?;
    }
    Ok(())
}

/// Frees so many areas that earlier ones are forgotten: of the common shard, and too large to be
/// cached.
fn forget_the_freed() -> Result<(), Failure> {
    let vm = kernel_vmalloc();
    let size = (MAX_CACHED_PAGES as u64 + 1) * BLOCK_SIZE;
    for _ in 0..256 {
        vm.get_vm_area(size, 1)?.free();
    }
    Ok(())
}

pub fn odd_address(_ctx: &Context) -> TestResult {
    let area = mm::vmalloc(2 * PAGE)?;
    let end = area.va().add(PAGE);
    refused(
        "a part that begins in a page",
        Error::Misaligned(end.add(8)),
        || area.set_memory_ro(8, PAGE),
    )?;
    refused(
        "a part that ends in a page",
        Error::Misaligned(end.add(8)),
        || area.set_memory_ro(0, PAGE + 8),
    )?;
    let raw = area.into_raw();
    for offset in [1, 8, PAGE - 1] {
        let va = raw.add(offset);
        let error = Error::Misaligned(va);
        for call in [
            ByAddress::Vfree,
            ByAddress::Vunmap,
            ByAddress::FreeVmArea,
            ByAddress::VmUnmapRam(1),
            ByAddress::Vrealloc,
        ] {
            refuses(call, va, error)?;
        }
    }
    // SAFETY: raw, the test's own, and nothing lies in it.
    unsafe { mm::vfree(raw) }?;
    Ok(())
}

pub fn anothers_area(_ctx: &Context) -> TestResult {
    let area = mm::vmalloc(2 * PAGE)?;
    let (va, error) = (area.va(), Error::Owned(area.info()));
    for call in [ByAddress::Vfree, ByAddress::Vrealloc, ByAddress::SetMemoryRo] {
        refuses(call, va, error)?;
    }
    Ok(())
}

pub fn wrong_kind(ctx: &Context) -> TestResult {
    let vm = kernel_vmalloc();
    let block = Block::allocate(ctx, 0)?;
    let pages = [block.first];
    let device = ctx.untouched(PAGE, PAGE, 0)?;
    let kinds = [Kind::Vmalloc, Kind::Vmap, Kind::Ioremap, Kind::Reserved];
    let areas = [
        mm::vmalloc(PAGE)?,
        mm::vmap(&pages[..])?,
        mm::ioremap(device, PAGE)?,
        vm.get_vm_area(PAGE, 1)?,
        mm::alloc_stack(PAGE)?,
    ];
    for area in areas {
        let (info, kind) = (area.info(), area.kind());
        let wrong = |expected| Error::WrongKind { area: info, expected };
        if !kind.owns_frames() {
            refused("set_memory_ro of foreign pages", wrong(Kind::Vmalloc), || {
                area.set_memory_ro(0, PAGE)
            })?;
        }
        if kind != Kind::Reserved {
            refused("pages mapped in no sparse area", wrong(Kind::Reserved), || {
                area.map_pages(0, &pages[..], Attributes::KERNEL_DATA)
            })?;
            refused("pages unmapped in no sparse area", wrong(Kind::Reserved), || {
                area.unmap_pages(0, PAGE)
            })?;
        }
        let va = area.into_raw();
        if kind != Kind::Vmalloc {
            refuses(ByAddress::Vrealloc, va, wrong(Kind::Vmalloc))?;
        }
        let own = ByAddress::that_ends(kind);
        for (expected, call) in kinds.map(|kind| (kind, ByAddress::that_ends(kind))) {
            if call != own {
                refuses(call, va, wrong(expected))?;
            }
        }
        // SAFETY: raw, the test's own, and nothing lies in it.
        unsafe { own.at(vm, va) }?;
    }
    Ok(())
}

pub fn wrong_length(ctx: &Context) -> TestResult {
    let vm = kernel_vmalloc();
    let block = Block::allocate(ctx, 6)?;
    let frames: [Pfn; 64] = core::array::from_fn(|page| Pfn(block.first.0 + page as u64));
    for mapped in [1, 5, vmalloc::MAX_SMALL, vmalloc::MAX_SMALL + 1, 64] {
        let va = vm.vm_map_ram(&frames[..mapped as usize])?;
        for nr in [0, mapped - 1, mapped + 1, 1 << 60] {
            let error = Error::WrongLength {
                va,
                size: mapped * PAGE,
                expected: nr.saturating_mul(PAGE),
            };
            refuses(ByAddress::VmUnmapRam(nr), va, error)?;
        }
        // SAFETY: the test's own mapping, and nothing lies in it.
        unsafe { vm.vm_unmap_ram(va, mapped) }?;
    }
    Ok(())
}

pub fn nothing_mapped(ctx: &Context) -> TestResult {
    let vm = kernel_vmalloc();
    let block = Block::allocate(ctx, 2)?;
    let frames: [Pfn; 4] = core::array::from_fn(|page| Pfn(block.first.0 + page as u64));
    let area = mm::vmalloc(PAGE)?;
    let guard = area.range().end();
    refused("a frame number of a guard", Error::NotMapped(guard), || {
        mm::vmalloc_to_pfn(guard)
    })?;
    let keep = vm.vm_map_ram(&frames[..])?;
    let va = vm.vm_map_ram(&frames[..])?;
    let second = va.add(PAGE);
    refuses(ByAddress::VmUnmapRam(3), second, Error::NotMapped(second))?;
    // SAFETY: the test's own mapping, and nothing lies in it.
    unsafe { vm.vm_unmap_ram(va, 4) }?;
    refuses(ByAddress::VmUnmapRam(4), va, Error::NotMapped(va))?;
    // SAFETY: as above.
    unsafe { vm.vm_unmap_ram(keep, 4) }?;
    Ok(())
}
