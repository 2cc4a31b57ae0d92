//! Tables taken out by one CPU that others have walked: with all walks kept out.

use crate::interleaved::Case;

/// Pages that come and go in tables which are pruned meanwhile.
pub const PRUNE: Case = Case::new(
    |boot| {
        boot.map(9, 1);
        boot.map(5, 1);
        boot.unmap(5, 1);
    },
    &[
        |cpu| {
            cpu.without_walks(|| cpu.prune());
            cpu.without_walks(|| cpu.prune());
        },
        |cpu| {
            cpu.beside_walks(|| cpu.map(4, 1));
            cpu.beside_walks(|| cpu.unmap(4, 1));
            // A block, where an empty table may stand.
            cpu.without_walks(|| {
                cpu.prune();
                cpu.map(4, 4);
            });
            cpu.beside_walks(|| cpu.unmap(4, 4));
        },
        |cpu| {
            cpu.assert_translates(9);
            cpu.beside_walks(|| cpu.map(0, 1));
            cpu.assert_translates(0);
            cpu.beside_walks(|| cpu.unmap(0, 1));
        },
    ],
);

#[test]
fn a_prune_with_walks_kept_out_beside_maps_and_walks() {
    PRUNE.run();
}
