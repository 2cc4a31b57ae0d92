//! `LinearTables` on memory that is really freed: for Miri (`cargo +nightly miri test -p paging
//! --test all memory::`).

use paging::mmu::NoMmu;
use paging::{
    Attributes, Config, Granule, Granule4K, Half, LeafSet, LeafSize, LinearTables, PageArray, Pfn, PhysAddr,
    PhysRange, TablePages, Tables, TinyGranule, Tree, VirtRange,
};
use std::alloc::{Layout, alloc, dealloc};
use std::collections::BTreeSet;
use std::sync::{Mutex, RwLock};

/// Of page 0.
const OFFSET: u64 = 0x1000;
const PAGE: Layout = match Layout::from_size_align(4096, 4096) {
    Ok(layout) => layout,
    Err(_) => panic!("a page has a layout"),
};

/// Pages freed at once, or when no operation runs.
pub struct Heap {
    offset: u64,
    in_use: Mutex<BTreeSet<u64>>,
    waiting: Mutex<Vec<u64>>,
    at_once: bool,
}

impl Heap {
    pub fn new(offset: u64, at_once: bool) -> Self {
        Self {
            offset,
            in_use: Mutex::default(),
            waiting: Mutex::default(),
            at_once,
        }
    }

    fn nr(&self) -> usize {
        self.in_use.lock().expect("no panic").len()
    }

    fn dealloc(&self, pa: u64) {
        let page = std::ptr::with_exposed_provenance_mut::<u8>((pa + self.offset) as usize);
        // SAFETY: from `alloc` with this layout, and not in use.
        unsafe { dealloc(page, PAGE) };
    }

    fn quiesce(&self) {
        std::mem::take(&mut *self.waiting.lock().expect("no panic"))
            .into_iter()
            .for_each(|page| self.dealloc(page));
    }
}

// SAFETY: heap pages with one owner each, freed only between operations.
unsafe impl TablePages for Heap {
    fn alloc(&self) -> Option<PhysAddr> {
        // SAFETY: the layout is not of size 0.
        let page = unsafe { alloc(PAGE) };
        assert!(!page.is_null());
        // SAFETY: one page, just allocated. Stale contents must not matter.
        unsafe { page.write_bytes(0xa5, PAGE.size()) };
        let pa = page.expose_provenance() as u64 - self.offset;
        assert!(self.in_use.lock().expect("no panic").insert(pa));
        Some(PhysAddr(pa))
    }

    fn free(&self, page: PhysAddr) {
        assert!(
            self.in_use.lock().expect("no panic").remove(&page.0),
            "{page:?} is freed twice"
        );
        if self.at_once {
            self.dealloc(page.0);
        } else {
            self.waiting.lock().expect("no panic").push(page.0);
        }
    }
}

impl Drop for Heap {
    fn drop(&mut self) {
        self.quiesce();
        for page in std::mem::take(&mut *self.in_use.lock().expect("no panic")) {
            self.dealloc(page);
        }
    }
}

pub type LinearTree<G> = Tree<G, LinearTables<G, Heap>, NoMmu>;

fn tree<G: Granule>(at_once: bool) -> LinearTree<G> {
    // SAFETY: 1. `Heap` gives addresses less `OFFSET`; 2. nothing else accesses its pages.
    let tables = unsafe { LinearTables::new(OFFSET, Heap::new(OFFSET, at_once)) };
    let root = tables.alloc_table().expect("memory");
    Tree::new(root, Half::High, tables, NoMmu::default(), Config::default())
}

fn range<G: Granule>(tree: &LinearTree<G>, page: u64, pages: u64) -> VirtRange {
    VirtRange::new(tree.range().start.add(page << 12), pages << 12)
}

fn map<G: Granule>(tree: &LinearTree<G>, page: u64, pages: u64) {
    let mut source = PhysRange::new(PhysAddr((0x1000 + page) << 12), pages);
    tree.map(
        range(tree, page, pages),
        &mut source,
        Attributes::KERNEL_DATA,
        LeafSet::ALL,
    )
    .expect("vacant");
}

fn unmap<G: Granule>(tree: &LinearTree<G>, page: u64, pages: u64) {
    let mut batch = tree.batch();
    tree.unmap(range(tree, page, pages), &mut batch)
        .expect("memory suffices");
    batch.flush();
}

#[test]
fn a_table_is_zero_whatever_its_page_held() {
    // SAFETY: as in `tree`.
    let tables = unsafe { LinearTables::<Granule4K, _>::new(OFFSET, Heap::new(OFFSET, true)) };
    let table = tables.alloc_table().expect("memory");
    assert!((0..512).all(|index| tables.load(table, index) == 0));
    tables.store(table, 511, 7);
    assert_eq!(tables.compare_exchange(table, 511, 6, 8), Err(7));
    assert_eq!(tables.compare_exchange(table, 511, 7, 8), Ok(()));
    assert_eq!((tables.load(table, 511), tables.load(table, 510)), (8, 0));
    assert_eq!(tables.pages().nr(), 1);
    tables.free_table(table);
    assert_eq!(tables.pages().nr(), 0);
}

