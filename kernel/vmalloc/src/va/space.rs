use super::area::{Area, Lent, Segment};
use super::node::{NodePage, NodeRef, Pool, Side, saturate};
use super::tree::Tree;
use super::{Error, Fit, State, Unclaimed, Vpn};
use core::fmt;
use core::marker::PhantomData;

/// Large enough, but perhaps not so at the alignment and phase.
pub const TIGHT_TRIES: usize = 8;

/// A region of virtual pages, with `W` words of the caller's per area. Not synchronised: `&self`
/// looks, `&mut self` changes.
pub struct Space<const W: usize> {
    pub(super) tree: Tree<W>,
    pub(super) pool: Pool<W>,
    /// Nothing larger is looked for.
    pub(super) region: u64,
    pub(super) pages: u64,
    pub(super) nr_areas: usize,
    pub(super) nr_gaps: usize,
    pub(super) reserved: u64,
}

// SAFETY: nodes outside an `Area` are reached through the space alone. What it shares with areas of
// other threads is atomic, or constant while they exist (`node`'s rules).
unsafe impl<const W: usize> Send for Space<W> {}
// SAFETY: `&Space` reads atomics, and what only `&mut Space` writes; never the `chain` of a node in
// use. `visits` is for tests, which share no space.
#[cfg(not(test))]
unsafe impl<const W: usize> Sync for Space<W> {}

impl<const W: usize> Space<W> {
    /// Returns a space without pages. `page` holds its first nodes.
    pub fn empty(owner: u16, region: u64, page: &'static mut NodePage) -> Self {
        Self {
            tree: Tree::new(),
            pool: Pool::new(owner, page),
            region,
            pages: 0,
            nr_areas: 0,
            nr_gaps: 0,
            reserved: 0,
        }
    }

    /// Returns where [`reserve`](Self::reserve) would put `fit`.
    ///
    /// # Errors
    ///
    /// As `reserve`, but for nodes.
    pub fn lowest(&self, fit: &Fit) -> Result<Vpn, Error> {
        let total = fit.total(self.region)?;
        self.search(fit, total).map(|(_, at)| Vpn(at))
    }

    /// Returns the pages.
    pub const fn pages(&self) -> u64 {
        self.pages
    }

    /// Returns the areas in any state.
    pub const fn nr_areas(&self) -> usize {
        self.nr_areas
    }

    /// Returns the pages in areas, guards included.
    pub const fn reserved(&self) -> u64 {
        self.reserved
    }

    /// Returns the number of spare nodes.
    pub const fn nr_spare_nodes(&self) -> usize {
        self.pool.nr_spare()
    }

    /// Takes a page for nodes, for ever.
    pub fn feed(&mut self, page: &'static mut NodePage) {
        self.pool.feed(page);
    }

    /// Reserves what `fit` asks for.
    ///
    /// A gap is *large* if it has all pages, guards included, and *sure* if it also has `align - 1`
    /// more. The range begins at the lowest address that fits, if one of the [`TIGHT_TRIES`] lowest
    /// large gaps holds it; otherwise at the lowest in the lowest sure gap.
    ///
    /// # Errors
    ///
    /// - [`Error::Empty`], [`Error::BadAlignment`], [`Error::BadPhase`], [`Error::TooLarge`]: a bad
    ///   request;
    /// - [`Error::NoSpace`]: no large gap;
    /// - [`Error::NoAlignedSpace`]: no sure gap, and the large ones tried do not hold it;
    /// - [`Error::NoNodes`]: feed a page and retry.
    #[inline]
    pub fn reserve(&mut self, fit: &Fit, words: &[u64; W]) -> Result<Area<W>, Error> {
        let total = fit.total(self.region)?;
        if self.pool.nr_spare() < 2 {
            return Err(Error::NoNodes);
        }
        let (gap, at) = self.search(fit, total)?;
        let node = self.carve(gap, at, total)?;
        node.begin(words, fit.lead, fit.trail);
        self.nr_areas += 1;
        self.reserved += total;
        Ok(Area { node })
    }

