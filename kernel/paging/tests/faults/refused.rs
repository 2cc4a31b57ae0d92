use crate::faults::DATA;
use crate::support::corpus::base;
use crate::support::ops::Op;
use crate::support::traced::traced;
use crate::support::{Shape, audit};
use paging::{
    Attributes, Config, Error, Granule4K, LeafSet, LevelMask, PhysAddr, PhysRange, VirtAddr, VirtRange,
};

#[test]
fn a_block_or_a_group_or_an_invalid_leaf_in_the_way_is_said_with_its_level() {
    for (page, pages, level) in [
        (512, 512, 2),
        (512 * 16, 512 * 16, 2),
        (1 << 18, 1 << 18, 1),
        (16, 16, 3),
    ] {
        for valid in [true, false] {
            let tree = traced::<Granule4K>(Config::default(), false);
            Op::map(page, Shape::Range((1 << 24) + page, pages))
                .apply(&tree, base(&tree))
                .expect("vacant");
            Op::SetValid { page, pages, valid }
                .apply(&tree, base(&tree))
                .expect("mapped");
            tree.tables().log.take();
            let before = tree.tables().host.snapshot();
            let inside = page + pages / 2 + 1;
            let failure = Op::map(inside, Shape::Range(5, 3)).apply(&tree, base(&tree));
            let failure = failure.expect_err("occupied");
            let Error::Occupied { va, level: at, found } = failure.error else {
                panic!("{failure:?}");
            };
            assert_eq!((va, at), (base(&tree).add(inside << 12), level));
            assert_eq!(found.is_valid(), valid);
            assert_eq!(failure.levels, LevelMask::NONE);
            assert_eq!(tree.tables().host.snapshot(), before);
            let failure = Op::map(page - 5, Shape::Range(1 << 23, 9)).apply(&tree, base(&tree));
            let failure = failure.expect_err("occupied");
            assert!(matches!(failure.error, Error::Occupied { va, .. } if va == base(&tree).add(page << 12)));
            assert_eq!(tree.tables().host.snapshot(), before);
        }
    }
}

#[test]
fn ranges_that_are_empty_misaligned_or_outside_are_refused_by_every_operation() {
    let tree = traced::<Granule4K>(Config::default(), false);
    let top = VirtAddr(0u64.wrapping_sub(1 << 12));
    let cases = [
        (VirtRange::new(base(&tree), 0), Error::Empty(base(&tree))),
        (
            VirtRange::new(base(&tree).add(8), 1 << 12),
            Error::Misaligned(base(&tree).0 + 8),
        ),
        (VirtRange::new(base(&tree), 0x1800), Error::Misaligned(0x1800)),
        (
            VirtRange::new(VirtAddr(0), 1 << 12),
            Error::NonCanonical(VirtAddr(0), 1 << 12),
        ),
        (
            VirtRange::new(VirtAddr(tree.range().start.0 - 0x1000), 0x2000),
            Error::NonCanonical(VirtAddr(tree.range().start.0 - 0x1000), 0x2000),
        ),
        (VirtRange::new(top, 0x2000), Error::NonCanonical(top, 0x2000)),
        (VirtRange::new(top, 1 << 63), Error::NonCanonical(top, 1 << 63)),
    ];
    for (range, wanted) in cases {
        let mut batch = tree.batch();
        let source = &mut PhysRange::new(PhysAddr(1 << 30), range.size >> 12);
        let results = [
            tree.map(range, source, DATA, LeafSet::ALL),
            tree.unmap(range, &mut batch),
            tree.protect(range, |old| old, &mut batch),
            tree.set_valid(range, false, &mut batch),
            tree.split(range, &mut batch),
            tree.coalesce(range, &mut batch),
        ];
        for result in results {
            assert_eq!(result.expect_err("refused").error, wanted, "{range:?}");
        }
        assert_eq!(tree.visit(range, |_| paging::Visit::Continue), Err(wanted));
    }
    assert_eq!(tree.tables().log.take(), [], "nothing was done");
    let last = VirtRange::new(top, 1 << 12);
    tree.map(
        last,
        &mut PhysRange::new(PhysAddr(1 << 30), 1),
        DATA,
        LeafSet::ALL,
    )
    .expect("mapped");
    let mut batch = tree.batch();
    tree.protect(last, |old| old.read_only(), &mut batch)
        .expect("mapped");
    tree.split(last, &mut batch).expect("nothing to split");
    tree.coalesce(last, &mut batch).expect("nothing to fold");
    assert!(
        tree.translate(VirtAddr(u64::MAX))
            .is_some_and(|leaf| !leaf.attributes.is_writable())
    );
    tree.unmap(last, &mut batch).expect("mapped");
    batch.flush();
    crate::support::prune(&tree);
    assert_eq!(tree.tables().host.live(), 1);
}

