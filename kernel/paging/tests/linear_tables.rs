//! `LinearTables` on real memory: for Miri.

use paging::mmu::NoMmu;
use paging::{
    Attributes, Config, Extent, Extents, Granule4K, Half, LeafSet, LeafSize, LinearTables, PageArray, Pfn,
    PhysAddr, TablePages, Tables, Tree, VirtAddr, VirtRange, vmap_range_noflush,
};
use std::alloc::{Layout, alloc, dealloc};
use std::collections::BTreeSet;
use std::sync::Mutex;

const PAGE: Layout = match Layout::from_size_align(4096, 4096) {
    Ok(layout) => layout,
    Err(_) => panic!("a page is a layout"),
};

#[derive(Default)]
struct Heap {
    out: Mutex<BTreeSet<u64>>,
}

// SAFETY: a page has one holder, at its own address, and no CPU walks it.
unsafe impl TablePages for Heap {
    fn alloc(&self) -> Option<PhysAddr> {
        // SAFETY: the layout is not empty.
        let page = unsafe { alloc(PAGE) };
        if page.is_null() {
            return None;
        }
        // Stale contents must not pass as descriptors.
        // SAFETY: one page, just allocated.
        unsafe { page.write_bytes(0xa5, PAGE.size()) };
        let address = page.expose_provenance() as u64;
        assert!(self.out.lock().expect("no panic under it").insert(address));
        Some(PhysAddr(address))
    }

    fn free(&self, page: PhysAddr) {
        assert!(
            self.out.lock().expect("no panic under it").remove(&page.0),
            "{page:?} is not out"
        );
        let pointer = core::ptr::with_exposed_provenance_mut::<u8>(page.0 as usize);
        // SAFETY: `alloc` returned it with this layout.
        unsafe { dealloc(pointer, PAGE) };
    }
}

const BASE: VirtAddr = VirtAddr(0xffff_8000_0000_0000);

fn run(test: impl FnOnce(&Tree<Granule4K, &LinearTables<Granule4K, Heap>, NoMmu>)) {
    // SAFETY: the heap's pages are mapped at offset 0, for nothing else.
    let tables = unsafe { LinearTables::<Granule4K, _>::new(0, Heap::default()) };
    let root = tables.alloc_table().expect("memory");
    let tree = Tree::new(root, Half::High, &tables, NoMmu::default(), Config::default());
    test(&tree);
    let mut batch = tree.batch();
    tree.unmap(tree.range(), &mut batch).expect("nothing to split");
    batch.flush();
    tables.free_table(root);
    let out = tables.pages().out.lock().expect("no panic under it");
    assert!(out.is_empty(), "{} pages are leaked", out.len());
}

#[test]
fn a_new_table_is_zeroed_whatever_was_there() {
    run(|tree| {
        let table = tree.tables().alloc_table().expect("memory");
        assert!((0..512).all(|i| tree.tables().load(table, i) == 0));
        tree.tables().free_table(table);
    });
}

#[test]
fn a_tree_in_linear_memory_lives_its_whole_life() {
    run(|tree| {
        let data = Attributes::KERNEL_DATA;
        let outcome = vmap_range_noflush(tree, BASE, PhysAddr(0x4000_0000), 0x21_1000, data, LeafSet::ALL)
            .expect("vacant");
        assert_eq!(outcome.leaves.get(LeafSize::BLOCK2), 1);
        assert_eq!(outcome.leaves.get(LeafSize::PAGE_GROUP), 1);
        let frames: Vec<Pfn> = (0..40).map(|i| Pfn(0x5_0000 + i * 3)).collect();
        let array = VirtRange::new(BASE.add(0x4000_0000), 40 << 12);
        tree.map(array, &mut PageArray::new(frames.as_slice()), data, LeafSet::ALL)
            .expect("vacant");
        let extents = [
            Extent {
                start: Pfn(0x6_0000),
                pages: 16,
            },
            Extent {
                start: Pfn(0x7_0000),
                pages: 5,
            },
        ];
        let list = VirtRange::new(BASE.add(0x8000_0000), 21 << 12);
        tree.map(list, &mut Extents::new(&extents), data, LeafSet::ALL)
            .expect("vacant");

        let mut batch = tree.batch();
        let page = VirtRange::new(BASE.add(0x12_3000), 0x1000);
        tree.protect(page, Attributes::read_only, &mut batch)
            .expect("mapped");
        let gone = VirtRange::new(list.start.add(0x3000), 0x1000);
        tree.unmap(gone, &mut batch).expect("memory suffices");
        batch.flush();
        let leaf = tree.translate(page.start).expect("mapped");
        assert!(leaf.size == LeafSize::PAGE && !leaf.attributes.is_writable());
        assert_eq!(leaf.translate(page.start), PhysAddr(0x4012_3000));
        assert!(tree.translate(gone.start).is_none());

        let mut batch = tree.batch();
        tree.protect(page, Attributes::writable, &mut batch)
            .expect("mapped");
        tree.coalesce(VirtRange::new(BASE, 0x20_0000), &mut batch)
            .expect("no memory taken");
        batch.flush();
        let leaf = tree.translate(page.start).expect("mapped");
        assert_eq!(leaf.size, LeafSize::BLOCK2);
        tree.check(|_, _| true, |_| true).expect("sound");
    });
}

#[test]
fn threads_share_tables_in_linear_memory() {
    run(|tree| {
        // Freed pages return to the heap at once.
        vmap_range_noflush(
            tree,
            BASE,
            PhysAddr(0x4000_0000),
            0x1000,
            Attributes::KERNEL_DATA,
            LeafSet::ALL,
        )
        .expect("vacant");
        std::thread::scope(|scope| {
            for thread in 1..4u64 {
                scope.spawn(move || {
                    for round in 0..4 {
                        let range = VirtRange::new(BASE.add(thread * 0x2_0000), 0x1_1000);
                        let pa = PhysAddr(0x8000_0000 + thread * 0x10_0000 + (round << 16));
                        vmap_range_noflush(
                            tree,
                            range.start,
                            pa,
                            range.size,
                            Attributes::KERNEL_DATA,
                            LeafSet::ALL,
                        )
                        .expect("vacant");
                        assert_eq!(tree.translate(range.start).map(|leaf| leaf.pa), Some(pa));
                        let mut batch = tree.batch();
                        tree.unmap(range, &mut batch).expect("nothing to split");
                        batch.flush();
                    }
                });
            }
        });
        tree.prune(tree.range()).expect("the tree's own range");
    });
}
