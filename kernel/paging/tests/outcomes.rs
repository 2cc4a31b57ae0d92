use crate::support;

use paging::{
    Attributes, Config, Granule, Granule4K, Granule16K, LeafCounts, LeafSet, LeafSize, MemoryType, Outcome,
    Pending,
};
use support::corpus::{Case, base, corpus};
use support::ops::{Change, Op};
use support::traced::{TracedTree, traced, word};
use support::{Naive, Shape, leaves_in};

fn after<G: Granule>(setup: &[Op], op: &Op) -> (TracedTree<G>, Naive, Outcome) {
    let tree = traced::<G>(Config::default(), false);
    for op in setup {
        op.apply(&tree, base(&tree)).expect("memory suffices");
    }
    let before = Naive::of(&tree);
    let outcome = op.apply(&tree, base(&tree)).expect("memory suffices");
    (tree, before, outcome)
}

fn counted<G: Granule>(tree: &TracedTree<G>) -> LeafCounts {
    let mut counts = LeafCounts::default();
    leaves_in(tree, tree.range())
        .iter()
        .for_each(|leaf| counts.add(leaf.size, 1));
    counts
}

fn small<G: Granule>() -> Vec<Case> {
    let mut cases = corpus::<G>();
    cases.retain(|case| !case.name.contains("level 1 block") && !case.name.contains("group of blocks"));
    cases
}

#[test]
fn the_pages_counted_are_the_pages_changed() {
    for case in small::<Granule4K>() {
        let (tree, before, outcome) = after::<Granule4K>(&case.setup, &case.op);
        let now = Naive::of(&tree);
        let differ =
            |a: &Naive, b: &Naive| a.0.iter().filter(|(va, page)| b.0.get(va) != Some(page)).count() as u64;
        let changed = match case.op {
            Op::Unmap { .. } | Op::UnmapLater { .. } => differ(&before, &now),
            Op::Map { .. } | Op::Protect { .. } | Op::SetValid { .. } => differ(&now, &before),
            Op::Split { .. } | Op::Coalesce { .. } | Op::Prune { .. } => {
                assert_eq!(before, now, "{}: nothing but leaf sizes changes", case.name);
                continue;
            }
        };
        assert_eq!(
            outcome.leaves.pages::<Granule4K>(),
            changed,
            "{}: {outcome:?}",
            case.name
        );
    }
}

#[test]
fn a_map_counts_every_leaf_and_an_unmap_of_all_counts_them_again() {
    fn granule<G: Granule>() {
        for case in corpus::<G>()
            .into_iter()
            .filter(|case| matches!(case.op, Op::Map { .. }) && case.setup.is_empty())
        {
            let (tree, _, outcome) = after::<G>(&case.setup, &case.op);
            assert_eq!(outcome.leaves, counted(&tree), "{}", case.name);
            let mut batch = tree.batch();
            let gone = tree.unmap(tree.range(), &mut batch).expect("takes no memory");
            batch.flush();
            assert_eq!(gone.leaves, outcome.leaves, "{}", case.name);
            assert_eq!(
                (gone.tables_removed, gone.tables_added),
                (outcome.tables_added, 0),
                "{}: the range covers all tables",
                case.name
            );
            assert_eq!(gone.levels, outcome.levels, "{}", case.name);
        }
    }
    granule::<Granule4K>();
    granule::<Granule16K>();
}

#[test]
fn an_unmap_flushed_later_does_and_says_the_same() {
    fn granule<G: Granule>() {
        for case in small::<G>() {
            let Op::Unmap { page, pages } = case.op else {
                continue;
            };
            let (tree, _, outcome) = after::<G>(&case.setup, &case.op);
            let (other, _, later) = after::<G>(&case.setup, &Op::UnmapLater { page, pages });
            assert_eq!(
                leaves_in(&tree, tree.range()),
                leaves_in(&other, other.range()),
                "{}",
                case.name
            );
            assert_eq!(
                tree.tables().host.live(),
                other.tables().host.live(),
                "{}",
                case.name
            );
            assert_eq!(outcome, later, "{}", case.name);
        }
    }
    granule::<Granule4K>();
    granule::<Granule16K>();
}

#[test]
fn an_unmap_takes_out_the_tables_that_it_covers_whole_and_no_other() {
    for (page, pages, tables) in [
        (0, 1, 0),
        (3, 508, 0),
        (0, 512, 1),
        (511, 513, 1),
        (1, 1023, 1),
        (0, 1024, 2),
    ] {
        let tree = traced::<Granule4K>(Config::default(), false);
        let whole = Op::Map {
            page: 0,
            shape: Shape::Range(3, 1024),
            attributes: Attributes::KERNEL_DATA,
            allowed: LeafSet::PAGES,
        };
        whole.apply(&tree, base(&tree)).expect("vacant");
        let live = tree.tables().host.live();
        let mut batch = tree.batch();
        let range = Op::Unmap { page, pages }.range::<Granule4K>(base(&tree));
        let gone = tree.unmap(range, &mut batch).expect("nothing is cut");
        assert_eq!(gone.tables_removed, tables, "{page}+{pages}");
        assert_eq!(batch.pending().nr_dead_tables(), tables as usize);
        assert_eq!(tree.tables().host.live(), live, "none goes before the flush");
        batch.flush();
        assert_eq!(tree.tables().host.live(), live - tables as usize);
        assert!(leaves_in(&tree, range).is_empty());
    }
}

