//! [`Cache`]: areas kept for the next one of the same size.
//!
//! A parked area stays reserved in its [`Space`](super::Space): the tree does not change when it comes and goes, and neither
//! takes more than a few instructions. The price is that a parked range is not joined with its neighbours, and that what comes
//! from a cache is not the lowest fit. Both are bounded by the cache's limit, and whoever finds no space drains it and asks again.
//!
//! # Invariants (checked by [`Cache::check`])
//! 1. Everything in class `n` is parked, and has `n` pages, guards included.
//! 2. There are no more areas than the limit, and as many as are counted.
//!
//! A cache needs no space at hand, so that each CPU may have its own, under its own lock.

use super::node::NodeRef;
use super::space::Area;
use super::{Fit, State, Violation, Vpn};

/// The largest area that a cache takes, in pages, guards included.
pub const MAX_CACHED_PAGES: usize = 65;

/// Areas that were given back, by size.
pub struct Cache<const W: usize> {
    /// Class `n` at index `n - 1`: the area parked last, and the others behind it.
    classes: [Option<NodeRef<W>>; MAX_CACHED_PAGES],
    nr_areas: usize,
    pages: u64,
    limit: usize,
}

// SAFETY: parked areas belong to the cache as an `Area` does to its holder; it reads what does not change while they exist, and
// `chain`, which is its own.
unsafe impl<const W: usize> Send for Cache<W> {}

impl<const W: usize> Cache<W> {
    /// An empty cache for at most `limit` areas.
    #[must_use]
    pub const fn new(limit: usize) -> Self {
        Self {
            classes: [None; MAX_CACHED_PAGES],
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
        let class = fit.pages.wrapping_add(fit.guards()).wrapping_sub(1);
        let head = self.classes.get_mut(usize::try_from(class).ok()?)?;
        let node = (*head)?;
        if fit.pages == 0
            || !fit.align.is_power_of_two()
            || node.start.get() & (fit.align - 1) != fit.residue()
        {
            return None;
        }
        *head = node.chain.get();
        self.nr_areas -= 1;
        self.pages -= class + 1;
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
        let class = usize::try_from(pages).map_or(0, |pages| pages.wrapping_sub(1));
        let Some(head) = self.classes.get_mut(class) else {
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

    /// Whether there is a class for areas of `pages` pages, guards included.
    #[inline(always)]
    #[must_use]
    pub const fn has_class(pages: u64) -> bool {
        pages <= MAX_CACHED_PAGES as u64
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
                if node.pages.get() != class as u64 + 1 {
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
