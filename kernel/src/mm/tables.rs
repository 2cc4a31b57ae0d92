//! Table memory: [`KernelTables`] through the linear map; [`LinearMapTables`] to edit that;
//! [`EarlyTables`] before it, through fixed slots.
//!
//! A broken leaf of the linear map (DESIGN rule 3) may be the way to the very table that is edited:
//! [`LinearMapTables`] then uses fixed slots.

use core::cell::{Cell, RefCell};
use core::sync::atomic::{AtomicU64, Ordering};

use paging::{Attributes, Groups, Pfn, PhysAddr, Tables, VirtAddr};

use super::layout::{LINEAR_BASE, LINEAR_END, PAGE_SIZE, fixed_slot};
use super::regions::{PhysRegion, Regions};
use super::{frames, linear_va, slots, walk_lock, zero_page};
use crate::arch::exceptions::BreakWindow;
use crate::arch::masked;
use crate::arch::mmu::{dsb_ishst, isb};
use crate::arch::table_ops;
use crate::per_cpu;

per_cpu! {
    /// Allocated less freed: terms may wrap, the sum does not.
    static NR_TABLES: AtomicU64 = AtomicU64::new(0);
}

/// Returns the tables in use, without the fixed window's.
#[must_use]
pub fn nr_tables() -> u64 {
    NR_TABLES
        .iter()
        .map(|nr| nr.load(Ordering::Relaxed))
        .fold(0, u64::wrapping_add)
}

#[inline(always)]
fn at(va: usize, index: usize) -> *mut u64 {
    (va as *mut u64).wrapping_add(index)
}

/// Pairs in `table_ops` are single-copy atomic for each descriptor.
macro_rules! accesses {
    () => {
        #[inline(always)]
        fn load(&self, table: PhysAddr, index: usize) -> u64 {
            // SAFETY: accessed only atomically, and there while it is a table.
            unsafe { AtomicU64::from_ptr(at(self.va(table), index)) }.load(Ordering::Relaxed)
        }
        #[inline(always)]
        fn store(&self, table: PhysAddr, index: usize, value: u64) {
            masked::writes(1);
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
            masked::writes(nr);
            // SAFETY: descriptors of a table that the engine writes.
            unsafe { table_ops::fill_linear(at(self.va(table), index), nr, first, step) };
        }
        #[inline(always)]
        fn fill_frames(&self, table: PhysAddr, index: usize, frames: &[Pfn], page_shift: u32, template: u64) {
            debug_assert_eq!(1 << page_shift, PAGE_SIZE);
            let _ = page_shift;
            masked::writes(frames.len());
            // SAFETY: as above; a Pfn is a u64.
            unsafe {
                table_ops::fill_frames(
                    at(self.va(table), index),
                    frames.len(),
                    frames.as_ptr().cast(),
                    template,
                )
            };
        }
        #[inline(always)]
        fn fill_groups(
            &self,
            table: PhysAddr,
            index: usize,
            frames: &[Pfn],
            groups: Groups,
            template: u64,
        ) -> usize {
            debug_assert_eq!(1 << groups.page_shift, PAGE_SIZE);
            if groups.frames != table_ops::BLOCK {
                let frames = groups.of(frames);
                self.fill_frames(table, index, frames, groups.page_shift, template);
                return frames.len();
            }
            // SAFETY: as for `fill_frames`.
            let nr = unsafe {
                table_ops::fill_blocks(
                    at(self.va(table), index),
                    frames.len(),
                    frames.as_ptr().cast(),
                    groups.head_mask,
                    template,
                )
            };
            masked::writes(nr);
            nr
        }
        #[inline(always)]
        fn clear(&self, table: PhysAddr, index: usize, nr: usize) {
            masked::writes(nr);
            // SAFETY: as above.
            unsafe { table_ops::clear(at(self.va(table), index), nr) };
        }
        #[inline(always)]
        fn or_of_frames(&self, frames: &[Pfn]) -> u64 {
            // SAFETY: a Pfn is a u64.
            unsafe { table_ops::or_of(frames.as_ptr().cast(), frames.len()) }
        }
        #[inline(always)]
        fn nr_consecutive(&self, frames: &[Pfn]) -> usize {
            let first = frames.first().map_or(0, |frame| frame.0);
            // SAFETY: a Pfn is a u64.
            unsafe { table_ops::nr_consecutive(frames.as_ptr().cast(), frames.len(), first) }
        }
        #[inline(always)]
        fn are_vacant(&self, table: PhysAddr, index: usize, nr: usize) -> bool {
            // SAFETY: as above.
            unsafe { table_ops::are_vacant(at(self.va(table), index), nr) }
        }
        #[inline(always)]
        fn kinds(&self, table: PhysAddr, index: usize, nr: usize) -> (u64, u64) {
            masked::looks_at(nr);
            // SAFETY: as above.
            unsafe { table_ops::kinds(at(self.va(table), index), nr) }
        }
    };
}

