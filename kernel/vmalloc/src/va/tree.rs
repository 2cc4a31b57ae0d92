//! The tree of segments by address, which knows the largest gap below each node.
//!
//! A weak AVL tree (Haeupler, Sen, Tarjan, "Rank-Balanced Trees", ACM TALG 2015): no path is longer
//! than 2 log2 n; an insertion or removal rotates at most twice, and touches O(1) nodes on average.
//!
//! Of two neighbours, one lies in the other's subtree: the lower has no right child, or the upper
//! no left one. So insertion needs no search, and joins do not exchange nodes.

use super::node::{Link, NodeRef, Side};
use core::cell::Cell;

pub(super) struct Tree<const W: usize> {
    pub root: Link<W>,
    #[cfg(test)]
    pub visits: Cell<u64>,
}

#[inline(always)]
fn rank<const W: usize>(subtree: Option<NodeRef<W>>) -> u8 {
    subtree.map_or(0, |node| node.rank.get())
}

#[inline(always)]
fn max<const W: usize>(subtree: Option<NodeRef<W>>) -> u32 {
    subtree.map_or(0, |node| node.max.get())
}

#[inline(always)]
fn largest<const W: usize>(node: NodeRef<W>) -> u32 {
    let below = max(node.child(Side::Left)).max(max(node.child(Side::Right)));
    node.gap.get().max(below)
}

#[inline(always)]
fn attach<const W: usize>(parent: NodeRef<W>, side: Side, child: Option<NodeRef<W>>) {
    parent.set_child(side, child);
    if let Some(child) = child {
        child.parent.set(Some(parent));
    }
}

#[inline(always)]
fn side_of<const W: usize>(parent: NodeRef<W>, node: NodeRef<W>) -> Side {
    match parent.child(Side::Left) {
        Some(left) if core::ptr::eq(left, node) => Side::Left,
        _ => Side::Right,
    }
}

impl<const W: usize> Tree<W> {
    pub const fn new() -> Self {
        Self {
            root: Cell::new(None),
            #[cfg(test)]
            visits: Cell::new(0),
        }
    }

    pub fn first(&self) -> Option<NodeRef<W>> {
        self.root.get().map(|root| self.outermost(root, Side::Left))
    }

    #[inline]
    fn outermost(&self, top: NodeRef<W>, side: Side) -> NodeRef<W> {
        let mut node = top;
        while let Some(child) = node.child(side) {
            self.visit();
            node = child;
        }
        node
    }

    #[inline]
    pub fn gap_beside(&self, node: NodeRef<W>, side: Side) -> Option<NodeRef<W>> {
        if let Some(child) = node.child(side)
            && child.max.get() == 0
        {
            return None;
        }
        self.neighbour(node, side).filter(|beside| beside.is_gap())
    }

    #[inline]
    pub fn neighbour(&self, node: NodeRef<W>, side: Side) -> Option<NodeRef<W>> {
        if let Some(child) = node.child(side) {
            return Some(self.outermost(child, side.other()));
        }
        let mut node = node;
        loop {
            self.visit();
            let parent = node.parent.get()?;
            if side_of(parent, node) == side.other() {
                return Some(parent);
            }
            node = parent;
        }
    }

    /// It is not a gap yet.
    pub fn insert_first(&self, new: NodeRef<W>) {
        debug_assert!(self.root.get().is_none());
        new.parent.set(None);
        Self::make_leaf(new);
        self.root.set(Some(new));
    }

    fn make_leaf(new: NodeRef<W>) {
        new.set_child(Side::Left, None);
        new.set_child(Side::Right, None);
        new.rank.set(1);
        new.gap.set(0);
        new.max.set(0);
    }

    #[inline(always)]
    fn visit(&self) {
        #[cfg(test)]
        self.visits.set(self.visits.get() + 1);
    }

