use alloc::vec::Vec;

use kernel::mm::areas::kernel_vmalloc;
use kernel::mm::{self, frames};
use paging::{Attributes, FrameArray, MemoryType, Pfn, PhysAddr};
use vmalloc::{Error, Kind, Request};

use super::refused;
use crate::selftest::context::Context;
use crate::selftest::failure::{Failure, TestResult, expect};
use crate::selftest::memory::Block;
use crate::selftest::source::{BLOCK_SIZE, PAGE};
use crate::selftest::verify::{read, write};

struct Repeated {
    frame: Pfn,
    nr: usize,
}

impl FrameArray for Repeated {
    fn nr_frames(&self) -> usize {
        self.nr
    }
    fn frame(&self, _index: usize) -> Option<Pfn> {
        Some(self.frame)
    }
}

struct OneMissing {
    first: Pfn,
    nr: usize,
    missing: usize,
}

impl FrameArray for OneMissing {
    fn nr_frames(&self) -> usize {
        self.nr
    }
    fn frame(&self, index: usize) -> Option<Pfn> {
        (index != self.missing).then_some(Pfn(self.first.0 + index as u64))
    }
}

pub fn nothing_asked_for(ctx: &Context) -> TestResult {
    let vm = kernel_vmalloc();
    let none: [Pfn; 0] = [];
    let device = ctx.untouched(PAGE, PAGE, 0)?;
    let empty = Error::Empty;
    refused("a vmalloc of no bytes", empty, || mm::vmalloc(0))?;
    refused("a vzalloc of no bytes", empty, || mm::vzalloc(0))?;
    refused("a vmalloc_huge of no bytes", empty, || vm.vmalloc_huge(0))?;
    refused("a stack of no bytes", empty, || mm::alloc_stack(0))?;
    refused("a vmap of no pages", empty, || mm::vmap(&none[..]))?;
    refused("a vmap of no extents", empty, || vm.vmap_extents(&[]))?;
    refused("a vm_map_ram of no pages", empty, || vm.vm_map_ram(&none[..]))?;
    refused("an ioremap of no bytes", empty, || mm::ioremap(device, 0))?;
    refused("a reserved area of no bytes", empty, || vm.get_vm_area(0, 1))?;
    let mut area = mm::vmalloc(PAGE)?;
    refused("set_memory_ro of no pages", empty, || area.set_memory_ro(0, 0))?;
    refused("vrealloc to no bytes", empty, || area.vrealloc(0))?;
    let sparse = vm.get_vm_area(PAGE, 1)?;
    refused("no pages mapped in a sparse area", empty, || {
        sparse.map_pages(0, &none[..], Attributes::KERNEL_DATA)
    })?;
    refused("no pages unmapped in a sparse area", empty, || {
        sparse.unmap_pages(0, 0)
    })?;
    Ok(())
}

pub fn too_large(ctx: &Context) -> TestResult {
    let vm = kernel_vmalloc();
    let (ram, region) = (frames::nr_total() * PAGE, vm.range().size);
    let more = ram + PAGE;
    let of_ram = Error::TooLarge {
        size: more,
        limit: ram,
    };
    refused("a vmalloc of more than RAM", of_ram, || mm::vmalloc(more))?;
    refused("a byte more than RAM", of_ram, || mm::vmalloc(ram + 1))?;
    refused("a stack of more than RAM", of_ram, || mm::alloc_stack(more))?;
    let block = Block::allocate(ctx, 0)?;
    let repeated = Repeated {
        frame: block.first,
        nr: (more / PAGE) as usize,
    };
    refused("a vmap of more pages than RAM has", of_ram, || {
        mm::vmap(&repeated)
    })?;
    let mut area = mm::vmalloc(PAGE)?;
    refused("vrealloc to more than RAM", of_ram, || area.vrealloc(more))?;
    for size in [region + 1, 1 << 63, u64::MAX - PAGE, u64::MAX] {
        let error = Error::TooLarge { size, limit: region };
        refused("more than the region", error, || mm::vmalloc(size))?;
        refused("a reserved area of more than the region", error, || {
            vm.get_vm_area(size, 1)
        })?;
    }
    let with_guard = Error::TooLarge {
        size: region + BLOCK_SIZE,
        limit: region,
    };
    refused("a reserved area of all of the region", with_guard, || {
        vm.get_vm_area(region, 1)
    })?;
    Ok(())
}

pub fn alignment_of_no_power_of_two(_ctx: &Context) -> TestResult {
    let vm = kernel_vmalloc();
    for align in [0, 3, PAGE + 1, 3 * PAGE, 3 << 62, u64::MAX] {
        let error = Error::BadAlignment { align };
        let request = Request::new(PAGE).aligned(align);
        refused("a vmalloc at that alignment", error, || vm.allocate(&request))?;
        refused("a reserved area at that alignment", error, || {
            vm.get_vm_area(PAGE, align)
        })?;
    }
    Ok(())
}

