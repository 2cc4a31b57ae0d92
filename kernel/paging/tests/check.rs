use crate::support;

use paging::descriptor::{
    ACCESSED, ADDRESS, CONTIGUOUS, PRIVILEGED_EXECUTE_NEVER, SHAREABILITY_SHIFT, VALID,
};
use paging::{
    Attributes, CheckError, Config, Descriptor, Granule, Granule4K, Granule16K, Granule64K, LeafSize, Level,
    MemoryType, PhysAddr, Tables, TinyGranule, VirtAddr, VirtRange,
};
use std::collections::BTreeSet;
use support::corpus::{base, corpus};
use support::traced::traced;
use support::{HostTree, Shape, audit, tree};

/// Accepts each table once, and only tables that were handed out.
fn check<G: Granule>(tree: &HostTree<G>) -> Result<paging::Report, CheckError> {
    let mut seen = BTreeSet::new();
    tree.check(
        |table, _| table.0 >= support::TABLES_AT && seen.insert(table.0),
        |_| true,
    )
}

struct Damaged {
    tree: HostTree<Granule4K>,
    page: VirtAddr,
    group: VirtAddr,
    block: VirtAddr,
    blocks: VirtAddr,
}

fn sound() -> Damaged {
    let tree = tree::<Granule4K>(Config::default(), false);
    let at = tree.range().start.add(1 << 46);
    let damaged = Damaged {
        page: at.add(5 << 12),
        group: at.add(16 << 12),
        block: at.add(2 << 21),
        blocks: at.add(16 << 21),
        tree,
    };
    for (va, first, pages) in [
        (damaged.page, 0x1005, 1),
        (damaged.group, 0x2000, 16),
        (damaged.block, 0x4000, 512),
        (damaged.blocks, 0x10_0000, 512 * 16),
    ] {
        Shape::Range(first, pages)
            .map(&damaged.tree, va, Attributes::KERNEL_DATA, paging::LeafSet::ALL)
            .expect("vacant");
    }
    damaged
}

impl Damaged {
    fn place(&self, va: VirtAddr, level: Level) -> (PhysAddr, usize, u64) {
        let walk = self.tree.walk(va).expect("in range");
        let step = walk
            .steps()
            .find(|step| step.level == level)
            .expect("a step at that level");
        (step.table, step.index, step.descriptor.0)
    }

    fn damage(&self, va: VirtAddr, level: Level, change: impl FnOnce(u64) -> u64) -> Descriptor {
        let (table, index, old) = self.place(va, level);
        let new = change(old);
        assert_ne!(old, new);
        self.tree.tables().store(table, index, new);
        Descriptor(new)
    }

    fn found(&self) -> CheckError {
        check(&self.tree).expect_err("damaged")
    }
}

#[test]
fn a_sound_tree_passes_and_is_counted() {
    let sound = sound();
    let report = check(&sound.tree).expect("sound");
    assert_eq!(report.tables, 4);
    assert_eq!(report.invalid_leaves, 0);
    for (size, nr) in [
        (LeafSize::PAGE, 1),
        (LeafSize::PAGE_GROUP, 1),
        (LeafSize::BLOCK2, 1),
        (LeafSize::BLOCK2_GROUP, 1),
        (LeafSize::BLOCK1, 0),
    ] {
        assert_eq!(report.leaves.get(size), nr, "{size:?}");
    }
    let mut batch = sound.tree.batch();
    sound
        .tree
        .set_valid(VirtRange::new(sound.group, 16 << 12), false, &mut batch)
        .expect("mapped");
    drop(batch);
    assert_eq!(check(&sound.tree).expect("sound").invalid_leaves, 1);
}

#[test]
fn an_empty_tree_is_one_table() {
    let report = check(&tree::<Granule64K>(Config::default(), false)).expect("sound");
    assert_eq!(report.tables, 1);
    assert!(report.leaves.is_empty());
}

