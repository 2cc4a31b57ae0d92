//! The invariants of a [`Space`].

use super::node::{NodeRef, Side, saturate};
use super::space::Space;
use super::{State, Vpn};
use core::fmt;

/// What a space holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Census {
    /// Live areas.
    pub live: usize,
    /// Areas to be freed.
    pub retired: usize,
    /// Areas in caches.
    pub parked: usize,
    /// Gaps.
    pub gaps: usize,
    /// Pages in areas, guards included.
    pub reserved: u64,
    /// Pages in gaps.
    pub vacant: u64,
    /// Pages of the largest gap.
    pub largest_gap: u64,
    /// Height of the tree.
    pub height: u32,
}

impl Census {
    /// Adds another space's.
    pub fn add(&mut self, other: &Self) {
        self.live += other.live;
        self.retired += other.retired;
        self.parked += other.parked;
        self.gaps += other.gaps;
        self.reserved += other.reserved;
        self.vacant += other.vacant;
        self.largest_gap = self.largest_gap.max(other.largest_gap);
        self.height = self.height.max(other.height);
    }
}

/// A broken invariant, and the first page of its segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Violation {
    /// The segment overlaps the previous one, or is empty (invariant 1).
    Cover(Vpn),
    /// Two gaps touch (2).
    AdjacentGaps(Vpn),
    /// A link and its counterpart disagree (3).
    Link(Vpn),
    /// A rank is not one or two above a child's, or not 1 for a leaf (4).
    Balance(Vpn),
    /// A gap's size or a subtree's largest gap is wrong (5).
    Largest(Vpn),
    /// A node of another space (6).
    Foreign(Vpn),
    /// Nodes, areas or pages do not add up (6).
    Count,
    /// A state that the segment's place forbids.
    State(Vpn),
    /// An area is in the wrong class of a cache.
    CacheClass(Vpn),
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (what, at) = match *self {
            Self::Cover(at) => ("overlaps the one before it, or is empty", at),
            Self::AdjacentGaps(at) => ("is a gap that touches a gap", at),
            Self::Link(at) => ("is linked wrongly", at),
            Self::Balance(at) => ("is out of balance", at),
            Self::Largest(at) => ("has a wrong largest gap", at),
            Self::Foreign(at) => ("belongs to another space", at),
            Self::Count => return write!(f, "nodes, areas or pages do not add up"),
            Self::State(at) => ("is in the wrong state", at),
            Self::CacheClass(at) => ("is in the wrong class of a cache", at),
        };
        write!(f, "the segment at page {:#x} {what}", at.0)
    }
}

impl core::error::Error for Violation {}

struct Walk<const W: usize> {
    prev: Option<NodeRef<W>>,
    nr: usize,
    budget: usize,
    census: Census,
}

fn same<const W: usize>(a: Option<NodeRef<W>>, b: Option<NodeRef<W>>) -> bool {
    a.map(core::ptr::from_ref) == b.map(core::ptr::from_ref)
}

impl<const W: usize> Space<W> {
    /// Every invariant, in time proportional to the segments.
    pub fn check(&self) -> Result<Census, Violation> {
        let mut walk = Walk {
            prev: None,
            nr: 0,
            budget: self.pool.nr_fed,
            census: Census::default(),
        };
        let root = self.tree.root.get();
        if let Some(root) = root
            && root.parent.get().is_some()
        {
            return Err(Violation::Link(Vpn(root.start.get())));
        }
        let (height, _) = self.check_subtree(root, &mut walk)?;
        let census = Census {
            height,
            ..walk.census
        };
        let areas = census.live + census.retired + census.parked;
        let fed = self.pool.nr_fed;
        if areas != self.nr_areas
            || census.gaps != self.nr_gaps
            || census.reserved != self.reserved
            || census.reserved + census.vacant != self.pages
            || walk.nr + self.pool.nr_spare != fed
            || self.pool.count_spare(fed + 1) != self.pool.nr_spare
        {
            return Err(Violation::Count);
        }
        Ok(census)
    }

    fn check_subtree(&self, top: Option<NodeRef<W>>, walk: &mut Walk<W>) -> Result<(u32, u32), Violation> {
        let Some(node) = top else {
            return Ok((0, 0));
        };
        let at = Vpn(node.start.get());
        // Wrong links may be circular.
        walk.budget = walk.budget.checked_sub(1).ok_or(Violation::Link(at))?;
        for side in [Side::Left, Side::Right] {
            if node
                .child(side)
                .is_some_and(|child| !same(child.parent.get(), Some(node)))
            {
                return Err(Violation::Link(at));
            }
        }
        let (left_height, left_max) = self.check_subtree(node.child(Side::Left), walk)?;
        self.check_segment(node, walk)?;
        let (right_height, right_max) = self.check_subtree(node.child(Side::Right), walk)?;
        let height = 1 + left_height.max(right_height);
        let above = |side| {
            let child = node.child(side).map_or(0, |child| child.rank.get());
            node.rank.get().checked_sub(child)
        };
        let good = |difference| matches!(difference, Some(1 | 2));
        if !good(above(Side::Left)) || !good(above(Side::Right)) || (height == 1 && node.rank.get() != 1) {
            return Err(Violation::Balance(at));
        }
        let max = node.gap.get().max(left_max).max(right_max);
        if node.max.get() != max {
            return Err(Violation::Largest(at));
        }
        Ok((height, max))
    }

    fn check_segment(&self, node: NodeRef<W>, walk: &mut Walk<W>) -> Result<(), Violation> {
        let at = Vpn(node.start.get());
        if node.owner() != self.pool.owner {
            return Err(Violation::Foreign(at));
        }
        let touches = walk.prev.is_some_and(|prev| prev.end() == at.0);
        if walk.prev.is_some_and(|prev| prev.end() > at.0) || node.pages() == 0 {
            return Err(Violation::Cover(at));
        }
        let pages = node.pages();
        let census = &mut walk.census;
        let gap = match node.state() {
            State::Gap => {
                if touches && walk.prev.is_some_and(|prev| prev.is_gap()) {
                    return Err(Violation::AdjacentGaps(at));
                }
                census.gaps += 1;
                census.vacant += pages;
                census.largest_gap = census.largest_gap.max(pages);
                saturate(pages)
            }
            state => {
                match state {
                    State::Retired => census.retired += 1,
                    State::Parked => census.parked += 1,
                    _ => census.live += 1,
                }
                census.reserved += pages;
                0
            }
        };
        if node.gap.get() != gap {
            return Err(Violation::Largest(at));
        }
        walk.prev = Some(node);
        walk.nr += 1;
        Ok(())
    }
}
