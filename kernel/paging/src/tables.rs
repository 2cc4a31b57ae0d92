//! The seam to table memory: [`Tables`].
//!
//! The engine never sees a pointer. It names a table by its physical address and a descriptor by
//! its index, and asks for single-copy atomic 64-bit accesses: the hardware walker of every CPU is
//! an observer that may read between any two of them (Arm ARM B2.2.1, D8.2).
//!
//! # Orderings
//! - [`load`](Tables::load) and [`store`](Tables::store) are relaxed, but that a table is read
//!   after the link that led to it: a processor keeps that order by itself, since the address comes
//!   from the link; the language asks for acquire and release, as
//!   [`LinearTables`](crate::LinearTables) has them.
//! - [`compare_exchange`](Tables::compare_exchange) has release semantics when it succeeds and
//!   acquire when it loads: a walk that sees the new value sees every store made before it. Links
//!   to new tables are published so, which is what orders a table's zeroing before its link without
//!   a barrier of its own (DESIGN rule 2).
//! - Nothing here is complete for another observer before the DSB that the engine issues through
//!   [`Mmu`](crate::Mmu).
//!
//! # Bulk operations
//! They have plain defaults. A kernel overrides them with paired stores and DC ZVA; every
//! descriptor must still be written by a 64-bit single-copy atomic access, except in
//! [`alloc_table`](Tables::alloc_table), whose table no walker reaches yet.

use crate::addr::{Pfn, PhysAddr, VirtAddr};
use crate::descriptor::Descriptor;

/// What makes frames a contiguous group of pages: consecutive numbers behind a first one that has no
/// bit of a mask.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Groups {
    /// Frames in a group.
    pub frames: usize,
    /// What the number of a group's first frame must not have: bits below the group's alignment,
    /// and those of no physical address.
    pub head_mask: u64,
    /// The granule's.
    pub page_shift: u32,
}

impl Groups {
    /// Returns the groups that `frames` begin with.
    #[inline]
    #[must_use]
    pub fn of(self, frames: &[Pfn]) -> &[Pfn] {
        let is_group = |frames: &&[Pfn]| {
            let follow = |pair: &[Pfn]| pair[1].0 == pair[0].0.wrapping_add(1);
            frames[0].0 & self.head_mask == 0 && frames.windows(2).all(follow)
        };
        let chunks = frames.chunks_exact(self.frames);
        &frames[..chunks.take_while(is_group).count() * self.frames]
    }
}

/// Memory for translation tables, and access to it.
///
/// # Safety
/// An implementation promises:
/// 1. `alloc_table` returns the address of one page (of the granule the tree uses), aligned to its
///    size, all zero, owned by the caller until `free_table`, and never one that any TLB or walk
///    cache may still reach as a table, nor the page at physical address 0, which stands for no
///    table;
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

    /// Writes `nr` descriptors from `index` on: `first`, `first + step`, `first + 2 * step` and so
    /// on.
    #[inline]
    fn fill_linear(&self, table: PhysAddr, index: usize, nr: usize, first: u64, step: u64) {
        let mut value = first;
        for i in index..index + nr {
            self.store(table, i, value);
            value = value.wrapping_add(step);
        }
    }

    /// Writes one descriptor for each of `frames` from `index` on: the frame's address plus
    /// `template`. Every frame number is that of an address.
    #[inline]
    fn fill_frames(&self, table: PhysAddr, index: usize, frames: &[Pfn], page_shift: u32, template: u64) {
        for (i, frame) in frames.iter().enumerate() {
            self.store(table, index + i, frame.0 << page_shift | template);
        }
    }

    /// As [`fill_frames`](Self::fill_frames), for the `groups` that `frames` begin with. Groups need
    /// not continue each other. Returns how many descriptors it wrote.
    #[inline]
    fn fill_groups(
        &self,
        table: PhysAddr,
        index: usize,
        frames: &[Pfn],
        groups: Groups,
        template: u64,
    ) -> usize {
        let frames = groups.of(frames);
        self.fill_frames(table, index, frames, groups.page_shift, template);
        frames.len()
    }

    /// Returns the OR of the numbers of `frames`. Touches no table.
    #[inline]
    fn or_of_frames(&self, frames: &[Pfn]) -> u64 {
        frames.iter().fold(0, |or, frame| or | frame.0)
    }

    /// Returns how many of `frames` follow each other from the first on. Touches no table.
    #[inline]
    fn nr_consecutive(&self, frames: &[Pfn]) -> usize {
        let first = frames.first().map_or(0, |frame| frame.0);
        let follows = |(frame, i): &(&Pfn, u64)| frame.0 == first.wrapping_add(*i);
        frames.iter().zip(0..).take_while(follows).count()
    }

    /// Writes 0 to `nr` descriptors from `index` on.
    #[inline]
    fn clear(&self, table: PhysAddr, index: usize, nr: usize) {
        for i in index..index + nr {
            self.store(table, i, 0);
        }
    }

    /// Returns whether `nr` descriptors from `index` on are vacant: bits 7:0 and 55:48 are 0.
    #[inline]
    fn are_vacant(&self, table: PhysAddr, index: usize, nr: usize) -> bool {
        let or = (index..index + nr).fold(0, |or, i| or | self.load(table, i));
        Descriptor(or).is_vacant()
    }

    /// Returns what kinds of descriptors `nr` of them from `index` on are: the AND and the OR of
    /// their bits 7:0 and 55:48, which hold type, permissions and the contiguous bit. Other bits
    /// are arbitrary.
    #[inline]
    fn kinds(&self, table: PhysAddr, index: usize, nr: usize) -> (u64, u64) {
        (index..index + nr).fold((!0, 0), |(and, or), i| {
            let value = self.load(table, i);
            (and & value, or | value)
        })
    }

    /// Called before a live leaf or group that covers `broken` bytes from `va` is made invalid,
    /// with the tables that the engine will access until [`exit_break`](Self::exit_break). If
    /// `va` is how those tables are reached (the linear map is being split), accesses must take
    /// another way until then (DESIGN rule 3, last sentence).
    #[inline]
    fn enter_break(&self, va: VirtAddr, broken: u64, tables: &[PhysAddr]) {
        let _ = (va, broken, tables);
    }

    /// Ends what [`enter_break`](Self::enter_break) began: the new descriptors are written.
    #[inline]
    fn exit_break(&self) {}
}

