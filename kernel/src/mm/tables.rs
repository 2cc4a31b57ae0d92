//! Table memory for the engine: [`KernelTables`] through the linear map, [`LinearMapTables`] for editing the linear map itself,
//! [`EarlyTables`] before there is one.
//!
//! # How the first table is reached
//! The final tables are built while the first ones are live, and those map no RAM. So [`EarlyTables`] takes pages from the list of free RAM and
//! reaches each through a fixed slot, a window of 64 that is a cache by page number. The walker does not notice: it names tables by
//! physical address. Once TTBR1 holds the result, the same pages are reached through the linear map.
//!
//! # How the linear map is edited
//! Its tables are RAM, so the linear map reaches them. When a leaf is broken that maps the very table being edited, that way is closed
//! until the leaf is made anew (DESIGN rule 3): [`LinearMapTables`] goes through fixed slots then. Nothing in vmalloc can come into that position, so
//! [`KernelTables`] has no such question on its way.

use core::cell::{Cell, RefCell};
use core::sync::atomic::{AtomicU64, Ordering};

use paging::{Attributes, Pfn, PhysAddr, Tables, VirtAddr};

use super::layout::{LINEAR_BASE, LINEAR_END, PAGE_SIZE};
use super::regions::Regions;
use super::{frames, linear_va, slots};
use crate::arch::exceptions::BreakWindow;
use crate::arch::table_ops;

/// Table pages that [`Tables::alloc_table`] gave and `free_table` has not got back, root and those of the boot included.
static NR_TABLES: AtomicU64 = AtomicU64::new(0);

/// Table pages in use, the two of the fixed window and the root excluded: those are not the engine's.
#[must_use]
pub fn nr_tables() -> u64 {
    NR_TABLES.load(Ordering::Relaxed)
}

/// Where descriptor `index` of `table` is, if the table is mapped at `va`.
#[inline(always)]
fn at(va: usize, index: usize) -> *mut u64 {
    (va as *mut u64).wrapping_add(index)
}

/// The accesses of [`Tables`], given a method `va` that says where a table is mapped.
///
/// Bulk operations go to `table_ops`, whose pairs are single-copy atomic for each descriptor.
macro_rules! accesses {
    () => {
        #[inline(always)]
        fn load(&self, table: PhysAddr, index: usize) -> u64 {
            // SAFETY: a table's memory is only ever accessed atomically, and is there for as long as it is a table.
            unsafe { AtomicU64::from_ptr(at(self.va(table), index)) }.load(Ordering::Relaxed)
        }
        #[inline(always)]
        fn store(&self, table: PhysAddr, index: usize, value: u64) {
            // SAFETY: as for `load`.
            unsafe { AtomicU64::from_ptr(at(self.va(table), index)) }.store(value, Ordering::Relaxed);
        }
        #[inline(always)]
        fn compare_exchange(&self, table: PhysAddr, index: usize, current: u64, new: u64) -> Result<(), u64> {
            // SAFETY: as for `load`.
            unsafe { AtomicU64::from_ptr(at(self.va(table), index)) }
                .compare_exchange(current, new, Ordering::AcqRel, Ordering::Acquire)
                .map(|_| ())
        }
        #[inline(always)]
        fn fill_linear(&self, table: PhysAddr, index: usize, nr: usize, first: u64, step: u64) {
            // SAFETY: `nr` descriptors of a table that the engine writes.
            unsafe { table_ops::fill_linear(at(self.va(table), index), nr, first, step) };
        }
        #[inline(always)]
        fn fill_outputs(&self, table: PhysAddr, index: usize, outputs: &[PhysAddr], template: u64) {
            // SAFETY: as above; a PhysAddr is a u64.
            unsafe {
                table_ops::fill_outputs(
                    at(self.va(table), index),
                    outputs.len(),
                    outputs.as_ptr().cast(),
                    template,
                )
            };
        }
        #[inline(always)]
        fn clear(&self, table: PhysAddr, index: usize, nr: usize) {
            // SAFETY: as above.
            unsafe { table_ops::clear(at(self.va(table), index), nr) };
        }
        #[inline(always)]
        fn or_all(&self, table: PhysAddr, index: usize, nr: usize) -> u64 {
            // SAFETY: `nr` descriptors of a table.
            unsafe { table_ops::or_all(at(self.va(table), index), nr) }
        }
        #[inline(always)]
        fn and_all(&self, table: PhysAddr, index: usize, nr: usize) -> u64 {
            // SAFETY: as above.
            unsafe { table_ops::and_all(at(self.va(table), index), nr) }
        }
    };
}

/// A zeroed frame as a table.
#[inline]
fn allocate_table() -> Option<PhysAddr> {
    let frame = frames::allocate_zeroed()?;
    NR_TABLES.fetch_add(1, Ordering::Relaxed);
    Some(PhysAddr(frame.0 * PAGE_SIZE as u64))
}

fn free_table(table: PhysAddr) {
    NR_TABLES.fetch_sub(1, Ordering::Relaxed);
    frames::free(Pfn(table.0 / PAGE_SIZE as u64), 0);
}

/// Tables through the linear map, for every part of the address space but the linear map.
#[derive(Clone, Copy, Debug, Default)]
pub struct KernelTables;

impl KernelTables {
    #[inline(always)]
    fn va(&self, table: PhysAddr) -> usize {
        linear_va(table.0)
    }
}

thread_break! {}

// SAFETY: 1. a frame, zeroed, its own until it is freed, and freed by the engine only after a flush; 2. the linear map reaches every frame, and accesses
// are atomics or `table_ops`, which says why its pairs are as good; 3. so do the bulk operations.
unsafe impl Tables for KernelTables {
    #[inline]
    fn alloc_table(&self) -> Option<PhysAddr> {
        allocate_table()
    }
    #[inline]
    fn free_table(&self, table: PhysAddr) {
        free_table(table);
    }
    accesses!();
}