    #[inline]
    fn search(&self, fit: &Fit, total: u64) -> Result<(NodeRef<W>, u64), Error> {
        let residue = fit.residue();
        let place = |gap: NodeRef<W>| {
            let start = gap.start.get();
            let skip = residue.wrapping_sub(start) & (fit.align - 1);
            (gap.pages() >= total && gap.pages() - total >= skip).then_some((gap, start + skip))
        };
        let mut any_large = false;
        let large = saturate(total);
        let mut candidate = self.tree.lowest_fit(large);
        for _ in 0..TIGHT_TRIES {
            let Some(gap) = candidate else {
                break;
            };
            if let Some(found) = place(gap) {
                return Ok(found);
            }
            any_large |= gap.pages() >= total;
            candidate = self.tree.next_fit(gap, large);
        }
        if candidate.is_some() {
            // Only for a useless alignment: regions are below 2^52 pages.
            let sure = saturate(total.saturating_add(fit.align - 1));
            candidate = self.tree.lowest_fit(sure);
            while let Some(gap) = candidate {
                if let Some(found) = place(gap) {
                    return Ok(found);
                }
                any_large |= gap.pages() >= total;
                // Only in the largest class may a found gap not be sure.
                debug_assert_eq!(sure, u32::MAX);
                candidate = self.tree.next_fit(gap, sure);
            }
        }
        if any_large {
            Err(Error::NoAlignedSpace {
                pages: total,
                align: fit.align,
                phase: fit.phase,
            })
        } else {
            Err(Error::NoSpace { pages: total })
        }
    }

    /// Needs two spare nodes.
    #[inline]
    fn carve(&mut self, gap: NodeRef<W>, at: u64, total: u64) -> Result<NodeRef<W>, Error> {
        let (start, end) = (gap.start.get(), gap.end());
        let (before, behind) = (at - start, end - (at + total));
        if before == 0 && behind == 0 {
            // The gap's node becomes the area's.
            self.tree.set_gap(gap, 0);
            self.nr_gaps -= 1;
            return Ok(gap);
        }
        let node = self.pool.take().ok_or(Error::NoNodes)?;
        node.set_bounds(at, total);
        if before == 0 {
            gap.set_bounds(at + total, behind);
            self.tree.set_gap(gap, saturate(behind));
            self.tree.insert(gap, Side::Left, node);
        } else {
            gap.set_bounds(start, before);
            self.tree.set_gap(gap, saturate(before));
            self.tree.insert(gap, Side::Right, node);
            if behind != 0 {
                self.insert_gap(node, at + total, behind);
            }
        }
        Ok(node)
    }

    /// Needs a spare node.
    pub(super) fn insert_gap(&mut self, node: NodeRef<W>, start: u64, pages: u64) {
        let Some(rest) = self.pool.take() else {
            unreachable!("a node was spare");
        };
        rest.become_gap(start, pages);
        self.tree.insert(node, Side::Right, rest);
        self.tree.set_gap(rest, saturate(pages));
        self.nr_gaps += 1;
    }

    /// Frees a range, which no TLB may know: it may be handed out at once.
    ///
    /// # Panics
    ///
    /// If the area is of another space.
    #[inline(always)]
    pub fn release(&mut self, area: Area<W>) {
        let node = area.node;
        self.assert_ours(node);
        self.nr_areas -= 1;
        self.reserved -= node.pages();
        self.make_gap(node);
    }

    /// With those that it touches.
    #[inline(always)]
    pub(super) fn make_gap(&mut self, node: NodeRef<W>) {
        let (mut start, mut pages) = (node.start.get(), node.pages());
        self.nr_gaps += 1;
        let end = start + pages;
        let behind = self.tree.gap_beside(node, Side::Right);
        let before = self.tree.gap_beside(node, Side::Left);
        let mut keep = node;
        if let Some(next) = behind.filter(|next| next.start.get() == end) {
            pages += next.pages();
            keep = self.join(node, next, pages);
        }
        if let Some(prev) = before.filter(|prev| prev.end() == start) {
            start = prev.start.get();
            pages += prev.pages();
            keep = self.join(prev, keep, pages);
        }
        keep.become_gap(start, pages);
        self.tree.set_gap(keep, saturate(pages));
    }

