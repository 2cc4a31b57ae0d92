//! The image window: each section of the image with what it needs and no more (DESIGN rule 10). And the fixed window, which the final tables
//! share with the first ones.

use core::sync::atomic::{AtomicU64, Ordering};

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

/// Links the fixed window's tables, which are part of the image and live, into `tree`, beside the image.
///
/// By hand, since the engine only links tables that it allocated; with the counts that it expects, so that it, and whoever audits the tree, can walk
/// through. The engine never changes anything in the window.
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
    let table = |pa: u64| {
        let va = IMAGE_BASE + (pa - info.image.start) as usize;
        // SAFETY: a live table in .bss, 512 descriptors, only ever used as atomics.
        unsafe { &*(va as *const [AtomicU64; 512]) }
    };
    let occupied = |table: &[AtomicU64; 512]| {
        let vacant = |descriptor: &&AtomicU64| descriptor.load(Ordering::Relaxed) == 0;
        512 - table.iter().filter(vacant).count()
    };
    // The slots and the device tree's pages. Nothing but the count changes, which walks ignore: no
    // break is needed.
    let level2 = table(info.fixed_tables.l2_pa);
    for link in level2 {
        let found = Descriptor(link.load(Ordering::Relaxed));
        if found.is_table(2) {
            let level3 = found.address::<Granule4K>();
            let counted = Descriptor::table(level3, occupied(table(level3.0)));
            link.store(counted.0, Ordering::Relaxed);
        }
    }

    let tables = tree.tables();
    let root_index = Granule4K::index(IMAGE_BASE as u64, 0);
    let link = Descriptor(tables.load(tree.root(), root_index));
    assert!(link.is_table(0), "the image's level 0 descriptor is {link:?}");
    let level1 = link.address::<Granule4K>();
    let window = Descriptor::table(PhysAddr(info.fixed_tables.l2_pa), occupied(level2));
    tables.store(level1, Granule4K::index(FIXED_BASE as u64, 1), window.0);
    let counted = Descriptor::table(level1, link.occupied::<Granule4K>() + 1);
    tables.store(tree.root(), root_index, counted.0);
}