#[test]
fn what_is_left_to_another_flush_is_not_flushed_before() {
    let mut nr = 0;
    for case in corpus::<Granule4K>() {
        let Op::Unmap { .. } = case.op else {
            continue;
        };
        if !case.name.contains("the whole") {
            continue;
        }
        nr += 1;
        let tree = traced::<Granule4K>(Config::default(), false);
        for op in &case.setup {
            op.apply(&tree, base(&tree)).expect("memory suffices");
        }
        tree.tables().log.take();
        let mut batch = tree.batch();
        let range = case.op.range::<Granule4K>(base(&tree));
        tree.unmap(range, &mut batch).expect("nothing is cut");
        let mut pending = Pending::new();
        batch.defer_to(&mut pending);
        assert_eq!(word(&tree.tables().log.take()), "S", "{}", case.name);
        // Its removal is published all the same.
        let flush = if case.name.contains("invalid") {
            "si"
        } else {
            "sTdi"
        };
        tree.flush(pending, false);
        assert_eq!(word(&tree.tables().log.take()), flush, "{}", case.name);
    }
    assert!(nr >= 10, "{nr}");
}

#[test]
fn a_whole_leaf_that_changes_is_counted_once_in_place_or_broken() {
    for (size, pages) in [
        (LeafSize::PAGE, 1),
        (LeafSize::PAGE_GROUP, 16),
        (LeafSize::BLOCK2, 512),
        (LeafSize::BLOCK2_GROUP, 512 * 16),
        (LeafSize::BLOCK1, 1 << 18),
        (LeafSize::BLOCK1_GROUP, 1 << 22),
    ] {
        for change in [Change::ReadOnly, Change::Memory(MemoryType::NORMAL_NC)] {
            let setup = [Op::map(pages, Shape::Range(pages, pages))];
            let op = Op::Protect {
                page: pages,
                pages,
                change,
            };
            let tree = traced::<Granule4K>(Config::default(), false);
            for op in &setup {
                op.apply(&tree, base(&tree)).expect("vacant");
            }
            let outcome = op.apply(&tree, base(&tree)).expect("mapped");
            let mut once = LeafCounts::default();
            once.add(size, 1);
            assert_eq!(outcome.leaves, once, "{size:?} {change:?}");
            assert_eq!(counted(&tree), once, "it keeps its size");
            assert_eq!((outcome.tables_added, outcome.tables_removed), (0, 0));
        }
    }
}

#[test]
fn a_fold_takes_only_what_lies_in_the_range_whole() {
    let blocks = Op::Map {
        page: 512 * 16,
        shape: Shape::Range(512 * 16, 512 * 16),
        attributes: Attributes::KERNEL_DATA,
        allowed: LeafSet::of(&[LeafSize::BLOCK2]),
    };
    let pages = Op::Map {
        page: 16,
        shape: Shape::Range(16, 16),
        attributes: Attributes::KERNEL_DATA,
        allowed: LeafSet::PAGES,
    };
    for (setup, page, nr, folded) in [
        (&blocks, 512 * 16 + 1, 512 * 16 - 1, false),
        (&blocks, 512 * 16, 512 * 16 - 1, false),
        (&blocks, 512 * 16 - 7, 512 * 16 + 6, false),
        (&blocks, 512 * 16, 512 * 16, true),
        (&blocks, 512 * 16 - 3, 512 * 16 + 9, true),
        (&pages, 17, 15, false),
        (&pages, 16, 15, false),
        (&pages, 16, 16, true),
        (&pages, 3, 100, true),
    ] {
        let op = Op::Coalesce { page, pages: nr };
        let tree = traced::<Granule4K>(Config::default(), false);
        setup.apply(&tree, base(&tree)).expect("vacant");
        tree.tables().log.take();
        let outcome = op.apply(&tree, base(&tree)).expect("takes no memory");
        assert_eq!(
            leaves_in(&tree, tree.range()).len(),
            if folded { 1 } else { 16 },
            "{op:?}"
        );
        assert_eq!(!outcome.leaves.is_empty(), folded, "{op:?}");
        assert_eq!(tree.tables().log.take().is_empty(), !folded, "{op:?}");
    }
}

#[test]
fn outcomes_add_up() {
    let (_, _, mut sum) = after::<Granule4K>(&[], &Op::map(512, Shape::Range(512, 512 + 16)));
    let (_, _, other) = after::<Granule4K>(&[], &Op::map(0, Shape::Range(3, 2)));
    let (levels, leaves) = (
        sum.levels.bits() | other.levels.bits(),
        sum.leaves.pages::<Granule4K>() + other.leaves.pages::<Granule4K>(),
    );
    sum.merge(&other);
    assert_eq!(sum.levels.bits(), levels);
    assert_eq!(sum.leaves.pages::<Granule4K>(), leaves);
    assert_eq!(sum.leaves.display::<Granule4K>().to_string(), "1x2M 1x64K 2x4K");
    assert_eq!(format!("{:?}", sum.leaves), "{L2: 1, L3C: 1, L3: 2}");
    assert_eq!(format!("{:?}", sum.levels), "{0, 1, 2, 3}");
    assert_eq!(LeafCounts::default().display::<Granule4K>().to_string(), "none");
    sum.leaves.remove(LeafSize::PAGE, 2);
    assert_eq!(sum.leaves.get(LeafSize::PAGE), 0);
}

#[test]
#[should_panic(expected = "removing 1 L3")]
fn counts_do_not_go_below_zero() {
    LeafCounts::default().remove(LeafSize::PAGE, 1);
}
