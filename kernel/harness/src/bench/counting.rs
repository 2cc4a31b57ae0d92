//! Table memory that counts what passes through it.
//!
//! Counting costs instructions, so nothing is counted while instructions are: a case runs once more
//! through this, on the same tables.

use core::cell::Cell;
use core::ops::{Add, Sub};

use paging::mmu::{Counting, MmuCounts};
use paging::{Mmu, Pfn, PhysAddr, Tables, VirtAddr, forward};

/// What one operation did to tables and TLBs.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Counts {
    /// Descriptors read.
    pub loads: u64,
    /// Descriptors written. An exchange is a read and, when it succeeds, a write.
    pub stores: u64,
    /// Table pages allocated.
    pub allocated: u64,
    /// Table pages freed.
    pub freed: u64,
    /// TLBIs of any kind.
    pub tlbi: u64,
    /// DSBs of either kind.
    pub dsb: u64,
    /// ISBs.
    pub isb: u64,
}

impl Counts {
    /// The same with barriers and invalidations as `mmu` counted them.
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

/// Counts and hands on. Bulk operations count each descriptor, and stay what they are.
#[derive(Default)]
pub struct CountingTables<T> {
    inner: T,
    counts: Cell<Counts>,
}

impl<T: Tables> CountingTables<T> {
    /// Returns a counter in front of `inner`, at zero.
    pub fn new(inner: T) -> Self {
        Self {
            inner,
            counts: Cell::default(),
        }
    }

    /// Returns what has passed, with the barriers and invalidations that `mmu` has counted; both
    /// start again at zero.
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
        fn nr_in_groups(frames: &[Pfn], group: usize) -> usize;
        fn enter_break(va: VirtAddr, broken: u64, tables: &[PhysAddr]);
        fn exit_break();
    }
}
