//! Geometry: what a translation granule makes of an address.
//!
//! Levels are the architecture's: 0 is the root of a 48-bit walk with 4 KiB pages, -1 that of a
//! 52-bit one, 3 holds the pages (Arm ARM D8.2, D8.6.1).
//!
//! # Example: another granule
//! Three facts, here of 4 KiB pages with 32-bit addresses; the architecture has the rest:
//!
//! ```
//! use paging::{Granule, LeafSet, LeafSize, PhysAddr, VirtAddr};
//!
//! #[derive(Clone, Copy, Default, Debug)]
//! struct Granule4K32;
//!
//! impl Granule for Granule4K32 {
//!     const NAME: &'static str = "4K, 32 bits";
//!     const PAGE_SHIFT: u32 = 12;
//!     const VA_BITS: u32 = 32;
//! }
//!
//! assert_eq!(Granule4K32::ROOT_LEVEL, 1, "2 bits, two levels of 9, and 12");
//! assert_eq!(Granule4K32::root_entries_at(1), 4);
//! let (va, pa) = (VirtAddr(0x4000_0000), PhysAddr(0x8000_0000));
//! let leaves = Granule4K32::leaves(va, pa, 1 << 30, LeafSet::ALL);
//! assert_eq!(leaves.first(), LeafSize::BLOCK1);
//! ```

use crate::addr::{PhysAddr, VirtAddr};
use crate::descriptor::{ADDRESS, Attributes, SHAREABILITY};
use crate::leaf::{self, Leaves};
use crate::outcome::LeafSet;

/// The level of a table or of its descriptors, `-1..=3`.
pub type Level = i8;

/// Its descriptors are pages.
pub const LAST_LEVEL: Level = 3;

