//! The seam to table memory: [`Tables`].

use crate::addr::{Pfn, PhysAddr, VirtAddr};
use crate::descriptor::Descriptor;

/// A contiguous group of pages: consecutive, the first aligned.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Groups {
    /// Frames in a group.
    pub frames: usize,
    /// Bits that a group's first frame must not have: unaligned, or of no address.
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

/// Memory for translation tables, by physical address of a table and index of a descriptor.
///
/// # Orderings
/// - [`load`](Self::load) and [`store`](Self::store) are relaxed: a CPU orders a table behind the
///   link to it by address dependency; the language needs acquire and release, as in
///   [`LinearTables`](crate::LinearTables).
/// - [`compare_exchange`](Self::compare_exchange) acquires, and releases on success: a walk that
///   sees a new link sees its table zeroed, without a barrier (DESIGN rule 2).
/// - Other observers see stores complete after the engine's DSB ([`Mmu`](crate::Mmu)).
///
/// # Safety
/// 1. `alloc_table` returns a page of the tree's granule, aligned to its size, all zero, owned by
///    the caller until `free_table`, that no TLB or walk cache may still reach as a table; never
///    the page at physical address 0, which stands for no table.
/// 2. Accesses reach that memory, single-copy atomic, 64 bits wide (a hardware walker may read
///    between any two: Arm ARM B2.2.1, D8.2) and ordered as above.
/// 3. Overridden bulk operations have the effect of their defaults, each descriptor by such an
///    access, but in `alloc_table`, whose table no walker reaches.
pub unsafe trait Tables {
    /// Returns a zeroed table page, if there is one.
    fn alloc_table(&self) -> Option<PhysAddr>;

    /// Takes back a table page that no walker reaches.
    fn free_table(&self, table: PhysAddr);

    /// Reads a descriptor.
    fn load(&self, table: PhysAddr, index: usize) -> u64;

    /// Writes a descriptor.
    fn store(&self, table: PhysAddr, index: usize, value: u64);

    /// Replaces a descriptor that is `current`.
    ///
    /// # Errors
    /// The value found. Never fails spuriously.
    fn compare_exchange(&self, table: PhysAddr, index: usize, current: u64, new: u64) -> Result<(), u64>;

    /// Writes `first`, `first + step`, and so on from `index` on.
    #[inline]
    fn fill_linear(&self, table: PhysAddr, index: usize, nr: usize, first: u64, step: u64) {
        let mut value = first;
        for i in index..index + nr {
            self.store(table, i, value);
            value = value.wrapping_add(step);
        }
    }

    /// Writes a descriptor for each of `frames` from `index` on: its address plus `template`.
    #[inline]
    fn fill_frames(&self, table: PhysAddr, index: usize, frames: &[Pfn], page_shift: u32, template: u64) {
        for (i, frame) in frames.iter().enumerate() {
            self.store(table, index + i, frame.0 << page_shift | template);
        }
    }

    /// As [`fill_frames`](Self::fill_frames), for the `groups` that `frames` begin with. Returns
    /// how many descriptors.
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

    /// Touches no table.
    #[inline]
    fn or_of_frames(&self, frames: &[Pfn]) -> u64 {
        frames.iter().fold(0, |or, frame| or | frame.0)
    }

    /// From the first on. Touches no table.
    #[inline]
    fn nr_consecutive(&self, frames: &[Pfn]) -> usize {
        let first = frames.first().map_or(0, |frame| frame.0);
        let follows = |(frame, i): &(&Pfn, u64)| frame.0 == first.wrapping_add(*i);
        frames.iter().zip(0..).take_while(follows).count()
    }

    /// Writes 0.
    #[inline]
    fn clear(&self, table: PhysAddr, index: usize, nr: usize) {
        for i in index..index + nr {
            self.store(table, i, 0);
        }
    }

    /// Whether bits 7:0 and 55:48 of the descriptors are 0.
    #[inline]
    fn are_vacant(&self, table: PhysAddr, index: usize, nr: usize) -> bool {
        let or = (index..index + nr).fold(0, |or, i| or | self.load(table, i));
        Descriptor(or).is_vacant()
    }

    /// Returns the AND and the OR of `nr` descriptors, of which only bits 7:0 and 55:48 are valid.
    #[inline]
    fn kinds(&self, table: PhysAddr, index: usize, nr: usize) -> (u64, u64) {
        (index..index + nr).fold((!0, 0), |(and, or), i| {
            let value = self.load(table, i);
            (and & value, or | value)
        })
    }

    /// Called before a live leaf or group of `broken` bytes at `va` is made invalid. If tables are
    /// reached by `va` (a split of the linear map), accesses must take another way until
    /// [`exit_break`](Self::exit_break) (DESIGN rule 3, last sentence).
    #[inline]
    fn enter_break(&self, va: VirtAddr, broken: u64, tables: &[PhysAddr]) {
        let _ = (va, broken, tables);
    }

    /// New descriptors are written.
    #[inline]
    fn exit_break(&self) {}
}

/// Forwards methods: `forward! { self => self.inner; fn load(table: PhysAddr, index: usize) -> u64;
/// }`. `#[deny(clippy::missing_trait_methods)]` on the `impl` finds forgotten ones.
#[macro_export]
macro_rules! forward {
    ($self:ident => $inner:expr; $(fn $name:ident($($arg:ident: $type:ty),* $(,)?) $(-> $result:ty)?;)*) => {$(
        #[inline]
        fn $name(&$self $(, $arg: $type)*) $(-> $result)? {
            $inner.$name($($arg),*)
        }
    )*};
}

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
pub(crate) use forward_unwritten;

// SAFETY: forwards to `T`, which keeps the promises.
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
