//! The commonest calls, to the last barrier.

use crate::support;

use mmu_model::{Features, Model};
use paging::{
    Attributes, Config, Error, Extent, Failure, Granule4K, Half, LeafSet, LeafSize, Mmu, Outcome, Pfn,
    PhysAddr, Tables, Tree, VirtAddr, VirtRange,
};
use support::Shape;
use support::traced::{Event, TracedTree, traced, word};

const PAGES_2M: u64 = 512;
const PAGES_1G: u64 = 512 * 512;

const CASES: [(&str, u64, LeafSet); 12] = [
    ("one page", 1, LeafSet::ALL),
    ("sixteen pages", 16, LeafSet::PAGES),
    ("a group of pages", 16, LeafSet::ALL),
    ("three groups", 48, LeafSet::ALL),
    ("a full table of pages", PAGES_2M, LeafSet::PAGES),
    (
        "a full table of groups of pages",
        PAGES_2M,
        LeafSet::of(&[LeafSize::PAGE_GROUP]),
    ),
    ("a block", PAGES_2M, LeafSet::ALL),
    ("sixteen blocks", 16 * PAGES_2M, LeafSet::of(&[LeafSize::BLOCK2])),
    ("a group of blocks", 16 * PAGES_2M, LeafSet::ALL),
    (
        "a full table of blocks",
        PAGES_1G,
        LeafSet::of(&[LeafSize::BLOCK2]),
    ),
    (
        "a full table of groups of blocks",
        PAGES_1G,
        LeafSet::of(&[LeafSize::BLOCK2, LeafSize::BLOCK2_GROUP]),
    ),
    ("a block of 1G", PAGES_1G, LeafSet::ALL),
];

fn configs() -> Vec<(Config, bool)> {
    let mut configs = Vec::new();
    for tlbi_range in [false, true] {
        for repeat_tlbi in [false, true] {
            for flush_all_above in [1, 2, 8, 512] {
                let config = Config {
                    repeat_tlbi,
                    flush_all_above,
                    ..Config::default()
                };
                configs.push((config, tlbi_range));
            }
        }
    }
    configs
}

fn at<T: Tables, M: Mmu>(tree: &Tree<Granule4K, T, M>) -> VirtAddr {
    tree.range().start.add(1 << 46)
}

fn map<T: Tables, M: Mmu>(tree: &Tree<Granule4K, T, M>, va: VirtAddr, pages: u64, leaves: LeafSet) {
    Shape::Range(1 << 24, pages)
        .map(tree, va, Attributes::KERNEL_DATA, leaves)
        .expect("vacant");
}

fn mapped(
    config: Config,
    tlbi_range: bool,
    pages: u64,
    leaves: LeafSet,
    alone: bool,
) -> TracedTree<Granule4K> {
    let tree = traced::<Granule4K>(config, tlbi_range);
    let va = at(&tree);
    if !alone {
        let beside = if pages < PAGES_2M {
            va.add(100 << 12)
        } else {
            va.add(pages << 12)
        };
        map(&tree, beside, 1, LeafSet::PAGES);
    }
    map(&tree, va, pages, leaves);
    tree.tables().log.take();
    tree
}

fn unmap<T: Tables, M: Mmu>(tree: &Tree<Granule4K, T, M>, range: VirtRange) -> Result<Outcome, Failure> {
    let mut batch = tree.batch();
    let gone = tree.unmap(range, &mut batch);
    batch.flush();
    gone
}

#[test]
fn one_flush_is_one_word_under_every_policy() {
    for (name, pages, leaves) in CASES {
        for (config, tlbi_range) in configs() {
            for alone in [false, true] {
                let name = format!("{name}, {config:?}, by range {tlbi_range}, alone {alone}");
                let tree = mapped(config, tlbi_range, pages, leaves, alone);
                let range = VirtRange::new(at(&tree), pages << 12);
                let live = tree.tables().host.live();
                let gone = unmap(&tree, range).expect("nothing is cut");
                assert_eq!(gone.leaves.pages::<Granule4K>(), pages, "{name}");
                let left = tree.tables().host.live() + gone.tables_removed as usize;
                assert_eq!(left, live, "{name}");
                let log = tree.tables().log.take();
                let flushes = if config.repeat_tlbi { "sTdTdi" } else { "sTdi" };
                let frees = if gone.tables_removed == 0 { "" } else { "F" };
                assert_eq!(word(&log), format!("S{flushes}{frees}"), "{name}");
            }
        }
    }
}

#[test]
fn a_full_table_that_goes_is_not_written_to() {
    for (name, pages, leaves) in CASES.into_iter().filter(|(name, ..)| name.contains("full table")) {
        let tree = mapped(Config::default(), true, pages, leaves, false);
        let range = VirtRange::new(at(&tree), pages << 12);
        let outcome = unmap(&tree, range).expect("nothing is cut");
        assert_eq!(outcome.tables_removed, 1, "{name}");
        let log = tree.tables().log.take();
        let stores = log.iter().filter(|event| matches!(event, Event::Store { .. }));
        assert_eq!(stores.count(), 2, "{name}");
        assert_eq!(log.iter().filter(|event| event.is_tlbi()).count(), 1, "{name}");
    }
}