/// The geometry of a translation granule: facts, and arithmetic on them.
pub trait Granule: Copy + Default + core::fmt::Debug + Send + Sync + 'static {
    /// A short name, as "4K".
    const NAME: &'static str;
    /// log2 of the bytes in a page or table.
    const PAGE_SHIFT: u32;
    /// Bits of virtual address translated in each half.
    const VA_BITS: u32;

    /// Physical address bits in a descriptor: 48, or 52 in the format of TCR_EL1.DS (FEAT_LPA2; 4
    /// and 16 KiB) or FEAT_LPA (64 KiB).
    const PA_BITS: u32 = 48;
    /// log2 of the descriptors in a table.
    const INDEX_BITS: u32 = Self::PAGE_SHIFT - 3;
    /// Where a walk begins.
    const ROOT_LEVEL: Level = 4 - (Self::VA_BITS - Self::PAGE_SHIFT).div_ceil(Self::INDEX_BITS) as Level;
    /// The first level with leaves (Arm ARM D8.3.1): with 52 bits there is one more.
    const FIRST_LEAF_LEVEL: Level = (Self::PAGE_SHIFT != 12) as Level + (Self::PA_BITS == 48) as Level;
    /// TG of a TLBI range operand (Arm ARM C5.5, TLBI RVAE1IS).
    const TLBI_TG: u64 = (Self::PAGE_SHIFT as u64 - 10) / 2;

    /// Returns log2 of the descriptors in a group (Arm ARM D8.6.1); 0 without a contiguous bit.
    fn cont_shift(level: Level) -> u32 {
        match (Self::PAGE_SHIFT, level) {
            (12, 1..) => 4,
            (14, 3) => 7,
            (14 | 16, 2..) => 5,
            _ => 0,
        }
    }

    /// Bytes in a page.
    const PAGE_SIZE: u64 = 1 << Self::PAGE_SHIFT;
    /// Descriptors in a table.
    const ENTRIES: usize = 1 << Self::INDEX_BITS;
    /// TCR_EL1.DS: OA\[51:50\] in place of SH, which is TCR_EL1's; TLBIs by range count 64 KiB.
    const DS: bool = Self::PA_BITS == 52 && Self::PAGE_SHIFT < 16;
    /// A descriptor's address bits.
    const ADDRESS: u64 = match (Self::DS, Self::PA_BITS) {
        (true, _) => 0x0003_ffff_ffff_f000 | SHAREABILITY,
        _ => ADDRESS,
    };
    /// A leaf's attribute bits.
    const ATTRIBUTES: u64 = Attributes::ALL & if Self::DS { !SHAREABILITY } else { !0 };
    /// log2 of the memory within which descriptors differ as addresses do.
    const PLAIN_BITS: u32 = if Self::DS { 50 } else { 48 };
    /// log2 of the unit of a TLBI range's base.
    const RANGE_SHIFT: u32 = if Self::DS { 16 } else { Self::PAGE_SHIFT };

    /// Returns `pa` as in a descriptor (Arm ARM D8.3.1).
    #[inline(always)]
    fn encode(pa: PhysAddr) -> u64 {
        if Self::PA_BITS == 48 {
            pa.0
        } else if Self::DS {
            pa.0 & ((1 << 50) - 1) | pa.0 >> 50 << 8
        } else {
            pa.0 & ((1 << 48) - 1) | pa.0 >> 48 << 12
        }
    }

    /// Returns the address.
    #[inline(always)]
    fn decode(descriptor: u64) -> PhysAddr {
        PhysAddr(if Self::PA_BITS == 48 {
            descriptor & Self::ADDRESS
        } else if Self::DS {
            descriptor & Self::ADDRESS & !SHAREABILITY | (descriptor & SHAREABILITY) << 42
        } else {
            descriptor & Self::ADDRESS & !0xf000 | (descriptor & 0xf000) << 36
        })
    }

    /// Unsigned, so that loops are unrolled.
    #[inline(always)]
    fn levels_before(end: Level) -> impl Iterator<Item = Level> {
        (0..(end - Self::ROOT_LEVEL) as u8).map(|depth| Self::ROOT_LEVEL + depth as Level)
    }

    /// Whether a descriptor may be a leaf.
    #[inline]
    fn leaf_allowed(level: Level) -> bool {
        level >= Self::FIRST_LEAF_LEVEL
    }

    /// log2 of the bytes under a descriptor.
    #[inline]
    fn shift(level: Level) -> u32 {
        Self::PAGE_SHIFT + Self::INDEX_BITS * (LAST_LEVEL - level) as u32
    }

    /// Bytes under a descriptor.
    #[inline]
    fn size(level: Level) -> u64 {
        1 << Self::shift(level)
    }

    /// Bytes under a full table, at most 2^58.
    #[inline]
    fn table_span(level: Level) -> u64 {
        1 << (Self::shift(level) + Self::INDEX_BITS)
    }

    /// Descriptors in a group; 1 without a contiguous bit.
    #[inline]
    fn cont_entries(level: Level) -> usize {
        1 << Self::cont_shift(level)
    }

    /// Bytes under a group.
    #[inline]
    fn cont_size(level: Level) -> u64 {
        1 << (Self::shift(level) + Self::cont_shift(level))
    }

    /// Index of `va`.
    #[inline]
    fn index(va: u64, level: Level) -> usize {
        (va >> Self::shift(level)) as usize & (Self::root_entries_at(level) - 1)
    }

    /// Returns the first leaves of `size` bytes from `pa` on, mapped at `va`: [`leaf::largest`] by
    /// default.
    #[inline(always)]
    fn leaves(va: VirtAddr, pa: PhysAddr, size: u64, allowed: LeafSet) -> Leaves {
        // A run of leaves stays within `PLAIN_BITS`.
        let size = if Self::PA_BITS > Self::PLAIN_BITS {
            size.min((1 << Self::PLAIN_BITS) - (pa.0 & ((1 << Self::PLAIN_BITS) - 1)))
        } else {
            size
        };
        leaf::largest::<Self>(va, pa, size, allowed)
    }

    /// Descriptors in use: fewer in a root of fewer bits.
    #[inline]
    fn root_entries_at(level: Level) -> usize {
        if level == Self::ROOT_LEVEL {
            1 << (Self::VA_BITS - Self::shift(level))
        } else {
            Self::ENTRIES
        }
    }
}