/// Implements methods of a trait as `$inner` has them, for a wrapper that changes others:
/// `forward! { self => self.inner; fn load(table: PhysAddr, index: usize) -> u64; }`.
///
/// A wrapper must not forget a method that has a default, as the bulk operations of [`Tables`]
/// have. `#[deny(clippy::missing_trait_methods)]` on its `impl` has the compiler say so.
#[macro_export]
macro_rules! forward {
    ($self:ident => $inner:expr; $(fn $name:ident($($arg:ident: $type:ty),* $(,)?) $(-> $result:ty)?;)*) => {$(
        #[inline]
        fn $name(&$self $(, $arg: $type)*) $(-> $result)? {
            $inner.$name($($arg),*)
        }
    )*};
}

/// The methods of [`Tables`] that write no descriptor that a walk may see.
macro_rules! forward_unwritten {
    ($self:ident => $inner:expr) => {
        $crate::forward! { $self => $inner;
            fn alloc_table() -> Option<PhysAddr>;
            fn free_table(table: PhysAddr);
            fn load(table: PhysAddr, index: usize) -> u64;
            fn or_of_frames(frames: &[Pfn]) -> u64;
            fn nr_consecutive(frames: &[Pfn]) -> usize;
            fn are_vacant(table: PhysAddr, index: usize, nr: usize) -> bool;
            fn kinds(table: PhysAddr, index: usize, nr: usize) -> (u64, u64);
            fn enter_break(va: VirtAddr, broken: u64, tables: &[PhysAddr]);
            fn exit_break();
        }
    };
}
#[cfg(feature = "trace")]
pub(crate) use forward_unwritten;

// SAFETY: every method forwards to `T`, which keeps the promises.
#[deny(clippy::missing_trait_methods)]
unsafe impl<T: Tables + ?Sized> Tables for &T {
    forward_unwritten!(self => (**self));
    forward! { self => (**self);
        fn store(table: PhysAddr, index: usize, value: u64);
        fn compare_exchange(table: PhysAddr, index: usize, current: u64, new: u64) -> Result<(), u64>;
        fn fill_linear(table: PhysAddr, index: usize, nr: usize, first: u64, step: u64);
        fn fill_frames(table: PhysAddr, index: usize, frames: &[Pfn], page_shift: u32, template: u64);
        fn fill_groups(table: PhysAddr, index: usize, frames: &[Pfn], groups: Groups, template: u64) -> usize;
        fn clear(table: PhysAddr, index: usize, nr: usize);
    }
}
