//! [`LinearTables`], the only module with `unsafe`.

use crate::addr::PhysAddr;
use crate::granule::Granule;
use crate::tables::Tables;
use core::marker::PhantomData;
use core::sync::atomic::{AtomicU64, Ordering};

/// Pages for tables.
///
/// # Safety
/// `alloc` returns a page that has no other use until `free`, that [`LinearTables`] can reach, and
/// that no stale translation leads to as a table.
pub unsafe trait TablePages {
    /// Returns a page, aligned, with any contents.
    fn alloc(&self) -> Option<PhysAddr>;
    /// Takes a page back.
    fn free(&self, page: PhysAddr);
}

/// Tables at their physical address plus an offset.
#[derive(Debug)]
pub struct LinearTables<G, P> {
    offset: u64,
    pages: P,
    granule: PhantomData<G>,
}

impl<G: Granule, P: TablePages> LinearTables<G, P> {
    /// Returns tables from `pages`, each mapped at its physical address plus `offset`, wrapping.
    ///
    /// # Safety
    /// 1. As long as this exists, every page from `pages`, and a tree's root, is mapped there
    ///    readable and writable, coherent with the hardware walker.
    /// 2. Only hardware walks and other `LinearTables` access those pages while they are tables.
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
        // SAFETY: mapped by 1. of `new`, only atomic accesses by 2.; page-aligned, and `index` is
        // within the page.
        unsafe { &*pointer }
    }
}

// SAFETY: `TablePages` promises the page, zeroed here; loads acquire, stores release, the exchange
// does both; bulk operations have their defaults' effect.
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
        // Acquire: a CPU orders this by address dependency, the language does not.
        self.descriptor(table, index).load(Ordering::Acquire)
    }

    #[inline]
    fn store(&self, table: PhysAddr, index: usize, value: u64) {
        // Release: it may be a link to a table that a split has filled.
        self.descriptor(table, index).store(value, Ordering::Release);
    }

    // Relaxed: no table is behind leaves or 0.
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