    #[inline]
    pub fn find(&self, page: u64) -> Option<NodeRef<W>> {
        let mut found = None;
        let mut at = self.root.get();
        while let Some(node) = at {
            self.visit();
            if node.start.get() <= page {
                found = at;
                at = node.child(Side::Right);
            } else {
                at = node.child(Side::Left);
            }
        }
        found
    }

    #[inline]
    fn first_fit(&self, top: Option<NodeRef<W>>, want: u32) -> Option<NodeRef<W>> {
        let mut node = top.filter(|top| top.max.get() >= want)?;
        loop {
            self.visit();
            if let Some(left) = node.child(Side::Left)
                && left.max.get() >= want
            {
                node = left;
            } else if node.gap.get() >= want {
                return Some(node);
            } else {
                // `max` promises a gap below, which is neither to the left nor here.
                node = node.child(Side::Right)?;
            }
        }
    }

    #[inline]
    pub fn lowest_fit(&self, want: u32) -> Option<NodeRef<W>> {
        self.first_fit(self.root.get(), want)
    }

    pub fn next_fit(&self, node: NodeRef<W>, want: u32) -> Option<NodeRef<W>> {
        let mut node = node;
        if let Some(found) = self.first_fit(node.child(Side::Right), want) {
            return Some(found);
        }
        while let Some(parent) = node.parent.get() {
            self.visit();
            if side_of(parent, node) == Side::Left {
                if parent.gap.get() >= want {
                    return Some(parent);
                }
                if let Some(found) = self.first_fit(parent.child(Side::Right), want) {
                    return Some(found);
                }
            }
            node = parent;
        }
        None
    }

    /// `new` is not a gap yet.
    pub fn insert(&self, node: NodeRef<W>, side: Side, new: NodeRef<W>) {
        match node.child(side) {
            None => self.hang(node, side, new),
            Some(child) => self.hang(self.outermost(child, side.other()), side.other(), new),
        }
    }

    #[inline(always)]
    fn hang(&self, parent: NodeRef<W>, side: Side, new: NodeRef<W>) {
        debug_assert!(parent.child(side).is_none());
        Self::make_leaf(new);
        attach(parent, side, Some(new));
        self.fix_inserted(new);
    }

    /// It has at most one child.
    pub fn remove(&self, node: NodeRef<W>) {
        self.set_gap(node, 0);
        let child = node.child(Side::Left).or(node.child(Side::Right));
        debug_assert!(node.child(Side::Left).is_none() || node.child(Side::Right).is_none());
        let Some(parent) = node.parent.get() else {
            self.replace(None, node, child);
            return;
        };
        let side = side_of(parent, node);
        attach(parent, side, child);
        self.fix_removed(parent, side);
    }

    /// It may have two children.
    pub fn remove_any(&self, node: NodeRef<W>) {
        let (Some(left), Some(_)) = (node.child(Side::Left), node.child(Side::Right)) else {
            return self.remove(node);
        };
        // The predecessor has no right child: it is removed, and takes the node's place.
        let stand_in = self.outermost(left, Side::Right);
        let gap = stand_in.gap.get();
        self.remove(stand_in);
        self.replace(node.parent.get(), node, Some(stand_in));
        attach(stand_in, Side::Left, node.child(Side::Left));
        attach(stand_in, Side::Right, node.child(Side::Right));
        stand_in.rank.set(node.rank.get());
        stand_in.max.set(node.max.get());
        stand_in.gap.set(node.gap.get());
        self.set_gap(stand_in, gap);
    }

    #[inline(always)]
    fn replace(&self, parent: Option<NodeRef<W>>, old: NodeRef<W>, new: Option<NodeRef<W>>) {
        match parent {
            None => self.root.set(new),
            Some(parent) => parent.set_child(side_of(parent, old), new),
        }
        if let Some(new) = new {
            new.parent.set(parent);
        }
    }

    /// With the largest gaps above that this changes.
    #[inline]
    pub fn set_gap(&self, node: NodeRef<W>, gap: u32) {
        let before = node.gap.replace(gap);
        if gap > before {
            self.raise_max(node, gap);
        } else if gap < before {
            self.lower_max(node, before);
        }
    }