#[inline]
fn allocate_table() -> Option<PhysAddr> {
    let frame = frames::allocate_zeroed()?;
    NR_TABLES.this().fetch_add(1, Ordering::Relaxed);
    Some(PhysAddr(frame.0 * PAGE_SIZE as u64))
}

/// Unlinked, so only readers of the whole tree may be in it.
fn free_table(table: PhysAddr) {
    let _alone = walk_lock().release();
    NR_TABLES.this().fetch_sub(1, Ordering::Relaxed);
    frames::free(Pfn(table.0 / PAGE_SIZE as u64), 0);
}

#[derive(Clone, Copy, Debug, Default)]
pub struct KernelTables;

impl KernelTables {
    #[inline(always)]
    fn va(&self, table: PhysAddr) -> usize {
        // An OR folds into the load: physical addresses end below the base's bits.
        LINEAR_BASE | table.0 as usize
    }
}

const _: () = assert!(LINEAR_END - LINEAR_BASE <= 1 << LINEAR_BASE.trailing_zeros());

/// Open until [`close_window`]: the engine's two calls cannot pass a guard.
fn open_window() {
    core::mem::forget(BreakWindow::open());
}

fn close_window() {
    drop(BreakWindow::adopt());
}

// SAFETY: 1. a zeroed frame, its own until freed after a flush; 2. in the linear map, accessed by
// atomics or `table_ops`, whose pairs are as good; 3. so are bulk operations.
unsafe impl Tables for KernelTables {
    #[inline]
    fn alloc_table(&self) -> Option<PhysAddr> {
        allocate_table()
    }
    fn free_table(&self, table: PhysAddr) {
        free_table(table);
    }
    fn enter_break(&self, va: VirtAddr, _broken: u64, _tables: &[PhysAddr]) {
        let va = va.0 as usize;
        assert!(
            !(LINEAR_BASE..LINEAR_END).contains(&va),
            "the linear map is split at {va:#x} by tables that rely on it"
        );
        open_window();
    }
    fn exit_break(&self) {
        close_window();
    }
    accesses!();
}

#[derive(Debug, Default)]
pub struct LinearMapTables {
    /// Reached by the break slots; 0: none.
    diverted: [AtomicU64; slots::BREAK_SLOTS.len()],
}

impl LinearMapTables {
    #[must_use]
    pub const fn new() -> Self {
        Self {
            diverted: [const { AtomicU64::new(0) }; slots::BREAK_SLOTS.len()],
        }
    }

    #[inline]
    fn va(&self, table: PhysAddr) -> usize {
        for (diverted, slot) in self.diverted.iter().zip(slots::BREAK_SLOTS) {
            match diverted.load(Ordering::Relaxed) {
                0 => break,
                pa if pa == table.0 => return fixed_slot(slot),
                _ => {}
            }
        }
        linear_va(table.0)
    }
}

