//! The seam to table memory: [`Tables`].
//!
//! The engine never sees a pointer. It names a table by its physical address and a descriptor by its index, and asks for
//! single-copy atomic 64-bit accesses: the hardware walker of every CPU is an observer that may read between any two of
//! them (Arm ARM B2.2.1, D8.2).
//!
//! # Orderings
//! - [`load`](Tables::load) and [`store`](Tables::store) are relaxed, but that a table is read after the link that led to it:
//!   a processor keeps that order by itself, since the address comes from the link; the language asks for acquire and
//!   release, as [`LinearTables`](crate::LinearTables) has them.
//! - [`compare_exchange`](Tables::compare_exchange) has release semantics when it succeeds and acquire when it loads: a
//!   walk that sees the new value sees every store made before it. Links to new tables are published so, which is what
//!   orders a table's zeroing before its link without a barrier of its own (DESIGN rule 2).
//! - Nothing here is complete for another observer before the DSB that the engine issues through [`Mmu`](crate::Mmu).
//!
//! # Bulk operations
//! They have plain defaults. A kernel overrides them with paired stores and DC ZVA; every descriptor must still be
//! written by a 64-bit single-copy atomic access, except in [`zero`](Tables::zero), whose table no walker can reach.

use crate::addr::{Pfn, PhysAddr};

/// Memory for translation tables, and access to it.
///
/// # Safety
/// An implementation promises:
/// 1. `alloc_table` returns the address of one page (of the granule the tree uses), aligned to its size, all zero, owned
///    by the caller until `free_table`, and never one that any TLB or walk cache may still reach as a table;
/// 2. accesses reach that memory, and are single-copy atomic and ordered as the module says;
/// 3. overridden bulk operations have the effect of their defaults.
pub unsafe trait Tables {
    /// A zeroed table page, or `None` when there is none.
    fn alloc_table(&self) -> Option<PhysAddr>;

    /// Takes back a table page. No walker reaches it any more; its contents are arbitrary.
    fn free_table(&self, table: PhysAddr);

    /// Reads a descriptor.
    fn load(&self, table: PhysAddr, index: usize) -> u64;

    /// Writes a descriptor.
    fn store(&self, table: PhysAddr, index: usize, value: u64);

    /// Replaces a descriptor if it is `current`; otherwise gives what is there.
    ///
    /// # Errors
    /// The value found, if it was not `current`. Never fails spuriously.
    fn compare_exchange(&self, table: PhysAddr, index: usize, current: u64, new: u64) -> Result<(), u64>;

    /// Writes `nr` descriptors from `index` on: `first`, `first + step`, `first + 2 * step` and so on.
    #[inline]
    fn fill_linear(&self, table: PhysAddr, index: usize, nr: usize, first: u64, step: u64) {
        let mut value = first;
        for i in index..index + nr {
            self.store(table, i, value);
            value = value.wrapping_add(step);
        }
    }

    /// Writes one descriptor for each of `outputs` from `index` on: the output address plus `template`.
    #[inline]
    fn fill_outputs(&self, table: PhysAddr, index: usize, outputs: &[PhysAddr], template: u64) {
        for (i, output) in outputs.iter().enumerate() {
            self.store(table, index + i, output.0 | template);
        }
    }

    /// Writes one descriptor for each of `frames` from `index` on: the frame's address plus `template`. Every frame number is
    /// that of an address.
    #[inline]
    fn fill_frames(&self, table: PhysAddr, index: usize, frames: &[Pfn], page_shift: u32, template: u64) {
        for (i, frame) in frames.iter().enumerate() {
            self.store(table, index + i, frame.0 << page_shift | template);
        }
    }

    /// The OR of the numbers of `frames`: which bits any of them has. Touches no table.
    #[inline]
    fn or_frames(&self, frames: &[Pfn]) -> u64 {
        frames.iter().fold(0, |all, frame| all | frame.0)
    }

    /// How many of `frames` follow each other from the first on. Touches no table.
    #[inline]
    fn nr_consecutive(&self, frames: &[Pfn]) -> usize {
        let Some(first) = frames.first() else {
            return 0;
        };
        let follows = |(frame, i): &(&Pfn, u64)| frame.0 == first.0.wrapping_add(*i);
        frames.iter().zip(0..).take_while(follows).count()
    }

    /// Writes 0 to `nr` descriptors from `index` on.
    #[inline]
    fn clear(&self, table: PhysAddr, index: usize, nr: usize) {
        for i in index..index + nr {
            self.store(table, i, 0);
        }
    }

