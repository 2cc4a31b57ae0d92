//! [`Cache`]: areas kept for the next one of the same size.
//!
//! A parked area stays reserved in its [`Space`](super::Space): the tree does not change when it comes and goes, and neither
//! takes more than a few instructions. The price is that a parked range is not joined with its neighbours, and that what comes
//! from a cache is not the lowest fit. Both are bounded by the cache's limit, and whoever finds no space drains it and asks again.
//!
//! There is a class for each size of some sizes that follow each other: [`Cache`] for small areas, [`LargeCache`] for those above.
//!
//! # Invariants (checked by [`Sizes::check`])
//! 1. Everything in a class is parked, and has the class's number of pages, guards included.
//! 2. There are no more areas than the limit, and as many as are counted.
//!
//! A cache needs no space at hand, so that each CPU may have its own, under its own lock.

use super::node::NodeRef;
use super::space::Area;
use super::{Fit, State, Violation, Vpn};

/// The largest area that a [`Cache`] takes, in pages, guards included.
pub const MAX_CACHED_PAGES: usize = 65;

/// The largest area that a [`LargeCache`] takes, in pages, guards included: 1 MiB of pages of 4 KiB and a guard page.
pub const MAX_LARGE_CACHED_PAGES: usize = 257;

/// Small areas that were given back, by size.
pub type Cache<const W: usize> = Sizes<W, 0, MAX_CACHED_PAGES>;

/// Areas that were given back and are too large for a [`Cache`], by size.
pub type LargeCache<const W: usize> =
    Sizes<W, MAX_CACHED_PAGES, { MAX_LARGE_CACHED_PAGES - MAX_CACHED_PAGES }>;

/// Areas that were given back, by size: of more than `ABOVE` pages, guards included, and at most `NR` more than that.
pub struct Sizes<const W: usize, const ABOVE: usize, const NR: usize> {
    /// Of each size the area parked last, and the others behind it.
    classes: [Option<NodeRef<W>>; NR],
    nr_areas: usize,
    pages: u64,
    limit: usize,
}

// SAFETY: parked areas belong to the cache as an `Area` does to its holder; it reads what does not change while they exist, and
// `chain`, which is its own.
unsafe impl<const W: usize, const ABOVE: usize, const NR: usize> Send for Sizes<W, ABOVE, NR> {}

impl<const W: usize, const ABOVE: usize, const NR: usize> Sizes<W, ABOVE, NR> {
    /// An empty cache for at most `limit` areas.
    #[must_use]
    pub const fn new(limit: usize) -> Self {
        Self {
            classes: [None; NR],
            nr_areas: 0,
            pages: 0,
            limit,
        }
    }

    /// Areas in it.
    #[must_use]
    pub const fn nr_areas(&self) -> usize {
        self.nr_areas
    }

    /// Pages in it, guards included.
    #[must_use]
    pub const fn pages(&self) -> u64 {
        self.pages
    }

    /// An area for `fit` with `words`, if the one parked last in that size is good for it.
    #[inline(always)]
    pub fn take(&mut self, fit: &Fit, words: &[u64; W]) -> Option<Area<W>> {
        let pages = fit.reserved();
        let head = self.classes.get_mut(Self::class_of(pages))?;
        let node = (*head)?;
        if fit.pages == 0
            || !fit.align.is_power_of_two()
            || node.start.get() & (fit.align - 1) != fit.residue()
        {
            return None;
        }
        *head = node.chain.get();
        self.nr_areas -= 1;
        self.pages -= pages;
        node.chain.set(None);
        node.begin_again(words, fit.lead, fit.trail);
        Some(Area { node })
    }

    /// Parks an area. No TLB may hold a translation of it any more.
    ///
    /// # Errors
    /// The area, if it is too large or the cache is full.
    #[inline(always)]
    pub fn put(&mut self, area: Area<W>) -> Result<(), Area<W>> {
        let node = area.node;
        let pages = node.pages.get();
        let Some(head) = self.classes.get_mut(Self::class_of(pages)) else {
            return Err(area);
        };
        if self.nr_areas >= self.limit {
            return Err(area);
        }
        node.set_state(State::Parked);
        node.chain.set(*head);
        *head = Some(node);
        self.nr_areas += 1;
        self.pages += pages;
        Ok(())
    }

    /// Takes any area out: until there is none left, to give the ranges back to their space.
    pub fn drain(&mut self) -> Option<Area<W>> {
        if self.nr_areas == 0 {
            return None;
        }
        let head = self.classes.iter_mut().find(|head| head.is_some())?;
        let node = (*head)?;
        *head = node.chain.take();
        self.nr_areas -= 1;
        self.pages -= node.pages.get();
        node.set_state(State::Retired);
        Some(Area { node })
    }

    /// Whether areas of `pages` pages, guards included, are none too large for it.
    #[inline(always)]
    #[must_use]
    pub const fn has_class(pages: u64) -> bool {
        pages <= (ABOVE + NR) as u64
    }

    /// The index of the class of areas of `pages` pages, guards included; not below `NR` if there is none.
    #[inline(always)]
    const fn class_of(pages: u64) -> usize {
        // Also where there are fewer: the difference wraps.
        pages.wrapping_sub(ABOVE as u64 + 1) as usize
    }

    /// Checks the invariants.
    ///
    /// # Errors
    /// The first that does not hold.
    pub fn check(&self) -> Result<(), Violation> {
        let (mut nr, mut pages) = (0, 0);
        for (class, head) in self.classes.iter().enumerate() {
            for node in core::iter::successors(*head, |node| node.chain.get()) {
                let at = Vpn(node.start.get());
                if node.state() != State::Parked {
                    return Err(Violation::State(at));
                }
                if Self::class_of(node.pages.get()) != class {
                    return Err(Violation::CacheClass(at));
                }
                nr += 1;
                pages += node.pages.get();
                if nr > self.nr_areas {
                    return Err(Violation::Count);
                }
            }
        }
        if nr != self.nr_areas || pages != self.pages || nr > self.limit {
            return Err(Violation::Count);
        }
        Ok(())
    }
}
