//! The leaf rule: which leaves a piece of memory gets.
//!
//! [`largest`] is the whole rule, and the code that runs: `map` asks it once for each physical run
//! and table, and writes the answer. So does all else that needs to know what `map` would do
//! (where `vmalloc` puts an area, the debugger's trace, the tests), through [`Granule::leaves`].
//! [`Leaves::divide`] does the same for a leaf that is split.
//!
//! # Example: another rule
//! To change the rule, change [`largest`]. To try one beside it, give a granule another
//! [`leaves`](Granule::leaves): here one that makes no single block.
//!
//! ```
//! use paging::{Granule, Granule4K, LeafSet, LeafSize, Leaves, Level, PhysAddr, VirtAddr};
//!
//! #[derive(Clone, Copy, Default, Debug)]
//! struct NoLoneBlocks;
//!
//! impl Granule for NoLoneBlocks {
//!     const NAME: &'static str = "4K, no lone blocks";
//!     const PAGE_SHIFT: u32 = Granule4K::PAGE_SHIFT;
//!     const INDEX_BITS: u32 = Granule4K::INDEX_BITS;
//!     const ROOT_LEVEL: Level = Granule4K::ROOT_LEVEL;
//!     const VA_BITS: u32 = Granule4K::VA_BITS;
//!     const TLBI_TG: u64 = Granule4K::TLBI_TG;
//!     const FIRST_LEAF_LEVEL: Level = Granule4K::FIRST_LEAF_LEVEL;
//!     fn cont_shift(level: Level) -> u32 {
//!         Granule4K::cont_shift(level)
//!     }
//!     fn leaves(va: VirtAddr, pa: PhysAddr, size: u64, allowed: LeafSet) -> Leaves {
//!         let small = allowed.at_most(LeafSize::PAGE_GROUP);
//!         let allowed = if size < 2 << 21 { small } else { allowed };
//!         paging::leaf::largest::<Self>(va, pa, size, allowed)
//!     }
//! }
//!
//! let (va, pa) = (VirtAddr(1 << 30), PhysAddr(1 << 30));
//! let leaves = |size| NoLoneBlocks::leaves(va, pa, size, LeafSet::ALL).first();
//! assert_eq!(leaves(2 << 20), LeafSize::PAGE_GROUP);
//! assert_eq!(leaves(4 << 20), LeafSize::BLOCK2);
//! ```
//!
//! A leaf size must be one that the granule's [`leaf_allowed`](Granule::leaf_allowed) and
//! [`cont_shift`](Granule::cont_shift) know.

use crate::addr::{PhysAddr, VirtAddr};
use crate::granule::{Granule, LAST_LEVEL, Level};
use crate::outcome::{LeafCounts, LeafSet, LeafSize};

/// Leaves of one level, side by side in one table: single ones, whole contiguous groups, single
/// ones.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Leaves {
    /// The level of all of them.
    pub level: Level,
    /// Descriptors in all, at least 1.
    pub nr: usize,
    /// Of those, descriptors in groups.
    pub grouped: usize,
    /// Of those, single leaves before the groups. 0 where there are no groups.
    pub head: usize,
}

impl Leaves {
    /// Divides `nr` descriptors of `level` that map consecutive memory from `pa` on at `va`: whole
    /// groups, if `groups` allows them, and single leaves around them.
    #[inline(always)]
    #[must_use]
    pub fn divide<G: Granule>(level: Level, va: VirtAddr, pa: PhysAddr, nr: usize, groups: bool) -> Self {
        let mut leaves = Self {
            level,
            nr,
            grouped: 0,
            head: 0,
        };
        let group = G::cont_entries(level);
        // VA and PA must be congruent modulo the group for a group to be aligned in both.
        if nr >= group && groups && (va.0 ^ pa.0) & (G::cont_size(level) - 1) == 0 {
            let head = G::index(va.0, level).wrapping_neg() & (group - 1);
            let grouped = nr.saturating_sub(head) & !(group - 1);
            if grouped != 0 {
                (leaves.grouped, leaves.head) = (grouped, head);
            }
        }
        leaves
    }