#[test]
fn whatever_the_corpus_leaves_behind_passes() {
    fn granule<G: Granule>() {
        for case in corpus::<G>() {
            let tree = traced::<G>(Config::default(), false);
            for op in case.setup.iter().chain([&case.op]) {
                op.apply(&tree, base(&tree)).expect("memory suffices");
                let mut seen = BTreeSet::new();
                let report = tree
                    .check(|table, _| seen.insert(table), |_| true)
                    .unwrap_or_else(|error| panic!("{} on {}: {error}", case.name, G::NAME));
                assert_eq!(report.tables as usize, tree.tables().host.live(), "{}", case.name);
                audit(&tree);
            }
        }
    }
    granule::<Granule4K>();
    granule::<Granule16K>();
    granule::<Granule64K>();
}

#[test]
fn a_table_linked_twice_is_found() {
    let damaged = sound();
    let (table, index, link) = damaged.place(damaged.page, 2);
    damaged.tree.tables().store(table, index + 100, link);
    let twice = PhysAddr(link & ADDRESS);
    let va = VirtAddr(damaged.page.0 & !((2 << 20) - 1)).add(100 << 21);
    assert_eq!(damaged.found(), CheckError::BadTable { va, table: twice });
}

#[test]
fn a_link_to_what_is_no_table_memory_is_found() {
    let damaged = sound();
    let new = damaged.damage(damaged.page, 2, |link| link & !ADDRESS | 0x5000);
    let va = VirtAddr(damaged.page.0 & !((2 << 20) - 1));
    assert_eq!(new.0 & ADDRESS, 0x5000);
    assert_eq!(
        damaged.found(),
        CheckError::BadTable {
            va,
            table: PhysAddr(0x5000)
        }
    );
}

#[test]
fn a_link_that_carries_more_than_an_address_is_found() {
    for bits in [1 << 2, 1 << 11, 1 << 52, 1 << 59, 1 << 63] {
        let damaged = sound();
        let found = damaged.damage(damaged.page, 2, |link| link | bits);
        let va = VirtAddr(damaged.page.0 & !((2 << 20) - 1));
        assert_eq!(damaged.found(), CheckError::BadDescriptor { va, level: 2, found });
    }
}

#[test]
fn empty_tables_that_are_linked_are_counted() {
    let damaged = sound();
    let table = damaged.tree.tables().alloc_table().expect("memory");
    let (level2, index, _) = damaged.place(damaged.page, 2);
    let report = || damaged.tree.check(|_, _| true, |_| true).expect("sound");
    assert_eq!(report().empty_tables, 0);
    let tables = report().tables;
    damaged
        .tree
        .tables()
        .store(level2, index + 7, Descriptor::table::<Granule4K>(table).0);
    assert_eq!((report().empty_tables, report().tables), (1, tables + 1));
    let pruned = damaged.tree.prune(damaged.tree.range()).expect("its own range");
    assert_eq!(pruned.tables_removed, 1);
    assert_eq!((report().empty_tables, report().tables), (0, tables));
}

#[test]
fn a_member_that_differs_from_its_group_is_found_whatever_differs() {
    for (what, change) in [
        ("attributes", (|old| old ^ 1 << 7) as fn(u64) -> u64),
        ("validity", |old| old & !VALID),
        ("address", |old| old + 0x1000),
        ("the bit", |old| old & !CONTIGUOUS),
        ("all of it", |_| 0),
    ] {
        for member in [1, 7, 15] {
            let damaged = sound();
            let va = damaged.group.add(member << 12);
            let (_, _, expected) = damaged.place(va, 3);
            let found = damaged.damage(va, 3, change);
            let expected = Descriptor(expected);
            assert_eq!(
                damaged.found(),
                CheckError::MixedGroup { va, found, expected },
                "{what} of {member}"
            );
        }
        let damaged = sound();
        let va = damaged.blocks.add(9 << 21);
        let (_, _, expected) = damaged.place(va, 2);
        let found = damaged.damage(
            va,
            2,
            if what == "address" {
                |old| old + (2 << 20)
            } else {
                change
            },
        );
        let expected = Descriptor(expected);
        assert_eq!(
            damaged.found(),
            CheckError::MixedGroup { va, found, expected },
            "{what} of a block"
        );
    }
}

