#![allow(
    dead_code,
    unused_imports,
    reason = "each test file uses its own part of this"
)]

pub mod corpus;
pub mod machine;
pub mod ops;
pub mod traced;

use paging::mmu::{Counting, NoMmu};
use paging::{
    Attributes, Config, Error, Extent, Extents, Granule, Half, Leaf, LeafSet, LeafSize, Mmu, PageArray, Pfn,
    PhysAddr, PhysRange, Tables, Tree, VirtAddr, VirtRange, Visit,
};
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::marker::PhantomData;

/// All 52 that a granule has, else few.
pub fn pa_bits<G: Granule>() -> u32 {
    if G::PA_BITS == 52 { 52 } else { 40 }
}

/// Far from the frames that tests map.
pub const TABLES_AT: u64 = 0x7f00_0000_0000;

pub struct Host<G> {
    pages: RefCell<Vec<Option<Vec<u64>>>>,
    free: RefCell<Vec<usize>>,
    pub budget: Cell<u64>,
    pub loads: Cell<u64>,
    pub stores: Cell<u64>,
    pub allocated: Cell<u64>,
    granule: PhantomData<G>,
}

impl<G: Granule> Host<G> {
    pub fn new() -> Self {
        Self {
            pages: RefCell::default(),
            free: RefCell::default(),
            budget: Cell::new(u64::MAX),
            loads: Cell::new(0),
            stores: Cell::new(0),
            allocated: Cell::new(0),
            granule: PhantomData,
        }
    }

    pub fn live(&self) -> usize {
        self.pages.borrow().iter().flatten().count()
    }

    pub fn reset_counts(&self) {
        self.loads.set(0);
        self.stores.set(0);
        self.allocated.set(0);
    }

    fn slot(table: PhysAddr) -> usize {
        ((table.0 - TABLES_AT) >> G::PAGE_SHIFT) as usize
    }

    fn with<R>(&self, table: PhysAddr, f: impl FnOnce(&mut Vec<u64>) -> R) -> R {
        let mut pages = self.pages.borrow_mut();
        let page = pages
            .get_mut(Self::slot(table))
            .and_then(Option::as_mut)
            .unwrap_or_else(|| panic!("access to {table:?}, which is not a table"));
        f(page)
    }

    pub fn peek(&self, table: PhysAddr, index: usize) -> u64 {
        self.with(table, |page| page[index])
    }

    pub fn snapshot(&self) -> Vec<Option<Vec<u64>>> {
        let mut pages = self.pages.borrow().clone();
        while pages.last() == Some(&None) {
            pages.pop();
        }
        pages
    }
}

// SAFETY: pages are zeroed, distinct and owned; one thread.
unsafe impl<G: Granule> Tables for Host<G> {
    fn alloc_table(&self) -> Option<PhysAddr> {
        let budget = self.budget.get().checked_sub(1)?;
        self.budget.set(budget);
        self.allocated.set(self.allocated.get() + 1);
        let mut pages = self.pages.borrow_mut();
        let slot = self.free.borrow_mut().pop().unwrap_or_else(|| {
            pages.push(None);
            pages.len() - 1
        });
        pages[slot] = Some(vec![0; G::ENTRIES]);
        Some(PhysAddr(TABLES_AT + ((slot as u64) << G::PAGE_SHIFT)))
    }

    fn free_table(&self, table: PhysAddr) {
        let slot = Self::slot(table);
        let page = self.pages.borrow_mut()[slot].take();
        assert!(page.is_some(), "{table:?} freed twice");
        self.free.borrow_mut().push(slot);
    }

    fn load(&self, table: PhysAddr, index: usize) -> u64 {
        self.loads.set(self.loads.get() + 1);
        self.with(table, |page| page[index])
    }

    fn store(&self, table: PhysAddr, index: usize, value: u64) {
        self.stores.set(self.stores.get() + 1);
        self.with(table, |page| page[index] = value);
    }

    fn compare_exchange(&self, table: PhysAddr, index: usize, current: u64, new: u64) -> Result<(), u64> {
        self.stores.set(self.stores.get() + 1);
        self.with(table, |page| {
            if page[index] == current {
                page[index] = new;
                Ok(())
            } else {
                Err(page[index])
            }
        })
    }
}

