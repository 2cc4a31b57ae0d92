use kernel::arch::mmu::{self, Access};
use kernel::arch::probe::{FaultInfo, probe_exec, probe_read, probe_write};
use kernel::arch::syndrome::FaultStatus;
use kernel::layout;
use kernel::mm::layout::{IMAGE_END, LINEAR_BASE, LINEAR_END, VMALLOC_END};
use kernel::mm::{self, linear, linear_va};
use paging::{Attributes, Granule as _, LeafSize, PhysAddr, VirtAddr, VirtRange, Visit};

use crate::selftest::context::Context;
use crate::selftest::failure::{Failure, Oracle, PageDefect, TestResult, expect, expect_value};
use crate::selftest::mapping::{Mapping, with_pages};
use crate::selftest::memory::{Block, Window};
use crate::selftest::source::{BLOCK, BLOCK_ORDER, BLOCK_SIZE, GROUP, PAGE, Source, Walker};
use crate::selftest::verify::{Memory, read, write};

pub type Probed<T> = Result<T, FaultInfo>;

fn defect(va: usize, defect: PageDefect) -> Failure {
    Failure::Page {
        page: 0,
        va: VirtAddr(va as u64),
        defect,
    }
}

pub fn expect_fault<T>(
    va: usize,
    access: Access,
    probed: Probed<T>,
    expected: FaultStatus,
) -> Result<(), Failure> {
    let oracle = Oracle::Probe(access);
    match probed {
        Ok(_) => Err(defect(va, PageDefect::Permitted(oracle))),
        Err(fault) if fault.status() == Some(expected) => {
            expect_value("FAR_EL1 of the fault", fault.far, va as u64)
        }
        Err(fault) => Err(defect(
            va,
            PageDefect::Fault {
                oracle,
                found: fault.status().unwrap_or(FaultStatus::Other(0)),
                expected,
            },
        )),
    }
}

pub fn expect_unreachable(va: usize) -> Result<(), Failure> {
    let status = match mmu::at_s1e1r(va) {
        Err(abort) => abort.status,
        Ok(_) => {
            return Err(defect(va, PageDefect::StillMapped(Oracle::At(Access::Read))));
        }
    };
    let FaultStatus::Translation(_) = status else {
        return Err(defect(
            va,
            PageDefect::Fault {
                oracle: Oracle::At(Access::Read),
                found: status,
                expected: FaultStatus::Translation(3),
            },
        ));
    };
    expect_fault(va, Access::Read, probe_read(va), status)?;
    // SAFETY: the load faulted.
    expect_fault(va, Access::Write, unsafe { probe_write(va, 0) }, status)
}

pub fn expect_read_only(va: usize) -> Result<(), Failure> {
    let value = probe_read(va).map_err(|fault| Failure::Faulted {
        what: "a load of something read-only",
        fault,
    })?;
    let level = mm::kernel_tree()
        .translate(VirtAddr(va as u64))
        .map_or(0, |leaf| leaf.size.level());
    let expected = FaultStatus::Permission(level);
    match mmu::at_s1e1w(va) {
        Err(abort) if abort.status == expected => {}
        Err(abort) => {
            let found = abort.status;
            let oracle = Oracle::At(Access::Write);
            return Err(defect(
                va,
                PageDefect::Fault {
                    oracle,
                    found,
                    expected,
                },
            ));
        }
        Ok(_) => return Err(defect(va, PageDefect::Permitted(Oracle::At(Access::Write)))),
    }
    // SAFETY: were it permitted, it stores the value that is there.
    expect_fault(va, Access::Write, unsafe { probe_write(va, value) }, expected)
}

