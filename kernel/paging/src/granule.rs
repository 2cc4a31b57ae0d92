//! Geometry: what a translation granule makes of the 64 bits of an address.
//!
//! Everything that depends on the granule is a constant of [`Granule`], so that a walker is
//! compiled for one geometry and carries no table of shifts. Levels are numbered as the
//! architecture numbers them: 0 is the root of a 48-bit walk with 4 KiB pages, 3 holds the pages.
//! Source: Arm ARM DDI 0487, D8.2 (translation process) and D8.6.1 (contiguous bit).
//!
//! # Example: another granule
//! A granule is eight facts, here those of 4 KiB pages with 39-bit addresses. Every operation,
//! every leaf size and every TLBI follows from them.
//!
//! ```
//! use paging::{Granule, LeafSet, LeafSize, Level, PhysAddr, VirtAddr};
//!
//! #[derive(Clone, Copy, Default, Debug)]
//! struct Granule4K39;
//!
//! impl Granule for Granule4K39 {
//!     const NAME: &'static str = "4K, 39 bits";
//!     const PAGE_SHIFT: u32 = 12;
//!     const INDEX_BITS: u32 = 9;
//!     const ROOT_LEVEL: Level = 1; // 39 bits are three levels of 9, and 12.
//!     const VA_BITS: u32 = 39;
//!     const TLBI_TG: u64 = 1;
//!     const FIRST_LEAF_LEVEL: Level = 1;
//!     fn cont_shift(level: Level) -> u32 {
//!         if level >= 1 { 4 } else { 0 }
//!     }
//! }
//!
//! assert_eq!(Granule4K39::table_span(1), 1 << 39);
//! let (va, pa) = (VirtAddr(0x4000_0000), PhysAddr(0x8000_0000));
//! let leaves = Granule4K39::leaves(va, pa, 1 << 30, LeafSet::ALL);
//! assert_eq!(leaves.first(), LeafSize::BLOCK1);
//! ```

use crate::addr::{PhysAddr, VirtAddr};
use crate::leaf::{self, Leaves};
use crate::outcome::LeafSet;

/// The level of a table or of a descriptor in it, `0..=3`.
pub type Level = u8;

/// The last level: its descriptors are pages.
pub const LAST_LEVEL: Level = 3;

/// The geometry of a translation granule.
///
/// The provided methods are all constant arithmetic: a new granule states its facts, and gets every
/// operation.
pub trait Granule: Copy + Default + core::fmt::Debug + Send + Sync + 'static {
    /// A short name, as "4K".
    const NAME: &'static str;
    /// log2 of the page size in bytes. A table is one page.
    const PAGE_SHIFT: u32;
    /// log2 of the number of descriptors in a table.
    const INDEX_BITS: u32;
    /// The level at which a walk begins.
    const ROOT_LEVEL: Level;
    /// Bits of virtual address that are translated in each half.
    const VA_BITS: u32;
    /// The TG field of a TLBI range operand (Arm ARM C5.5, TLBI RVAE1IS): 1 for 4K, 2 for 16K, 3
    /// for 64K.
    const TLBI_TG: u64;

    /// The first level of which a descriptor may be a leaf: a block, or at the last level a page.
    const FIRST_LEAF_LEVEL: Level;

    /// log2 of the number of descriptors in a contiguous group at `level`; 0 where there is no
    /// contiguous bit.
    fn cont_shift(level: Level) -> u32;

    /// Size of a page in bytes.
    const PAGE_SIZE: u64 = 1 << Self::PAGE_SHIFT;
    /// Descriptors in a table.
    const ENTRIES: usize = 1 << Self::INDEX_BITS;

    /// Returns whether a descriptor of `level` may be a leaf.
    #[inline]
    fn leaf_allowed(level: Level) -> bool {
        level >= Self::FIRST_LEAF_LEVEL
    }

    /// log2 of the bytes that one descriptor of `level` covers.
    #[inline]
    fn shift(level: Level) -> u32 {
        Self::PAGE_SHIFT + Self::INDEX_BITS * (LAST_LEVEL - level) as u32
    }

    /// Returns the bytes that one descriptor of `level` covers.
    #[inline]
    fn size(level: Level) -> u64 {
        1 << Self::shift(level)
    }

    /// Returns the bytes that one table of `level` covers. Does not overflow for the root: at most
    /// 2^48.
    #[inline]
    fn table_span(level: Level) -> u64 {
        1 << (Self::shift(level) + Self::INDEX_BITS)
    }

    /// Descriptors in a contiguous group at `level`; 1 where there is no contiguous bit.
    #[inline]
    fn cont_entries(level: Level) -> usize {
        1 << Self::cont_shift(level)
    }

    /// Returns the bytes that a contiguous group of `level` covers.
    #[inline]
    fn cont_size(level: Level) -> u64 {
        1 << (Self::shift(level) + Self::cont_shift(level))
    }

    /// Returns the index of the descriptor of `level` that `va` selects in its table.
    #[inline]
    fn index(va: u64, level: Level) -> usize {
        (va >> Self::shift(level)) as usize & (Self::root_entries_at(level) - 1)
    }

    /// Returns the leaves that come first where `size` bytes of consecutive memory from `pa` on are
    /// mapped at `va`: the leaf rule ([`leaf::largest`]), for this granule. A granule may have a
    /// rule of its own.
    #[inline(always)]
    fn leaves(va: VirtAddr, pa: PhysAddr, size: u64, allowed: LeafSet) -> Leaves {
        leaf::largest::<Self>(va, pa, size, allowed)
    }

    /// Descriptors in use in a table of `level`: all, but in a root that resolves fewer bits.
    #[inline]
    fn root_entries_at(level: Level) -> usize {
        if level == Self::ROOT_LEVEL {
            1 << (Self::VA_BITS - Self::shift(level))
        } else {
            Self::ENTRIES
        }
    }
}

