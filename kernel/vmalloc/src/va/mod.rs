//! The address space of one region, in pages: [`Space`] reserves ranges, finds them and takes them
//! back.
//!
//! # Structure
//!
//! A space has **ranges**, cut into **segments**: areas in use, and free gaps. A change cuts one
//! segment or joins neighbours, so areas cannot overlap. Segments form a balanced tree by address
//! in which every node has the largest gap below it.
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
//! # Invariants
//!
//! Checked by [`Space::check`]:
//!
//! 1. No segment is empty or begins before the end of the previous one.
//! 2. Two gaps never touch.
//! 3. Parent and child agree about each other.
//! 4. A node's rank is one or two above that of each child, where a missing child has 0, and 1 for
//!    a leaf.
//! 5. A node's `max` is the largest gap in its subtree, in pages, saturated to 32 bits; `gap` is
//!    its own (0 for an area).
//! 6. Every node fed is a segment or spare.
//!
//! # Cost
//!
//! Reserve, release, claim and find are O(log n) at worst. Nothing allocates: nodes come from
//! [`Space::feed`]. `reserve` needs at most two spare ones, `add` and `remove` one. A [`Cache`] or
//! [`DeferredList`] does not touch the tree.

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

pub use area::{Area, Lent, List};
pub use cache::{Cache, MAX_CACHED_PAGES};
pub use check::{Census, Violation};
pub use deferred_list::DeferredList;
pub use node::{NodePage, NodePages};
pub use space::Space;

/// A virtual page number: the address divided by the page size.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
#[repr(transparent)]
pub struct Vpn(pub u64);

/// A request: pages, place, and guard pages, which are part of the reservation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fit {
    /// Of the body, at least 1.
    pub pages: u64,
    /// The body's page number is `phase` modulo this power of two.
    pub align: u64,
    /// Below [`align`](Self::align).
    pub phase: u64,
    /// Before the body.
    pub lead: u16,
    /// Behind the body.
    pub trail: u16,
}

impl Fit {
    /// Requests `pages` pages anywhere, with one guard page behind.
    pub const fn new(pages: u64) -> Self {
        Self {
            pages,
            align: 1,
            phase: 0,
            lead: 0,
            trail: 1,
        }
    }

    /// Places the body at `phase` modulo `align`.
    pub const fn congruent(self, align: u64, phase: u64) -> Self {
        Self { align, phase, ..self }
    }

    /// Sets the guard pages before and behind the body.
    pub const fn guarded(self, lead: u16, trail: u16) -> Self {
        Self { lead, trail, ..self }
    }

    #[inline(always)]
    pub(crate) const fn reserved(&self) -> u64 {
        self.pages.wrapping_add(self.guards())
    }

    /// In a region of `region` pages. Returns all pages.
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
        // Against overflow.
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

    /// Modulo `align`.
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
    /// With its [`Area`] held.
    Owned,
    /// Reserved, after [`Area::entrust`]: claimed by its address.
    Raw,
    /// A TLB may hold translations of it.
    Retired,
    /// In a [`Cache`].
    Parked,
}

impl State {
    /// Whether it is an area in use.
    pub const fn is_live(self) -> bool {
        matches!(self, Self::Owned | Self::Raw)
    }
}

/// Why a request was refused. Nothing has changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No pages were asked for.
    #[error("no pages asked for")]
    Empty,
    /// The alignment is not a power of two.
    #[error("alignment of {align} pages is no power of two")]
    BadAlignment {
        /// In pages.
        align: u64,
    },
    /// The phase is not below the alignment.
    #[error("phase {phase} is not below alignment {align}")]
    BadPhase {
        /// In pages.
        phase: u64,
        /// In pages.
        align: u64,
    },
    /// More than the region.
    #[error("{pages} pages do not fit into a region of {region}")]
    TooLarge {
        /// With guards.
        pages: u64,
        /// In pages.
        region: u64,
    },
    /// No gap is large enough.
    #[error("no gap of {pages} pages")]
    NoSpace {
        /// With guards.
        pages: u64,
    },
    /// No gap that was tried has this alignment and phase.
    #[error("no gap of {pages} pages found at {phase} modulo {align}")]
    NoAlignedSpace {
        /// With guards.
        pages: u64,
        /// In pages.
        align: u64,
        /// In pages.
        phase: u64,
    },
    /// Fewer than two spare nodes: feed a page.
    #[error("no spare nodes")]
    NoNodes,
}

/// Why [`Space::claim`] gives no area. Nothing has changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unclaimed {
    /// Not in this space.
    Outside,
    /// In a gap.
    Vacant,
    /// Inside an area.
    Interior,
    /// In a guard page.
    Guard,
    /// The area belongs to a handle.
    Owned,
    /// Freed, but not reusable yet or in a cache.
    Freed,
}