fn expect_execute_never(va: usize) -> Result<(), Failure> {
    let level = mm::kernel_tree()
        .translate(VirtAddr(va as u64))
        .map_or(0, |leaf| leaf.size.level());
    // SAFETY: at `va` is a zero word, an undefined instruction should it be executable.
    let probed = unsafe { probe_exec(va) };
    match probed {
        Err(fault) if fault.permission_level() == Some(level) => Ok(()),
        Err(fault) => Err(Failure::Faulted {
            what: "a call of data, where a permission fault was expected",
            fault,
        }),
        Ok(()) => Err(Failure::Claim {
            what: "a call of data returned",
            at: va as u64,
        }),
    }
}

fn fault_level_of(ctx: &Context, size: LeafSize) -> TestResult {
    ctx.needs_leaf_by_page(size)?;
    let bytes = size.bytes::<layout::Granule>();
    let pages = bytes / PAGE;
    let block = if size == LeafSize::BLOCK1 {
        None
    } else {
        Some(Block::allocate(ctx, (2 * pages).ilog2() as u8)?)
    };
    let (start, attributes, memory) = match &block {
        Some(block) => (block.start(), Attributes::KERNEL_DATA, ctx.owned()),
        None => (
            ctx.untouched(2 * bytes, bytes, 0)?,
            Attributes::DEVICE,
            Memory::Untouched,
        ),
    };
    let window = Window::reserve(2 * bytes, 2 * bytes, 0)?;
    let source = Source::Range {
        start,
        pages: 2 * pages,
        walker: Walker::Range,
    };
    let mapping = Mapping::map(ctx, window.start, &source, attributes, memory)?;
    mapping.verify()?;
    mapping.unmap_part(0, pages)?;
    mapping.verify_as(|page| (page >= pages).then(|| mapping.expected(page)))?;
    for va in [window.start.0, window.start.0 + bytes - 8] {
        let expected = FaultStatus::Translation(size.level());
        expect_fault(va as usize, Access::Read, probe_read(va as usize), expected)?;
    }
    Ok(())
}

pub fn level_3(ctx: &Context) -> TestResult {
    fault_level_of(ctx, LeafSize::PAGE)
}

pub fn level_2(ctx: &Context) -> TestResult {
    fault_level_of(ctx, LeafSize::BLOCK2)
}

pub fn level_1(ctx: &Context) -> TestResult {
    fault_level_of(ctx, LeafSize::BLOCK1)
}

pub fn level_0(_ctx: &Context) -> TestResult {
    let level = if layout::PAGE_SHIFT == 12 { 0 } else { 1 };
    let root = layout::Granule::ROOT_LEVEL;
    let (vmalloc, linear) = match layout::Granule::VA_BITS {
        52 => (level, root),
        48 => (level, level),
        _ => (root, root),
    };
    for (va, level) in [(VMALLOC_END - 8, vmalloc), (LINEAR_END - 8, linear)] {
        expect_fault(va, Access::Read, probe_read(va), FaultStatus::Translation(level))?;
    }
    Ok(())
}

/// Only stack and tables are touched in between, so only the flush's TLBI can have emptied the TLB.
pub fn no_stale_translation(ctx: &Context) -> TestResult {
    const PAGES: u64 = 64;
    with_pages(ctx, PAGES, |mapping| {
        for page in 0..PAGES {
            let va = mapping.va.0 as usize + (page * PAGE) as usize;
            write(va, page);
            expect_value("what was just written", read(va), page)?;
            mapping.unmap_part(page, 1)?;
            let gone = |probed: Probed<()>, access| match probed {
                Err(_) => Ok(()),
                Ok(()) => Err(Failure::Page {
                    page,
                    va: VirtAddr(va as u64),
                    defect: PageDefect::StillMapped(Oracle::Probe(access)),
                }),
            };
            gone(probe_read(va).map(drop), Access::Read)?;
            // SAFETY: the frame is the test's.
            gone(unsafe { probe_write(va, 0) }, Access::Write)?;
        }
        mapping.verify_gone()?;
        Ok(())
    })
}

