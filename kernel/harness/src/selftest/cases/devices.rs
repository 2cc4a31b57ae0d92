use kernel::arch::early_console;
use kernel::arch::mmu;
use kernel::arch::probe::{probe_read32, probe_write};
use kernel::arch::time::{Deadline, ticks};
use kernel::drivers::ecam::{Ecam, Function};
use kernel::layout;
use kernel::machine;
use kernel::mm::areas::{KernelArea, kernel_vmalloc};
use kernel::mm::regions::PhysRegion;
use kernel::mm::{self, kernel_tree};
use paging::{Attributes, LeafCounts, LeafSize, MemoryType, Pfn, PhysAddr, VirtAddr, Visit};
use vmalloc::Kind;

use core::time::Duration;

use crate::selftest::context::Context;
use crate::selftest::failure::{Failure, Stop, TestResult, expect, expect_leaves, expect_value};
use crate::selftest::memory::Block;
use crate::selftest::source::{GROUP, PAGE, Source, Walker};
use crate::selftest::verify::{Expected, Memory, read, verify_pages, write};

fn verify_io(
    ctx: &Context,
    area: &KernelArea,
    region: PhysRegion,
    memory: MemoryType,
) -> Result<(), Failure> {
    let start = PhysAddr(region.start).align_down(PAGE);
    let range = area.range();
    let attributes = paging::Attributes::kernel(memory).writable();
    let source = Source::Range {
        start,
        pages: range.size / PAGE,
        walker: Walker::Range,
    };
    expect_leaves(
        area.outcome().leaves,
        source.expected_leaves(range.start, 0, source.pages(), ctx.leaves()),
    )?;
    verify_pages(
        &ctx.tree(),
        range.start,
        source.pages(),
        |page| {
            Some(Expected {
                pa: source.pa(page),
                attributes,
            })
        },
        Memory::Untouched,
    )
}

fn verify_gone(ctx: &Context, start: VirtAddr, pages: u64) -> Result<(), Failure> {
    verify_pages(&ctx.tree(), start, pages, |_| None, Memory::Untouched)
}

fn load32(va: VirtAddr) -> Result<u32, Failure> {
    probe_read32(va.0 as usize).map_err(|fault| Failure::Faulted {
        what: "a load from a device register",
        fault,
    })
}

pub fn vmap_pfn_reaches_a_device(_ctx: &Context) -> TestResult {
    /// 0x31. Arm PrimeCell RTC (PL031) TRM, 3.3.
    const PERIPHERAL_ID0: u64 = 0xfe0;
    let Some(region) = machine().rtc else {
        return Err(Stop::Skip("the device tree has no PL031"));
    };
    let frame = Pfn(region.start / PAGE);
    let device = Attributes::kernel(MemoryType::DEVICE_NGNRE).writable();
    let area = kernel_vmalloc().vmap_pfn(&[frame; 2][..], device)?;
    for page in 0..2 {
        let va = area.range().start.add(page * PAGE);
        let found = mmu::at_s1e1r(va.0 as usize).map_err(|_| Failure::Claim {
            what: "a page of vmap_pfn is not mapped",
            at: va.0,
        })?;
        expect_value("the page's frame", found.pa, region.start)?;
        expect_value("the page's attribute byte", u64::from(found.attribute), 0x04)?;
        let id = load32(va.add(PERIPHERAL_ID0))?;
        expect_value("RTCPeriphID0", u64::from(id), 0x31)?;
    }
    Ok(())
}

pub fn rtc_counts_seconds(ctx: &Context) -> TestResult {
    /// Arm PrimeCell RTC (PL031) TRM, 3.3.1.
    const DATA: u64 = 0;
    /// 0x31.
    const PERIPHERAL_ID0: u64 = 0xfe0;
    let Some(region) = machine().rtc else {
        return Err(Stop::Skip("the device tree has no PL031"));
    };
    let area = mm::ioremap(PhysAddr(region.start), region.size())?;
    verify_io(ctx, &area, region, MemoryType::DEVICE_NGNRE)?;
    expect_value(
        "RTCPeriphID0",
        u64::from(load32(area.va().add(PERIPHERAL_ID0))?),
        0x31,
    )?;
    let first = load32(area.va().add(DATA))?;
    let began = ticks();
    let limit = Deadline::after(Duration::from_secs(3));
    let second = loop {
        let now = load32(area.va().add(DATA))?;
        if now != first {
            break now;
        }
        if limit.is_past() {
            return Err(Failure::Claim {
                what: "the PL031's seconds stand still",
                at: u64::from(first),
            }
            .into());
        }
    };
    let took = ticks() - began;
    // Or more if the host stopped the emulator for long.
    let elapsed = took.div_ceil(Deadline::ticks_of(Duration::from_secs(1)));
    let counted = u64::from(second.wrapping_sub(first));
    expect(
        "the PL031 counts faster than seconds",
        counted,
        counted >= 1 && counted <= elapsed + 1,
    )?;
    free_area(ctx, area)
}