// SAFETY: as for `KernelTables`; slots map the same frames with the same attributes.
unsafe impl Tables for LinearMapTables {
    fn alloc_table(&self) -> Option<PhysAddr> {
        allocate_table()
    }
    fn free_table(&self, table: PhysAddr) {
        free_table(table);
    }
    fn enter_break(&self, va: VirtAddr, broken: u64, tables: &[PhysAddr]) {
        let mut nr = 0;
        for table in tables {
            let reached_by = VirtAddr(linear_va(table.0) as u64);
            let known = self.diverted[..nr]
                .iter()
                .any(|diverted| diverted.load(Ordering::Relaxed) == table.0);
            if reached_by.offset_from(va) < broken && !known {
                slots::map(slots::BREAK_SLOTS[nr], *table, Attributes::KERNEL_DATA);
                self.diverted[nr].store(table.0, Ordering::Relaxed);
                nr += 1;
            }
        }
        open_window();
    }
    fn exit_break(&self) {
        // Walks see the new descriptors before the linear map is used: stores went by another
        // address, and a walk is another observer (Arm ARM K13.5.3).
        dsb_ishst();
        isb();
        close_window();
        for (diverted, slot) in self.diverted.iter().zip(slots::BREAK_SLOTS) {
            if diverted.swap(0, Ordering::Relaxed) != 0 {
                slots::unmap(slot);
            }
        }
    }
    accesses!();
}

#[derive(Clone, Debug)]
pub struct EarlyPages {
    pub free: Regions,
    /// Becomes used frames, which the engine may free.
    pub taken: Regions,
}

impl EarlyPages {
    fn take(&mut self) -> Option<PhysAddr> {
        let start = self.free.take(PAGE_SIZE as u64)?;
        self.taken.add(page(start)).ok()?;
        Some(PhysAddr(start))
    }

    fn free_page(&mut self, table: PhysAddr) {
        if self.taken.remove(page(table.0)).is_ok() {
            let _ = self.free.add(page(table.0));
        }
    }
}

const fn page(start: u64) -> PhysRegion {
    PhysRegion {
        start,
        end: start + PAGE_SIZE as u64,
    }
}

pub struct EarlyTables<'a> {
    pages: &'a RefCell<EarlyPages>,
    /// What each slot maps; 0 for none.
    window: [Cell<u64>; NR_WINDOW],
}

const NR_WINDOW: usize = slots::EARLY_TABLE_SLOTS.end - slots::EARLY_TABLE_SLOTS.start;

impl<'a> EarlyTables<'a> {
    pub fn new(pages: &'a RefCell<EarlyPages>) -> Self {
        Self {
            pages,
            window: [const { Cell::new(0) }; NR_WINDOW],
        }
    }

    fn va(&self, table: PhysAddr) -> usize {
        let i = (table.0 / PAGE_SIZE as u64) as usize % NR_WINDOW;
        let slot = slots::EARLY_TABLE_SLOTS.start + i;
        if self.window[i].replace(table.0) == table.0 {
            fixed_slot(slot)
        } else {
            slots::map(slot, table, Attributes::KERNEL_DATA)
        }
    }
}

impl Drop for EarlyTables<'_> {
    fn drop(&mut self) {
        slots::EARLY_TABLE_SLOTS.for_each(slots::unmap);
    }
}

// SAFETY: 1. a zeroed page, taken from free RAM; 2. mapped by its slot, which nothing else uses; 3.
// as above.
unsafe impl Tables for EarlyTables<'_> {
    fn alloc_table(&self) -> Option<PhysAddr> {
        let table = self.pages.borrow_mut().take()?;
        // SAFETY: mapped as Normal memory, for this code only.
        unsafe { zero_page(self.va(table)) };
        NR_TABLES.this().fetch_add(1, Ordering::Relaxed);
        Some(table)
    }
    fn free_table(&self, table: PhysAddr) {
        NR_TABLES.this().fetch_sub(1, Ordering::Relaxed);
        self.pages.borrow_mut().free_page(table);
    }
    accesses!();
}
