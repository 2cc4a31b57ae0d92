//! `map` runs while others walk: it gives back no table that one of them may be reading, and yet loses none.

mod support;

use paging::mmu::NoMmu;
use paging::{
    Attributes, Config, Error, Granule, Granule4K, Half, LeafSet, Mmu, PhysAddr, Tables, Tree, VirtAddr,
    VirtRange,
};
use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use support::corpus::{base, corpus};
use support::ops::Op;
use support::{Host, Live, Shape};

/// Table memory whose environment lets walks begin and end at any time, but for as long as `kept_out` says: a table to which
/// any descriptor has led must not come back meanwhile.
struct WalkedBeside {
    host: Host<Granule4K>,
    linked: RefCell<BTreeSet<PhysAddr>>,
    kept_out: Cell<bool>,
}

impl WalkedBeside {
    fn new() -> Self {
        Self {
            host: Host::new(),
            linked: RefCell::default(),
            kept_out: Cell::new(true),
        }
    }

    fn written(&self, value: u64) {
        if value & 0b11 == 0b11 {
            let table = PhysAddr(value & 0x0000_ffff_ffff_f000);
            self.linked.borrow_mut().insert(table);
        }
    }
}

impl Live for WalkedBeside {
    fn live(&self) -> usize {
        self.host.live()
    }
}

// SAFETY: forwards to `Host`, which keeps the promises.
unsafe impl Tables for WalkedBeside {
    fn alloc_table(&self) -> Option<PhysAddr> {
        let table = self.host.alloc_table()?;
        self.linked.borrow_mut().remove(&table);
        Some(table)
    }
    fn free_table(&self, table: PhysAddr) {
        let reached = self.linked.borrow().contains(&table);
        assert!(
            self.kept_out.get() || !reached,
            "{table:?} goes back while somebody may be reading it"
        );
        self.host.free_table(table);
    }
    fn load(&self, table: PhysAddr, index: usize) -> u64 {
        self.host.load(table, index)
    }
    fn store(&self, table: PhysAddr, index: usize, value: u64) {
        self.written(value);
        self.host.store(table, index, value);
    }
    fn compare_exchange(&self, table: PhysAddr, index: usize, current: u64, new: u64) -> Result<(), u64> {
        self.host.compare_exchange(table, index, current, new)?;
        self.written(new);
        Ok(())
    }
}

type Walked = Tree<Granule4K, WalkedBeside, NoMmu>;

fn walked() -> Walked {
    let tables = WalkedBeside::new();
    let root = tables.alloc_table().expect("memory");
    Tree::new(root, Half::High, tables, NoMmu::default(), Config::default())
}

fn beside_walks<R>(tree: &Walked, work: impl FnOnce() -> R) -> R {
    tree.tables().kept_out.set(false);
    let result = work();
    tree.tables().kept_out.set(true);
    result
}

/// Every table is back after `reclaim`, and the tree as it was.
fn is_as_before(tree: &Walked, before: &support::Naive, live: usize, what: &str) {
    tree.reclaim();
    assert!(!tree.withholds_tables(), "{what}");
    assert_eq!(tree.reclaim(), 0, "{what}");
    assert_eq!(tree.tables().live(), live, "{what}: tables are lost");
    assert_eq!(&support::Naive::of(tree), before, "{what}");
    support::audit(tree);
}

#[test]
fn a_failed_map_gives_no_table_back_that_a_walk_may_be_in() {
    let mut withheld = 0;
    for case in corpus::<Granule4K>() {
        let Op::Map {
            shape,
            attributes,
            allowed,
            ..
        } = &case.op
        else {
            continue;
        };
        for k in 0.. {
            let tree = walked();
            for op in &case.setup {
                op.apply(&tree, base(&tree)).expect("memory suffices");
            }
            let (before, live) = (support::Naive::of(&tree), tree.tables().live());
            let range = case.op.range::<Granule4K>(base(&tree));
            tree.tables().host.budget.set(k);
            let result = beside_walks(&tree, || shape.map(&tree, range.start, *attributes, *allowed));
            let Err(failure) = result else {
                break;
            };
            assert!(matches!(failure.error, Error::OutOfTables(_)), "{failure:?}");
            withheld += u32::from(tree.withholds_tables());
            is_as_before(&tree, &before, live, &format!("{}, table {k}", case.name));
        }
    }
    assert!(withheld > 10, "{withheld} failures had made tables");
}

#[test]
fn a_map_that_meets_a_page_without_a_frame_gives_none_back_either() {
    let tree = walked();
    let va = tree.range().start.add(1 << 46);
    let frames: Vec<_> = (0..600)
        .map(|i| (i != 550).then_some(paging::Pfn(77 + 3 * i)))
        .collect();
    let (before, live) = (support::Naive::of(&tree), tree.tables().live());
    let mut source = paging::PageArray::new(frames.as_slice());
    let range = VirtRange::new(va, 600 << 12);
    let result = beside_walks(&tree, || {
        tree.map(range, &mut source, Attributes::KERNEL_DATA, LeafSet::ALL)
    });
    assert_eq!(result.expect_err("a hole").error, Error::NoFrame { page: 550 });
    assert!(tree.withholds_tables());
    is_as_before(&tree, &before, live, "a hole");
}

