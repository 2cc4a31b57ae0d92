//! Edits before one flush give the same tables as with a flush each, and no TLB may hold two
//! translations that disagree (Arm ARM D8.16.1).

use super::ops::{Change, Op, Source, What, ops};
use super::{BASE, PAGE, TinyBatch, TinyTree};
use mmu_model::{Features, Model};
use paging::{BreakPolicy, Config, Half, TinyGranule, Tree, VirtAddr, VirtRange};

#[derive(Clone, Copy, Debug)]
enum Edit {
    Op(Op),
    /// First page, pages, and whether they become valid.
    SetValid(u64, u64, bool),
}

impl Edit {
    fn run<'t, 'a>(self, tree: &'t TinyTree<'a>, batch: &mut TinyBatch<'t, 'a>) -> bool {
        match self {
            Self::Op(op) => op.run_in(tree, batch).is_ok(),
            Self::SetValid(start, pages, valid) => {
                let range = VirtRange::new(VirtAddr(BASE + start * PAGE), pages * PAGE);
                tree.set_valid(range, valid, batch).is_ok()
            }
        }
    }
}

fn edits() -> Vec<Edit> {
    let ranges = [(0, 64), (0, 32), (32, 16), (0, 2), (1, 1), (2, 6)];
    let whats = [
        What::Unmap,
        What::Protect(Change::ReadOnly),
        What::Protect(Change::Writable),
        What::Protect(Change::Uncached),
        What::Split,
        What::Coalesce,
    ];
    let validity = ranges
        .iter()
        .flat_map(|(start, pages)| [false, true].map(|valid| Edit::SetValid(*start, *pages, valid)));
    ops(&ranges, &whats)
        .into_iter()
        .map(Edit::Op)
        .chain(validity)
        .collect()
}

fn every_three_edits_in_one_batch(features: Features, config: Config) {
    let (model, root) = Model::<TinyGranule>::with_root(Features {
        log_events: 300,
        ..features
    });
    let tree = Tree::new(root, Half::High, model.cpu(0), model.cpu(0), config);
    let map = Op {
        what: What::Map(Source::Congruent),
        start: 0,
        pages: 64,
    };
    map.run(&tree).expect("memory suffices");
    let mapped = model.state();
    let edits = edits();
    let mut nr = 0;
    for first in &edits {
        for second in &edits {
            for third in &edits {
                let steps = [first, second, third];
                model.restore(&mapped);
                let one_by_one = steps.map(|edit| edit.run(&tree, &mut tree.batch()));
                let expected = model.canonical();
                model.restore(&mapped);
                let mut batch = tree.batch();
                let together = steps.map(|edit| edit.run(&tree, &mut batch));
                batch.flush();
                if !model.is_quiescent() || !model.violations().is_empty() {
                    println!("{steps:?}");
                    model.assert_quiescent();
                }
                assert_eq!(together, one_by_one, "{steps:?}");
                assert_eq!(model.canonical(), expected, "{steps:?}");
                nr += 1;
            }
        }
    }
    println!("{nr} batches of three edits");
}

#[test]
fn three_edits_of_the_same_pages_may_share_a_flush() {
    every_three_edits_in_one_batch(
        Features {
            tlbi_range: true,
            ..Features::default()
        },
        Config::default(),
    );
}

#[test]
fn and_where_the_size_of_a_leaf_changes_in_place() {
    every_three_edits_in_one_batch(
        Features {
            tolerates_size_change: true,
            ..Features::default()
        },
        Config {
            break_policy: BreakPolicy::InPlace,
            ..Config::default()
        },
    );
}