#[test]
fn a_group_without_its_head_is_found() {
    for change in [(|_| 0) as fn(u64) -> u64, |old| old & !CONTIGUOUS] {
        let damaged = sound();
        damaged.damage(damaged.group, 3, change);
        let found = damaged.found();
        assert!(
            matches!(found, CheckError::MixedGroup { va, .. } if va == damaged.group.add(1 << 12)),
            "{found}"
        );
    }
}

#[test]
fn a_lone_descriptor_with_the_contiguous_bit_is_found() {
    let damaged = sound();
    let found = damaged.damage(damaged.page, 3, |old| old | CONTIGUOUS);
    assert!(
        matches!(damaged.found(), CheckError::MixedGroup { va, found: f, .. } if va == damaged.page && f == found),
        "{}",
        damaged.found()
    );
}

#[test]
fn a_group_whose_output_is_not_aligned_to_it_is_found() {
    let damaged = sound();
    let (table, index, first) = damaged.place(damaged.group, 3);
    for i in 0..16 {
        damaged
            .tree
            .tables()
            .store(table, index + i, first + 0x1000 * (i as u64 + 1));
    }
    assert_eq!(
        damaged.found(),
        CheckError::MisalignedGroup {
            va: damaged.group,
            found: Descriptor(first + 0x1000)
        }
    );
}

