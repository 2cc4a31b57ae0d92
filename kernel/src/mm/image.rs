//! The image window, each section as restricted as possible (DESIGN rule 10).

use paging::{
    Attributes, Descriptor, Failure, Granule as _, LeafSet, Mmu, Outcome, PhysAddr, Tables, Tree, VirtAddr,
    vmap_range_noflush,
};

use super::layout::{FIXED_BASE, FIXED_END, Granule, IMAGE_BASE};
use crate::{BootInfo, FixedTables};

/// Maps the sections, without the boot stack's guard page.
///
/// # Errors
/// There is no page for a table.
pub fn map<T: Tables, M: Mmu>(tree: &Tree<Granule, T, M>, info: &BootInfo) -> Result<Outcome, Failure> {
    let sections = &info.sections;
    let parts = [
        (sections.text.clone(), Attributes::KERNEL_TEXT),
        (sections.rodata.clone(), Attributes::KERNEL_RODATA),
        (sections.data.start..sections.bss.end, Attributes::KERNEL_DATA),
        (sections.boot_stack.clone(), Attributes::KERNEL_DATA),
    ];
    let mut outcome = Outcome::default();
    for (range, attributes) in parts {
        let va = VirtAddr(range.start as u64);
        let pa = PhysAddr(info.image_pa(range.start));
        outcome.merge(&vmap_range_noflush(
            tree,
            va,
            pa,
            range.len() as u64,
            attributes,
            LeafSet::ALL,
        )?);
    }
    Ok(outcome)
}

/// Links the fixed window's live tables, part of the image: by hand, as the engine links only its
/// own.
///
/// # Panics
/// If `tree` does not map the image.
pub fn link_fixed_window<T: Tables, M: Mmu>(tree: &Tree<Granule, T, M>, info: &BootInfo) {
    let tables = tree.tables();
    let FixedTables {
        shared_va,
        shared_level,
        ..
    } = info.fixed_tables;
    let mut table = tree.root();
    for level in Granule::ROOT_LEVEL..shared_level {
        let link = Descriptor(tables.load(table, Granule::index(IMAGE_BASE as u64, level)));
        assert!(
            link.is_table(level),
            "the image's level {level} descriptor is {link:?}"
        );
        table = link.address::<Granule>();
    }
    let first = Granule::index(FIXED_BASE as u64, shared_level);
    let last = Granule::index(FIXED_END as u64 - 1, shared_level);
    for i in first..=last {
        // SAFETY: a table in .bss that no longer changes here.
        let link = unsafe { (shared_va as *const u64).add(i).read() };
        tables.store(table, i, link);
    }
}
