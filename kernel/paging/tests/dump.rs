use crate::support;

use paging::{
    Attributes, Config, DumpRun, Granule4K, Half, LeafSet, LeafSize, MemoryType, Tree, VirtAddr, VirtRange,
};
use support::corpus::{base, corpus};
use support::traced::traced;
use support::{Host, HostTree, Naive, Shape, tree};

fn lines(tree: &HostTree<Granule4K>, range: VirtRange) -> Vec<String> {
    tree.dump(range).map(|run| run.to_string()).collect()
}

fn mapped(maps: &[(u64, Shape, Attributes)]) -> HostTree<Granule4K> {
    let tree = tree::<Granule4K>(Config::default(), false);
    for (page, shape, attributes) in maps {
        let va = tree.range().start.add(page << 12);
        shape.map(&tree, va, *attributes, LeafSet::ALL).expect("vacant");
    }
    tree
}

const DATA: Attributes = Attributes::KERNEL_DATA;

#[test]
fn an_empty_tree_has_no_runs() {
    let tree = mapped(&[]);
    assert!(lines(&tree, tree.range()).is_empty());
}

#[test]
fn leaves_of_one_size_in_a_row_are_one_run_and_each_size_is_one_of_its_own() {
    let tree = mapped(&[
        (509, Shape::Range((1 << 18) - 3, 3 + 512 + 32 + 2), DATA),
        (
            1 << 18,
            Shape::Range(1 << 18, (1 << 18) + 512 * 16),
            Attributes::DEVICE,
        ),
    ]);
    assert_eq!(
        lines(&tree, tree.range()),
        [
            "0xffff0000001fd000-0xffff000000200000 0x00003fffd000    12K L3 4K   - rw- Normal-WB",
            "0xffff000000200000-0xffff000000400000 0x000040000000     2M L2 2M   - rw- Normal-WB",
            "0xffff000000400000-0xffff000000420000 0x000040200000   128K L3 64K  C rw- Normal-WB",
            "0xffff000000420000-0xffff000000422000 0x000040220000     8K L3 4K   - rw- Normal-WB",
            "0xffff000040000000-0xffff000080000000 0x000040000000     1G L1 1G   - rw- Device-nGnRE",
            "0xffff000080000000-0xffff000082000000 0x000080000000    32M L2 32M  C rw- Device-nGnRE",
        ]
    );
}

#[test]
fn what_differs_in_anything_is_a_run_of_its_own() {
    let tree = mapped(&[
        (0, Shape::Range(0x101, 10), DATA),
        (10, Shape::Range(0x500, 2), DATA),
    ]);
    let at = tree.range().start;
    let mut batch = tree.batch();
    let part = |page: u64, pages: u64| VirtRange::new(at.add(page << 12), pages << 12);
    tree.protect(part(2, 2), Attributes::read_only, &mut batch)
        .expect("mapped");
    tree.protect(part(4, 1), |old| old.read_only().executable(), &mut batch)
        .expect("mapped");
    tree.protect(part(5, 1), |old| old.with_software(9), &mut batch)
        .expect("mapped");
    tree.set_valid(part(6, 2), false, &mut batch).expect("mapped");
    tree.unmap(part(9, 1), &mut batch).expect("mapped");
    batch.flush();
    assert_eq!(
        lines(&tree, tree.range()),
        [
            "0xffff000000000000-0xffff000000002000 0x000000101000     8K L3 4K   - rw- Normal-WB",
            "0xffff000000002000-0xffff000000004000 0x000000103000     8K L3 4K   - r-- Normal-WB",
            "0xffff000000004000-0xffff000000005000 0x000000105000     4K L3 4K   - r-x Normal-WB",
            "0xffff000000005000-0xffff000000006000 0x000000106000     4K L3 4K   - rw- Normal-WB sw=0x9",
            "0xffff000000006000-0xffff000000008000 0x000000107000     8K L3 4K   - rw- Normal-WB invalid",
            "0xffff000000008000-0xffff000000009000 0x000000109000     4K L3 4K   - rw- Normal-WB",
            "0xffff00000000a000-0xffff00000000c000 0x000000500000     8K L3 4K   - rw- Normal-WB",
        ]
    );
}