fn free_area(ctx: &Context, area: KernelArea) -> TestResult {
    let (start, pages) = (area.range().start, area.range().size / PAGE);
    area.free();
    mm::areas::kernel_vmalloc().vm_unmap_aliases();
    verify_gone(ctx, start, pages)?;
    Ok(())
}

pub fn ecam_shows_the_host_bridge(ctx: &Context) -> TestResult {
    /// Red Hat; the generic PCIe host bridge.
    const HOST_BRIDGE: (u16, u16) = (0x1b36, 0x0008);
    let Some(region) = machine().ecam else {
        return Err(Stop::Skip("the device tree has no generic PCIe host"));
    };
    let area = mm::ioremap(PhysAddr(region.start), region.size())?;
    verify_io(ctx, &area, region, MemoryType::DEVICE_NGNRE)?;
    let group = LeafSize::BLOCK2_GROUP.bytes::<layout::Granule>();
    if ctx.leaves().contains(LeafSize::BLOCK2_GROUP)
        && (region.start | region.size()) % group == 0
        && region.size() < 1 << 30
    {
        let mut groups = LeafCounts::default();
        groups.add(LeafSize::BLOCK2_GROUP, (region.size() / group) as u32);
        expect_leaves(area.outcome().leaves, groups)?;
    }
    // SAFETY: mapped as a device until the area is freed below.
    let ecam = unsafe { Ecam::new(area.va().0 as usize, region.size() as usize) };
    let (vendor, device) = ecam
        .vendor_and_device(Function::HOST_BRIDGE)
        .ok_or(Failure::Claim {
            what: "no device answers at 00:00.0",
            at: region.start,
        })?;
    expect_value(
        "vendor id of 00:00.0",
        u64::from(vendor),
        u64::from(HOST_BRIDGE.0),
    )?;
    expect_value(
        "device id of 00:00.0",
        u64::from(device),
        u64::from(HOST_BRIDGE.1),
    )?;
    free_area(ctx, area)
}

pub fn console_is_an_ioremap(ctx: &Context) -> TestResult {
    /// 0x11. Arm PrimeCell UART (PL011) TRM, 3.3.15.
    const PERIPHERAL_ID0: u64 = 0xfe0;
    let Some(console) = machine().console else {
        return Err(Stop::Skip("the device tree has no UART that is known"));
    };
    let region = console.registers;
    let base = VirtAddr(early_console::device().map_or(0, |device| device.base() as u64));
    expect(
        "the console is not in the vmalloc region",
        base.0,
        mm::areas::kernel_vmalloc().is_vmalloc_addr(base),
    )?;
    verify_pages(
        &ctx.tree(),
        base.align_down(PAGE),
        region.grow_to_pages(PAGE).size() / PAGE,
        |page| {
            Some(Expected {
                pa: PhysAddr(region.start).align_down(PAGE).add(page * PAGE),
                attributes: paging::Attributes::DEVICE,
            })
        },
        Memory::Untouched,
    )?;
    if console.uart.model.name == "PL011" && region.size() >= PAGE {
        expect_value(
            "UARTPeriphID0",
            u64::from(load32(base.add(PERIPHERAL_ID0))?),
            0x11,
        )?;
    }
    // The shell may hold another ioremap of it.
    let (mut mappings, mut elsewhere) = (0, None);
    let tree = kernel_tree();
    tree.visit(tree.range(), |leaf| {
        let size = leaf.size.bytes::<layout::Granule>();
        if leaf.valid && leaf.pa.0 < region.end && region.start < leaf.pa.0 + size {
            mappings += 1;
            let area = kernel_vmalloc().find_vm_area(leaf.va);
            if area.is_none_or(|area| area.kind != Kind::Ioremap) {
                elsewhere = Some(leaf.va);
            }
        }
        Visit::Continue
    })?;
    expect("no page of the UART is mapped", base.0, mappings >= 1)?;
    expect(
        "the UART is mapped by what is no ioremap",
        elsewhere.map_or(0, |va| va.0),
        elsewhere.is_none(),
    )?;
    Ok(())
}

