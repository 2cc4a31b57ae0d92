use crate::concurrent::pool::Pool;
use crate::concurrent::{Checked, Schedules, on_schedules, on_schedules_of, on_schedules_with};
use paging::{Attributes, Error, TinyGranule, Visit};

#[test]
fn a_failed_map_leaves_its_neighbours_alone() {
    // One table short: the thread that lacks it takes back its own.
    on_schedules_of(
        5,
        Schedules::Random,
        |_| {},
        &[
            |tree| {
                if tree.try_map(0, 5).is_ok() {
                    tree.assert_maps(0, 5);
                } else {
                    tree.assert_vacant(0, 5);
                }
            },
            |tree| {
                if tree.try_map(6, 8).is_ok() {
                    tree.assert_maps(6, 8);
                } else {
                    tree.assert_vacant(6, 8);
                }
            },
        ],
    );
}

#[test]
fn a_reader_sees_what_is_there_and_nothing_else() {
    on_schedules(
        |tree| {
            tree.map(2, 1);
            tree.map(9, 1);
        },
        &[
            |tree| {
                assert_eq!(tree.unmap(9, 1), 1);
                tree.map(9, 1);
                tree.map(10, 3);
                assert_eq!(tree.unmap(9, 4), 4);
            },
            |tree| {
                for _ in 0..3 {
                    tree.assert_maps(2, 1);
                    tree.0
                        .visit(tree.range(0, 16), |leaf| {
                            let page = leaf.va.offset_from(tree.0.range().start) >> 12;
                            assert!(leaf.valid, "{leaf:?}");
                            assert_eq!(leaf.pa, Checked::frame(page), "{leaf:?}");
                            Visit::Continue
                        })
                        .expect("a valid range");
                    let walk = tree.0.walk(tree.range(8, 1).start).expect("in range");
                    assert_eq!(walk.leaf, None, "nobody maps page 8");
                }
            },
        ],
    );
}

#[test]
fn a_reader_never_meets_a_table_that_a_failed_map_has_given_up() {
    // Two tables besides the root, reused at once: a map lacks a third, and the next wants both.
    on_schedules_with(
        || Pool::new::<TinyGranule>(3).at_once(),
        Schedules::Priorities,
        |_| {},
        &[
            |tree| {
                let failed = tree.try_map(1, 10);
                assert_eq!(failed, Err(Error::OutOfTables(3)));
                let elsewhere = tree.try_map(51, 1);
                assert_eq!(elsewhere, Err(Error::OutOfTables(2)));
            },
            |tree| {
                for _ in 0..3 {
                    tree.0
                        .visit(tree.range(0, 16), |leaf| {
                            let page = leaf.va.offset_from(tree.0.range().start) >> 12;
                            assert_eq!(leaf.pa, Checked::frame(page), "{leaf:?}");
                            Visit::Continue
                        })
                        .expect("a valid range");
                }
            },
        ],
    );
}

#[test]
fn blocks_in_one_table_are_cut_beside_each_other() {
    on_schedules(
        |tree| {
            tree.map(0, 4);
            tree.map(8, 4);
        },
        &[
            |tree| {
                assert_eq!(tree.unmap(1, 2), 2);
                tree.assert_maps(0, 1);
                tree.assert_maps(3, 1);
                tree.assert_vacant(1, 2);
            },
            |tree| {
                let mut batch = tree.0.batch();
                tree.0
                    .protect(tree.range(9, 1), Attributes::read_only, &mut batch)
                    .expect("memory suffices");
                batch.flush();
                tree.assert_maps(8, 4);
                tree.0
                    .coalesce(tree.range(8, 4), &mut tree.0.batch())
                    .expect("takes no memory");
                tree.assert_maps(8, 4);
            },
            |tree| {
                tree.map(5, 2);
                assert_eq!(tree.unmap(5, 2), 2);
            },
        ],
    );
}
