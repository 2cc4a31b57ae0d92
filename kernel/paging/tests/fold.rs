use crate::support;

use mmu_model::{Features, Model};
use paging::{
    Attributes, Config, Granule4K, Half, LeafSet, LeafSize, PhysAddr, PhysRange, Tree, VirtAddr, VirtRange,
};

const DATA: Attributes = Attributes::KERNEL_DATA;
const PAGE: u64 = 1 << 12;
const LADDER: [LeafSize; 4] = [
    LeafSize::PAGE_GROUP,
    LeafSize::BLOCK2,
    LeafSize::BLOCK2_GROUP,
    LeafSize::BLOCK1,
];

type ModelTree<'m> = Tree<Granule4K, mmu_model::Cpu<'m, Granule4K>, mmu_model::Cpu<'m, Granule4K>>;

fn on_model(config: Config, test: impl FnOnce(&ModelTree<'_>, VirtAddr)) {
    let (model, root) = Model::<Granule4K>::with_root(Features {
        cpus: 2,
        panics: true,
        tlbi_range: true,
        ..Features::default()
    });
    let cpu = model.cpu(0);
    let tree = Tree::new(root, Half::High, cpu, cpu, config);
    let at = tree.range().start.add(1 << 46);
    let mut source = PhysRange::new(PhysAddr(1 << 30), 1 << 18);
    tree.map(VirtRange::new(at, 1 << 30), &mut source, DATA, LeafSet::ALL)
        .expect("vacant");
    test(&tree, at);
    model.assert_quiescent();
}

fn protect(tree: &ModelTree<'_>, at: VirtAddr, writable: bool) {
    let mut batch = tree.batch();
    let change = |old: Attributes| if writable { old.writable() } else { old.read_only() };
    tree.protect(VirtRange::new(at, PAGE), change, &mut batch)
        .expect("tables suffice");
    batch.flush();
}

/// Whether the leaf is there, and whether it was made.
fn fold(tree: &ModelTree<'_>, at: VirtAddr, size: LeafSize) -> (bool, bool) {
    let mut batch = tree.batch();
    let outcome = tree.fold(at, size, &mut batch).expect("takes no memory");
    batch.flush();
    let there = outcome.leaves.get(size);
    assert_eq!(
        LeafSize::ALL
            .iter()
            .map(|size| outcome.leaves.get(*size))
            .sum::<u32>(),
        there
    );
    (there == 1, !outcome.levels.is_empty())
}

const MADE: (bool, bool) = (true, true);
const FOUND: (bool, bool) = (true, false);
const NONE: (bool, bool) = (false, false);

fn size_at(tree: &ModelTree<'_>, at: VirtAddr) -> LeafSize {
    tree.translate(at).expect("mapped").size
}

#[test]
fn a_cut_is_undone_rung_by_rung() {
    on_model(Config::default(), |tree, at| {
        let page = at.add((300 << 21) + 77 * PAGE);
        protect(tree, page, false);
        assert_eq!(size_at(tree, page), LeafSize::PAGE);
        protect(tree, page, true);
        for size in LADDER {
            assert_ne!(size_at(tree, page), size);
            assert_eq!(fold(tree, page, size), MADE, "{size:?}");
            assert_eq!(size_at(tree, page), size);
            assert_eq!(fold(tree, page, size), FOUND, "{size:?} is there already");
        }
        assert_eq!(size_at(tree, at), LeafSize::BLOCK1);
        assert_eq!(
            fold(tree, page, LeafSize::PAGE_GROUP),
            FOUND,
            "a larger one has it"
        );
        assert_eq!(
            fold(tree, page, LeafSize::BLOCK1_GROUP),
            NONE,
            "there is but one block"
        );
    });
}

#[test]
fn a_rung_is_not_made_of_the_one_below_its_own() {
    on_model(Config::default(), |tree, at| {
        let page = at.add(5 * PAGE);
        protect(tree, page, false);
        protect(tree, page, true);
        assert_eq!(fold(tree, page, LeafSize::BLOCK2_GROUP), NONE);
        assert_eq!(fold(tree, page, LeafSize::BLOCK1), NONE);
        assert_eq!(
            fold(tree, page, LeafSize::BLOCK2),
            MADE,
            "pages or groups, it is one rung"
        );
        assert_eq!(fold(tree, page, LeafSize::BLOCK2_GROUP), MADE);
    });
}

#[test]
fn a_page_that_differs_keeps_every_leaf_around_it_from_being_made() {
    on_model(Config::default(), |tree, at| {
        let (page, other) = (at.add(5 * PAGE), at.add(40 * PAGE));
        protect(tree, page, false);
        protect(tree, other, false);
        protect(tree, page, true);
        assert_eq!(fold(tree, page, LeafSize::PAGE_GROUP), MADE);
        assert_eq!(fold(tree, page, LeafSize::BLOCK2), NONE);
        assert_eq!(fold(tree, other, LeafSize::PAGE_GROUP), NONE);
        assert!(!tree.translate(other).expect("mapped").attributes.is_writable());
    });
}

#[test]
fn what_the_policy_does_not_allow_is_not_made() {
    let config = Config {
        leaves: LeafSet::ALL.without_groups(),
        ..Config::default()
    };
    on_model(config, |tree, at| {
        protect(tree, at, false);
        protect(tree, at, true);
        assert_eq!(fold(tree, at, LeafSize::PAGE_GROUP), NONE);
        assert_eq!(fold(tree, at, LeafSize::BLOCK2), MADE);
        assert_eq!(fold(tree, at, LeafSize::BLOCK2_GROUP), NONE);
        assert_eq!(
            fold(tree, at, LeafSize::BLOCK1),
            MADE,
            "512 blocks, in groups or not"
        );
    });
}

#[test]
fn nothing_is_made_where_nothing_is_mapped_and_an_address_of_the_other_half_is_refused() {
    on_model(Config::default(), |tree, at| {
        assert_eq!(fold(tree, at.add(1 << 40), LeafSize::PAGE_GROUP), NONE);
        assert_eq!(fold(tree, at, LeafSize::PAGE), NONE);
        let mut batch = tree.batch();
        assert!(
            tree.fold(VirtAddr(1 << 30), LeafSize::BLOCK2, &mut batch)
                .is_err()
        );
        batch.flush();
    });
}

#[test]
fn a_group_of_blocks_is_judged_by_its_sixteen_descriptors() {
    let tree = support::tree::<Granule4K>(Config::default(), false);
    let at = tree.range().start.add(1 << 46);
    let mut source = PhysRange::new(PhysAddr(1 << 30), 1 << 18);
    tree.map(VirtRange::new(at, 1 << 30), &mut source, DATA, LeafSet::ALL)
        .expect("vacant");
    for block in 0..32 {
        let mut batch = tree.batch();
        let page = VirtRange::new(at.add((block << 21) + 3 * PAGE), PAGE);
        tree.protect(page, |old| old.read_only(), &mut batch)
            .expect("tables suffice");
        batch.flush();
    }
    tree.tables().reset_counts();
    tree.mmu().take();
    let mut batch = tree.batch();
    let outcome = tree
        .fold(at, LeafSize::BLOCK2_GROUP, &mut batch)
        .expect("takes no memory");
    batch.flush();
    assert_eq!(outcome.leaves.get(LeafSize::BLOCK2_GROUP), 0);
    assert_eq!((tree.tables().loads.get(), tree.tables().stores.get()), (5, 0));
    assert_eq!(tree.mmu().take().tlbi, 0);
}