pub fn no_stale_permission(ctx: &Context) -> TestResult {
    const PAGES: u64 = 64;
    with_pages(ctx, PAGES, |mapping| {
        for page in 0..PAGES {
            let va = mapping.va.0 as usize + (page * PAGE) as usize;
            write(va, page);
            mapping.protect_part(page, 1, Attributes::read_only)?;
            // SAFETY: the frame is the test's.
            let probed = unsafe { probe_write(va, !page) };
            if probed.is_ok() {
                let defect = PageDefect::Permitted(Oracle::Probe(Access::Write));
                let va = VirtAddr(va as u64);
                return Err(Failure::Page { page, va, defect }.into());
            }
            expect_fault(va, Access::Write, probed, FaultStatus::Permission(3))?;
            expect_value("the page's data", read(va), page)?;
            mapping.protect_part(page, 1, Attributes::writable)?;
            write(va, !page);
            expect_value("the page's data, writable again", read(va), !page)?;
        }
        Ok(())
    })
}

pub fn write_to_read_only(ctx: &Context) -> TestResult {
    let block = Block::allocate(ctx, BLOCK_ORDER)?;
    let window = Window::reserve(BLOCK_SIZE, BLOCK_SIZE, 0)?;
    for (pages, level) in [(1, 3), (GROUP, 3), (BLOCK, 2)] {
        let source = Source::Range {
            start: block.start(),
            pages,
            walker: Walker::Range,
        };
        let mapping = Mapping::map(ctx, window.start, &source, Attributes::KERNEL_RODATA, ctx.owned())?;
        mapping.verify()?;
        let va = (window.start.0 + (pages - 1) * PAGE) as usize;
        expect_read_only(va)?;
        let expected = FaultStatus::Permission(level);
        // SAFETY: the frame is the test's.
        expect_fault(va, Access::Write, unsafe { probe_write(va, 1) }, expected)?;
        mapping.verify_and_unmap()?;
    }
    Ok(())
}

pub fn execute_data(ctx: &Context) -> TestResult {
    static CONSTANT: u64 = 0;
    static mut VARIABLE: u64 = 0;
    let on_stack = core::hint::black_box(0u64);
    let on_heap = alloc::boxed::Box::new(core::hint::black_box(0u64));
    let block = Block::allocate(ctx, 0)?;
    let linear = linear_va(block.start().0);
    write(linear, 0);
    let window = Window::reserve(PAGE, PAGE, 0)?;
    let source = Source::Range {
        start: block.start(),
        pages: 1,
        walker: Walker::Range,
    };
    let _mapping = Mapping::map(ctx, window.start, &source, Attributes::KERNEL_DATA, ctx.owned())?;
    for va in [
        &raw const CONSTANT as usize,
        &raw const VARIABLE as usize,
        &raw const on_stack as usize,
        &raw const *on_heap as usize,
        linear,
        window.start.0 as usize,
    ] {
        expect_execute_never(va & !3)?;
    }
    let text = linear_va(ctx.info.image_pa(mmu::isb as *const () as usize));
    expect_execute_never(text)?;
    Ok(())
}

pub fn text_is_read_only(ctx: &Context) -> TestResult {
    let sections = &ctx.info.sections;
    for va in [
        sections.text.start,
        sections.text.end - 8,
        sections.rodata.start,
        sections.rodata.end - 8,
    ] {
        expect_read_only(va)?;
        expect_read_only(linear_va(ctx.info.image_pa(va)))?;
    }
    Ok(())
}

pub fn text_has_no_writable_alias(ctx: &Context) -> TestResult {
    let constant = linear::constant_part(ctx.info);
    let tree = mm::kernel_tree();
    let mut writable = None;
    let mut aliases = 0u64;
    tree.visit(tree.range(), |leaf| {
        let size = leaf.size.bytes::<layout::Granule>();
        if leaf.valid && leaf.pa.0 < constant.end && constant.start < leaf.pa.0 + size {
            aliases += size.min(constant.size());
            if leaf.attributes.is_writable() {
                writable = Some(leaf.va);
                return Visit::Stop;
            }
        }
        Visit::Continue
    })?;
    if let Some(va) = writable {
        return Err(Failure::Claim {
            what: "the kernel's text or constants are writable by an alias",
            at: va.0,
        }
        .into());
    }
    expect(
        "text and constants are mapped less than twice",
        aliases,
        aliases >= 2 * constant.size(),
    )?;
    Ok(())
}