pub fn physical_overflow(_ctx: &Context) -> TestResult {
    let limit = 1u64 << mm::kernel_tree().config().pa_bits;
    for (pa, size) in [
        (u64::MAX, 2),
        (u64::MAX - PAGE, 2 * PAGE),
        (PAGE, u64::MAX),
        (limit, PAGE),
        (limit - 1, 2),
        (limit - PAGE, PAGE + 1),
    ] {
        let pa = PhysAddr(pa);
        refused("an ioremap past the end", Error::BadPhysical { pa, size }, || {
            mm::ioremap(pa, size)
        })?;
    }
    let last = PhysAddr(limit - PAGE);
    drop(mm::ioremap(last, PAGE)?);
    Ok(())
}

pub fn device_that_is_ram(ctx: &Context) -> TestResult {
    let vm = kernel_vmalloc();
    let block = Block::allocate(ctx, 1)?;
    let start = block.start();
    for (pa, size) in [(start, PAGE), (start.add(5), 1), (start.add(PAGE - 1), 2)] {
        let error = Error::Ram { pa, size };
        refused("an ioremap of RAM", error, || mm::ioremap(pa, size))?;
        refused("an ioremap_wc of RAM", error, || mm::ioremap_wc(pa, size))?;
        refused("an ioremap_np of RAM", error, || mm::ioremap_np(pa, size))?;
    }
    let device = Pfn(ctx.untouched(PAGE, PAGE, 0)?.0 / PAGE);
    let error = Error::Ram {
        pa: start,
        size: PAGE,
    };
    refused("a vmap_pfn of RAM", error, || {
        vm.vmap_pfn(&[device, block.first][..], Attributes::DEVICE)
    })?;
    let sparse = vm.get_vm_area(2 * PAGE, PAGE)?;
    for memory in [
        MemoryType::DEVICE_NGNRE,
        MemoryType::DEVICE_NGNRNE,
        MemoryType::NORMAL_NC,
        MemoryType::NORMAL_WT,
    ] {
        let attributes = Attributes::kernel(memory).writable();
        let frames = &[device, block.first][..];
        refused("a vmap_as of RAM", error, || vm.vmap_as(frames, attributes))?;
        refused("a map_pages of RAM", error, || {
            sparse.map_pages(0, frames, attributes)
        })?;
        for request in [
            Request::new(PAGE),
            Request::new(PAGE).zeroed(),
            Request::new(PAGE).nowait(),
        ] {
            let error = Error::MemoryType(memory);
            refused("memory of another type", error, || {
                vm.allocate(&request.with_attributes(attributes))
            })?;
        }
    }
    drop(vm.ioremap_cache(start, PAGE)?);
    drop(vm.vmap_as(&[block.first][..], Attributes::KERNEL_RODATA)?);
    Ok(())
}

pub fn null_page(ctx: &Context) -> TestResult {
    let vm = kernel_vmalloc();
    let block = Block::allocate(ctx, 6)?;
    for missing in [0, 1, 15, 16, 40, 63] {
        let pages = OneMissing {
            first: block.first,
            nr: 64,
            missing,
        };
        let page = missing as u64;
        let error = Error::Map(paging::Error::NoFrame { page });
        refused("a vmap with a NULL page", error, || mm::vmap(&pages))?;
        let few = OneMissing { nr: 20, ..pages };
        if missing < few.nr {
            refused("a vm_map_ram with a NULL page", error, || vm.vm_map_ram(&few))?;
        }
    }
    let beyond = Pfn((1 << 60) / PAGE);
    let error = Error::Map(paging::Error::PhysicalRange(PhysAddr(beyond.0 * PAGE)));
    refused("a vmap of a frame that cannot be", error, || {
        mm::vmap(&[block.first, beyond][..])
    })?;
    Ok(())
}

pub fn duplicate_pages(ctx: &Context) -> TestResult {
    let block = Block::allocate(ctx, 2)?;
    let order = [0, 1, 0, 0, 3, 2, 1, 0];
    let frames: Vec<Pfn> = order.iter().map(|n| Pfn(block.first.0 + n)).collect();
    for frame in 0..4 {
        write(mm::linear_va((block.first.0 + frame) * PAGE), frame);
    }
    let area = mm::vmap(frames.as_slice())?;
    for (page, frame) in (0..).zip(order) {
        let va = area.va().add(page * PAGE);
        expect("a duplicate is another page", va.0, read(va.0 as usize) == frame)?;
    }
    write(area.va().0 as usize, 77);
    let seen = read(area.va().add(7 * PAGE).0 as usize);
    expect("a store is not seen through the duplicate", seen, seen == 77)?;
    Ok(())
}

