//! The exact cost of each mapping, in `golden/counts.txt`. To accept a change: `GOLDEN=write cargo
//! test -p paging golden_counts`.

use crate::support;

use paging::mmu::MmuCounts;
use paging::{Attributes, Config, Granule, Granule4K, LeafSet, Outcome, Pfn, VirtAddr, VirtRange};
use std::fmt::Write;
use support::{HostTree, Shape, tree};

const HEAD: &str = "\
What one call costs, on a 4K tree of 48 bits. A test holds the engine to every number: golden_counts.rs.

`map` is a call on vacant addresses, with its barriers; `unmap` is the call and its flush. Tables: linked and unlinked.
Loads and stores: of descriptors, single ones, an exchange counts as a store (a kernel may pair them). DSB: both kinds. TLBI:
by VA alone, and by range where the CPU has that; * is one TLBI of everything, above the threshold of 512.
In an empty tree a mapping needs its tables, and an unmap takes out those that it covers whole; `beside another` a page in the same last-level table was there before.
An array of order n is made of chunks of 2^n pages, each aligned to its size, no two of them adjacent.

";

struct Line {
    name: &'static str,
    what: &'static str,
    outcome: Outcome,
    loads: u64,
    stores: u64,
    mmu: MmuCounts,
    ranged: MmuCounts,
}

fn measure<G: Granule>(
    tree: &HostTree<G>,
    work: impl FnOnce(&HostTree<G>) -> Outcome,
) -> (Outcome, u64, u64, MmuCounts) {
    tree.tables().reset_counts();
    tree.mmu().take();
    let outcome = work(tree);
    (
        outcome,
        tree.tables().loads.get(),
        tree.tables().stores.get(),
        tree.mmu().take(),
    )
}

fn chunks(order: u32, pages: u64) -> Shape {
    let size = 1 << order;
    let frames = (0..pages).map(|i| Pfn((1 << 24) + i / size * 2 * size + i % size));
    Shape::Array(frames.collect())
}

fn lines(name: &'static str, shape: &Shape, beside_another: bool) -> [Line; 2] {
    let pages = shape.pages();
    let run = |tlbi_range: bool| {
        let tree = tree::<Granule4K>(Config::default(), tlbi_range);
        let va = tree.range().start.add(1 << 46);
        if beside_another {
            Shape::Range(77, 1)
                .map(&tree, va.add(511 << 12), Attributes::KERNEL_DATA, LeafSet::ALL)
                .expect("vacant");
        }
        let map = measure(&tree, |tree| {
            shape
                .map(tree, va, Attributes::KERNEL_DATA, LeafSet::ALL)
                .expect("vacant")
        });
        let unmap = measure(&tree, |tree| {
            let mut batch = tree.batch();
            let outcome = tree
                .unmap(VirtRange::new(va, pages << 12), &mut batch)
                .expect("mapped");
            batch.flush();
            outcome
        });
        support::prune(&tree);
        assert_eq!(tree.tables().live(), if beside_another { 4 } else { 1 }, "{name}");
        assert_eq!(tree.translate(VirtAddr(va.0)), None);
        [map, unmap]
    };
    let (by_va, by_range) = (run(false), run(true));
    let mut both = by_va
        .into_iter()
        .zip(by_range)
        .zip(["map", "unmap"])
        .map(|((plain, ranged), what)| {
            let (outcome, loads, stores, mmu) = plain;
            assert_eq!(
                outcome, ranged.0,
                "{name}: what is done does not depend on how it is invalidated"
            );
            Line {
                name,
                what,
                outcome,
                loads,
                stores,
                mmu,
                ranged: ranged.3,
            }
        });
    [(); 2].map(|()| both.next().expect("two"))
}

fn table() -> String {
    let contiguous = [
        ("1 page", 1),
        ("64K", 16),
        ("1M", 256),
        ("2M", 512),
        ("32M", 512 * 16),
        ("1G", 1 << 18),
        ("16G", 1 << 22),
    ];
    let mut all = Vec::new();
    for (name, pages) in contiguous {
        all.extend(lines(name, &Shape::Range(1 << 24, pages), false));
    }
    for (name, pages) in [
        ("1 page, beside another", 1),
        ("64K, beside another", 16),
        ("1M, beside another", 256),
    ] {
        all.extend(lines(name, &Shape::Range(1 << 24, pages), true));
    }
    for (name, order, pages) in [
        ("array of 256, order 0", 0, 256),
        ("array of 256, order 4", 4, 256),
        ("array of 256, order 8", 8, 256),
        ("array of 256, order 9", 9, 256),
        ("array of 25,600, order 0", 0, 25_600),
        ("array of 25,600, order 4", 4, 25_600),
        ("array of 25,600, order 8", 8, 25_600),
        ("array of 25,600, order 9", 9, 25_600),
    ] {
        all.extend(lines(name, &chunks(order, pages), false));
    }
    let mut text = String::from(HEAD);
    let columns = ["tables", "loads", "stores", "DSB", "ISB", "TLBI", "by range"];
    write!(text, "{:<26}{:<7}{:<16}", "case", "call", "leaves").expect("a string");
    for column in columns {
        write!(text, "{column:>9}").expect("a string");
    }
    text += "\n";
    for line in all {
        let Line {
            name,
            what,
            outcome,
            loads,
            stores,
            mmu,
            ranged,
        } = line;
        assert_eq!((mmu.dsb, mmu.isb), (ranged.dsb, ranged.isb), "{name} {what}");
        let tlbis =
            |counts: MmuCounts| format!("{}{}", counts.tlbi, if counts.tlbi_all == 1 { "*" } else { "" });
        let leaves = outcome.leaves.display::<Granule4K>().to_string();
        let tables = match (outcome.tables_added, outcome.tables_removed) {
            (0, 0) => String::from("0"),
            (added, 0) => format!("+{added}"),
            (0, removed) => format!("-{removed}"),
            (added, removed) => format!("+{added}-{removed}"),
        };
        writeln!(
            text,
            "{name:<26}{what:<7}{leaves:<16}{tables:>9}{loads:>9}{stores:>9}{:>9}{:>9}{:>9}{:>9}",
            mmu.dsb,
            mmu.isb,
            tlbis(mmu),
            tlbis(ranged),
        )
        .expect("a string");
    }
    text
}

#[test]
fn every_count_is_the_one_in_the_table() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/counts.txt");
    let now = table();
    if std::env::var_os("GOLDEN").is_some_and(|value| value == "write") {
        std::fs::write(path, &now).expect("the table is written");
        return;
    }
    let kept = std::fs::read_to_string(path).expect("the table is kept beside this test");
    let mut differing = String::new();
    for (kept, now) in kept.lines().zip(now.lines()).filter(|(kept, now)| kept != now) {
        write!(differing, "kept: {kept}\nnow:  {now}\n").expect("a string");
    }
    assert!(
        kept == now,
        "the counts have changed; if that is meant: GOLDEN=write cargo test -p paging golden_counts\n{differing}"
    );
}

#[test]
fn one_page_more_in_a_table_that_is_there_costs_four_loads_and_one_store() {
    let [map, unmap] = lines("one page", &Shape::Range(1 << 24, 1), true);
    assert_eq!((map.loads, map.stores), (4, 1));
    assert_eq!((unmap.loads, unmap.stores), (4, 1));
    assert_eq!((map.mmu.dsb, map.mmu.isb, map.mmu.tlbi), (1, 1, 0));
    assert_eq!((unmap.mmu.dsb, unmap.mmu.isb, unmap.mmu.tlbi), (2, 1, 1));
}
