use crate::interleaved::Case;
use paging::Error;

pub const ONE_TABLE: Case = Case::new(
    |_| {},
    &[
        |cpu| {
            cpu.map(0, 2);
            cpu.unmap(0, 2);
            cpu.map(0, 1);
            cpu.unmap(0, 1);
        },
        |cpu| {
            cpu.map(2, 1);
            cpu.map(3, 1);
            cpu.unmap(2, 2);
            cpu.map(2, 2);
        },
    ],
);

#[test]
fn maps_and_unmaps_of_disjoint_pages_of_one_table() {
    ONE_TABLE.run();
}

/// Pages 4 to 7; the others share the tables above.
pub const WHOLE_SPAN: Case = Case::new(
    |boot| boot.map(3, 1),
    &[
        |cpu| {
            cpu.map_page(4, 49);
            cpu.map(5, 1);
            cpu.unmap(4, 4);
            cpu.map(4, 4);
            cpu.unmap(5, 1);
            cpu.unmap(4, 4);
        },
        |cpu| {
            cpu.map(1, 2);
            cpu.assert_reaches(3, 1);
            cpu.unmap(1, 2);
        },
        |cpu| {
            cpu.map(8, 5);
            cpu.unmap(8, 5);
        },
    ],
);

#[test]
fn an_unmap_of_a_whole_span_beside_maps_next_to_it() {
    WHOLE_SPAN.run();
}

#[test]
fn an_unmap_of_more_than_what_is_mapped_beside_maps_next_to_it() {
    // The span of a level 2 table whose tables are empty or missing.
    Case::new(
        |boot| {
            boot.map(18, 1);
            boot.map(29, 1);
            boot.unmap(29, 1);
        },
        &[
            |cpu| {
                cpu.map(22, 4);
                cpu.unmap(16, 16);
                cpu.map(16, 16);
                cpu.unmap(16, 16);
            },
            |cpu| {
                cpu.map(12, 4);
                cpu.unmap(15, 1);
                cpu.unmap(12, 3);
            },
            |cpu| {
                cpu.map(32, 3);
                cpu.unmap(32, 3);
            },
        ],
    )
    .run();
}

#[test]
fn blocks_of_one_table_are_cut_beside_each_other() {
    Case::new(
        |boot| {
            boot.map(0, 4);
            boot.map(8, 8);
        },
        &[
            |cpu| {
                cpu.unmap(1, 2);
                cpu.assert_reaches(0, 1);
                cpu.assert_reaches(3, 1);
                cpu.map(1, 1);
            },
            |cpu| {
                cpu.unmap(8, 1);
                cpu.assert_reaches(9, 7);
            },
            |cpu| {
                cpu.map(5, 2);
                cpu.unmap(5, 2);
            },
        ],
    )
    .run();
}

#[test]
fn a_map_that_fails_takes_back_what_is_its_own() {
    let case = Case::new(
        |_| {},
        &[
            |cpu| match cpu.try_map(0, 5) {
                Ok(()) => cpu.assert_reaches(0, 5),
                Err(error) => assert!(matches!(error, Error::OutOfTables(_)), "{error}"),
            },
            |cpu| match cpu.try_map(6, 3) {
                Ok(()) => cpu.assert_reaches(6, 3),
                Err(error) => assert!(matches!(error, Error::OutOfTables(_)), "{error}"),
            },
        ],
    );
    Case { tables: 4, ..case }.run();
}
