//! Every sequence of operations up to a depth on the smallest geometry: 64 pages, three levels,
//! leaves of 1, 2, 4, 8, 16 and 32 pages. After each operation and flush no rule is broken, nothing
//! is stale or leaked, and the walker agrees with a naive map.
//!
//! `MMU_MODEL_DEPTH` adds to every depth: 0 takes half a minute on two CPUs, 1 some minutes.

mod one_batch;
mod ops;
mod policies;
mod search;

use mmu_model::{Cpu, Features, Model};
use ops::{EDITS, Op, SOURCES, Source, What, everything, ops, ranges};
use paging::{Config, FlushBatch, Half, TinyGranule, Tree};
use search::{Search, found};
use std::collections::BTreeMap;

type TinyTree<'a> = Tree<TinyGranule, Cpu<'a, TinyGranule>, Cpu<'a, TinyGranule>>;

type TinyBatch<'t, 'a> = FlushBatch<'t, TinyGranule, Cpu<'a, TinyGranule>, Cpu<'a, TinyGranule>>;

const PAGE: u64 = 1 << 12;
const BASE: u64 = 0u64.wrapping_sub(64 * PAGE);

/// Page to frame and attribute bits.
type Naive = BTreeMap<u64, (u64, u64)>;

#[track_caller]
fn assert_searched(name: &str, search: &Search, states: usize) {
    let (found, tried) = search.run();
    println!(
        "{name}: {found} states, {tried} operations, depth {}",
        search.depth
    );
    assert!(found >= states, "{name}: only {found} states");
}

/// Through the middle of every leaf, beside it, and at its border.
const EDGES: [u64; 11] = [0, 1, 2, 4, 7, 16, 24, 32, 33, 48, 64];

const FEW_EDGES: [u64; 6] = [0, 2, 17, 32, 56, 64];

const EIGHT_PAGES: [u64; 7] = [0, 1, 2, 3, 4, 6, 8];

#[test]
fn every_sequence_of_three_operations_over_the_whole_space() {
    let all = ops(&ranges(&EDGES), &everything());
    let last = ops(&ranges(&FEW_EDGES), &everything());
    assert_searched("whole space", &Search::new(vec![all.clone(), all, last]), 50_000);
}

#[test]
fn every_edit_of_every_edit_of_the_whole_space_mapped_with_the_largest_leaves() {
    let map = ops(&[(0, 64), (1, 63)], &[What::Map(Source::Congruent)]);
    let edits = ops(&ranges(&EDGES), &EDITS);
    let search = Search::new(vec![map, edits.clone(), edits]);
    assert_searched("largest leaves", &search, 10_000);
}

#[test]
fn every_sequence_of_four_operations_on_eight_pages() {
    let all = ops(&ranges(&EIGHT_PAGES), &everything());
    let last = ops(&[(0, 8), (0, 2), (1, 1), (1, 6), (2, 2), (4, 4)], &everything());
    let search = Search::new(vec![all.clone(), all.clone(), all, last]);
    assert_searched("eight pages", &search, 100_000);
}

#[test]
fn two_operations_may_share_a_flush() {
    let (model, root) = Model::<TinyGranule>::with_root(Features {
        log_events: 300,
        tlbi_range: true,
        ..Features::default()
    });
    let empty = model.state();
    let tree = Tree::new(root, Half::High, model.cpu(0), model.cpu(0), Config::default());
    let edits = ops(&ranges(&[0, 1, 4, 7, 16, 32, 33, 64]), &EDITS);
    for source in SOURCES {
        let map = Op {
            what: What::Map(source),
            start: 0,
            pages: 64,
        };
        model.restore(&empty);
        map.run(&tree).expect("memory suffices");
        let mapped = model.state();
        let before = found(&model);
        for first in &edits {
            for second in edits
                .iter()
                .filter(|second| !first.range().overlaps(second.range()))
            {
                model.restore(&mapped);
                let mut batch = tree.batch();
                let results = [first, second].map(|op| op.run_in(&tree, &mut batch));
                batch.flush();
                assert_eq!(results, [Ok(()), Ok(())], "{first:?}, {second:?}");
                if !model.is_quiescent() || !model.violations().is_empty() {
                    println!("{first:?}, {second:?} after {map:?}");
                    model.assert_quiescent();
                }
                let after = first.expected(&before).and_then(|naive| second.expected(&naive));
                assert_eq!(Ok(found(&model)), after, "{first:?}, {second:?} after {map:?}");
            }
        }
    }
}
