use super::area::Area;
use super::node::{NodeRef, Side, saturate};
use super::space::Space;
use super::{Error, Fit, Vpn};

impl<const W: usize> Space<W> {
    /// Adds `pages` pages from `start`, which no space has.
    pub fn add(&mut self, start: Vpn, pages: u64) -> Result<(), Error> {
        let before = self.place_for(start.0, pages);
        let node = self.insert(before, start.0, pages)?;
        self.make_gap(node);
        Ok(())
    }

    /// Adds pages and reserves `fit` in them and the gap before them, in one step: nodes above do
    /// not first learn of a gap of all the pages. Takes at most three nodes.
    pub fn add_reserved(
        &mut self,
        start: Vpn,
        pages: u64,
        fit: &Fit,
        words: &[u64; W],
    ) -> Result<Area<W>, Error> {
        let total = fit.total(pages)?;
        if fit.residue().wrapping_sub(start.0) & (fit.align - 1) > pages - total {
            return Err(Error::NoSpace { pages: total });
        }
        let (start, end) = (start.0, start.0 + pages);
        let before = self.place_for(start, pages);
        let gap = before.filter(|before| before.is_gap() && before.end() == start);
        let start = gap.map_or(start, |gap| gap.start.get());
        let at = start + (fit.residue().wrapping_sub(start) & (fit.align - 1));
        let rests = [(at + total, end), (start, at)];
        let nr_rests = rests.iter().filter(|(from, to)| from != to).count();
        if self.pool.nr_spare < nr_rests + usize::from(gap.is_none()) {
            return Err(Error::NoNodes);
        }
        let node = match gap {
            Some(gap) => {
                self.nr_gaps -= 1;
                self.pages += pages;
                gap
            }
            None => self.insert(before, start, pages)?,
        };
        node.set_bounds(at, total);
        node.begin(words, fit.lead, fit.trail);
        self.nr_areas += 1;
        self.reserved += total;
        for (from, to) in rests {
            if from != to {
                let side = if from < at { Side::Left } else { Side::Right };
                let rest = self.pool.take().ok_or(Error::NoNodes)?;
                rest.set_bounds(from, to - from);
                self.tree.insert(node, side, rest);
                self.make_gap(rest);
            }
        }
        // In this order, as in `join`.
        self.tree.set_gap(node, 0);
        Ok(Area { node })
    }

    fn place_for(&self, start: u64, pages: u64) -> Option<NodeRef<W>> {
        assert!(
            pages != 0 && pages <= 1 << 52 && start.checked_add(pages).is_some(),
            "no range: {pages} pages at page {start:#x}"
        );
        let before = self.tree.find(start);
        let next = before.map_or_else(
            || self.tree.first(),
            |before| self.tree.neighbour(before, Side::Right),
        );
        assert!(
            before.is_none_or(|before| before.end() <= start)
                && next.is_none_or(|next| start + pages <= next.start.get()),
            "{pages} pages at page {start:#x} are in the space already"
        );
        before
    }

    fn insert(&mut self, before: Option<NodeRef<W>>, start: u64, pages: u64) -> Result<NodeRef<W>, Error> {
        let node = self.pool.take().ok_or(Error::NoNodes)?;
        node.set_bounds(start, pages);
        match before {
            Some(before) => self.tree.insert(before, Side::Right, node),
            None => match self.tree.first() {
                Some(first) => self.tree.insert(first, Side::Left, node),
                None => self.tree.insert_first(node),
            },
        }
        self.pages += pages;
        Ok(node)
    }

    /// Removes `pages` pages, if one gap has them all; returns whether it did.
    pub fn remove(&mut self, start: Vpn, pages: u64) -> Result<bool, Error> {
        let start = start.0;
        let gap = match self.tree.find(start) {
            Some(node) if node.is_gap() && start + pages <= node.end() => node,
            _ => return Ok(false),
        };
        if self.pool.nr_spare == 0 {
            return Err(Error::NoNodes);
        }
        self.take_out(gap, start, pages);
        Ok(true)
    }

    /// Needs a spare node.
    fn take_out(&mut self, gap: NodeRef<W>, at: u64, pages: u64) {
        let (start, end) = (gap.start.get(), gap.end());
        let (before, behind) = (at - start, end - (at + pages));
        self.pages -= pages;
        if before == 0 && behind == 0 {
            self.tree.remove_any(gap);
            self.pool.free(gap);
            self.nr_gaps -= 1;
            return;
        }
        if before == 0 {
            gap.set_bounds(at + pages, behind);
            self.tree.set_gap(gap, saturate(behind));
            return;
        }
        gap.set_bounds(start, before);
        self.tree.set_gap(gap, saturate(before));
        if behind != 0 {
            self.insert_gap(gap, at + pages, behind);
        }
    }
}