pub trait Live {
    fn live(&self) -> usize;
}

impl<G: Granule> Live for Host<G> {
    fn live(&self) -> usize {
        self.live()
    }
}

pub type HostTree<G> = Tree<G, Host<G>, Counting<NoMmu>>;

pub fn tree<G: Granule>(config: Config, tlbi_range: bool) -> HostTree<G> {
    let tables = Host::new();
    let root = tables.alloc_table().expect("memory");
    Tree::new(
        root,
        Half::High,
        tables,
        Counting::new(NoMmu { tlbi_range }),
        config,
    )
}

#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Naive(pub BTreeMap<u64, (u64, Attributes, bool)>);

impl Naive {
    pub fn of<G: Granule, T: Tables, M: Mmu>(tree: &Tree<G, T, M>) -> Self {
        let mut map = BTreeMap::new();
        tree.visit(tree.range(), |leaf| {
            let pages = leaf.size.bytes::<G>() >> G::PAGE_SHIFT;
            for page in 0..pages {
                let offset = page << G::PAGE_SHIFT;
                let old = map.insert(
                    leaf.va.0 + offset,
                    (leaf.pa.0 + offset, leaf.attributes, leaf.valid),
                );
                assert!(old.is_none(), "{:#x} visited twice", leaf.va.0 + offset);
            }
            Visit::Continue
        })
        .expect("the tree's own range is valid");
        Self(map)
    }
}

#[derive(Clone, Debug)]
pub enum Shape {
    Range(u64, u64),
    Array(Vec<Pfn>),
    Extents(Vec<Extent>),
}

impl Shape {
    pub fn frames(&self) -> Vec<u64> {
        match self {
            Self::Range(start, pages) => (*start..start + pages).collect(),
            Self::Array(frames) => frames.iter().map(|pfn| pfn.0).collect(),
            Self::Extents(extents) => extents
                .iter()
                .flat_map(|extent| extent.start.0..extent.start.0 + extent.pages)
                .collect(),
        }
    }

    pub fn pages(&self) -> u64 {
        match self {
            Self::Range(_, pages) => *pages,
            Self::Array(frames) => frames.len() as u64,
            Self::Extents(extents) => extents.iter().map(|extent| extent.pages).sum(),
        }
    }

    pub fn map<G: Granule, T: Tables, M: Mmu>(
        &self,
        tree: &Tree<G, T, M>,
        va: VirtAddr,
        attributes: Attributes,
        allowed: LeafSet,
    ) -> Result<paging::Outcome, paging::Failure> {
        let range = VirtRange::new(va, self.pages() << G::PAGE_SHIFT);
        match self {
            Self::Range(start, pages) => {
                let mut source = PhysRange::new(PhysAddr(start << G::PAGE_SHIFT), *pages);
                tree.map(range, &mut source, attributes, allowed)
            }
            Self::Array(frames) => {
                tree.map(range, &mut PageArray::new(frames.as_slice()), attributes, allowed)
            }
            Self::Extents(extents) => tree.map(range, &mut Extents::new(extents), attributes, allowed),
        }
    }
}

/// Found size by size: the oracle of the leaf rule.
pub fn choose_leaf<G: Granule>(
    va: VirtAddr,
    pa: PhysAddr,
    run: u64,
    remaining: u64,
    allowed: LeafSet,
) -> LeafSize {
    LeafSize::ALL
        .into_iter()
        .find(|size| {
            let bytes = size.bytes::<G>();
            size.exists::<G>()
                && allowed.contains(*size)
                && (va.0 | pa.0) & (bytes - 1) == 0
                && run >= bytes
                && remaining >= bytes
        })
        .unwrap_or(LeafSize::PAGE)
}

pub fn prune<G: Granule, T: Tables, M: Mmu>(tree: &Tree<G, T, M>) {
    tree.prune(tree.range()).expect("the tree's own range");
}