/// A tree with empty tables that are linked, `levels` of them on top of each other under one descriptor of level 2 - `levels`.
fn with_empty_links(levels: u32) -> (Walked, VirtRange) {
    let tree = walked();
    let va = tree.range().start.add(1 << 46);
    let size = Granule4K::size(3 - levels as u8);
    // Beside it, so that the tables above stay.
    let neighbour = Shape::Range(5, 1).map(&tree, va.add(size), Attributes::KERNEL_DATA, LeafSet::PAGES);
    assert!(neighbour.is_ok());
    for page in [3, 700 % (size >> 12)] {
        let page = VirtRange::new(va.add(page << 12), 1 << 12);
        let mapped = Shape::Range(9, 1).map(&tree, page.start, Attributes::KERNEL_DATA, LeafSet::PAGES);
        assert!(mapped.is_ok());
        let mut batch = tree.batch();
        let unmapped = tree.unmap_keeping_tables(page, &mut batch).expect("mapped");
        assert_eq!(unmapped.tables_emptied, 1);
        batch.flush();
    }
    (tree, VirtRange::new(va, size))
}

#[test]
fn a_block_over_links_to_empty_tables_goes_in_and_withholds_them() {
    // One link to an empty table; and one to a table of links to empty tables, over which a block of 1G once spun.
    for (levels, tables) in [(1, 1), (2, 3)] {
        let (tree, range) = with_empty_links(levels);
        let live = tree.tables().live();
        let mapped = beside_walks(&tree, || {
            Shape::Range(1 << 18, range.size >> 12).map(
                &tree,
                range.start,
                Attributes::KERNEL_DATA,
                LeafSet::ALL,
            )
        });
        let mapped = mapped.expect("empty tables are not in the way");
        let leaf = tree.translate(range.start).expect("mapped");
        assert_eq!(leaf.size.bytes::<Granule4K>(), range.size, "{mapped:?}");
        assert!(tree.withholds_tables());
        assert_eq!(tree.tables().live(), live, "none is back yet");
        assert_eq!(tree.reclaim(), tables);
        assert_eq!(tree.tables().live(), live - tables);
        support::audit(&tree);
    }
}

#[test]
fn prune_and_a_flush_of_tables_give_back_what_was_withheld() {
    let release: [fn(&Walked, VirtAddr); 2] = [
        |tree, va| {
            tree.prune(VirtRange::new(va, 1 << 12)).expect("a valid range");
        },
        |tree, va| {
            let mut batch = tree.batch();
            let one = VirtRange::new(va, 1 << 12);
            let out = tree.unmap(one, &mut batch).expect("mapped");
            assert_ne!(out.tables_removed, 0);
            batch.flush();
        },
    ];
    for release in release {
        let tree = walked();
        let va = tree.range().start.add(1 << 46);
        let elsewhere = va.add(1 << 40);
        let one = Shape::Range(5, 1);
        one.map(&tree, elsewhere, Attributes::KERNEL_DATA, LeafSet::PAGES)
            .expect("vacant");
        let live = tree.tables().live();
        tree.tables().host.budget.set(2);
        let failed = beside_walks(&tree, || {
            one.map(&tree, va, Attributes::KERNEL_DATA, LeafSet::PAGES)
        });
        assert!(failed.is_err());
        assert!(tree.withholds_tables() && tree.tables().live() > live);
        release(&tree, elsewhere);
        assert!(!tree.withholds_tables());
        assert!(tree.tables().live() <= live);
    }
}

#[test]
fn a_flush_without_tables_gives_none_back() {
    let tree = walked();
    let va = tree.range().start.add(1 << 46);
    let two = Shape::Range(5, 2);
    two.map(&tree, va, Attributes::KERNEL_DATA, LeafSet::PAGES)
        .expect("vacant");
    tree.tables().host.budget.set(1);
    beside_walks(&tree, || {
        let failed = Shape::Range(5, 1).map(&tree, va.add(1 << 40), Attributes::KERNEL_DATA, LeafSet::PAGES);
        assert!(failed.is_err() && tree.withholds_tables());
        let out = tree
            .unmap_one_table(VirtRange::new(va, 1 << 12))
            .expect("one page");
        assert_eq!(out.tables_removed, 0);
        let mut batch = tree.batch();
        tree.unmap_keeping_tables(VirtRange::new(va.add(1 << 12), 1 << 12), &mut batch)
            .expect("mapped");
        batch.flush();
    });
    assert!(tree.withholds_tables());
    assert_ne!(tree.reclaim(), 0);
}

/// The worst machine keeps every translation that it may: what is withheld is in none.
#[test]
fn what_is_withheld_is_in_no_walk_cache() {
    use mmu_model::{Features, Model};
    for tlbi_range in [false, true] {
        let (model, root) = Model::<Granule4K>::with_root(Features {
            tlbi_range,
            ..Features::default()
        });
        let cpu = model.cpu(0);
        let tree = Tree::<Granule4K, _, _>::new(root, Half::High, cpu, cpu, Config::default());
        let va = tree.range().start.add(1 << 46);
        for k in 0..3 {
            model.fail_alloc_after(k);
            let failed = Shape::Range(5, 700).map(&tree, va, Attributes::KERNEL_DATA, LeafSet::PAGES);
            assert!(failed.is_err(), "{k}");
            model.cancel_alloc_failure();
            assert_eq!(tree.withholds_tables(), k != 0);
            assert!(model.is_settled() && model.violations().is_empty());
            // Other tables in the same place, while the old ones are withheld.
            Shape::Range(9, 3)
                .map(&tree, va, Attributes::KERNEL_DATA, LeafSet::PAGES)
                .expect("vacant");
            tree.reclaim();
            let out = tree.unmap_and_flush(VirtRange::new(va, 3 << 12)).expect("mapped");
            assert_eq!(out.tables_removed, 3);
            assert!(
                model.violations().is_empty(),
                "{}\n{}",
                model.violations()[0],
                model.log()
            );
            assert_eq!(model.nr_tables(), 1);
        }
        assert_eq!(tree.mmu().has_tlbi_range(), tlbi_range);
    }
}
