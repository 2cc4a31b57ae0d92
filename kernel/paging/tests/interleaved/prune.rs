use crate::interleaved::Case;

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