    /// Returns the other as a gap of `pages` pages.
    #[inline]
    fn join(&mut self, lower: NodeRef<W>, upper: NodeRef<W>, pages: u64) -> NodeRef<W> {
        // One of two neighbours has at most one child (module `tree`).
        let (keep, drop) = if lower.child(Side::Right).is_none() {
            (upper, lower)
        } else {
            (lower, upper)
        };
        // In this order the larger gap ends the propagation of the smaller one's removal.
        self.tree.set_gap(keep, saturate(pages));
        self.tree.remove(drop);
        self.pool.free(drop);
        self.nr_gaps -= 1;
        keep
    }

    fn assert_ours(&self, node: NodeRef<W>) {
        assert_eq!(
            node.owner(),
            self.pool.owner(),
            "an area of another space: {:#x} pages",
            node.pages()
        );
    }

    /// Leaves the area to the holder of its address.
    ///
    /// # Panics
    ///
    /// If the area is of another space.
    pub fn entrust(&mut self, area: Area<W>) {
        self.assert_ours(area.node);
        area.node.set_state(State::Raw);
    }

    /// Takes the area at `page` from the holder of its address.
    ///
    /// # Errors
    ///
    /// What is there instead.
    /// What is there instead.
    #[inline]
    pub fn claim(&mut self, page: Vpn) -> Result<Area<W>, Unclaimed> {
        let node = self.node_at(page).ok_or(Unclaimed::Outside)?;
        let (lead, trail) = node.guards();
        let at = page.0 - node.start.get();
        let is_start = at == u64::from(lead);
        match node.state() {
            State::Raw if is_start => {
                node.set_state(State::Owned);
                Ok(Area { node })
            }
            State::Gap => Err(Unclaimed::Vacant),
            State::Retired | State::Parked => Err(Unclaimed::Freed),
            State::Owned if is_start => Err(Unclaimed::Owned),
            _ if at < u64::from(lead) || at >= node.pages() - u64::from(trail) => Err(Unclaimed::Guard),
            _ => Err(Unclaimed::Interior),
        }
    }

    #[inline]
    fn node_at(&self, page: Vpn) -> Option<NodeRef<W>> {
        self.tree.find(page.0).filter(|node| page.0 < node.end())
    }

    /// Returns the live area that contains `page`, guards included, for its words.
    pub fn lend(&mut self, page: Vpn) -> Option<Lent<'_, W>> {
        let node = self.node_at(page)?;
        node.state().is_live().then_some(Lent {
            area: Area { node },
            space: PhantomData,
        })
    }

    /// Returns the segment that contains `page`; `None` outside the space.
    #[inline]
    pub fn find(&self, page: Vpn) -> Option<Segment<W>> {
        self.node_at(page).map(Segment::of)
    }

    /// Returns the segments in address order, from the first that ends behind `page`.
    pub fn segments_from(&self, page: Vpn) -> impl Iterator<Item = Segment<W>> + '_ {
        let first = match self.tree.find(page.0) {
            Some(node) if page.0 < node.end() => Some(node),
            Some(node) => self.tree.neighbour(node, Side::Right),
            None => self.tree.first(),
        };
        core::iter::successors(first, |node| self.tree.neighbour(node, Side::Right)).map(Segment::of)
    }

    /// Returns all segments in address order.
    pub fn segments(&self) -> impl Iterator<Item = Segment<W>> + '_ {
        self.segments_from(Vpn(0))
    }
}

impl<const W: usize> fmt::Debug for Space<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Space")
            .field("pages", &format_args!("{:#x}", self.pages))
            .field("areas", &self.nr_areas)
            .field("gaps", &self.nr_gaps)
            .field("reserved", &self.reserved)
            .finish()
    }
}