pub fn ioremap_kinds(ctx: &Context) -> TestResult {
    let start = ctx.untouched(16 * PAGE, GROUP * PAGE, 0)?;
    let region = PhysRegion {
        start: start.0,
        end: start.0 + 16 * PAGE,
    };
    let size = region.size();
    for (area, memory, attribute) in [
        (mm::ioremap(start, size)?, MemoryType::DEVICE_NGNRE, 0x04),
        (mm::ioremap_np(start, size)?, MemoryType::DEVICE_NGNRNE, 0x00),
        (mm::ioremap_wc(start, size)?, MemoryType::NORMAL_NC, 0x44),
    ] {
        verify_io(ctx, &area, region, memory)?;
        let translation = mmu::at_s1e1w(area.va().0 as usize).map_err(|abort| Failure::Claim {
            what: "an ioremap is not writable",
            at: abort.par,
        })?;
        expect_value(
            "attribute byte in PAR_EL1",
            u64::from(translation.attribute),
            attribute,
        )?;
    }
    Ok(())
}

pub fn ioremap_keeps_the_offset(ctx: &Context) -> TestResult {
    let start = ctx.untouched(16 * PAGE, GROUP * PAGE, 0)?;
    for (offset, size, pages) in [
        (0, 1, 1),
        (0x123, 4, 1),
        (PAGE - 1, 1, 1),
        (PAGE - 1, 2, 2),
        (PAGE - 4, PAGE + 8, 3),
        (PAGE / 2, PAGE, 2),
        (0, PAGE, 1),
        (0, PAGE + 1, 2),
    ] {
        let pa = start.add(offset);
        let area = mm::ioremap(pa, size)?;
        expect_value("offset in the page", area.va().0 % PAGE, offset)?;
        expect_value("pages", area.range().size / PAGE, pages)?;
        let translated = mmu::at_s1e1r(area.va().0 as usize).map_or(0, |translation| translation.pa);
        expect_value("physical address of the first byte", translated, pa.0)?;
        let raw = area.into_raw();
        // SAFETY: raw, the test's own, and nothing lies in it.
        unsafe { mm::iounmap(raw) }?;
        verify_gone(ctx, raw.align_down(PAGE), pages)?;
    }
    Ok(())
}

pub fn ioremap_of_ram_is_refused(_ctx: &Context) -> TestResult {
    let Some(ram) = mm::memory_plan().ram.iter().next().copied() else {
        return Err(Failure::Claim {
            what: "there is no RAM",
            at: 0,
        }
        .into());
    };
    for (pa, size) in [
        (ram.start, PAGE),
        (ram.end - 1, 1),
        (ram.start.saturating_sub(PAGE), 2 * PAGE),
        (ram.end - PAGE, 2 * PAGE),
        (ram.start, ram.size()),
    ] {
        match mm::ioremap(PhysAddr(pa), size) {
            Err(vmalloc::Error::Ram { .. }) => {}
            Err(error) => return Err(error.into()),
            Ok(_) => return Err(Failure::NotRefused("an ioremap of RAM").into()),
        }
    }
    Ok(())
}

pub fn ioremap_cache_of_ram_ends_at_once(ctx: &Context) -> TestResult {
    const MARK: u64 = 0x6f77_6e65_6421_0000;
    let block = Block::allocate(ctx, 0)?;
    let alias = mm::linear_va(block.start().0);
    for raw in [false, true] {
        let area = kernel_vmalloc().ioremap_cache(block.start(), PAGE)?;
        let va = area.va().0 as usize;
        write(va, MARK);
        expect_value("what the alias reads", read(alias), MARK)?;
        if raw {
            // SAFETY: raw, the test's own, and nothing lies in it.
            unsafe { mm::iounmap(area.into_raw()) }?;
        } else {
            area.free();
        }
        // SAFETY: should the TLB still hold the page, it is the test's own frame.
        let stored = unsafe { probe_write(va, !MARK) };
        expect(
            "a store by the freed address is taken",
            va as u64,
            stored.is_err(),
        )?;
        expect_value("what the owner reads", read(alias), MARK)?;
    }
    Ok(())
}
