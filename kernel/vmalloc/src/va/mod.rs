//! The virtual address space of one region: [`Space`] reserves ranges of pages, finds them and
//! takes them back.
//!
//! Everything here is counted in pages; a [`Vpn`] is a virtual address divided by the page size.
//! What a range is used for, and the tables behind it, are the caller's.
//!
//! # Structure
//!
//! A space has **ranges**, which are [added](Space::add) and [removed](Space::remove), and need not
//! touch. What it has is cut into **segments**: each is an area, in use, or a gap, free. Every
//! change either cuts one segment or joins neighbours that touch, so two areas cannot overlap:
//! there is no way to write it down. Segments form a balanced tree by address in which every node
//! knows the largest gap below it.
//!
//! ```text
//!   pages:  |area 2|gap 3|area 1|     |area 4|gap 6 ...|   between two ranges: another space's
//!
//!   tree:                 area 1 (largest gap below: 6)
//!                        /      \
//!           gap 3 (largest 3)    gap 6 (largest 6)
//!              /                   /
//!           area 2 (0)          area 4 (0)
//! ```
//!
//! # Invariants (all checked by [`Space::check`])
//! 1. No segment is empty, and none begins before the end of the one before it.
//! 2. Two gaps never touch.
//! 3. Parent and child agree about each other.
//! 4. A node's rank is one or two above that of each child, where a missing child has 0, and 1 for
//!    a leaf.
//! 5. A node's `max` is the largest gap in its subtree, in pages, saturated to 32 bits; `gap` is
//!    its own (0 for an area).
//! 6. Every node that was ever fed is a segment or spare.
//!
//! # Cost
//! With n segments: reserve, release, claim and find are O(log n) in the worst case, also with
//! alignment and phase (see [`Space::reserve`]). Nothing allocates: nodes come from pages handed in
//! by [`Space::feed`], `reserve` needs two spare ones at most, `add` and `remove` one, and giving
//! an area back needs none, as the area's own node becomes the gap's.
//!
//! Taking an area out of a [`Cache`] or a [`DeferredList`], or putting it there, leaves the tree
//! as it is.
//!
//! # Guards
//! Guard pages are part of the reservation: [`Fit::lead`] pages before the body and [`Fit::trail`]
//! behind it belong to the area only.

mod area;
mod cache;
mod check;
mod deferred_list;
mod node;
mod ranges;
mod space;
mod tree;

#[cfg(test)]
mod tests;

pub use area::{Area, Segment};
pub use cache::{Cache, MAX_CACHED_PAGES};
pub use check::{Census, Violation};
pub use deferred_list::DeferredList;
pub use node::{NodePage, NodePages};
pub use space::Space;

use core::fmt;

/// The number of a virtual page: its address divided by the page size.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
#[repr(transparent)]
pub struct Vpn(pub u64);

/// A request: how many pages, where they may lie, and how many guard pages go with them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fit {
    /// Pages of the body, at least 1.
    pub pages: u64,
    /// The body begins at a page number that is [`phase`](Self::phase) modulo this power of two.
    pub align: u64,
    /// See [`align`](Self::align); below it.
    pub phase: u64,
    /// Guard pages before the body.
    pub lead: u16,
    /// Guard pages behind the body.
    pub trail: u16,
}

impl Fit {
    /// `pages` pages anywhere, with one guard page behind.
    pub const fn new(pages: u64) -> Self {
        Self {
            pages,
            align: 1,
            phase: 0,
            lead: 0,
            trail: 1,
        }
    }

    /// The same, the body beginning at a page number that is `phase` modulo `align`.
    pub const fn congruent(self, align: u64, phase: u64) -> Self {
        Self { align, phase, ..self }
    }

    /// The same with `lead` guard pages before the body and `trail` behind it.
    pub const fn guarded(self, lead: u16, trail: u16) -> Self {
        Self { lead, trail, ..self }
    }

    /// Pages to reserve in all, if these are not more than can be counted.
    #[inline(always)]
    pub(crate) const fn reserved(&self) -> u64 {
        self.pages.wrapping_add(self.guards())
    }