#[test]
fn a_malformed_descriptor_is_found() {
    type Damage = (&'static str, Level, fn(u64) -> u64);
    let cases: [Damage; 9] = [
        ("a page without bit 1", 3, |old| old & !2),
        ("reserved shareability", 3, |old| {
            old & !(3 << SHAREABILITY_SHIFT) | 1 << SHAREABILITY_SHIFT
        }),
        ("bits above the address", 3, |old| old | 1 << 48),
        ("bit 49", 3, |old| old | 1 << 49),
        ("what the engine never writes into a leaf", 3, |old| old | 1 << 59),
        ("a block that is not aligned", 2, |old| old + 0x1000),
        ("an attribute in a link", 2, |old| old | 1 << 60),
        ("a table attribute of the level above", 1, |old| old | 1 << 59),
        ("a block at the root", 0, |old| old & !2),
    ];
    for (what, level, change) in cases {
        let damaged = sound();
        let va = if what == "a block that is not aligned" {
            damaged.block
        } else {
            damaged.page
        };
        let found = damaged.damage(va, level, change);
        let va = VirtAddr(va.0 & !(Granule4K::size(level) - 1));
        assert_eq!(
            damaged.found(),
            CheckError::BadDescriptor { va, level, found },
            "{what}"
        );
    }
}

#[test]
fn what_operations_leave_only_for_a_moment_is_found() {
    for rest in [Descriptor(support::TABLES_AT)] {
        for level in [2, 3] {
            let damaged = sound();
            let (table, index, _) = damaged.place(damaged.page, level);
            damaged.tree.tables().store(table, index + 3, rest.0);
            let va =
                VirtAddr(damaged.page.0 & !(Granule4K::size(level) - 1)).add(3 << Granule4K::shift(level));
            let (CheckError::BadDescriptor { va: at, .. } | CheckError::WritableExecutable { va: at, .. }) =
                damaged.found()
            else {
                panic!("{}", damaged.found());
            };
            assert_eq!(at, va);
        }
    }
}

#[test]
fn an_address_beyond_the_implemented_ones_is_found() {
    let config = Config {
        pa_bits: 40,
        ..Config::default()
    };
    let tree = tree::<Granule4K>(config, false);
    let va = tree.range().start;
    Shape::Range(0x1000, 1)
        .map(&tree, va, Attributes::KERNEL_DATA, paging::LeafSet::ALL)
        .expect("vacant");
    let walk = tree.walk(va).expect("in range");
    let step = walk.steps().last().expect("a step");
    let found = Descriptor(step.descriptor.0 | 1 << 40);
    tree.tables().store(step.table, step.index, found.0);
    assert_eq!(
        check(&tree),
        Err(CheckError::BadDescriptor { va, level: 3, found })
    );
}

#[test]
fn writable_and_executable_is_found_for_a_valid_leaf_and_for_one_that_is_not() {
    for valid in [VALID, 0] {
        let damaged = sound();
        let found = damaged.damage(damaged.page, 3, |old| {
            old & !PRIVILEGED_EXECUTE_NEVER & !VALID | valid
        });
        assert_eq!(
            damaged.found(),
            CheckError::WritableExecutable {
                va: damaged.page,
                attributes: found.attributes::<Granule4K>()
            }
        );
    }
}

#[test]
fn a_leaf_that_the_caller_does_not_know_is_found() {
    let damaged = sound();
    let unknown = damaged.block;
    let error = damaged
        .tree
        .check(|_, _| true, |leaf| leaf.va != unknown)
        .expect_err("unknown");
    let CheckError::UnexpectedLeaf(leaf) = error else {
        panic!("{error}");
    };
    assert_eq!(
        (leaf.va, leaf.pa, leaf.size),
        (unknown, PhysAddr(0x400_0000), LeafSize::BLOCK2)
    );
}

#[test]
fn every_table_is_told_with_its_level_root_first() {
    let damaged = sound();
    let mut told = Vec::new();
    damaged
        .tree
        .check(
            |table, level| {
                told.push((table, level));
                true
            },
            |_| true,
        )
        .expect("sound");
    assert_eq!(told[0], (damaged.tree.root(), 0));
    assert_eq!(
        told.iter().map(|(_, level)| *level).collect::<Vec<_>>(),
        [0, 1, 2, 3]
    );
}

#[test]
fn damage_is_found_on_the_other_granules_too() {
    fn granule<G: Granule>(group: u64) {
        let tree = tree::<G>(Config::default(), false);
        let va = tree.range().start;
        Shape::Range(1 << 20, group)
            .map(&tree, va, Attributes::KERNEL_DATA, paging::LeafSet::ALL)
            .expect("vacant");
        check(&tree).expect("sound");
        let last = va.add((group - 1) << G::PAGE_SHIFT);
        let walk = tree.walk(last).expect("in range");
        let step = walk.steps().last().expect("a step");
        let found = Descriptor(step.descriptor.0 & !ACCESSED);
        tree.tables().store(step.table, step.index, found.0);
        let expected = step.descriptor;
        assert_eq!(
            check(&tree),
            Err(CheckError::MixedGroup {
                va: last,
                found,
                expected
            })
        );
    }
    granule::<Granule16K>(128);
    granule::<Granule64K>(32);
    granule::<TinyGranule>(2);
}

#[test]
fn each_finding_says_where_and_what() {
    let damaged = sound();
    damaged.damage(damaged.group.add(3 << 12), 3, |_| 0);
    let said = damaged.found().to_string();
    assert!(
        said.contains("0xffff400000013000") && said.contains("0x0000000000000000"),
        "{said}"
    );
    let (va, table) = (VirtAddr(0xffff_0000_0000_0000), PhysAddr(0x7000));
    let found = Descriptor(0x703);
    for (error, wanted) in [
        (CheckError::BadTable { va, table }, "linked twice"),
        (
            CheckError::MisalignedGroup { va, found },
            "misaligned contiguous group 0x0000000000000703",
        ),
        (
            CheckError::BadDescriptor { va, level: 2, found },
            "level 2 descriptor 0x0000000000000703",
        ),
        (
            CheckError::WritableExecutable {
                va,
                attributes: Attributes::kernel(MemoryType::NORMAL).writable().executable(),
            },
            "writable and executable: rwx",
        ),
    ] {
        assert!(error.to_string().contains(wanted), "{error}");
        assert!(error.to_string().contains("0xffff000000000000"), "{error}");
    }
}
