use crate::interleaved::Case;
use crate::interleaved::kernel::range;
use paging::Attributes;

/// Beside reads of pages that stay.
pub const SPLIT: Case = Case::new(
    |boot| boot.map(8, 4),
    &[
        |cpu| {
            let mut batch = cpu.tree.batch();
            let page = range(9, 1);
            cpu.tree
                .protect(page, Attributes::read_only, &mut batch)
                .expect("memory suffices");
            batch.flush();
            cpu.tree
                .protect(page, Attributes::writable, &mut cpu.tree.batch())
                .expect("mapped");
            cpu.tree
                .coalesce(range(8, 4), &mut cpu.tree.batch())
                .expect("takes no memory");
            cpu.assert_reaches(8, 4);
        },
        |cpu| {
            for page in [10, 8, 11, 10] {
                cpu.read_beside_edits(page);
            }
        },
        |cpu| {
            cpu.map(12, 1);
            cpu.read_beside_edits(11);
            cpu.unmap(12, 1);
        },
    ],
);

#[test]
fn a_leaf_is_split_and_folded_beside_a_reader() {
    SPLIT.run();
}

#[test]
fn a_hole_beside_breaks_is_no_break_window() {
    // The handler waits for windows only.
    Case::new(
        |boot| boot.map(8, 4),
        &[
            |cpu| {
                cpu.tree
                    .split(range(9, 1), &mut cpu.tree.batch())
                    .expect("memory suffices");
                cpu.tree
                    .coalesce(range(8, 4), &mut cpu.tree.batch())
                    .expect("takes no memory");
            },
            |cpu| assert!(!cpu.translates(13)),
        ],
    )
    .run();
}