pub fn pages_taken_over(ctx: &Context) -> TestResult {
    let vm = kernel_vmalloc();
    let block = Block::allocate(ctx, 1)?;
    let device = Pfn(ctx.untouched(PAGE, PAGE, 0)?.0 / PAGE);
    let mut own = Vec::new();
    for _ in 0..6 {
        own.push(mm::frames::allocate(0).ok_or(Failure::NoFrames(0))?);
    }
    let gone = own[5];
    mm::frames::free(gone, 0);
    for bad in [own[0], block.first, Pfn(block.first.0 + 1), gone, device] {
        let frames = [own[0], own[1], bad, own[2], own[3], own[4]];
        refused(
            "a page that is not to be taken over",
            Error::NotToBeTakenOver(bad),
            // SAFETY: one of them is refused, and with it all.
            || unsafe { vm.vmap_put_pages(&frames[..]) },
        )?;
    }
    // SAFETY: the test's own, each a single one, and used by no other way.
    let area = unsafe { vm.vmap_put_pages(&own[..5]) }?;
    refused("a page that an area has", Error::NotToBeTakenOver(own[4]), || {
        // SAFETY: an area has it, so it is refused.
        unsafe { vm.vmap_put_pages(&own[4..5]) }
    })?;
    expect(
        "an area's frame is freed by another",
        own[4].0,
        mm::frames::try_free(own[4], 0).is_err(),
    )?;
    drop(area);
    vm.vm_unmap_aliases();
    let again = mm::frames::try_free(own[4], 0);
    expect("an area did not free its frame", own[4].0, again.is_err())?;
    Ok(())
}

pub fn writable_and_executable(ctx: &Context) -> TestResult {
    let vm = kernel_vmalloc();
    let block = Block::allocate(ctx, 0)?;
    let sparse = vm.get_vm_area(PAGE, 1)?;
    let both = Attributes::KERNEL_DATA.executable();
    let error = Error::Map(paging::Error::WritableExecutable(sparse.va()));
    refused("writable and executable pages", error, || {
        sparse.map_pages(0, &[block.first][..], both)
    })?;
    let area = mm::vmalloc(2 * PAGE)?;
    let error = Error::Map(paging::Error::WritableExecutable(area.va().add(PAGE)));
    refused("writable pages made executable", error, || {
        area.set_memory_x(PAGE, PAGE)
    })?;
    Ok(())
}

pub fn part_outside(ctx: &Context) -> TestResult {
    let vm = kernel_vmalloc();
    let block = Block::allocate(ctx, 1)?;
    let area = mm::vmalloc(3 * PAGE)?;
    let sparse = vm.get_vm_area(PAGE, 1)?;
    for (offset, size) in [
        (0, 4 * PAGE),
        (3 * PAGE, PAGE),
        (2 * PAGE, 2 * PAGE),
        (1 << 40, PAGE),
        (PAGE, !(PAGE - 1)),
        (PAGE.wrapping_neg(), PAGE),
    ] {
        let error = |area| Error::OutOfBounds { offset, size, area };
        refused("a part outside of the area", error(area.info()), || {
            area.set_memory_ro(offset, size)
        })?;
        refused("an unmap outside of the area", error(sparse.info()), || {
            sparse.unmap_pages(offset, size)
        })?;
    }
    let error = Error::OutOfBounds {
        offset: 0,
        size: 2 * PAGE,
        area: sparse.info(),
    };
    refused("more pages than a sparse area has", error, || {
        sparse.map_pages(
            0,
            &[block.first, Pfn(block.first.0 + 1)][..],
            Attributes::KERNEL_DATA,
        )
    })?;
    Ok(())
}

pub fn changed_permissions(_ctx: &Context) -> TestResult {
    let mut area = mm::vmalloc(2 * PAGE)?;
    area.set_memory_ro(0, PAGE)?;
    let error = Error::PermissionsChanged(area.info());
    refused("a move that would undo set_memory_ro", error, || {
        area.vrealloc(200 * PAGE)
    })?;
    let mut stack = mm::alloc_stack(4 * PAGE)?;
    let error = Error::WrongKind {
        area: stack.info(),
        expected: Kind::Vmalloc,
    };
    refused("vrealloc of a stack", error, || stack.vrealloc(8 * PAGE))?;
    expect("a stack was resized", stack.size(), stack.size() == 4 * PAGE).map_err(Failure::into)
}
