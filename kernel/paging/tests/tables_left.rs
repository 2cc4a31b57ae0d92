//! `map` runs beside walks: it reports the tables that it leaves, and `prune` frees them.

use crate::support;

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

/// Except while `kept_out`: until then no table that was linked may be freed.
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

fn is_as_before(tree: &Walked, before: &support::Naive, live: usize, left: u32, what: &str) {
    assert_eq!(&support::Naive::of(tree), before, "{what}");
    assert_eq!(
        tree.tables().live(),
        live + left as usize,
        "{what}: what is left is said"
    );
    support::prune(tree);
    assert_eq!(tree.tables().live(), live, "{what}: tables are lost");
    assert_eq!(&support::Naive::of(tree), before, "{what}");
    support::audit(tree);
}

#[test]
fn a_failed_map_gives_no_table_back_that_a_walk_may_be_in() {
    let mut left = 0;
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
            left += u32::from(failure.tables_left != 0);
            let what = format!("{}, table {k}", case.name);
            is_as_before(&tree, &before, live, failure.tables_left, &what);
        }
    }
    assert!(left > 10, "{left} failures had made tables");
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
    let failure = result.expect_err("a hole");
    assert_eq!(failure.error, Error::NoFrame { page: 550 });
    assert_ne!(failure.tables_left, 0);
    is_as_before(&tree, &before, live, failure.tables_left, "a hole");
}

/// Below one descriptor of level 2 - `levels`.
fn with_empty_links(levels: u32) -> (Walked, VirtRange) {
    let tree = walked();
    let va = tree.range().start.add(1 << 46);
    let size = Granule4K::size(3 - levels as i8);
    let neighbour = Shape::Range(5, 1).map(&tree, va.add(size), Attributes::KERNEL_DATA, LeafSet::PAGES);
    assert!(neighbour.is_ok());
    for page in [3, 700 % (size >> 12)] {
        let page = VirtRange::new(va.add(page << 12), 1 << 12);
        let mapped = Shape::Range(9, 1).map(&tree, page.start, Attributes::KERNEL_DATA, LeafSet::PAGES);
        assert!(mapped.is_ok());
        let mut batch = tree.batch();
        tree.unmap(page, &mut batch).expect("mapped");
        batch.flush();
    }
    (tree, VirtRange::new(va, size))
}

#[test]
fn a_block_over_empty_tables_is_refused_and_goes_in_after_a_prune() {
    for (levels, tables) in [(1, 1), (2, 3)] {
        let (tree, range) = with_empty_links(levels);
        let live = tree.tables().live();
        let before = support::Naive::of(&tree);
        let block = Shape::Range(1 << 18, range.size >> 12);
        let map = || block.map(&tree, range.start, Attributes::KERNEL_DATA, LeafSet::ALL);
        let failure = beside_walks(&tree, map).expect_err("tables are in the way");
        let (va, level) = (range.start, 3 - levels as i8);
        assert_eq!(failure.error, Error::EmptyTable { va, level });
        assert!(
            failure.levels.is_empty() && failure.tables_left == 0,
            "{failure:?}"
        );
        assert_eq!(support::Naive::of(&tree), before);
        let pruned = tree.prune(range).expect("a valid range");
        assert_eq!(pruned.tables_removed, tables);
        assert_eq!(tree.tables().live(), live - tables as usize);
        let mapped = beside_walks(&tree, map).expect("vacant");
        let leaf = tree.translate(range.start).expect("mapped");
        assert_eq!(leaf.size.bytes::<Granule4K>(), range.size, "{mapped:?}");
        support::audit(&tree);
    }
}

#[test]
fn what_was_mapped_before_an_empty_table_in_the_way_is_taken_out_again() {
    let (tree, range) = with_empty_links(1);
    let before = support::Naive::of(&tree);
    let start = VirtAddr(range.start.0 - (3 << 20));
    let whole = Shape::Range((1 << 18) - (3 << 8), 5 << 8);
    let failure = whole
        .map(&tree, start, Attributes::KERNEL_DATA, LeafSet::ALL)
        .expect_err("a table is in the way");
    let wanted = Error::EmptyTable {
        va: range.start,
        level: 2,
    };
    assert_eq!(failure.error, wanted);
    assert!(failure.levels.contains(2) && failure.levels.contains(3));
    assert_eq!(support::Naive::of(&tree), before);
    let whole_range = VirtRange::new(start, 5 << 20);
    tree.prune(whole_range).expect("a valid range");
    let mapped = whole.map(&tree, start, Attributes::KERNEL_DATA, LeafSet::ALL);
    assert_eq!(mapped.expect("vacant").leaves.pages::<Granule4K>(), 5 << 8);
}

#[test]
fn an_empty_table_is_used_where_no_block_goes() {
    let (tree, range) = with_empty_links(1);
    let live = tree.tables().live();
    let pages = Shape::Range((1 << 18) + 1, range.size >> 12);
    let mapped = pages.map(&tree, range.start, Attributes::KERNEL_DATA, LeafSet::ALL);
    assert_eq!(mapped.expect("empty tables are vacant").tables_added, 0);
    assert_eq!(tree.tables().live(), live);
}

#[test]
fn what_is_left_is_used_and_pruned_soundly() {
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
            model.cancel_alloc_failure();
            assert_eq!(failed.expect_err("short").tables_left, k as u32);
            assert!(model.violations().is_empty());
            Shape::Range(9, 3)
                .map(&tree, va, Attributes::KERNEL_DATA, LeafSet::PAGES)
                .expect("vacant");
            let mut batch = tree.batch();
            tree.unmap(VirtRange::new(va, 3 << 12), &mut batch)
                .expect("mapped");
            batch.flush();
            let pruned = tree.prune(tree.range()).expect("its own range");
            assert_eq!(pruned.tables_removed, 3);
            assert!(
                model.violations().is_empty() && model.is_quiescent(),
                "{}",
                model.log()
            );
            assert_eq!(model.nr_tables(), 1);
        }
        assert_eq!(tree.mmu().has_tlbi_range(), tlbi_range);
    }
}
