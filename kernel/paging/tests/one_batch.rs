//! Invalid, of another memory type and valid within one batch: what a TLB holds of the leaf goes
//! first (DESIGN rule 3; Arm ARM D8.16.1).

use mmu_model::{Features, Model};
use paging::{
    Attributes, Config, Granule4K, Half, LeafSet, LeafSize, MemoryType, PhysAddr, PhysRange, Tree, VirtRange,
};

const NC: Attributes = Attributes::kernel(MemoryType::NORMAL_NC).writable();

fn for_each_leaf(
    edit: impl Fn(&Tree<Granule4K, mmu_model::Cpu<'_, Granule4K>, mmu_model::Cpu<'_, Granule4K>>, VirtRange),
) {
    for size in [
        LeafSize::PAGE,
        LeafSize::PAGE_GROUP,
        LeafSize::BLOCK2,
        LeafSize::BLOCK2_GROUP,
    ] {
        let (model, root) = Model::<Granule4K>::with_root(Features {
            tlbi_range: true,
            ..Features::default()
        });
        let tree =
            Tree::<Granule4K, _, _>::new(root, Half::High, model.cpu(0), model.cpu(0), Config::default());
        let range = VirtRange::new(tree.range().start.add(1 << 40), size.bytes::<Granule4K>());
        let mut source = PhysRange::new(PhysAddr(1 << 40), range.size >> 12);
        tree.map(range, &mut source, Attributes::KERNEL_DATA, LeafSet::ALL)
            .expect("memory suffices");
        edit(&tree, range);
        let leaf = tree.translate(range.start).expect("mapped");
        assert_eq!((leaf.size, leaf.attributes), (size, NC), "{size:?}");
        model.assert_quiescent();
    }
}

#[test]
fn another_memory_type_while_invalid_is_broken_first_in_one_batch() {
    for_each_leaf(|tree, range| {
        let mut batch = tree.batch();
        tree.set_valid(range, false, &mut batch).expect("mapped");
        tree.protect(range, |_| NC, &mut batch).expect("mapped");
        tree.set_valid(range, true, &mut batch).expect("mapped");
        batch.flush();
    });
}

#[test]
fn with_nothing_pending_an_invalid_leaf_changes_without_a_tlbi() {
    for_each_leaf(|tree, range| {
        tree.set_valid(range, false, &mut tree.batch()).expect("mapped");
        let model = tree.tables().model();
        let tlbis = || model.counters().tlbi_va + model.counters().tlbi_range + model.counters().tlbi_all;
        let before = tlbis();
        let mut batch = tree.batch();
        tree.protect(range, |_| NC, &mut batch).expect("mapped");
        tree.set_valid(range, true, &mut batch).expect("mapped");
        batch.flush();
        assert_eq!(tlbis(), before);
    });
}
