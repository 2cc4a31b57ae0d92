//! Giving back what is not there, not whole, not one's own, or not in this way.

use paging::{Attributes, Pfn, VirtAddr};
use vmalloc::{Error, Freed, Kind};

use super::{refused, refused_as};
use crate::mm::areas::kernel_vmalloc;
use crate::mm::{self, linear_va};
use crate::selftest::context::Context;
use crate::selftest::failure::{Failure, TestResult, expect};
use crate::selftest::memory::Block;
use crate::selftest::source::PAGE;

/// The second free is told of the area that was there, who made it, and who freed it first: before the flush and after it.
pub fn double_free(_ctx: &Context) -> TestResult {
    let vm = kernel_vmalloc();
    for (size, flushed) in [(PAGE, false), (PAGE, true), (3 << 20, false), (3 << 20, true)] {
        let (made, area) = (line!(), mm::vmalloc(size)?);
        let info = area.info();
        let va = area.into_raw();
        let (freed, result) = (line!(), mm::vfree(va));
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
            || mm::vfree(va),
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
        // Still so for the third.
        let third = mm::vfree(va);
        expect(
            "a third free is not refused",
            va.0,
            matches!(third, Err(Error::Freed(_))),
        )?;
    }
    Ok(())
}

/// An address in an area, not its first.
pub fn interior_address(ctx: &Context) -> TestResult {
    let area = mm::vmalloc(40 * PAGE)?;
    let info = area.info();
    let raw = area.into_raw();
    for page in [1, 16, 39] {
        let va = raw.add(page * PAGE);
        let error = Error::Interior { va, area: info };
        refused("vfree of the middle", error, || mm::vfree(va))?;
    }
    mm::vfree(raw)?;
    let device = ctx.untouched(8 * PAGE, PAGE, 0)?;
    let area = mm::ioremap(device, 8 * PAGE)?;
    let info = area.info();
    let raw = area.into_raw();
    let va = raw.add(PAGE);
    let error = Error::Interior { va, area: info };
    refused("iounmap of the middle", error, || mm::iounmap(va.add(12)))?;
    mm::iounmap(raw)?;
    Ok(())
}

/// The page behind an area, and the page below a stack.
pub fn guard_page(_ctx: &Context) -> TestResult {
    let area = mm::vmalloc(3 * PAGE)?;
    let va = area.range().end();
    let error = Error::Guard {
        va,
        area: area.info(),
    };
    refused("vfree of the page behind", error, || mm::vfree(va))?;
    let stack = mm::alloc_stack(4 * PAGE)?;
    let va = VirtAddr(stack.range().start.0 - PAGE);
    let error = Error::Guard {
        va,
        area: stack.info(),
    };
    refused("vfree of the page below a stack", error, || mm::vfree(va))?;
    Ok(())
}

/// Addresses of other regions, and of this one where no area is nor was.
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
        refused("vfree of another region", error, || mm::vfree(va))?;
        refused("vunmap of another region", error, || mm::vunmap(va))?;
        refused("iounmap of another region", error, || mm::iounmap(va))?;
        refused("free_vm_area of another region", error, || vm.free_vm_area(va))?;
        refused("vm_unmap_ram of another region", error, || vm.vm_unmap_ram(va, 1))?;
        refused("vrealloc of another region", error, || vm.vrealloc(va, PAGE))?;
        refused("set_memory_ro of another region", error, || {
            vm.set_memory_ro(va, PAGE)
        })?;
        refused("a frame number of another region", error, || {
            mm::vmalloc_to_pfn(va)
        })?;
        let mut out = [0; 8];
        refused("vread of another region", error, || vm.vread(va, &mut out))?;
    }
    forget_the_freed()?;
    let va = VirtAddr(range.end().0 - (1 << 36));
    let error = Error::NoArea(va);
    refused("vfree where no area is", error, || mm::vfree(va))?;
    refused("vunmap where no area is", error, || mm::vunmap(va))?;
    refused("iounmap where no area is", error, || mm::iounmap(va))?;
    refused("vrealloc where no area is", error, || vm.vrealloc(va, PAGE))?;
    refused("set_memory_ro where no area is", error, || {
        vm.set_memory_ro(va, PAGE)
    })?;
    Ok(())
}

