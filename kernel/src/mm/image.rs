//! The image window: each section of the image with what it needs and no more (DESIGN rule 10). And
//! the fixed window, which the final tables share with the first ones.

use paging::{
    Attributes, Descriptor, Failure, Granule, Granule4K, LeafSet, Mmu, Outcome, PhysAddr, Tables, Tree,
    VirtAddr, vmap_range_noflush,
};

use super::layout::{FIXED_BASE, IMAGE_BASE};
use crate::BootInfo;

/// Maps the sections in `tree`. The page below the boot stack stays unmapped.
///
/// # Errors
/// There is no page for a table.
pub fn map<T: Tables, M: Mmu>(tree: &Tree<Granule4K, T, M>, info: &BootInfo) -> Result<Outcome, Failure> {
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

/// Links the fixed window's tables, which are part of the image and live, into `tree`, beside the
/// image.
///
/// By hand, since the engine only links tables that it allocated. From here on the engine changes
/// nothing in the window.
///
/// # Panics
/// If the image is not mapped in `tree`.
pub fn link_fixed_window<T: Tables, M: Mmu>(tree: &Tree<Granule4K, T, M>, info: &BootInfo) {
    const {
        assert!(
            FIXED_BASE >> 39 == IMAGE_BASE >> 39,
            "the fixed window shares the image's level 1 table"
        );
    }
    let tables = tree.tables();
    let root_index = Granule4K::index(IMAGE_BASE as u64, 0);
    let link = Descriptor(tables.load(tree.root(), root_index));
    assert!(link.is_table(0), "the image's level 0 descriptor is {link:?}");
    let level1 = link.address::<Granule4K>();
    let window = Descriptor::table(PhysAddr(info.fixed_tables.l2_pa));
    tables.store(level1, Granule4K::index(FIXED_BASE as u64, 1), window.0);
}
