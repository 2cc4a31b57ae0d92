//! DESIGN rule 7: for any missing table, bad frame or page in the way.

mod out_of_tables;
mod refused;
mod sources;
use crate::support;

use paging::mmu::MmuEvent;
use paging::{Attributes, Config, Granule, Granule4K, LevelMask, PhysAddr};
use std::collections::BTreeMap;
use support::corpus::{base, corpus};
use support::ops::Op;
use support::traced::{Event, TracedTree, traced};

const DATA: Attributes = Attributes::KERNEL_DATA;

fn prepared<G: Granule>(setup: &[Op], config: Config) -> TracedTree<G> {
    let tree = traced::<G>(config, false);
    for op in setup {
        op.apply(&tree, base(&tree))
            .unwrap_or_else(|failure| panic!("{op:?}: {failure}"));
    }
    tree.tables().log.take();
    tree.tables().host.reset_counts();
    tree
}

fn levels<G: Granule>(tree: &TracedTree<G>) -> BTreeMap<PhysAddr, i8> {
    fn below<G: Granule>(
        tree: &TracedTree<G>,
        table: PhysAddr,
        level: i8,
        levels: &mut BTreeMap<PhysAddr, i8>,
    ) {
        levels.insert(table, level);
        for index in 0..G::ENTRIES {
            let found = tree.tables().host.peek(table, index);
            if level < 3 && found & 3 == 3 {
                below(
                    tree,
                    PhysAddr(found & 0xffff_ffff_f000 & !(G::PAGE_SIZE - 1)),
                    level + 1,
                    levels,
                );
            }
        }
    }
    let mut levels = BTreeMap::new();
    below(tree, tree.root(), G::ROOT_LEVEL, &mut levels);
    levels
}

/// `before` are the tables linked at first.
fn levels_written<G: Granule>(before: BTreeMap<PhysAddr, i8>, events: &[Event]) -> LevelMask {
    let mut linked = before;
    let mut mask = LevelMask::NONE;
    for event in events {
        let Event::Store { table, old, new, .. } = *event else {
            continue;
        };
        let Some(level) = linked.get(&table).copied() else {
            continue;
        };
        let link = |value: u64| {
            (level < 3 && value & 3 == 3).then_some(PhysAddr(value & 0xffff_ffff_f000 & !(G::PAGE_SIZE - 1)))
        };
        mask.insert(level);
        if let Some(gone) = link(old) {
            linked.remove(&gone);
        }
        if let Some(new) = link(new) {
            linked.insert(new, level + 1);
        }
    }
    mask
}

fn assert_freed_in_order(events: &[Event], what: &str) {
    for (i, event) in events.iter().enumerate() {
        let Event::Free(table) = event else { continue };
        let linked = events[..i].iter().rposition(
            |event| matches!(event, Event::Store { old, .. } if old & 3 == 3 && old & 0xffff_ffff_f000 == table.0),
        );
        let Some(unlinked) = linked else { continue };
        let since: Vec<_> = events[unlinked..i].to_vec();
        let tlbi = since.iter().position(Event::is_tlbi);
        let dsb = since
            .iter()
            .rposition(|event| *event == Event::Mmu(MmuEvent::DsbIsh));
        assert!(
            tlbi.is_some() && tlbi < dsb,
            "{what}: {table:?} is freed before its invalidation: {since:?}"
        );
    }
}

#[test]
fn the_levels_reported_are_the_levels_written() {
    for case in corpus::<Granule4K>() {
        let tree = prepared::<Granule4K>(&case.setup, Config::default());
        let linked = levels(&tree);
        let outcome = case.op.apply(&tree, base(&tree)).expect("memory suffices");
        let events = tree.tables().log.take();
        let written = levels_written::<Granule4K>(linked.clone(), &events);
        let after = levels(&tree);
        let new = after.iter().filter(|(table, _)| !linked.contains_key(table));
        let mut wanted = written;
        for (table, level) in new {
            if events
                .iter()
                .any(|event| matches!(event, Event::Store { table: t, .. } if t == table))
            {
                wanted.insert(*level);
            }
        }
        for level in 0..4 {
            let gone = linked
                .iter()
                .any(|(table, l)| *l == level && !after.contains_key(table));
            if gone && outcome.levels.contains(level) {
                wanted.insert(level);
            }
        }
        assert_eq!(outcome.levels, wanted, "{}", case.name);
    }
}

#[test]
fn tables_added_and_removed_are_counted_and_freed_in_order() {
    for case in corpus::<Granule4K>() {
        for repeat_tlbi in [false, true] {
            let config = Config {
                repeat_tlbi,
                ..Config::default()
            };
            let tree = prepared::<Granule4K>(&case.setup, config);
            let before = tree.tables().host.live() as i64;
            let outcome = case.op.apply(&tree, base(&tree)).expect("memory suffices");
            let after = tree.tables().host.live() as i64;
            let change = i64::from(outcome.tables_added) - i64::from(outcome.tables_removed);
            assert_eq!(after - before, change, "{}: {outcome:?}", case.name);
            assert_freed_in_order(&tree.tables().log.take(), case.name);
        }
    }
}

#[test]
fn no_operation_of_the_corpus_takes_tables_that_it_does_not_link() {
    for case in corpus::<Granule4K>() {
        let tree = prepared::<Granule4K>(&case.setup, Config::default());
        let outcome = case.op.apply(&tree, base(&tree)).expect("memory suffices");
        let taken = tree.tables().host.allocated.get();
        assert_eq!(taken, u64::from(outcome.tables_added), "{}", case.name);
    }
}
