//! [`Cache`]: areas that were given back, kept for the next of the same size.
//!
//! A range that comes and goes again and again need not be cut from its space and joined with its neighbours each time. A cache belongs to a
//! space, and is guarded by what guards that.
//!
//! Sizes come and go. What nothing asks for any more would fill the cache, so a full one gives up an area of a size that it has many of; and
//! [`age`](Cache::age) gives up a quarter of what was not touched since it was called last. Of a size in use, that is nothing.

use super::node::NodeRef;
use super::space::Area;
use super::{Fit, State, Violation, Vpn};

/// The largest area that is kept, in pages, guards included: 1 MiB of pages of 4 KiB and a guard page.
pub const MAX_CACHED_PAGES: usize = 257;

/// Areas that were given back, by size: at index i those of i + 1 pages, guards included.
pub struct Cache<const W: usize> {
    /// The area put last, and the others behind it.
    heads: [Option<NodeRef<W>>; MAX_CACHED_PAGES],
    nr: [u16; MAX_CACHED_PAGES],
    /// The fewest that there were since it was aged.
    low: [u16; MAX_CACHED_PAGES],
    nr_areas: usize,
    pages: u64,
    /// The most areas.
    limit: usize,
    /// A size of which there were many: which one to give up when the cache is full. Only a hint.
    many: usize,
}

// SAFETY: parked areas belong to the cache as an `Area` does to its holder; it reads what does not change while they exist, and
// `chain`, which is its own.
unsafe impl<const W: usize> Send for Cache<W> {}

impl<const W: usize> Cache<W> {
    /// An empty cache for at most `limit` areas.
    #[must_use]
    pub const fn new(limit: usize) -> Self {
        Self {
            heads: [None; MAX_CACHED_PAGES],
            nr: [0; MAX_CACHED_PAGES],
            low: [0; MAX_CACHED_PAGES],
            nr_areas: 0,
            pages: 0,
            // A size is counted in 16 bits.
            limit: if limit < u16::MAX as usize { limit } else { u16::MAX as usize },
            many: 0,
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

    /// An area for `fit` with `words`, if the one put last in that size is good for it.
    #[inline(always)]
    pub fn take(&mut self, fit: &Fit, words: &[u64; W]) -> Option<Area<W>> {
        let index = fit.reserved().wrapping_sub(1) as usize;
        let node = (*self.heads.get(index)?)?;
        if fit.pages == 0
            || !fit.align.is_power_of_two()
            || node.start.get() & (fit.align - 1) != fit.residue()
        {
            return None;
        }
        self.unlink(index, node);
        node.begin(words, fit.lead, fit.trail);
        Some(Area { node })
    }

    /// Takes out `node`, the first of its size.
    #[inline(always)]
    fn unlink(&mut self, index: usize, node: NodeRef<W>) {
        self.heads[index] = node.chain.take();
        let nr = self.nr[index] - 1;
        self.nr[index] = nr;
        self.low[index] = self.low[index].min(nr);
        self.nr_areas -= 1;
        self.pages -= index as u64 + 1;
    }

    /// Keeps an area. No TLB may hold a translation of it any more. Gives what is to go back to the space: the area itself if it is not kept, or another
    /// if the cache was full.
    #[inline(always)]
    #[must_use = "what is not kept is to go back to the space"]
    pub fn put(&mut self, area: Area<W>) -> Option<Area<W>> {
        let node = area.node;
        let index = node.pages.get().wrapping_sub(1) as usize;
        if index >= MAX_CACHED_PAGES || self.limit == 0 {
            return Some(area);
        }
        let given_up = if self.nr_areas >= self.limit { self.give_up() } else { None };
        node.set_state(State::Parked);
        node.chain.set(self.heads[index]);
        self.heads[index] = Some(node);
        self.nr[index] += 1;
        if self.nr[index] > self.nr[self.many] {
            self.many = index;
        }
        self.nr_areas += 1;
        self.pages += index as u64 + 1;
        given_up
    }

    /// Takes out an area of a size that there are many of.
    #[inline(never)]
    fn give_up(&mut self) -> Option<Area<W>> {
        if self.nr[self.many] == 0 {
            let many = self.nr.iter().enumerate().max_by_key(|(_, nr)| **nr);
            self.many = many.map_or(0, |(index, _)| index);
        }
        self.take_any(self.many)
    }

    fn take_any(&mut self, index: usize) -> Option<Area<W>> {
        let node = self.heads[index]?;
        self.unlink(index, node);
        node.set_state(State::Retired);
        Some(Area { node })
    }

    /// Takes any area out: until there is none left, to give the ranges back to their space.
    pub fn drain(&mut self) -> Option<Area<W>> {
        if self.nr_areas == 0 {
            return None;
        }
        let index = self.nr.iter().position(|nr| *nr != 0)?;
        self.take_any(index)
    }

    /// Gives `gone` a quarter, rounded up, of the areas of each size that were not touched since this was called last: at most `most` of them.
    /// Begins with the size at `from`, and gives where to go on, or `None` when it is through.
    pub fn age(&mut self, from: usize, most: usize, mut gone: impl FnMut(Area<W>)) -> Option<usize> {
        let mut left = most;
        for index in from..MAX_CACHED_PAGES {
            let mut idle = self.low[index].div_ceil(4);
            while idle != 0 {
                if left == 0 {
                    return Some(index);
                }
                let Some(area) = self.take_any(index) else {
                    break;
                };
                gone(area);
                (idle, left) = (idle - 1, left - 1);
            }
            self.low[index] = self.nr[index];
        }
        None
    }

    /// Whether areas of `pages` pages, guards included, are none too large for it.
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
        for (index, head) in self.heads.iter().enumerate() {
            let mut in_class = 0;
            for node in core::iter::successors(*head, |node| node.chain.get()) {
                let at = Vpn(node.start.get());
                if node.state() != State::Parked {
                    return Err(Violation::State(at));
                }
                if node.pages.get() != index as u64 + 1 {
                    return Err(Violation::CacheClass(at));
                }
                nr += 1;
                in_class += 1;
                pages += node.pages.get();
                if nr > self.nr_areas {
                    return Err(Violation::Count);
                }
            }
            if in_class != self.nr[index] || self.low[index] > in_class {
                return Err(Violation::Count);
            }
        }
        if nr != self.nr_areas || pages != self.pages || nr > self.limit {
            return Err(Violation::Count);
        }
        Ok(())
    }
}
