use crate::faults::{assert_freed_in_order, levels, levels_written, prepared};
use crate::support::corpus::{Case, base, corpus};
use crate::support::ops::{Change, Op};
use crate::support::traced::{Event, traced};
use crate::support::{Shape, audit, leaves_in};
use paging::{
    Config, Error, Granule, Granule4K, Granule16K, Granule64K, LevelMask, Tables, TinyGranule, VirtRange,
};

/// With k tables the operation fails, until k suffices.
fn every_allocation_fails<G: Granule>(case: &Case) -> u64 {
    let name = format!("{} on {}", case.name, G::NAME);
    let tree = prepared::<G>(&case.setup, Config::default());
    case.op
        .apply(&tree, base(&tree))
        .unwrap_or_else(|failure| panic!("{name}: {failure}"));
    let needed = tree.tables().host.allocated.get();
    let wanted = leaves_in(&tree, tree.range());
    audit(&tree);
    for k in 0..needed {
        let tree = prepared::<G>(&case.setup, Config::default());
        let before = tree.tables().host.snapshot();
        let linked = levels(&tree);
        tree.tables().host.budget.set(k);
        let failure = match case.op.apply(&tree, base(&tree)) {
            Err(failure) => failure,
            Ok(outcome) => panic!("{name} with {k} of {needed} tables: {outcome:?}"),
        };
        assert!(
            matches!(failure.error, Error::OutOfTables(_)),
            "{name}, table {k}: {failure:?}"
        );
        assert_eq!(tree.tables().host.snapshot(), before, "{name}, table {k}");
        let events = tree.tables().log.take();
        assert_eq!(
            failure.levels,
            levels_written::<G>(linked, &events),
            "{name}, table {k}: levels"
        );
        assert_freed_in_order(&events, &name);
        audit(&tree);
        tree.tables().host.budget.set(u64::MAX);
        case.op
            .apply(&tree, base(&tree))
            .unwrap_or_else(|failure| panic!("{name} again: {failure}"));
        assert_eq!(leaves_in(&tree, tree.range()), wanted, "{name} after failure {k}");
        audit(&tree);
    }
    needed
}

fn every_allocation_of_the_corpus_fails<G: Granule>() {
    let needed: u64 = corpus::<G>().iter().map(every_allocation_fails::<G>).sum();
    assert!(
        needed > 100,
        "the corpus on {} allocates only {needed} tables",
        G::NAME
    );
}

#[test]
fn out_of_tables_at_any_allocation_leaves_everything_as_it_was_on_4k() {
    every_allocation_of_the_corpus_fails::<Granule4K>();
}

#[test]
fn out_of_tables_at_any_allocation_leaves_everything_as_it_was_on_16k() {
    every_allocation_of_the_corpus_fails::<Granule16K>();
}

#[test]
fn out_of_tables_at_any_allocation_leaves_everything_as_it_was_on_64k() {
    every_allocation_of_the_corpus_fails::<Granule64K>();
}

#[test]
fn the_tiny_granule_survives_every_failure_of_every_range() {
    for page in 0..64 {
        for pages in 1..=64 - page {
            let setup = Op::map(0, Shape::Range(0x1000, 64));
            for op in [
                Op::Unmap { page, pages },
                Op::Protect {
                    page,
                    pages,
                    change: Change::ReadOnly,
                },
                Op::Split { page, pages },
            ] {
                let run = |k: u64| {
                    let tree = traced::<TinyGranule>(Config::default(), false);
                    let start = tree.range().start;
                    setup.apply(&tree, start).expect("vacant");
                    let before = tree.tables().host.snapshot();
                    tree.tables().host.budget.set(k);
                    let result = op.apply(&tree, start);
                    audit(&tree);
                    if result.is_err() {
                        assert_eq!(tree.tables().host.snapshot(), before, "{op:?} with {k} tables");
                    }
                    result.is_ok()
                };
                let enough = (0..10).find(|k| run(*k));
                assert!(enough.is_some_and(|k| k <= 4), "{op:?} takes {enough:?} tables");
            }
        }
    }
}

#[test]
fn a_table_that_was_never_linked_needs_no_invalidation() {
    let tree = traced::<Granule4K>(Config::default(), false);
    Op::map(1 << 18, Shape::Range(1 << 18, 1 << 18))
        .apply(&tree, base(&tree))
        .expect("vacant");
    tree.tables().log.take();
    tree.tables().host.budget.set(2);
    let range = VirtRange::new(base(&tree).add((1 << 30) + 0x1000), (1 << 29) + 0x1000);
    let mut batch = tree.batch();
    let failure = tree.unmap(range, &mut batch).expect_err("three are needed");
    drop(batch);
    assert_eq!(failure.levels, LevelMask::NONE);
    let events = tree.tables().log.take();
    let kinds: String = events.iter().map(Event::letter).collect();
    assert_eq!(kinds, "AAAFF", "{events:?}");
    let _ = tree.tables().alloc_table();
}
