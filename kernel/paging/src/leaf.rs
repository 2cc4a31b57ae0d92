//! The leaf rule: which leaves a piece of memory gets. [`largest`] is the whole rule, asked through
//! [`Granule::leaves`]; splits use [`Leaves::divide`].
//!
//! # Example: another rule
//! Change [`largest`], or override a granule's [`leaves`](Granule::leaves). This one makes no
//! single block:
//!
//! ```
//! use paging::{Granule, LeafSet, LeafSize, Leaves, PhysAddr, VirtAddr};
//!
//! #[derive(Clone, Copy, Default, Debug)]
//! struct NoLoneBlocks;
//!
//! impl Granule for NoLoneBlocks {
//!     const NAME: &'static str = "4K, no lone blocks";
//!     const PAGE_SHIFT: u32 = 12;
//!     const VA_BITS: u32 = 48;
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
//! A granule must have the leaf size: [`leaf_allowed`](Granule::leaf_allowed),
//! [`cont_shift`](Granule::cont_shift).

use crate::addr::{PhysAddr, VirtAddr};
use crate::granule::{Granule, LAST_LEVEL, Level};
use crate::outcome::{LeafCounts, LeafSet, LeafSize};

/// Leaves of one level in one table: single ones, groups, single ones.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Leaves {
    /// Their level.
    pub level: Level,
    /// Descriptors, at least 1.
    pub nr: usize,
    /// Of those, in groups.
    pub grouped: usize,
    /// Single leaves before the groups.
    pub head: usize,
}

impl Leaves {
    /// Divides `nr` descriptors for the memory from `pa` on at `va`: whole groups, if `groups`
    /// allows, and single leaves around.
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
        // Else no group is aligned in both VA and PA.
        if nr >= group && groups && (va.0 ^ pa.0) & (G::cont_size(level) - 1) == 0 {
            let head = G::index(va.0, level).wrapping_neg() & (group - 1);
            let grouped = nr.saturating_sub(head) & !(group - 1);
            if grouped != 0 {
                (leaves.grouped, leaves.head) = (grouped, head);
            }
        }
        leaves
    }

    /// Returns the bytes mapped.
    #[inline]
    #[must_use]
    pub fn bytes<G: Granule>(self) -> u64 {
        (self.nr as u64) << G::shift(self.level)
    }

    /// Returns the first leaf.
    #[inline]
    #[must_use]
    pub const fn first(self) -> LeafSize {
        LeafSize::new(self.level, self.head == 0 && self.grouped != 0)
    }

    #[inline]
    pub(crate) fn count<G: Granule>(self, counts: &mut LeafCounts) {
        let groups = self.grouped >> G::cont_shift(self.level);
        counts.add(LeafSize::new(self.level, false), (self.nr - self.grouped) as u32);
        counts.add(LeafSize::new(self.level, true), groups as u32);
    }
}

/// Returns the first leaves of `size` bytes of memory from `pa` on, mapped at `va`: the largest
/// legal ones, as many as one table takes.
///
/// A leaf is legal if `va` and `pa` are multiples of its size, the memory covers it, the granule
/// has it, and `allowed` contains it. Addresses and `size`, not 0, are multiples of the page size.
#[cfg_attr(not(feature = "trace"), inline(always))]
#[cfg_attr(feature = "trace", inline(never))]
#[must_use]
pub fn largest<G: Granule>(va: VirtAddr, pa: PhysAddr, size: u64, allowed: LeafSet) -> Leaves {
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
            let leaves = divided::<G>(level, va, pa, size, allowed);
            return Leaves {
                nr: leaves.grouped,
                ..leaves
            };
        }
    }
    divided::<G>(LAST_LEVEL, va, pa, size, allowed)
}

#[inline(always)]
fn divided<G: Granule>(level: Level, va: VirtAddr, pa: PhysAddr, size: u64, allowed: LeafSet) -> Leaves {
    let group = LeafSize::new(level, true);
    let left = G::root_entries_at(level) - G::index(va.0, level);
    let nr = ((size >> G::shift(level)) as usize).min(left);
    Leaves::divide::<G>(level, va, pa, nr, group.exists::<G>() && allowed.contains(group))
}

/// Returns the largest leaf in `pages` pages from `pa` on, at congruent addresses.
#[inline]
#[must_use]
pub fn largest_within<G: Granule>(pa: PhysAddr, pages: u64, allowed: LeafSet) -> LeafSize {
    if pages < G::cont_entries(LAST_LEVEL) as u64 {
        return LeafSize::PAGE;
    }
    largest_of_many::<G>(pa, pages, allowed)
}

#[inline(never)]
fn largest_of_many<G: Granule>(pa: PhysAddr, pages: u64, allowed: LeafSet) -> LeafSize {
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
