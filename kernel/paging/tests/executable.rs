//! DESIGN rule 11, Cortex-A715 2645198.

use mmu_model::{Features, Model};
use paging::{Attributes, Config, Granule4K, Half, LeafSet, LeafSize, PhysAddr, PhysRange, Tree, VirtRange};

fn stores(break_executable: bool, old: Attributes, new: Attributes) -> Vec<(u64, u64)> {
    let sizes = [
        LeafSize::PAGE,
        LeafSize::PAGE_GROUP,
        LeafSize::BLOCK2,
        LeafSize::BLOCK2_GROUP,
    ];
    let of_size = |size: LeafSize| {
        let (model, root) = Model::<Granule4K>::with_root(Features {
            tlbi_range: true,
            ..Features::default()
        });
        let config = Config {
            break_executable,
            ..Config::default()
        };
        let tree = Tree::<Granule4K, _, _>::new(root, Half::High, model.cpu(0), model.cpu(0), config);
        let range = VirtRange::new(tree.range().start.add(1 << 40), size.bytes::<Granule4K>());
        let mut source = PhysRange::new(PhysAddr(1 << 40), range.size >> 12);
        tree.map(range, &mut source, old, LeafSet::ALL)
            .expect("memory suffices");
        let before = model.counters().stores;
        let mut batch = tree.batch();
        tree.protect(range, |_| new, &mut batch).expect("mapped");
        batch.flush();
        let stores = model.counters().stores - before;
        let leaf = tree.translate(range.start).expect("mapped");
        assert_eq!((leaf.size, leaf.attributes), (size, new));
        model.assert_quiescent();
        (size.descriptors::<Granule4K>() as u64, stores)
    };
    sizes.into_iter().map(of_size).collect()
}

fn assert_broken(stores: &[(u64, u64)]) {
    for (descriptors, stores) in stores {
        assert_eq!(*stores, 2 * descriptors);
    }
}

fn assert_in_place(stores: &[(u64, u64)]) {
    for (descriptors, stores) in stores {
        assert_eq!(stores, descriptors);
    }
}

const TEXT: Attributes = Attributes::KERNEL_TEXT;
const RODATA: Attributes = Attributes::KERNEL_RODATA;
const DATA: Attributes = Attributes::KERNEL_DATA;

#[test]
fn what_was_executable_is_broken_where_the_erratum_is() {
    assert_broken(&stores(true, TEXT, RODATA));
    assert_broken(&stores(true, TEXT, DATA));
}

#[test]
fn and_nothing_else_is() {
    assert_in_place(&stores(true, RODATA, TEXT));
    assert_in_place(&stores(true, RODATA, DATA));
    assert_in_place(&stores(true, DATA, TEXT));
}

#[test]
fn without_the_erratum_it_changes_in_place() {
    assert_in_place(&stores(false, TEXT, RODATA));
    assert_in_place(&stores(false, TEXT, DATA));
}
