//! Tables that are made, emptied and pruned by several at once.

use crate::{Checked, Schedules, on_schedules, on_schedules_of};
use paging::LeafSize;

#[test]
fn two_threads_in_one_table_count_right() {
    on_schedules(
        |_| {},
        &[
            |tree| {
                tree.map(0, 1);
                tree.assert_maps(0, 1);
                assert_eq!(tree.unmap_keeping(0, 1), 1);
                tree.assert_vacant(0, 1);
            },
            |tree| {
                tree.map(1, 2);
                tree.assert_maps(1, 2);
                assert_eq!(tree.unmap_keeping(1, 2), 2);
                tree.map(1, 1);
                tree.assert_maps(1, 1);
            },
        ],
    );
}

#[test]
fn a_table_is_made_by_one_of_those_who_miss_it() {
    on_schedules(
        |_| {},
        &[
            |tree| tree.map(0, 1),
            |tree| tree.map(1, 1),
            |tree| {
                tree.map(5, 1);
                tree.assert_maps(5, 1);
            },
        ],
    );
}

#[test]
fn a_table_that_empties_is_unlinked_or_used_and_never_both() {
    on_schedules(
        |tree| tree.map(0, 1),
        &[
            |tree| assert_eq!(tree.unmap(0, 1), 1),
            |tree| {
                tree.map(1, 1);
                tree.assert_maps(1, 1);
                tree.map(2, 1);
                tree.assert_maps(1, 2);
            },
        ],
    );
}

#[test]
fn whoever_takes_the_last_leaf_takes_the_table() {
    on_schedules(
        |tree| {
            tree.map(0, 1);
            tree.map(1, 1);
            tree.map(6, 1);
        },
        &[
            |tree| assert_eq!(tree.unmap(0, 1), 1),
            |tree| assert_eq!(tree.unmap(1, 1), 1),
            |tree| assert_eq!(tree.unmap(6, 1), 1),
        ],
    );
}

#[test]
fn a_hole_is_passed_over_while_its_tables_go() {
    on_schedules(
        |tree| tree.map(9, 1),
        &[
            // The last leaf below two tables: both go.
            |tree| assert_eq!(tree.unmap(9, 1), 1),
            // Holes under the same tables, in their first descriptors and over the border of two of them.
            |tree| assert_eq!(tree.unmap(0, 7), 0),
            |tree| assert_eq!(tree.unmap(8, 1), 0),
        ],
    );
}

#[test]
fn an_emptied_table_that_was_replaced_meanwhile_is_another() {
    for schedules in [Schedules::Random, Schedules::Priorities] {
        on_schedules_of(
            24,
            schedules,
            |tree| {
                tree.map(1, 1);
                tree.map(12, 1);
            },
            &[
                // Holes: two of the first table and one of the second.
                |tree| assert_eq!(tree.unmap(2, 3), 0),
                |tree| {
                    assert_eq!(tree.unmap(1, 1), 1);
                    tree.map(1, 1);
                    assert_eq!(tree.unmap(1, 1), 1);
                    tree.map(1, 1);
                    assert_eq!(tree.unmap(1, 1), 1);
                },
            ],
        );
    }
}

#[test]
fn a_map_is_not_refused_for_what_is_on_its_way_out() {
    on_schedules(
        |tree| {
            tree.map(3, 1);
            tree.map(20, 1);
        },
        &[
            |tree| assert_eq!(tree.unmap(3, 1), 1),
            |tree| assert_eq!(tree.unmap(20, 1), 1),
            |tree| {
                tree.map(4, 13);
                tree.assert_maps(4, 13);
                assert_eq!(tree.unmap(4, 13), 13);
            },
        ],
    );
}

#[test]
fn pruning_beside_maps_loses_nothing() {
    on_schedules(
        |tree| {
            tree.map(0, 1);
            tree.unmap_keeping(0, 1);
        },
        &[
            |tree| tree.prune(),
            |tree| {
                tree.map(1, 1);
                tree.assert_maps(1, 1);
            },
            |tree| {
                tree.map(6, 1);
                tree.assert_maps(6, 1);
                assert_eq!(tree.unmap_keeping(6, 1), 1);
                tree.prune();
            },
        ],
    );
}

#[test]
fn a_block_where_a_table_is_being_pruned_stays() {
    on_schedules(
        |tree| {
            tree.map(5, 1);
            tree.unmap_keeping(5, 1);
            tree.map(12, 1);
        },
        &[
            |tree| tree.prune(),
            |tree| {
                // Exactly the block that the empty table translates; and then two of them at once.
                tree.map(4, 4);
                tree.assert_maps(4, 4);
                let leaf = tree.0.translate(tree.range(4, 1).start).expect("mapped");
                assert_eq!(leaf.size, LeafSize::BLOCK2);
            },
        ],
    );
    on_schedules(
        |tree| {
            tree.map(1, 1);
            tree.map(5, 1);
            tree.unmap_keeping(1, 1);
            tree.unmap_keeping(5, 1);
            tree.map(12, 1);
        },
        &[
            |tree| tree.prune(),
            |tree| {
                tree.map(0, 8);
                tree.assert_maps(0, 8);
            },
            |tree| tree.prune(),
        ],
    );
}

#[test]
fn a_table_that_an_unmap_covers_whole_is_pruned_or_buried_and_never_both() {
    let setup: fn(Checked) = |tree| {
        tree.map(5, 1);
        tree.unmap_keeping(5, 1);
        tree.map(9, 1);
    };
    // The empty table's own span; all of the table above it; and all that there is.
    on_schedules(
        setup,
        &[
            |tree| tree.prune(),
            |tree| assert_eq!(tree.unmap_keeping(4, 4), 0),
        ],
    );
    on_schedules(
        setup,
        &[
            |tree| tree.prune(),
            |tree| assert_eq!(tree.unmap_keeping(0, 16), 1),
        ],
    );
    on_schedules(
        setup,
        &[
            |tree| tree.prune(),
            |tree| assert_eq!(tree.unmap(0, 64), 1),
            |tree| tree.prune(),
        ],
    );
}