/// Frees so many areas that those before them are not remembered any more: large ones, which nothing keeps for the next of their size.
fn forget_the_freed() -> Result<(), Failure> {
    let vm = kernel_vmalloc();
    let size = vmalloc::va::MAX_LARGE_CACHED_PAGES as u64 * PAGE;
    for _ in 0..256 {
        vm.get_vm_area(size, 1)?.free();
    }
    Ok(())
}

/// Addresses in a page.
pub fn odd_address(_ctx: &Context) -> TestResult {
    let vm = kernel_vmalloc();
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
        refused("vfree of an odd address", error, || mm::vfree(va))?;
        refused("vunmap of an odd address", error, || mm::vunmap(va))?;
        refused("free_vm_area of an odd address", error, || vm.free_vm_area(va))?;
        refused("vm_unmap_ram of an odd address", error, || vm.vm_unmap_ram(va, 1))?;
        refused("vrealloc of an odd address", error, || vm.vrealloc(va, PAGE))?;
    }
    mm::vfree(raw)?;
    Ok(())
}

/// An area that has an owner, who will give it back.
pub fn anothers_area(_ctx: &Context) -> TestResult {
    let vm = kernel_vmalloc();
    let area = mm::vmalloc(2 * PAGE)?;
    let (va, error) = (area.va(), Error::Owned(area.info()));
    refused("vfree of an area that has an owner", error, || mm::vfree(va))?;
    refused("vrealloc of an area that has an owner", error, || {
        vm.vrealloc(va, PAGE)
    })?;
    refused("set_memory_ro of an area that has an owner", error, || {
        vm.set_memory_ro(va, PAGE)
    })?;
    Ok(())
}

/// Each kind has its own call, and none takes another's; nor is a device or a foreign page given permissions, resized or made sparse.
pub fn wrong_kind(ctx: &Context) -> TestResult {
    let vm = kernel_vmalloc();
    let block = Block::allocate(ctx, 0)?;
    let pages = [block.first];
    let device = ctx.untouched(PAGE, PAGE, 0)?;
    type Free = fn(VirtAddr) -> Result<(), Error>;
    let calls: [(Kind, Free); 4] = [
        (Kind::Vmalloc, |va| mm::vfree(va)),
        (Kind::Vmap, |va| mm::vunmap(va)),
        (Kind::Ioremap, |va| mm::iounmap(va)),
        (Kind::Reserved, |va| kernel_vmalloc().free_vm_area(va)),
    ];
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
            refused("vrealloc of no vmalloc", wrong(Kind::Vmalloc), || {
                vm.vrealloc(va, 2 * PAGE)
            })?;
        }
        let own = if kind == Kind::Stack { Kind::Vmalloc } else { kind };
        for (expected, free) in calls {
            if expected != own {
                refused("a free by the wrong call", wrong(expected), || free(va))?;
            }
        }
        for (expected, free) in calls {
            if expected == own {
                free(va)?;
            }
        }
    }
    Ok(())
}

/// `vm_unmap_ram` of more or fewer pages than were mapped, small and large.
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
            refused("vm_unmap_ram of another length", error, || {
                vm.vm_unmap_ram(va, nr)
            })?;
        }
        vm.vm_unmap_ram(va, mapped)?;
    }
    Ok(())
}

/// Addresses where nothing is mapped: a guard, a page of a small mapping that is not its first, one that is gone.
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
    refused(
        "an unmap from the second page on",
        Error::NotMapped(second),
        || vm.vm_unmap_ram(second, 3),
    )?;
    vm.vm_unmap_ram(va, 4)?;
    refused("a second vm_unmap_ram", Error::NotMapped(va), || {
        vm.vm_unmap_ram(va, 4)
    })?;
    vm.vm_unmap_ram(keep, 4)?;
    Ok(())
}
