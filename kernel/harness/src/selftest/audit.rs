//! Audits the live tree: `Tree::check`; each table is a frame in use, met once; each leaf is where
//! the kernel has something and permits no more.

use kernel::BootInfo;
use kernel::layout;
use kernel::mm::frames::{self, State};
use kernel::mm::layout::{
    DTB_WINDOW, FIXED_BASE, FIXED_END, IMAGE_BASE, IMAGE_END, LINEAR_BASE, LINEAR_END, PER_CPU_WINDOW,
    VMALLOC_BASE, VMALLOC_END,
};
use kernel::mm::regions::PhysRegion;
use kernel::mm::{self, linear, per_cpu, tables};
use paging::{Attributes, CheckError, Leaf, Level, MemoryType, Pfn, PhysAddr, Report};

use super::live;
use super::source::PAGE;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Audit {
    pub report: Report,
    pub allocated_tables: u64,
}

/// Audits the live tree, which no other CPU may change.
///
/// # Errors
/// The first defect.
pub fn audit(info: &BootInfo) -> Result<Audit, CheckError> {
    // Tables that a CPU's piece keeps, and those above, may be empty.
    live::free_all_kept();
    let mut allocated_tables = 0;
    let report = mm::kernel_tree().check(
        |table, level| is_table(info, table, level, &mut allocated_tables),
        |leaf| is_expected(info, leaf),
    )?;
    Ok(Audit {
        report,
        allocated_tables,
    })
}

#[must_use]
pub fn unlinked_tables(audit: &Audit) -> u64 {
    tables::nr_tables().wrapping_sub(audit.allocated_tables)
}

fn is_table(info: &BootInfo, table: PhysAddr, level: Level, allocated: &mut u64) -> bool {
    let fixed = &info.fixed_tables;
    if table.0 == fixed.l2_pa {
        return level == 2;
    }
    if table.0 == fixed.l3_pa || fixed.dtb_l3_pa.contains(&table.0) {
        return level == 3;
    }
    *allocated += 1;
    frames::state(Pfn(table.0 / PAGE)) == State::used(0)
}

fn is_expected(info: &BootInfo, leaf: &Leaf) -> bool {
    let size = leaf.size.bytes::<layout::Granule>();
    let (start, last) = (leaf.va.0 as usize, (leaf.va.0 + (size - 1)) as usize);
    let within = |from: usize, to: usize| from <= start && last < to;
    if within(LINEAR_BASE, LINEAR_END) {
        is_linear(info, leaf, size)
    } else if within(VMALLOC_BASE, VMALLOC_END) {
        live::is_area(start, last)
    } else if within(FIXED_BASE, FIXED_END) {
        is_fixed(leaf)
    } else if within(IMAGE_BASE, IMAGE_END) {
        is_image(info, leaf, start, last)
    } else {
        false
    }
}

fn is_linear(info: &BootInfo, leaf: &Leaf, size: u64) -> bool {
    let region = PhysRegion {
        start: leaf.pa.0,
        end: leaf.pa.0 + size,
    };
    let constant = !linear::constant_part(info).intersection(&region).is_empty();
    let attributes = if constant {
        Attributes::KERNEL_RODATA
    } else {
        Attributes::KERNEL_DATA
    };
    leaf.pa.0 + LINEAR_BASE as u64 == leaf.va.0
        && mm::memory_plan().ram.contains(&region)
        && leaf.valid
        && leaf.attributes == attributes
}

fn is_fixed(leaf: &Leaf) -> bool {
    if leaf.va.0 >= PER_CPU_WINDOW as u64 {
        return leaf.valid
            && leaf.attributes == Attributes::KERNEL_DATA
            && per_cpu::memory().is_some_and(|memory| {
                let pa = memory.blocks.start + (leaf.va.0 - PER_CPU_WINDOW as u64);
                leaf.pa.0 == pa && pa < memory.blocks.end
            });
    }
    if leaf.va.0 >= DTB_WINDOW as u64 {
        return leaf.valid && leaf.attributes == Attributes::KERNEL_RODATA;
    }
    !leaf.valid || leaf.attributes.memory() == MemoryType::DEVICE_NGNRE && !leaf.attributes.is_executable()
}

fn is_image(info: &BootInfo, leaf: &Leaf, start: usize, last: usize) -> bool {
    let sections = &info.sections;
    let parts = [
        (sections.text.clone(), Attributes::KERNEL_TEXT),
        (sections.rodata.clone(), Attributes::KERNEL_RODATA),
        (sections.data.start..sections.bss.end, Attributes::KERNEL_DATA),
        (sections.boot_stack.clone(), Attributes::KERNEL_DATA),
    ];
    let expected = parts
        .iter()
        .find(|(range, _)| range.contains(&start) && range.contains(&last));
    expected.is_some_and(|(_, attributes)| leaf.attributes == *attributes)
        && leaf.valid
        && leaf.pa.0 == info.image_pa(start)
}