#[test]
fn a_leaf_that_ends_with_the_address_space_is_cut_at_its_head() {
    let tree = traced::<Granule4K>(Config::default(), false);
    let start = VirtAddr(0u64.wrapping_sub(1 << 30));
    let all = VirtRange::new(start, 1 << 30);
    tree.map(
        all,
        &mut PhysRange::new(PhysAddr(1 << 30), 1 << 18),
        DATA,
        LeafSet::ALL,
    )
    .expect("mapped");
    let mut batch = tree.batch();
    let tail = VirtRange::new(VirtAddr(0u64.wrapping_sub(0x5000)), 0x5000);
    tree.split(tail, &mut batch).expect("memory suffices");
    let outcome = tree.unmap(tail, &mut batch).expect("memory suffices");
    batch.flush();
    assert_eq!(outcome.leaves.pages::<Granule4K>(), 5);
    assert!(tree.translate(VirtAddr(tail.start.0 - 1)).is_some());
    assert!(tree.translate(VirtAddr(u64::MAX)).is_none());
    audit(&tree);
}

#[test]
fn writable_and_executable_at_once_is_refused_before_anything_changes() {
    let tree = traced::<Granule4K>(Config::default(), false);
    let range = VirtRange::new(base(&tree), 40 << 12);
    let mut source = PhysRange::new(PhysAddr(1 << 30), 40);
    let failure = tree
        .map(range, &mut source, DATA.executable(), LeafSet::ALL)
        .expect_err("W^X");
    assert_eq!(failure.error, Error::WritableExecutable(range.start));
    let text = DATA.read_only().executable();
    tree.map(
        range,
        &mut PhysRange::new(PhysAddr(1 << 30), 40),
        text,
        LeafSet::ALL,
    )
    .expect("mapped");
    let page = VirtRange::new(base(&tree).add(20 << 12), 1 << 12);
    let mut batch = tree.batch();
    tree.protect(page, |_| DATA, &mut batch).expect("memory suffices");
    batch.flush();
    let before = tree.tables().host.snapshot();
    let mut batch = tree.batch();
    let failure = tree
        .protect(range, Attributes::executable, &mut batch)
        .expect_err("W^X");
    assert_eq!(failure.error, Error::WritableExecutable(page.start));
    let failure = tree
        .protect(range, Attributes::writable, &mut batch)
        .expect_err("W^X");
    assert_eq!(failure.error, Error::WritableExecutable(range.start));
    assert!(batch.pending().is_empty());
    drop(batch);
    assert_eq!(tree.tables().host.snapshot(), before);
}

#[test]
fn protect_of_a_range_with_a_hole_changes_nothing() {
    for hole in [0, 1, 15, 16, 31, 600, 1099] {
        let tree = traced::<Granule4K>(Config::default(), false);
        Op::map(0, Shape::Range(1 << 24, 1100))
            .apply(&tree, base(&tree))
            .expect("vacant");
        Op::Unmap { page: hole, pages: 1 }
            .apply(&tree, base(&tree))
            .expect("memory suffices");
        let before = tree.tables().host.snapshot();
        let mut batch = tree.batch();
        let range = VirtRange::new(base(&tree), 1100 << 12);
        let va = base(&tree).add(hole << 12);
        for result in [
            tree.protect(range, Attributes::read_only, &mut batch),
            tree.set_valid(range, false, &mut batch),
        ] {
            assert_eq!(result.expect_err("a hole").error, Error::NotMapped(va));
        }
        assert!(batch.pending().is_empty());
        drop(batch);
        assert_eq!(tree.tables().host.snapshot(), before);
    }
}
