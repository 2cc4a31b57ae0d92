//! [`Cache`]: freed ranges kept for the next area of their size. Guarded by its space's lock. A
//! full cache gives up a range for each new one; [`age`](Cache::age) gives up a quarter of what was
//! unused, a few sizes at a time.

use super::area::Area;
use super::node::NodeRef;
use super::{Fit, State, Violation, Vpn};

/// Largest area kept, in units (of pages by default), guards included.
pub const MAX_CACHED_PAGES: usize = 257;

const LIMIT: usize = u16::MAX as usize;

/// Ranges by size: index i has those of i + 1 units.
pub struct Cache<const W: usize> {
    /// The latest; the others are chained.
    heads: [Option<NodeRef<W>>; MAX_CACHED_PAGES],
    counts: [Counts; MAX_CACHED_PAGES],
    pub nr_areas: usize,
    limit: usize,
    unit_shift: u32,
    /// Given up next.
    hand: usize,
    aged_next: usize,
}

#[derive(Clone, Copy)]
struct Counts {
    nr: u16,
    /// Since the last aging.
    low: u16,
}

// SAFETY: the cache holds parked areas as `Area`s do: it reads what is constant meanwhile, and its
// own `chain`.
unsafe impl<const W: usize> Send for Cache<W> {}

impl<const W: usize> Cache<W> {
    /// For at most `limit` areas, each a multiple of `1 << unit_shift` pages.
    pub const fn new(limit: usize, unit_shift: u32) -> Self {
        Self {
            heads: [None; MAX_CACHED_PAGES],
            counts: [Counts { nr: 0, low: 0 }; MAX_CACHED_PAGES],
            nr_areas: 0,
            limit: if limit < LIMIT { limit } else { LIMIT },
            unit_shift,
            hand: 0,
            aged_next: 0,
        }
    }

    #[inline(always)]
    const fn index(&self, pages: u64) -> usize {
        (pages >> self.unit_shift).wrapping_sub(1) as usize
    }

    #[inline(always)]
    const fn pages_at(&self, index: usize) -> u64 {
        (index as u64 + 1) << self.unit_shift
    }

    /// Guards included.
    pub fn pages(&self) -> u64 {
        let of_size = |(index, counts): (usize, &Counts)| u64::from(counts.nr) * self.pages_at(index);
        self.counts.iter().enumerate().map(of_size).sum()
    }

    /// If the latest of its size fits.
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

    #[inline(always)]
    fn unlink(&mut self, index: usize, node: NodeRef<W>) {
        self.heads[index] = node.chain.take();
        let counts = &mut self.counts[index];
        counts.nr -= 1;
        counts.low = counts.low.min(counts.nr);
        self.nr_areas -= 1;
    }

    /// Keeps an area that no TLB knows. Returns what must go back to the space: the area if it is
    /// not kept, or another if the cache was full.
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

    #[inline(never)]
    fn put_for_another(&mut self, area: Area<W>, index: usize) -> Option<Area<W>> {
        let Some(given_up) = self.give_up() else {
            return Some(area);
        };
        self.link(index, area.node);
        Some(given_up)
    }

    #[inline(always)]
    fn link(&mut self, index: usize, node: NodeRef<W>) {
        node.set_state(State::Parked);
        node.chain.set(self.heads[index].replace(node));
        self.counts[index].nr += 1;
        self.nr_areas += 1;
    }

    /// Takes out an area, of each size in turn.
    pub fn give_up(&mut self) -> Option<Area<W>> {
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

    /// Passes to `gone` a quarter, rounded up, of the areas that were unused since the last aging,
    /// at most `most`, of each of the next `sizes` sizes in turn. Returns how many of these are
    /// left.
    pub fn age(&mut self, sizes: usize, most: usize, mut gone: impl FnMut(Area<W>)) -> usize {
        let (mut sizes, mut left) = (sizes, most);
        while sizes != 0 {
            let at = self.aged_next;
            let end = (at + sizes).min(MAX_CACHED_PAGES);
            // Most have none, so that `low` is 0, too.
            let kept = self.counts[at..end].iter().position(|counts| counts.nr != 0);
            let skipped = kept.unwrap_or(end - at);
            sizes -= skipped;
            self.aged_next = (at + skipped) % MAX_CACHED_PAGES;
            if kept.is_none() {
                continue;
            }
            let index = at + skipped;
            for _ in 0..self.counts[index].low.div_ceil(4) {
                if left == 0 {
                    return sizes;
                }
                left -= 1;
                if let Some(area) = self.take_any(index) {
                    gone(area);
                }
            }
            self.counts[index].low = self.counts[index].nr;
            self.aged_next = (index + 1) % MAX_CACHED_PAGES;
            sizes -= 1;
        }
        0
    }

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
