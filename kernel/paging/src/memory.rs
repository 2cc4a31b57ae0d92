//! Table memory that is mapped at a fixed distance: the only module with `unsafe`.
//!
//! A kernel that maps all its RAM linearly reaches a table at its physical address plus a constant.
//! [`LinearTables`] is that, over any allocator of pages; a kernel with faster stores of its own
//! implements [`Tables`] itself.

use crate::addr::PhysAddr;
use crate::granule::Granule;
use crate::tables::Tables;
use core::marker::PhantomData;
use core::sync::atomic::{AtomicU64, Ordering};

/// Pages for tables.
///
/// # Safety
/// `alloc` gives the address of a page that has no other use until `free`, that [`LinearTables`]
/// can reach, and that no stale translation leads to as a table. Its contents may be anything.
pub unsafe trait TablePages {
    /// Returns a page of the granule's size, aligned to it.
    fn alloc(&self) -> Option<PhysAddr>;
    /// Takes a page back.
    fn free(&self, page: PhysAddr);
}

/// Tables in memory that is mapped at `physical address + offset`.
#[derive(Debug)]
pub struct LinearTables<G, P> {
    offset: u64,
    pages: P,
    granule: PhantomData<G>,
}

impl<G: Granule, P: TablePages> LinearTables<G, P> {
    /// Tables from `pages`, each mapped at its physical address plus `offset`, wrapping.
    ///
    /// # Safety
    /// 1. Every page that `pages` gives, and the root that a tree is made with, is mapped there as
    ///    readable and writable memory that the hardware walker sees coherently, for as long as
    ///    this exists.
    /// 2. Nothing else accesses those pages while they are tables, but for hardware walks and other
    ///    `LinearTables`.
    #[must_use]
    pub const unsafe fn new(offset: u64, pages: P) -> Self {
        Self {
            offset,
            pages,
            granule: PhantomData,
        }
    }

    /// Returns the allocator.
    pub fn pages(&self) -> &P {
        &self.pages
    }

    #[inline]
    fn descriptor(&self, table: PhysAddr, index: usize) -> &AtomicU64 {
        debug_assert!(index < G::ENTRIES, "descriptor {index} of {table:?}");
        let address = table.0.wrapping_add(self.offset) as usize + index * 8;
        let pointer = core::ptr::with_exposed_provenance::<AtomicU64>(address);
        // SAFETY: by 1. of `new` the page is mapped, by 2. only atomic accesses reach it; a table
        // is aligned to its page, so the descriptor is aligned to 8, and `index` stays within the
        // page.
        unsafe { &*pointer }
    }
}

// SAFETY: the page is `TablePages`'s promise, zeroed here; accesses are `AtomicU64`'s, loads
// acquire, stores release, acquire-release for the exchange; the bulk operations have the effect of
// the defaults.
unsafe impl<G: Granule, P: TablePages> Tables for LinearTables<G, P> {
    fn alloc_table(&self) -> Option<PhysAddr> {
        let table = self.pages.alloc()?;
        self.clear(table, 0, G::ENTRIES);
        Some(table)
    }

    fn free_table(&self, table: PhysAddr) {
        self.pages.free(table);
    }

    #[inline]
    fn load(&self, table: PhysAddr, index: usize) -> u64 {
        // Acquire, although a processor orders the accesses behind a link by their addresses: the
        // language does not, and the table behind it may have been anybody's memory before.
        self.descriptor(table, index).load(Ordering::Acquire)
    }

    #[inline]
    fn store(&self, table: PhysAddr, index: usize, value: u64) {
        // Release: it may be a link, to a table that a split has filled.
        self.descriptor(table, index).store(value, Ordering::Release);
    }

    // In bulk come leaves and nothing, and no table is behind those.
    #[inline]
    fn fill_linear(&self, table: PhysAddr, index: usize, nr: usize, first: u64, step: u64) {
        let mut value = first;
        for i in index..index + nr {
            self.descriptor(table, i).store(value, Ordering::Relaxed);
            value = value.wrapping_add(step);
        }
    }

    #[inline]
    fn clear(&self, table: PhysAddr, index: usize, nr: usize) {
        for i in index..index + nr {
            self.descriptor(table, i).store(0, Ordering::Relaxed);
        }
    }

    #[inline]
    fn compare_exchange(&self, table: PhysAddr, index: usize, current: u64, new: u64) -> Result<(), u64> {
        self.descriptor(table, index)
            .compare_exchange(current, new, Ordering::AcqRel, Ordering::Acquire)
            .map(|_| ())
    }
}
