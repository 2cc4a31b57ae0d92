use super::area::{Area, Lent};
use super::node::{NodePage, NodeRef, Pool, Side, saturate};
use super::tree::Tree;
use super::{Error, Fit, State, Unclaimed, Vpn};
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
    pub pages: u64,
    /// In any state.
    pub nr_areas: usize,
    pub(super) nr_gaps: usize,
    /// Pages in areas, guards included.
    pub reserved: u64,
}

// SAFETY: nodes outside an `Area` are reached through the space alone. What it shares with areas of
// other threads is atomic, or constant while they exist (`node`'s rules).
unsafe impl<const W: usize> Send for Space<W> {}
// SAFETY: `&Space` reads atomics, and what only `&mut Space` writes; never the `chain` of a node in
// use. `visits` is for tests, which share no space.
#[cfg(not(test))]
unsafe impl<const W: usize> Sync for Space<W> {}

impl<const W: usize> Space<W> {
    /// Without pages. `page` holds its first nodes.
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

    /// Where [`reserve`](Self::reserve) would put `fit`.
    pub fn lowest(&self, fit: &Fit) -> Result<Vpn, Error> {
        let total = fit.total(self.region)?;
        self.search(fit, total).map(|(_, at)| Vpn(at))
    }

    pub const fn nr_spare_nodes(&self) -> usize {
        self.pool.nr_spare
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
    /// Without a large gap it fails with [`Error::NoSpace`]; without a sure one, if the large ones
    /// tried do not hold it, with [`Error::NoAlignedSpace`].
    #[inline]
    pub fn reserve(&mut self, fit: &Fit, words: &[u64; W]) -> Result<Area<W>, Error> {
        let total = fit.total(self.region)?;
        if self.pool.nr_spare < 2 {
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
    #[inline(always)]
    pub fn release(&mut self, area: Area<W>) {
        let node = area.node;
        assert_eq!(node.owner(), self.pool.owner, "an area of another space");
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

    /// Takes the area at `page` from the holder of its address.
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

    /// The segment that contains `page`, guards included.
    #[inline]
    pub fn find(&self, page: Vpn) -> Option<Lent<'_, W>> {
        Some(self.lend(self.node_at(page)?))
    }

    #[inline(always)]
    fn lend(&self, node: NodeRef<W>) -> Lent<'_, W> {
        Lent {
            area: Area { node },
            space: PhantomData,
        }
    }

    /// In address order, from the first that ends behind `page`.
    pub fn segments_from(&self, page: Vpn) -> impl Iterator<Item = Lent<'_, W>> {
        let first = match self.tree.find(page.0) {
            Some(node) if page.0 < node.end() => Some(node),
            Some(node) => self.tree.neighbour(node, Side::Right),
            None => self.tree.first(),
        };
        core::iter::successors(first, |node| self.tree.neighbour(node, Side::Right))
            .map(|node| self.lend(node))
    }
}