    /// Returns how many bytes they map.
    #[inline]
    #[must_use]
    pub fn bytes<G: Granule>(self) -> u64 {
        (self.nr as u64) << G::shift(self.level)
    }

    /// Returns the first of them.
    #[inline]
    #[must_use]
    pub const fn first(self) -> LeafSize {
        LeafSize::new(self.level, self.head == 0 && self.grouped != 0)
    }

    /// Counts them.
    #[inline]
    pub(crate) fn count<G: Granule>(self, counts: &mut LeafCounts) {
        let groups = self.grouped >> G::cont_shift(self.level);
        counts.add(LeafSize::new(self.level, false), (self.nr - self.grouped) as u32);
        counts.add(LeafSize::new(self.level, true), groups as u32);
    }
}

/// Returns the first leaves of `size` bytes of consecutive memory from `pa` on, mapped at `va`: the
/// largest legal ones, as many as the same table takes.
///
/// A leaf is legal where `va` and `pa` are multiples of its size, the memory covers it, the granule
/// has it, and `allowed` contains it. All addresses and `size` are
/// multiples of the page size, and `size` is not 0.
#[cfg_attr(not(feature = "trace"), inline(always))]
#[cfg_attr(feature = "trace", inline(never))]
#[must_use]
pub fn largest<G: Granule>(va: VirtAddr, pa: PhysAddr, size: u64, allowed: LeafSet) -> Leaves {
    // Unrolled by level, so that the caller's code is compiled for each.
    for level in G::levels_before(LAST_LEVEL) {
        let (single, group) = (LeafSize::new(level, false), LeafSize::new(level, true));
        let fits = |leaf: LeafSize| {
            let bytes = leaf.bytes::<G>();
            leaf.exists::<G>() && (va.0 | pa.0) & (bytes - 1) == 0 && size >= bytes
        };
        if !fits(single) {
            continue;
        }
        if allowed.contains(single) {
            return divided::<G>(level, va, pa, size, allowed);
        }
        if allowed.contains(group) && fits(group) {
            // Groups are allowed but single leaves are not: the rest is left to smaller leaves.
            let leaves = divided::<G>(level, va, pa, size, allowed);
            return Leaves {
                nr: leaves.grouped,
                ..leaves
            };
        }
    }
    divided::<G>(LAST_LEVEL, va, pa, size, allowed)
}

/// Returns the leaves of `level`, as many as fit into `size` bytes and the table.
#[inline(always)]
fn divided<G: Granule>(level: Level, va: VirtAddr, pa: PhysAddr, size: u64, allowed: LeafSet) -> Leaves {
    let group = LeafSize::new(level, true);
    let left = G::root_entries_at(level) - G::index(va.0, level);
    let nr = ((size >> G::shift(level)) as usize).min(left);
    Leaves::divide::<G>(level, va, pa, nr, group.exists::<G>() && allowed.contains(group))
}

/// Returns the largest leaf that the rule makes anywhere in `pages` pages from `pa` on, mapped at
/// congruent addresses. An area's place is chosen for it.
#[inline]
#[must_use]
pub fn largest_within<G: Granule>(pa: PhysAddr, pages: u64, allowed: LeafSet) -> LeafSize {
    // Mostly there are too few pages for any other size.
    if pages < G::cont_entries(LAST_LEVEL) as u64 {
        return LeafSize::PAGE;
    }
    largest_of_many::<G>(pa, pages, allowed)
}

#[inline(never)]
fn largest_of_many<G: Granule>(pa: PhysAddr, pages: u64, allowed: LeafSet) -> LeafSize {
    // As in `largest`: what is constant of a size is so in each turn.
    for level in G::levels_before(LAST_LEVEL + 1) {
        for contiguous in [true, false] {
            let size = LeafSize::new(level, contiguous);
            let bytes = size.bytes::<G>();
            let skip = pa.0.wrapping_neg() & (bytes - 1);
            if !size.exists::<G>() || pages < (skip + bytes) >> G::PAGE_SHIFT {
                continue;
            }
            let at = pa.0.wrapping_add(skip);
            if G::leaves(VirtAddr(at), PhysAddr(at), bytes, allowed).first() == size {
                return size;
            }
        }
    }
    LeafSize::PAGE
}