    #[inline]
    fn raise_max(&self, node: NodeRef<W>, gap: u32) {
        let mut at = Some(node);
        while let Some(node) = at {
            self.visit();
            if node.max.get() >= gap {
                return;
            }
            node.max.set(gap);
            at = node.parent.get();
        }
    }

    #[inline]
    fn lower_max(&self, node: NodeRef<W>, gone: u32) {
        let mut at = Some(node);
        let mut gone = gone;
        while let Some(node) = at {
            self.visit();
            let before = node.max.get();
            // A larger gap was the largest before, and is.
            if before > gone {
                return;
            }
            let max = largest(node);
            if max == before {
                return;
            }
            node.max.set(max);
            gone = before;
            at = node.parent.get();
        }
    }

    /// `node` was inserted as a leaf.
    #[inline]
    fn fix_inserted(&self, node: NodeRef<W>) {
        let mut node = node;
        while let Some(parent) = node.parent.get() {
            self.visit();
            let ranks = (node.rank.get(), parent.rank.get());
            if ranks.0 < ranks.1 {
                return;
            }
            let side = side_of(parent, node);
            if ranks.1 - rank(parent.child(side.other())) == 1 {
                parent.rank.set(ranks.1 + 1);
                node = parent;
                continue;
            }
            // The other side is two lower: one rotation, or two if the inner grandchild is higher.
            if let Some(inner) = node.child(side.other())
                && ranks.0 - inner.rank.get() == 1
            {
                self.rotate(node, side.other());
                inner.rank.set(ranks.0);
                node.rank.set(ranks.0 - 1);
            }
            self.rotate(parent, side);
            parent.rank.set(ranks.1 - 1);
            return;
        }
    }

    /// The child on `side` became lower.
    #[inline]
    fn fix_removed(&self, parent: NodeRef<W>, side: Side) {
        let (mut node, mut low) = (parent, side);
        loop {
            self.visit();
            let high = low.other();
            let own = node.rank.get();
            let sibling = node.child(high);
            if own - rank(node.child(low)) <= 2 {
                let is_leaf = sibling.is_none() && node.child(low).is_none();
                if !is_leaf || own == 1 {
                    return;
                }
                node.rank.set(1);
            } else if own - rank(sibling) == 2 {
                node.rank.set(own - 1);
            } else {
                let Some(sibling) = sibling else {
                    unreachable!("a missing node has rank 0, and this one has {}", own - 1);
                };
                let outer = sibling.child(high);
                let inner = sibling.child(low);
                if own - rank(outer) == 3 && own - rank(inner) == 3 {
                    sibling.rank.set(own - 2);
                    node.rank.set(own - 1);
                } else {
                    self.rotate_removed(node, sibling, high);
                    return;
                }
            }
            let Some(above) = node.parent.get() else {
                return;
            };
            low = side_of(above, node);
            node = above;
        }
    }

    fn rotate_removed(&self, node: NodeRef<W>, sibling: NodeRef<W>, high: Side) {
        let own = node.rank.get();
        if own - rank(sibling.child(high)) == 2 {
            self.rotate(node, high);
            sibling.rank.set(own);
            let is_leaf = node.child(high).is_none() && node.child(high.other()).is_none();
            node.rank.set(if is_leaf { 1 } else { own - 1 });
        } else if let Some(inner) = sibling.child(high.other()) {
            self.rotate(sibling, high.other());
            self.rotate(node, high);
            inner.rank.set(own);
            sibling.rank.set(own - 2);
            node.rank.set(own - 2);
        }
    }

    fn rotate(&self, node: NodeRef<W>, side: Side) {
        self.visit();
        let Some(child) = node.child(side) else {
            unreachable!("the higher side of a node is empty");
        };
        attach(node, side, child.child(side.other()));
        self.replace(node.parent.get(), node, Some(child));
        attach(child, side.other(), Some(node));
        child.max.set(node.max.get());
        node.max.set(largest(node));
    }
}