#[test]
fn runs_are_cut_to_the_pages_that_were_asked_for() {
    let tree = mapped(&[(0, Shape::Range(1 << 18, 1 << 18), DATA)]);
    let at = tree.range().start;
    let runs: Vec<_> = tree.dump(VirtRange::new(at.add(0x5432), 0x2000)).collect();
    let [run] = &runs[..] else { panic!("{runs:?}") };
    assert_eq!(run.range, VirtRange::new(at.add(0x5000), 0x3000));
    assert_eq!(run.pa.0, (1 << 30) + 0x5000);
    assert_eq!(run.size, LeafSize::BLOCK1);
    assert_eq!(tree.dump(VirtRange::new(at, 0)).count(), 0);
    assert_eq!(tree.dump(VirtRange::new(VirtAddr(0), 1 << 48)).count(), 0);
    let across = VirtRange::new(VirtAddr(at.0 - 0x10000), 0x12000);
    let runs: Vec<DumpRun<Granule4K>> = tree.dump(across).collect();
    assert_eq!(
        runs.iter().map(|run| run.range).collect::<Vec<_>>(),
        [VirtRange::new(at, 0x2000)]
    );
}

#[test]
fn the_last_page_of_the_address_space_ends_at_zero() {
    let tree = mapped(&[((1 << 36) - 2, Shape::Range(7, 2), DATA)]);
    assert_eq!(
        lines(&tree, tree.range()),
        ["0xffffffffffffe000-0x0000000000000000 0x000000007000     8K L3 4K   - rw- Normal-WB"]
    );
}

#[test]
fn the_lower_half_dumps_alike() {
    let tables = Host::<Granule4K>::new();
    let root = paging::Tables::alloc_table(&tables).expect("memory");
    let mmu = paging::mmu::Counting::new(paging::mmu::NoMmu::default());
    let tree = Tree::<Granule4K, _, _>::new(root, Half::Low, tables, mmu, Config::default());
    let last = VirtAddr((1 << 48) - 0x1000);
    for va in [VirtAddr(0x1000), last] {
        Shape::Range(9, 1)
            .map(&tree, va, Attributes::KERNEL_RODATA, LeafSet::ALL)
            .expect("vacant");
    }
    let text: Vec<_> = tree.dump(tree.range()).map(|run| run.to_string()).collect();
    assert_eq!(
        text,
        [
            "0x0000000000001000-0x0000000000002000 0x000000009000     4K L3 4K   - r-- Normal-WB",
            "0x0000fffffffff000-0x0001000000000000 0x000000009000     4K L3 4K   - r-- Normal-WB",
        ]
    );
    assert!(tree.translate(VirtAddr(1 << 48)).is_none());
    assert!(tree.translate(last).is_some());
}

#[test]
fn runs_say_what_the_tree_holds_page_for_page() {
    for case in corpus::<Granule4K>() {
        if case.name.contains("level 1 block") || case.name.contains("group of blocks") {
            continue;
        }
        let tree = traced::<Granule4K>(Config::default(), false);
        for op in case.setup.iter().chain([&case.op]) {
            op.apply(&tree, base(&tree)).expect("memory suffices");
        }
        let mut told = std::collections::BTreeMap::new();
        let mut last: Option<DumpRun<Granule4K>> = None;
        for run in tree.dump(tree.range()) {
            for page in 0..run.range.size >> 12 {
                let at = (run.pa.0 + (page << 12), run.attributes, run.valid);
                assert_eq!(
                    told.insert(run.range.start.0 + (page << 12), at),
                    None,
                    "{}",
                    case.name
                );
            }
            if let Some(last) = last {
                let continues = last.range.end() == run.range.start
                    && last.pa.add(last.range.size) == run.pa
                    && (last.size, last.attributes, last.valid) == (run.size, run.attributes, run.valid);
                assert!(
                    !continues,
                    "{}: two runs where one would do at {:?}",
                    case.name, run.range
                );
            }
            last = Some(run);
        }
        assert_eq!(told, Naive::of(&tree).0, "{}", case.name);
    }
}

#[test]
fn attributes_show_what_is_out_of_the_ordinary() {
    let show = |attributes: Attributes| format!("{attributes:?}");
    assert_eq!(show(Attributes::kernel(MemoryType::NORMAL)), "r-- Normal-WB");
    assert_eq!(show(Attributes::kernel(MemoryType::NORMAL_NC)), "r-- Normal-NC");
    assert_eq!(show(Attributes::kernel(MemoryType::NORMAL_WT)), "r-- Normal-WT");
    assert_eq!(
        show(Attributes::kernel(MemoryType::DEVICE_NGNRNE)),
        "r-- Device-nGnRnE"
    );
    assert_eq!(
        show(Attributes::kernel(MemoryType::new(7, 0))),
        "r-- AttrIndx 7 SH 0"
    );
    assert_eq!(
        show(Attributes::from_bits(0)),
        "rwx Device-nGnRnE !AF user-x".replace("Device-nGnRnE", "AttrIndx 0 SH 0")
    );
    let user = Attributes::from_bits(DATA.bits() | 1 << 6 | 1 << 11);
    assert_eq!(show(user), "rw- Normal-WB nG user");
}