/// 4 KiB pages, 48-bit addresses, levels 0 to 3. Leaves: 4K, 64K, 2M, 32M, 1G, 16G.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub struct Granule4K;

impl Granule for Granule4K {
    const NAME: &'static str = "4K";
    const PAGE_SHIFT: u32 = 12;
    const INDEX_BITS: u32 = 9;
    const ROOT_LEVEL: Level = 0;
    const VA_BITS: u32 = 48;
    const TLBI_TG: u64 = 1;
    const FIRST_LEAF_LEVEL: Level = 1;

    fn cont_shift(level: Level) -> u32 {
        if level >= 1 { 4 } else { 0 }
    }
}

/// 16 KiB pages, 48-bit addresses, levels 0 to 3. Leaves: 16K, 2M (128 pages), 32M, 1G (32 blocks).
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub struct Granule16K;

impl Granule for Granule16K {
    const NAME: &'static str = "16K";
    const PAGE_SHIFT: u32 = 14;
    const INDEX_BITS: u32 = 11;
    const ROOT_LEVEL: Level = 0;
    const VA_BITS: u32 = 48;
    const TLBI_TG: u64 = 2;
    const FIRST_LEAF_LEVEL: Level = 2;

    fn cont_shift(level: Level) -> u32 {
        match level {
            3 => 7,
            2 => 5,
            _ => 0,
        }
    }
}

/// 64 KiB pages, 48-bit addresses, levels 1 to 3. Leaves: 64K, 2M (32 pages), 512M, 16G (32
/// blocks).
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub struct Granule64K;

impl Granule for Granule64K {
    const NAME: &'static str = "64K";
    const PAGE_SHIFT: u32 = 16;
    const INDEX_BITS: u32 = 13;
    const ROOT_LEVEL: Level = 1;
    const VA_BITS: u32 = 48;
    const TLBI_TG: u64 = 3;
    const FIRST_LEAF_LEVEL: Level = 2;

    fn cont_shift(level: Level) -> u32 {
        if level >= 2 { 5 } else { 0 }
    }
}

/// A geometry for exhaustive tests: 4 descriptors a table, contiguous groups of 2, levels 1 to 3, 4
/// KiB pages.
///
/// 64 pages of virtual space in all: a leaf is 1, 2, 4, 8, 16 or 32 pages. Descriptors keep their
/// real format, so a model of the walker needs no second decoder. No processor implements it.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub struct TinyGranule;

impl Granule for TinyGranule {
    const NAME: &'static str = "tiny";
    const PAGE_SHIFT: u32 = 12;
    const INDEX_BITS: u32 = 2;
    const ROOT_LEVEL: Level = 1;
    const VA_BITS: u32 = 18;
    const TLBI_TG: u64 = 1;
    const FIRST_LEAF_LEVEL: Level = 1;

    fn cont_shift(_level: Level) -> u32 {
        1
    }
}