/// 4 KiB pages, 48 bits, levels 0 to 3. Leaves: 4K, 64K, 2M, 32M, 1G, 16G.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub struct Granule4K;

impl Granule for Granule4K {
    const NAME: &'static str = "4K";
    const PAGE_SHIFT: u32 = 12;
    const VA_BITS: u32 = 48;
}

/// 16 KiB pages, 48 bits, levels 0 to 3. Leaves: 16K, 2M (128 pages), 32M, 1G (32 blocks).
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub struct Granule16K;

impl Granule for Granule16K {
    const NAME: &'static str = "16K";
    const PAGE_SHIFT: u32 = 14;
    const VA_BITS: u32 = 48;
}

/// 64 KiB pages, 48 bits, levels 1 to 3. Leaves: 64K, 2M (32 pages), 512M, 16G (32 blocks).
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub struct Granule64K;

impl Granule for Granule64K {
    const NAME: &'static str = "64K";
    const PAGE_SHIFT: u32 = 16;
    const VA_BITS: u32 = 48;
}

/// 4 KiB pages, 52 bits (FEAT_LPA2), levels -1 to 3, a root of 16 entries. Adds 512G.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub struct Granule4K52;

impl Granule for Granule4K52 {
    const NAME: &'static str = "4K, 52 bits";
    const PAGE_SHIFT: u32 = 12;
    const VA_BITS: u32 = 52;
    const PA_BITS: u32 = 52;
}

/// 16 KiB pages, 52 bits (FEAT_LPA2), levels 0 to 3, a root of 32 entries. Adds 64G.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub struct Granule16K52;

impl Granule for Granule16K52 {
    const NAME: &'static str = "16K, 52 bits";
    const PAGE_SHIFT: u32 = 14;
    const VA_BITS: u32 = 52;
    const PA_BITS: u32 = 52;
}

/// 64 KiB pages, 52 bits (FEAT_LVA, FEAT_LPA), levels 1 to 3, a root of 1024 entries. Adds 4T.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub struct Granule64K52;

impl Granule for Granule64K52 {
    const NAME: &'static str = "64K, 52 bits";
    const PAGE_SHIFT: u32 = 16;
    const VA_BITS: u32 = 52;
    const PA_BITS: u32 = 52;
}

/// 4 KiB pages, 39 bits, levels 1 to 3: what has 48 bits, and a walk is shorter by one table.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub struct Granule4K39;

impl Granule for Granule4K39 {
    const NAME: &'static str = "4K, 39 bits";
    const PAGE_SHIFT: u32 = 12;
    const VA_BITS: u32 = 39;
}

/// 16 KiB pages, 47 bits, levels 1 to 3.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub struct Granule16K47;

impl Granule for Granule16K47 {
    const NAME: &'static str = "16K, 47 bits";
    const PAGE_SHIFT: u32 = 14;
    const VA_BITS: u32 = 47;
}

/// 64 KiB pages, 42 bits, levels 2 and 3. Leaves: 64K, 2M, 512M, 16G.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub struct Granule64K42;

impl Granule for Granule64K42 {
    const NAME: &'static str = "64K, 42 bits";
    const PAGE_SHIFT: u32 = 16;
    const VA_BITS: u32 = 42;
}

/// For exhaustive tests: 4 descriptors a table, groups of 2, levels 1 to 3, 64 pages in leaves of 1
/// to 32. No CPU has it.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub struct TinyGranule;

impl Granule for TinyGranule {
    const NAME: &'static str = "tiny";
    const PAGE_SHIFT: u32 = 12;
    const VA_BITS: u32 = 18;
    const INDEX_BITS: u32 = 2;

    fn cont_shift(_level: Level) -> u32 {
        1
    }
}