#[test]
fn a_life_of_every_operation_touches_only_pages_that_are_there() {
    let tree = tree::<Granule4K>(true);
    map(&tree, 512, 512);
    map(&tree, 3, 20);
    let frames: Vec<_> = (0..40).map(|i| Pfn(0x9000 + 2 * i)).collect();
    let mut source = PageArray::new(frames.as_slice());
    tree.map(
        range(&tree, 1030, 40),
        &mut source,
        Attributes::DEVICE,
        LeafSet::ALL,
    )
    .expect("vacant");
    unmap(&tree, 700, 3);
    let mut batch = tree.batch();
    tree.protect(range(&tree, 512, 100), Attributes::read_only, &mut batch)
        .expect("mapped");
    tree.protect(range(&tree, 512, 100), Attributes::writable, &mut batch)
        .expect("mapped");
    batch.flush();
    map(&tree, 700, 3);
    let mut batch = tree.batch();
    let folded = tree
        .coalesce(range(&tree, 512, 512), &mut batch)
        .expect("takes no memory");
    batch.flush();
    assert_eq!(folded.leaves.get(LeafSize::BLOCK2), 1, "as if nothing had been");
    tree.check(|_, _| true, |_| true).expect("sound");
    let mut batch = tree.batch();
    tree.unmap(range(&tree, 0, 600), &mut batch)
        .expect("memory suffices");
    batch.flush();
    tree.prune(tree.range()).expect("a valid range");
    let mut batch = tree.batch();
    tree.unmap(range(&tree, 600, 1000), &mut batch)
        .expect("memory suffices");
    batch.flush();
    tree.prune(tree.range()).expect("a valid range");
    assert_eq!(tree.tables().pages().nr(), 1, "only the root is left");
}

#[test]
fn threads_race_for_links_and_for_nothing_else() {
    let rounds = if cfg!(miri) { 12 } else { 3000 };
    let tree = tree::<TinyGranule>(false);
    let epoch = RwLock::new(());
    map(&tree, 7, 1);
    std::thread::scope(|scope| {
        for thread in 0..3u64 {
            let (tree, epoch) = (&tree, &epoch);
            scope.spawn(move || {
                for round in 0..rounds {
                    let page = thread + 4 * (round % 4);
                    let page = if page == 7 { 3 } else { page };
                    for step in 0..4 {
                        let _reading = epoch.read().expect("no panic");
                        match step {
                            0 => map(tree, page, 1),
                            1 => assert!(tree.translate(range(tree, page, 1).start).is_some()),
                            2 => unmap(tree, page, 1),
                            _ => assert!(tree.translate(range(tree, 7, 1).start).is_some()),
                        }
                    }
                    if round % 4 == thread {
                        let _alone = epoch.write().expect("no panic");
                        tree.tables().pages().quiesce();
                    }
                }
            });
        }
    });
    tree.check(|_, _| true, |_| true).expect("sound");
    unmap(&tree, 0, 64);
    assert_eq!(tree.tables().pages().nr(), 1);
}

#[test]
fn a_dump_runs_beside_splits_and_folds() {
    let rounds = if cfg!(miri) { 6 } else { 2000 };
    let tree = tree::<TinyGranule>(false);
    let epoch = RwLock::new(());
    map(&tree, 0, 16);
    map(&tree, 20, 4);
    std::thread::scope(|scope| {
        let (tree, epoch) = (&tree, &epoch);
        scope.spawn(move || {
            for _ in 0..rounds {
                {
                    let _reading = epoch.read().expect("no panic");
                    let mut batch = tree.batch();
                    tree.split(range(tree, 5, 2), &mut batch)
                        .expect("memory suffices");
                    batch.flush();
                    let mut batch = tree.batch();
                    tree.coalesce(range(tree, 0, 16), &mut batch)
                        .expect("takes no memory");
                    batch.flush();
                }
                let _alone = epoch.write().expect("no panic");
                tree.tables().pages().quiesce();
            }
        });
        scope.spawn(move || {
            for _ in 0..2 * rounds {
                let _reading = epoch.read().expect("no panic");
                for run in tree.dump(tree.range()) {
                    let page = run.range.start.offset_from(tree.range().start) >> 12;
                    assert_eq!(run.pa, PhysAddr((0x1000 + page) << 12));
                }
                assert!(tree.translate(range(tree, 21, 1).start).is_some());
            }
        });
    });
    tree.check(|_, _| true, |_| true).expect("sound");
}

#[test]
fn threads_map_and_unmap_while_pages_are_freed_at_once() {
    let tree = tree::<Granule4K>(true);
    map(&tree, 0, 1);
    std::thread::scope(|scope| {
        for thread in 1..4 {
            let tree = &tree;
            scope.spawn(move || {
                for _ in 0..4 {
                    let page = thread * 0x20;
                    map(tree, page, 0x11);
                    let found = tree.translate(range(tree, page, 1).start).map(|leaf| leaf.pa);
                    assert_eq!(found, Some(PhysAddr((0x1000 + page) << 12)));
                    unmap(tree, page, 0x11);
                }
            });
        }
    });
    unmap(&tree, 0, 1);
    tree.prune(tree.range()).expect("a valid range");
    assert_eq!(tree.tables().pages().nr(), 1, "only the root is left");
}