pub fn expected_leaves<G: Granule>(
    va: VirtAddr,
    frames: &[u64],
    allowed: LeafSet,
) -> Vec<(u64, u64, LeafSize)> {
    let mut leaves = Vec::new();
    let (mut page, mut run_ends) = (0, 0);
    while page < frames.len() {
        while run_ends <= page || run_ends < frames.len() && frames[run_ends] == frames[run_ends - 1] + 1 {
            run_ends += 1;
        }
        let run = (run_ends - page) as u64;
        let at = va.add((page as u64) << G::PAGE_SHIFT);
        let pa = PhysAddr(frames[page] << G::PAGE_SHIFT);
        let remaining = ((frames.len() - page) as u64) << G::PAGE_SHIFT;
        let size = choose_leaf::<G>(at, pa, run << G::PAGE_SHIFT, remaining, allowed);
        leaves.push((at.0, pa.0, size));
        page += (size.bytes::<G>() >> G::PAGE_SHIFT) as usize;
    }
    leaves
}

/// Runs of `(first frame, pages)`, which must not touch.
pub fn expected_of_runs<G: Granule>(
    va: VirtAddr,
    runs: &[(u64, u64)],
    allowed: LeafSet,
) -> Vec<(u64, u64, LeafSize)> {
    let mut leaves = Vec::new();
    let mut left: u64 = runs.iter().map(|(_, pages)| pages).sum();
    let mut va = va;
    for (first, pages) in runs {
        let mut done = 0;
        while done < *pages {
            let pa = PhysAddr((first + done) << G::PAGE_SHIFT);
            let run = (pages - done) << G::PAGE_SHIFT;
            let size = choose_leaf::<G>(va, pa, run, left << G::PAGE_SHIFT, allowed);
            leaves.push((va.0, pa.0, size));
            let taken = size.bytes::<G>() >> G::PAGE_SHIFT;
            va = va.add(size.bytes::<G>());
            done += taken;
            left -= taken;
        }
    }
    leaves
}

pub fn leaves_in<G: Granule, T: Tables, M: Mmu>(tree: &Tree<G, T, M>, range: VirtRange) -> Vec<Leaf> {
    let mut leaves = Vec::new();
    tree.visit(range, |leaf| {
        leaves.push(*leaf);
        Visit::Continue
    })
    .expect("a valid range");
    leaves
}

/// Shares no code with the engine.
pub fn audit<G: Granule, T: Tables + Live, M: Mmu>(tree: &Tree<G, T, M>) {
    fn table<G: Granule, T: Tables, M: Mmu>(
        tree: &Tree<G, T, M>,
        at: PhysAddr,
        level: i8,
        seen: &mut BTreeSet<u64>,
    ) {
        assert!(seen.insert(at.0), "table {at:?} is linked twice");
        let entries: Vec<u64> = (0..G::ENTRIES).map(|i| tree.tables().load(at, i)).collect();
        for (i, entry) in entries.iter().enumerate() {
            if *entry == 0 {
                continue;
            }
            if level < 3 && entry & 3 == 3 {
                let below = PhysAddr(mmu_model::descriptor::address::<G>(*entry));
                assert_eq!(
                    *entry,
                    mmu_model::descriptor::with_address::<G>(below.0) | 3,
                    "link to {below:?} at level {level}"
                );
                table(tree, below, level + 1, seen);
            } else if entry >> 52 & 1 == 1 {
                let group = 1 << G::cont_shift(level);
                let head = i & !(group - 1);
                let step = 1u64 << G::shift(level);
                let expected = entries[head] + (i - head) as u64 * step;
                assert_eq!(*entry, expected, "mixed group at level {level} index {i}");
                let pa = mmu_model::descriptor::address::<G>(entries[head]);
                assert_eq!(pa & (step * group as u64 - 1), 0, "misaligned group");
            }
        }
    }
    let mut seen = BTreeSet::new();
    table(tree, tree.root(), G::ROOT_LEVEL, &mut seen);
    assert_eq!(seen.len(), tree.tables().live(), "tables are leaked");
}

pub struct Rng(pub u64);

impl Rng {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }
}

pub fn is_out_of_tables(error: Error) -> bool {
    matches!(error, Error::OutOfTables(_))
}
