use super::ops::{Source, What, everything, maps, ops, ranges};
use super::search::Search;
use super::{EDGES, FEW_EDGES, assert_searched};
use paging::{BreakPolicy, LeafSet};

fn with_policy(name: &str, change: impl Fn(&mut Search)) {
    let map = ops(&ranges(&FEW_EDGES), &maps());
    let edits = ops(&ranges(&EDGES), &everything());
    let mut search = Search::new(vec![map, edits.clone()]);
    change(&mut search);
    assert_searched(name, &search, 1000);
    let map = ops(&[(0, 64), (1, 63)], &[What::Map(Source::Congruent)]);
    search.ops = vec![map, edits.clone(), ops(&ranges(&FEW_EDGES), &everything())];
    search.depth += 1;
    assert_searched(name, &search, 1000);
}

#[test]
fn without_range_tlbis() {
    with_policy("by VA", |search| search.features.tlbi_range = false);
}

#[test]
fn where_more_than_two_tlbis_become_one_for_all() {
    with_policy("flush all", |search| search.config.flush_all_above = 2);
    with_policy("flush all, by VA", |search| {
        search.config.flush_all_above = 2;
        search.features.tlbi_range = false;
    });
}

#[test]
fn where_every_tlbi_is_repeated() {
    with_policy("repeat TLBI", |search| search.config.repeat_tlbi = true);
}

#[test]
fn without_contiguous_groups() {
    with_policy("no groups", |search| {
        search.config.leaves = LeafSet::ALL.without_groups()
    });
}

#[test]
fn in_place_on_a_cpu_that_tolerates_it() {
    with_policy("in place", |search| {
        search.config.break_policy = BreakPolicy::InPlace;
        search.features.tolerates_size_change = true;
    });
}

#[test]
#[should_panic(expected = "BreakBeforeMake")]
fn in_place_on_a_cpu_that_does_not_tolerate_it_is_found_out() {
    let mut search = Search::new(vec![
        ops(&[(0, 64)], &[What::Map(Source::Congruent)]),
        ops(&[(1, 1)], &[What::Unmap]),
    ]);
    search.config.break_policy = BreakPolicy::InPlace;
    let _ = search.run_here();
}
