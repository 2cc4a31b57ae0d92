use crate::concurrent::{Schedules, on_schedules, on_schedules_of};
use paging::LeafSize;

#[test]
fn two_threads_in_one_table_write_their_own_leaves() {
    on_schedules(
        |_| {},
        &[
            |tree| {
                tree.map(0, 1);
                tree.assert_maps(0, 1);
                assert_eq!(tree.unmap(0, 1), 1);
                tree.assert_vacant(0, 1);
            },
            |tree| {
                tree.map(1, 2);
                tree.assert_maps(1, 2);
                assert_eq!(tree.unmap(1, 2), 2);
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
fn a_table_that_empties_stays_for_the_next_map() {
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
fn the_last_leaves_of_a_table_go_at_once_and_a_prune_takes_the_table() {
    on_schedules(
        |tree| {
            tree.map(0, 1);
            tree.map(1, 1);
            tree.map(6, 1);
        },
        &[
            |tree| assert_eq!(tree.unmap(0, 1), 1),
            |tree| {
                assert_eq!(tree.unmap(1, 1), 1);
                tree.prune();
            },
            |tree| assert_eq!(tree.unmap(6, 1), 1),
        ],
    );
}

#[test]
fn a_hole_is_passed_over_while_its_tables_go() {
    on_schedules(
        |tree| tree.map(9, 1),
        &[
            |tree| {
                assert_eq!(tree.unmap(9, 1), 1);
                tree.prune();
            },
            |tree| assert_eq!(tree.unmap(0, 7), 0),
            |tree| assert_eq!(tree.unmap(8, 1), 0),
        ],
    );
}

#[test]
fn a_table_that_was_pruned_and_made_again_meanwhile_is_another() {
    for schedules in [Schedules::Random, Schedules::Priorities] {
        on_schedules_of(
            24,
            schedules,
            |tree| {
                tree.map(1, 1);
                tree.map(12, 1);
            },
            &[
                |tree| assert_eq!(tree.unmap(2, 3), 0),
                |tree| {
                    assert_eq!(tree.unmap(1, 1), 1);
                    tree.prune();
                    tree.map(1, 1);
                    assert_eq!(tree.unmap(1, 1), 1);
                    tree.prune();
                    tree.map(1, 1);
                    assert_eq!(tree.unmap(1, 1), 1);
                },
            ],
        );
    }
}

#[test]
fn tables_that_a_range_covers_whole_go_beside_neighbours() {
    on_schedules(
        |tree| {
            tree.map(3, 10);
            tree.map(20, 1);
        },
        &[
            |tree| {
                assert_eq!(tree.unmap(3, 10), 10);
                tree.map(4, 8);
                tree.assert_maps(4, 8);
            },
            |tree| {
                tree.map(2, 1);
                tree.assert_maps(2, 1);
                assert_eq!(tree.unmap(2, 1), 1);
            },
            |tree| {
                tree.map(13, 3);
                tree.assert_maps(13, 3);
                assert_eq!(tree.unmap(20, 1), 1);
            },
        ],
    );
}

#[test]
fn pruning_between_maps_loses_nothing() {
    on_schedules(
        |tree| {
            tree.map(0, 1);
            tree.unmap(0, 1);
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
                assert_eq!(tree.unmap(6, 1), 1);
                tree.prune();
            },
        ],
    );
}

#[test]
fn a_block_where_a_table_stood_goes_in_after_a_prune() {
    on_schedules(
        |tree| {
            tree.map(5, 1);
            tree.unmap(5, 1);
            tree.map(12, 1);
        },
        &[
            |tree| tree.prune(),
            |tree| {
                tree.map_after_prunes(4, 4);
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
            tree.unmap(1, 1);
            tree.unmap(5, 1);
            tree.map(12, 1);
        },
        &[
            |tree| tree.prune(),
            |tree| {
                tree.map_after_prunes(0, 8);
                tree.assert_maps(0, 8);
            },
            |tree| tree.prune(),
        ],
    );
}

#[test]
fn a_table_that_an_unmap_covers_whole_goes_by_it_or_by_a_prune_and_never_by_both() {
    // A prune beside such an unmap must not free a table twice.
    let setup: fn(crate::concurrent::Checked) = |tree| {
        tree.map(20, 1);
        tree.map(5, 1);
        tree.unmap(5, 1);
    };
    on_schedules(
        setup,
        &[|tree| tree.prune(), |tree| assert_eq!(tree.unmap(4, 4), 0)],
    );
    on_schedules(
        setup,
        &[|tree| tree.prune(), |tree| assert_eq!(tree.unmap(0, 16), 0)],
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
