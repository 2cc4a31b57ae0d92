//! Counts accesses to tables, in a run of their own, as it costs instructions.

use core::cell::Cell;
use core::ops::{Add, Sub};

use paging::mmu::{Counting, MmuCounts};
use paging::{Groups, Mmu, Pfn, PhysAddr, Tables, VirtAddr, forward};

#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Counts {
    pub loads: u64,
    /// An exchange is a load and, when it succeeds, a store.
    pub stores: u64,
    pub allocated: u64,
    pub freed: u64,
    pub tlbi: u64,
    pub dsb: u64,
    pub isb: u64,
}

impl Counts {
    #[must_use]
    pub const fn with(self, mmu: &MmuCounts) -> Self {
        Self {
            tlbi: mmu.tlbi,
            dsb: mmu.dsb,
            isb: mmu.isb,
            ..self
        }
    }
}

impl Add for Counts {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self {
            loads: self.loads + other.loads,
            stores: self.stores + other.stores,
            allocated: self.allocated + other.allocated,
            freed: self.freed + other.freed,
            tlbi: self.tlbi + other.tlbi,
            dsb: self.dsb + other.dsb,
            isb: self.isb + other.isb,
        }
    }
}

impl Sub for Counts {
    type Output = Self;
    fn sub(self, earlier: Self) -> Self {
        Self {
            loads: self.loads - earlier.loads,
            stores: self.stores - earlier.stores,
            allocated: self.allocated - earlier.allocated,
            freed: self.freed - earlier.freed,
            tlbi: self.tlbi - earlier.tlbi,
            dsb: self.dsb - earlier.dsb,
            isb: self.isb - earlier.isb,
        }
    }
}

/// Bulk operations count each descriptor, and stay bulk operations.
#[derive(Default)]
pub struct CountingTables<T> {
    inner: T,
    counts: Cell<Counts>,
}

impl<T: Tables> CountingTables<T> {
    pub fn new(inner: T) -> Self {
        Self {
            inner,
            counts: Cell::default(),
        }
    }

    /// Returns the counts with those of `mmu`, and zeroes both.
    pub fn take<M: Mmu>(&self, mmu: &Counting<M>) -> Counts {
        self.counts.take().with(&mmu.take())
    }

    #[inline]
    fn count(&self, add: impl FnOnce(&mut Counts)) {
        let mut counts = self.counts.get();
        add(&mut counts);
        self.counts.set(counts);
    }
}

// SAFETY: every method forwards to `T`, which keeps the promises.
#[deny(clippy::missing_trait_methods)]
unsafe impl<T: Tables> Tables for CountingTables<T> {
    fn alloc_table(&self) -> Option<PhysAddr> {
        let table = self.inner.alloc_table()?;
        self.count(|c| c.allocated += 1);
        Some(table)
    }
    fn free_table(&self, table: PhysAddr) {
        self.count(|c| c.freed += 1);
        self.inner.free_table(table);
    }
    fn load(&self, table: PhysAddr, index: usize) -> u64 {
        self.count(|c| c.loads += 1);
        self.inner.load(table, index)
    }
    fn store(&self, table: PhysAddr, index: usize, value: u64) {
        self.count(|c| c.stores += 1);
        self.inner.store(table, index, value);
    }
    fn compare_exchange(&self, table: PhysAddr, index: usize, current: u64, new: u64) -> Result<(), u64> {
        let result = self.inner.compare_exchange(table, index, current, new);
        self.count(|c| {
            c.loads += 1;
            c.stores += u64::from(result.is_ok());
        });
        result
    }
    fn fill_linear(&self, table: PhysAddr, index: usize, nr: usize, first: u64, step: u64) {
        self.count(|c| c.stores += nr as u64);
        self.inner.fill_linear(table, index, nr, first, step);
    }
    fn fill_frames(&self, table: PhysAddr, index: usize, frames: &[Pfn], page_shift: u32, template: u64) {
        self.count(|c| c.stores += frames.len() as u64);
        self.inner.fill_frames(table, index, frames, page_shift, template);
    }
    fn fill_groups(
        &self,
        table: PhysAddr,
        index: usize,
        frames: &[Pfn],
        groups: Groups,
        template: u64,
    ) -> usize {
        let nr = self.inner.fill_groups(table, index, frames, groups, template);
        self.count(|c| c.stores += nr as u64);
        nr
    }
    fn clear(&self, table: PhysAddr, index: usize, nr: usize) {
        self.count(|c| c.stores += nr as u64);
        self.inner.clear(table, index, nr);
    }
    fn are_vacant(&self, table: PhysAddr, index: usize, nr: usize) -> bool {
        self.count(|c| c.loads += nr as u64);
        self.inner.are_vacant(table, index, nr)
    }
    fn kinds(&self, table: PhysAddr, index: usize, nr: usize) -> (u64, u64) {
        self.count(|c| c.loads += nr as u64);
        self.inner.kinds(table, index, nr)
    }
    forward! { self => self.inner;
        fn or_of_frames(frames: &[Pfn]) -> u64;
        fn nr_consecutive(frames: &[Pfn]) -> usize;
        fn enter_break(va: VirtAddr, broken: u64, tables: &[PhysAddr]);
        fn exit_break();
    }
}
