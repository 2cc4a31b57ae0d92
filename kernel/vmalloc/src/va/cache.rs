//! [`Cache`]: freed ranges, kept for the next area of the same size.
//!
//! A range that comes and goes need not be cut from its space and joined with its neighbours each
//! time. A cache belongs to a space, and is guarded by its lock.
//!
//! What is no longer asked for would fill the cache. So a full one gives up a range for each that
//! comes: of one size until it has none of that, then of the next. And [`age`](Cache::age) gives up
//! a quarter of what was not used since its last call.

use super::area::Area;
use super::node::NodeRef;
use super::{Fit, State, Violation, Vpn};

/// The largest area that is kept, in pages (or what else is the unit), guards included: 1 MiB of
/// pages of 4 KiB and a guard page.
pub const MAX_CACHED_PAGES: usize = 257;

/// Freed ranges, by size: at index i those of i + 1 units, guards included.
pub struct Cache<const W: usize> {
    /// The area put last, and the others behind it.
    heads: [Option<NodeRef<W>>; MAX_CACHED_PAGES],
    counts: [Counts; MAX_CACHED_PAGES],
    nr_areas: usize,
    /// The most areas.
    limit: usize,
    /// A unit is 1 << this many pages.
    unit_shift: u32,
    /// The index of the size that is given up when the cache is full.
    hand: usize,
}

/// Of one size.
#[derive(Clone, Copy)]
struct Counts {
    /// How many there are.
    nr: u16,
    /// The fewest that there were since it was aged.
    low: u16,
}

// SAFETY: parked areas belong to the cache as an `Area` does to its holder; it reads what does not
// change while they exist, and `chain`, which is its own.
unsafe impl<const W: usize> Send for Cache<W> {}

impl<const W: usize> Cache<W> {
    /// Returns an empty cache for at most `limit` areas, of a multiple of `1 << unit_shift` pages
    /// each.
    pub const fn new(limit: usize, unit_shift: u32) -> Self {
        Self {
            heads: [None; MAX_CACHED_PAGES],
            counts: [Counts { nr: 0, low: 0 }; MAX_CACHED_PAGES],
            nr_areas: 0,
            // A size is counted in 16 bits.
            limit: if limit < u16::MAX as usize {
                limit
            } else {
                u16::MAX as usize
            },
            unit_shift,
            hand: 0,
        }
    }

    /// Returns the index of areas of `pages` pages.
    #[inline(always)]
    const fn index(&self, pages: u64) -> usize {
        (pages >> self.unit_shift).wrapping_sub(1) as usize
    }

    /// Returns how many pages the areas at `index` have.
    #[inline(always)]
    const fn pages_at(&self, index: usize) -> u64 {
        (index as u64 + 1) << self.unit_shift
    }

    /// Areas in it.
    pub const fn nr_areas(&self) -> usize {
        self.nr_areas
    }

    /// Pages in it, guards included.
    pub fn pages(&self) -> u64 {
        let of_size = |(index, counts): (usize, &Counts)| u64::from(counts.nr) * self.pages_at(index);
        self.counts.iter().enumerate().map(of_size).sum()
    }

    /// Returns an area for `fit` with `words`, if the one put last in that size is good for it.
    #[inline(always)]
    pub fn take(&mut self, fit: &Fit, words: &[u64; W]) -> Option<Area<W>> {
        let index = self.index(fit.reserved());
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
        let counts = &mut self.counts[index];
        counts.nr -= 1;
        counts.low = counts.low.min(counts.nr);
        self.nr_areas -= 1;
    }

    /// Keeps an area. No TLB may hold a translation of it any more. Gives what is to go back to the
    /// space: the area itself if it is not kept, or another if the cache was full.
    #[inline(always)]
    #[must_use = "what is not kept is to go back to the space"]
    pub fn put(&mut self, area: Area<W>) -> Option<Area<W>> {
        let node = area.node;
        let index = self.index(node.pages());
        if index >= MAX_CACHED_PAGES {
            return Some(area);
        }
        if self.nr_areas >= self.limit {
            return self.put_for_another(area, index);
        }
        self.link(index, node);
        None
    }

    #[inline(always)]
    fn link(&mut self, index: usize, node: NodeRef<W>) {
        node.set_state(State::Parked);
        node.chain.set(self.heads[index].replace(node));
        self.counts[index].nr += 1;
        self.nr_areas += 1;
    }

    /// Keeps `area` in a full cache, and takes out one of the size whose turn it is.
    #[inline(never)]
    fn put_for_another(&mut self, area: Area<W>, index: usize) -> Option<Area<W>> {
        let Some(given_up) = self.give_up() else {
            return Some(area);
        };
        self.link(index, area.node);
        Some(given_up)
    }

    fn give_up(&mut self) -> Option<Area<W>> {
        let turns = (self.hand..MAX_CACHED_PAGES).chain(0..self.hand);
        self.hand = turns.into_iter().find(|index| self.counts[*index].nr != 0)?;
        self.take_any(self.hand)
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
        let index = self.counts.iter().position(|counts| counts.nr != 0)?;
        self.take_any(index)
    }

    /// Gives `gone` a quarter, rounded up, of the areas of each size that were not touched since
    /// this was called last: at most `most` of them. Begins with the size at `from`, and gives
    /// where to go on, or `None` when it is through.
    pub fn age(&mut self, from: usize, most: usize, mut gone: impl FnMut(Area<W>)) -> Option<usize> {
        let mut left = most;
        for index in from..MAX_CACHED_PAGES {
            let mut idle = self.counts[index].low.div_ceil(4);
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
            self.counts[index].low = self.counts[index].nr;
        }
        None
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
                if node.pages() != self.pages_at(index) {
                    return Err(Violation::CacheClass(at));
                }
                nr += 1;
                in_class += 1;
                pages += node.pages();
                if nr > self.nr_areas {
                    return Err(Violation::Count);
                }
            }
            let counts = self.counts[index];
            if in_class != counts.nr || counts.low > in_class {
                return Err(Violation::Count);
            }
        }
        if nr != self.nr_areas || pages != self.pages() || nr > self.limit {
            return Err(Violation::Count);
        }
        Ok(())
    }
}