fn on_the_model(
    name: &str,
    pages: u64,
    leaves: LeafSet,
    config: Config,
    tlbi_range: bool,
    hole: Option<u64>,
) {
    let (model, root) = Model::<Granule4K>::with_root(Features {
        pa_bits: 48,
        tlbi_range,
        ..Features::default()
    });
    let cpu = model.cpu(0);
    let tree = Tree::<Granule4K, _, _>::new(root, Half::High, cpu, cpu, config);
    let va = at(&tree);
    let sound = |step: &str| {
        let violations = model.violations();
        assert!(
            violations.is_empty(),
            "{name}, {step}: {}\n{}",
            violations[0],
            model.log()
        );
        assert!(model.is_quiescent(), "{name}, {step}: something is not flushed");
    };
    map(&tree, va.add(pages << 12), 1, LeafSet::PAGES);
    let tables = model.nr_tables();
    for round in 0..2 {
        map(&tree, va, pages, leaves);
        sound("mapped");
        if let Some(hole) = hole {
            let hole = VirtRange::new(va.add(hole << 12), 0x1000);
            unmap(&tree, hole).expect("memory suffices");
            sound("with a hole");
        }
        let out = unmap(&tree, VirtRange::new(va, pages << 12));
        assert_eq!(
            out.map(|out| out.leaves.pages::<Granule4K>()),
            Ok(pages - u64::from(hole.is_some())),
            "{name}, round {round}"
        );
        sound("unmapped");
        tree.prune(tree.range()).expect("its own range");
        assert_eq!(model.nr_tables(), tables, "{name}: no table is lost");
    }
    map(&tree, va, 1, LeafSet::PAGES);
    sound("mapped anew");
}

#[test]
fn leaves_taken_out_at_once_break_no_rule_on_the_worst_machine() {
    for (name, pages, leaves) in CASES {
        for (config, tlbi_range) in configs() {
            on_the_model(name, pages, leaves, config, tlbi_range, None);
        }
        if pages > 1 && pages < PAGES_1G {
            on_the_model(name, pages, leaves, Config::default(), true, Some(pages / 2));
        }
    }
}

fn extents(second: u64) -> Shape {
    let starts = [1 << 20, second, 3 << 20];
    Shape::Extents(
        starts
            .map(|start| Extent {
                start: Pfn(start),
                pages: PAGES_2M,
            })
            .to_vec(),
    )
}

#[test]
fn runs_of_blocks_go_into_one_table_and_what_is_none_below_it() {
    for beside in [false, true] {
        for (second, blocks, groups, pages) in [
            (2 << 20, 3, 0, 0),
            (5 << 20 | 16, 2, 32, 0),
            (5 << 20 | 1, 2, 0, 512),
        ] {
            let tree = traced::<Granule4K>(Config::default(), false);
            let va = at(&tree).add(5 << 21);
            if beside {
                map(&tree, at(&tree), 1, LeafSet::PAGES);
            }
            let tables = tree.tables().host.live();
            tree.tables().log.take();
            let mapped = extents(second).map(&tree, va, Attributes::KERNEL_DATA, LeafSet::ALL);
            let leaves = mapped.expect("vacant").leaves;
            let of = [LeafSize::BLOCK2, LeafSize::PAGE_GROUP, LeafSize::PAGE].map(|size| leaves.get(size));
            assert_eq!(
                of,
                [blocks, groups, pages],
                "{second:#x}, beside another: {beside}"
            );
            let log = tree.tables().log.take();
            assert!(word(&log).ends_with("Ssi") && word(&log).matches('s').count() == 1);
            support::audit(&tree);
            let all = VirtRange::new(va, (3 * PAGES_2M) << 12);
            let gone = unmap(&tree, all).expect("nothing is cut");
            assert_eq!(gone.leaves, leaves);
            support::prune(&tree);
            assert_eq!(tree.tables().host.live(), tables);
        }
    }
}

#[test]
fn runs_of_blocks_before_one_that_fails_go_again() {
    let beyond = 1 << 40;
    for (second, budget) in [(beyond, 9), (5 << 20 | 1, 0)] {
        let tree = traced::<Granule4K>(Config::default(), false);
        let va = at(&tree).add(5 << 21);
        map(&tree, at(&tree), 1, LeafSet::PAGES);
        let before = tree.tables().host.snapshot();
        tree.tables().host.budget.set(budget);
        let failed = extents(second)
            .map(&tree, va, Attributes::KERNEL_DATA, LeafSet::ALL)
            .expect_err("the second extent cannot be mapped");
        let wanted = if budget == 0 {
            Error::OutOfTables(3)
        } else {
            Error::PhysicalRange(PhysAddr(beyond << 12))
        };
        assert_eq!(failed.error, wanted);
        assert!(failed.levels.contains(2), "the first was written");
        tree.prune(tree.range()).expect("the tree's own range");
        assert_eq!(tree.tables().host.snapshot(), before);
        assert!(tree.tables().log.take().iter().any(Event::is_tlbi));
    }
}

#[test]
fn a_prune_takes_what_an_unmap_left_empty() {
    for (name, pages, leaves) in CASES {
        let tree = mapped(Config::default(), true, pages, leaves, true);
        let range = VirtRange::new(at(&tree), pages << 12);
        let outcome = unmap(&tree, range).expect("nothing is cut");
        assert_eq!(outcome.leaves.pages::<Granule4K>(), pages, "{name}");
        let left = tree.tables().host.live();
        let pruned = tree.prune(range).expect("a valid range");
        assert_eq!(pruned.tables_removed as usize, left - 1, "{name}");
        assert_eq!(tree.tables().host.live(), 1, "{name}: the root alone is left");
    }
}