    /// The OR of `nr` descriptors from `index` on: 0 says that all are vacant.
    #[inline]
    fn or_all(&self, table: PhysAddr, index: usize, nr: usize) -> u64 {
        (index..index + nr).fold(0, |all, i| all | self.load(table, i))
    }

    /// The AND of `nr` descriptors from `index` on: a bit that is set says that all have it.
    #[inline]
    fn and_all(&self, table: PhysAddr, index: usize, nr: usize) -> u64 {
        (index..index + nr).fold(!0, |all, i| all & self.load(table, i))
    }

    /// [`and_all`](Self::and_all) and [`or_all`](Self::or_all) in one pass.
    #[inline]
    fn and_or_all(&self, table: PhysAddr, index: usize, nr: usize) -> (u64, u64) {
        (index..index + nr).fold((!0, 0), |(and, or), i| {
            let value = self.load(table, i);
            (and & value, or | value)
        })
    }

    /// As [`and_or_all`](Self::and_or_all), but only bits 7:0 and 55:48 count: what kind of descriptors they are.
    #[inline]
    fn flags(&self, table: PhysAddr, index: usize, nr: usize) -> (u64, u64) {
        self.and_or_all(table, index, nr)
    }

    /// Called before a live leaf or group that covers `broken` bytes from `va` is made invalid, with the tables that the
    /// engine will access until [`leave_break`](Self::leave_break). If `va` is how those tables are reached (the linear
    /// map is being split), accesses must take another way until then (DESIGN rule 3, last sentence).
    #[inline(always)]
    fn enter_break(&self, va: crate::VirtAddr, broken: u64, tables: &[PhysAddr]) {
        let _ = (va, broken, tables);
    }

    /// Ends what [`enter_break`](Self::enter_break) began: the new descriptors are written.
    #[inline(always)]
    fn leave_break(&self) {}
}

// SAFETY: every method forwards to `T`, which keeps the promises.
unsafe impl<T: Tables + ?Sized> Tables for &T {
    fn alloc_table(&self) -> Option<PhysAddr> {
        (**self).alloc_table()
    }
    fn free_table(&self, table: PhysAddr) {
        (**self).free_table(table);
    }
    #[inline(always)]
    fn load(&self, table: PhysAddr, index: usize) -> u64 {
        (**self).load(table, index)
    }
    #[inline(always)]
    fn store(&self, table: PhysAddr, index: usize, value: u64) {
        (**self).store(table, index, value);
    }
    #[inline(always)]
    fn compare_exchange(&self, table: PhysAddr, index: usize, current: u64, new: u64) -> Result<(), u64> {
        (**self).compare_exchange(table, index, current, new)
    }
    #[inline(always)]
    fn fill_linear(&self, table: PhysAddr, index: usize, nr: usize, first: u64, step: u64) {
        (**self).fill_linear(table, index, nr, first, step);
    }
    #[inline(always)]
    fn fill_outputs(&self, table: PhysAddr, index: usize, outputs: &[PhysAddr], template: u64) {
        (**self).fill_outputs(table, index, outputs, template);
    }
    #[inline(always)]
    fn fill_frames(&self, table: PhysAddr, index: usize, frames: &[Pfn], page_shift: u32, template: u64) {
        (**self).fill_frames(table, index, frames, page_shift, template);
    }
    #[inline(always)]
    fn or_frames(&self, frames: &[Pfn]) -> u64 {
        (**self).or_frames(frames)
    }
    #[inline(always)]
    fn nr_consecutive(&self, frames: &[Pfn]) -> usize {
        (**self).nr_consecutive(frames)
    }
    #[inline(always)]
    fn clear(&self, table: PhysAddr, index: usize, nr: usize) {
        (**self).clear(table, index, nr);
    }
    #[inline(always)]
    fn or_all(&self, table: PhysAddr, index: usize, nr: usize) -> u64 {
        (**self).or_all(table, index, nr)
    }
    #[inline(always)]
    fn and_all(&self, table: PhysAddr, index: usize, nr: usize) -> u64 {
        (**self).and_all(table, index, nr)
    }
    #[inline(always)]
    fn and_or_all(&self, table: PhysAddr, index: usize, nr: usize) -> (u64, u64) {
        (**self).and_or_all(table, index, nr)
    }
    #[inline(always)]
    fn flags(&self, table: PhysAddr, index: usize, nr: usize) -> (u64, u64) {
        (**self).flags(table, index, nr)
    }
    #[inline(always)]
    fn enter_break(&self, va: crate::VirtAddr, broken: u64, tables: &[PhysAddr]) {
        (**self).enter_break(va, broken, tables);
    }
    #[inline(always)]
    fn leave_break(&self) {
        (**self).leave_break();
    }
}