    /// Pages to reserve in all, for a region of `region` pages.
    #[inline]
    fn total(&self, region: u64) -> Result<u64, Error> {
        if self.pages == 0 {
            return Err(Error::Empty);
        }
        if !self.align.is_power_of_two() {
            return Err(Error::BadAlignment { align: self.align });
        }
        if self.phase >= self.align {
            return Err(Error::BadPhase {
                phase: self.phase,
                align: self.align,
            });
        }
        // `pages` first, so that the sum cannot overflow: a region is far below 2^63 pages.
        if self.pages > region || self.pages + self.guards() > region {
            return Err(Error::TooLarge {
                pages: self.pages.saturating_add(self.guards()),
                region,
            });
        }
        Ok(self.pages + self.guards())
    }

    #[inline(always)]
    const fn guards(&self) -> u64 {
        self.lead as u64 + self.trail as u64
    }

    /// Returns what the first reserved page is modulo `align`.
    #[inline(always)]
    pub(crate) const fn residue(&self) -> u64 {
        self.phase.wrapping_sub(self.lead as u64) & (self.align - 1)
    }
}

/// What a segment is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum State {
    /// Free.
    Gap,
    /// Reserved, and its [`Area`] is held.
    Owned,
    /// Reserved, and its [`Area`] was given to [`Space::entrust`]: the holder of the address may
    /// claim it.
    Raw,
    /// Taken out by its owner, and not yet freed: a TLB may still hold translations of it.
    Retired,
    /// In a [`Cache`].
    Parked,
}

impl State {
    /// Returns whether the segment is an area in use.
    pub const fn is_live(self) -> bool {
        matches!(self, Self::Owned | Self::Raw)
    }
}

/// Why a request was refused. Nothing has changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Error {
    /// No pages were asked for.
    Empty,
    /// The alignment is not a power of two.
    BadAlignment {
        /// The alignment, in pages.
        align: u64,
    },
    /// The phase is not below the alignment.
    BadPhase {
        /// The phase, in pages.
        phase: u64,
        /// The alignment, in pages.
        align: u64,
    },
    /// More than the whole region, guards included.
    TooLarge {
        /// Pages asked for, guards included.
        pages: u64,
        /// Pages that the region has.
        region: u64,
    },
    /// No gap is large enough.
    NoSpace {
        /// Pages asked for, guards included.
        pages: u64,
    },
    /// Gaps of that size exist, but none of those that were looked at holds the pages at that
    /// alignment and phase.
    NoAlignedSpace {
        /// Pages asked for, guards included.
        pages: u64,
        /// The alignment, in pages.
        align: u64,
        /// The phase, in pages.
        phase: u64,
    },
    /// Fewer than two spare nodes: it takes one more page of them.
    NoNodes,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Empty => write!(f, "no pages asked for"),
            Self::BadAlignment { align } => write!(f, "alignment of {align} pages is no power of two"),
            Self::BadPhase { phase, align } => write!(f, "phase {phase} is not below alignment {align}"),
            Self::TooLarge { pages, region } => {
                write!(f, "{pages} pages do not fit into a region of {region}")
            }
            Self::NoSpace { pages } => write!(f, "no gap of {pages} pages"),
            Self::NoAlignedSpace { pages, align, phase } => {
                write!(f, "no gap of {pages} pages found at {phase} modulo {align}")
            }
            Self::NoNodes => write!(f, "no spare nodes"),
        }
    }
}

impl core::error::Error for Error {}

/// Why [`Space::claim`] gives no area. Nothing has changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unclaimed {
    /// The page is not in this space.
    Outside,
    /// Nothing is reserved here.
    Vacant,
    /// The page is inside an area, and not the first of its body.
    Interior,
    /// The page is a guard page.
    Guard,
    /// The area belongs to a handle: its address alone does not free it.
    Owned,
    /// The area was freed, and is not reusable yet or in a cache.
    Freed,
}