pub fn sections_have_their_permissions(ctx: &Context) -> TestResult {
    let sections = &ctx.info.sections;
    let parts = [
        (sections.text.clone(), Attributes::KERNEL_TEXT, true),
        (sections.rodata.clone(), Attributes::KERNEL_RODATA, true),
        (
            sections.data.start..sections.bss.end,
            Attributes::KERNEL_DATA,
            false,
        ),
        (sections.boot_stack.clone(), Attributes::KERNEL_DATA, false),
    ];
    let tree = ctx.tree();
    for (range, attributes, constant) in parts {
        let pa = PhysAddr(ctx.info.image_pa(range.start));
        let pages = range.len() as u64 / PAGE;
        let linear = if constant {
            Attributes::KERNEL_RODATA
        } else {
            Attributes::KERNEL_DATA
        };
        for (va, attributes) in [(range.start, attributes), (linear_va(pa.0), linear)] {
            crate::selftest::verify::verify_pages(
                &tree,
                VirtAddr(va as u64),
                pages,
                |page| {
                    Some(crate::selftest::verify::Expected {
                        pa: pa.add(page * PAGE),
                        attributes,
                    })
                },
                Memory::Untouched,
            )?;
        }
    }
    Ok(())
}

pub fn linear_map_is_right(ctx: &Context) -> TestResult {
    let tree = ctx.tree();
    let constant = linear::constant_part(ctx.info);
    let mut result = Ok(());
    let mut mapped = 0;
    let range = VirtRange::new(VirtAddr(LINEAR_BASE as u64), (LINEAR_END - LINEAR_BASE) as u64);
    tree.visit(range, |leaf| {
        let size = leaf.size.bytes::<layout::Granule>();
        mapped += size;
        for offset in [0, size - PAGE] {
            let pa = leaf.va.0 + offset - LINEAR_BASE as u64;
            let attributes = if (constant.start..constant.end).contains(&pa) {
                Attributes::KERNEL_RODATA
            } else {
                Attributes::KERNEL_DATA
            };
            result = crate::selftest::verify::verify_pages(
                &tree,
                leaf.va.add(offset),
                1,
                |_| {
                    Some(crate::selftest::verify::Expected {
                        pa: PhysAddr(pa),
                        attributes,
                    })
                },
                Memory::Untouched,
            );
            if result.is_err() {
                return Visit::Stop;
            }
        }
        Visit::Continue
    })?;
    result?;
    expect_value("bytes of the linear map", mapped, mm::memory_plan().ram.size())?;
    Ok(())
}

pub fn lower_half_faults(_ctx: &Context) -> TestResult {
    // EPD0: no walk is made, and the fault is of level 0 (Arm ARM, TCR_EL1.EPD0).
    for va in [0, 8, PAGE as usize, 0x4000_0000, 0x0000_7fff_ffff_f000] {
        expect_fault(va, Access::Read, probe_read(va), FaultStatus::Translation(0))?;
        // SAFETY: the load faulted.
        let probed = unsafe { probe_write(va, 0) };
        expect_fault(va, Access::Write, probed, FaultStatus::Translation(0))?;
    }
    // Between the halves: not an address.
    let low_end = 1 << layout::Granule::VA_BITS;
    for va in [low_end, LINEAR_BASE - 8] {
        expect_fault(va, Access::Read, probe_read(va), FaultStatus::Translation(0))?;
    }
    expect_unreachable(IMAGE_END)?;
    Ok(())
}
