//! The tree of segments: an AVL tree by address that knows the largest gap below each node, over the list in address order.
//!
//! Neighbours in the list help the tree. Of two neighbours, one lies in the subtree of the other, so that the lower one
//! has no right child or the upper one has no left child: there is always a free place between them, and one of the two
//! always has one child at most. So insertion needs no search, and removal never has to exchange nodes.

use super::node::{Link, NodeRef, Side};
use core::cell::Cell;

pub(super) struct Tree<const W: usize> {
    root: Link<W>,
    /// Nodes looked at so far: what the complexity tests count.
    #[cfg(test)]
    pub visits: Cell<u64>,
}

/// Height and largest gap of a subtree.
#[inline(always)]
fn summary<const W: usize>(subtree: Option<NodeRef<W>>) -> (u32, u32) {
    match subtree {
        Some(node) => (node.height.get(), node.max.get()),
        None => (0, 0),
    }
}

/// Sets height and largest gap of `node` from its children.
#[inline(always)]
fn summarize<const W: usize>(node: NodeRef<W>) -> (u32, u32) {
    let (left_height, left_max) = summary(node.child(Side::Left));
    let (right_height, right_max) = summary(node.child(Side::Right));
    let after = (
        1 + left_height.max(right_height),
        node.gap.get().max(left_max).max(right_max),
    );
    node.height.set(after.0);
    node.max.set(after.1);
    after
}

/// Makes `child` the subtree of `parent` on `side`.
#[inline(always)]
fn attach<const W: usize>(parent: NodeRef<W>, side: Side, child: Option<NodeRef<W>>) {
    parent.set_child(side, child);
    if let Some(child) = child {
        child.parent.set(Some(parent));
    }
}

/// The side of `parent` that `node` is on.
#[inline(always)]
fn side_of<const W: usize>(parent: NodeRef<W>, node: NodeRef<W>) -> Side {
    match parent.child(Side::Left) {
        Some(left) if core::ptr::eq(left, node) => Side::Left,
        _ => Side::Right,
    }
}

impl<const W: usize> Tree<W> {
    /// The tree of one node, which is the first gap.
    pub fn new(root: NodeRef<W>) -> Self {
        root.max.set(root.gap.get());
        Self {
            root: Cell::new(Some(root)),
            #[cfg(test)]
            visits: Cell::new(0),
        }
    }

    pub fn root(&self) -> Option<NodeRef<W>> {
        self.root.get()
    }

    #[inline(always)]
    fn visit(&self) {
        #[cfg(test)]
        self.visits.set(self.visits.get() + 1);
    }

    /// The segment with the highest start at or below `page`: the one that contains it, if the region does.
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

    /// The lowest gap of at least `want` pages (saturated) in the subtree of `top`.
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
                // `max` says that it is below here, and it is neither to the left nor this one.
                node = node.child(Side::Right)?;
            }
        }
    }

    /// The lowest gap of at least `want` pages (saturated).
    #[inline]
    pub fn lowest_fit(&self, want: u32) -> Option<NodeRef<W>> {
        self.first_fit(self.root.get(), want)
    }

    /// The lowest gap of at least `want` pages (saturated) above `node`.
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

    /// Puts `new` right before `next`, and makes the tree good from there up.
    pub fn insert_before(&self, next: NodeRef<W>, new: NodeRef<W>) {
        let prev = next.prev.get();
        new.prev.set(prev);
        new.next.set(Some(next));
        next.prev.set(Some(new));
        if let Some(prev) = prev {
            prev.next.set(Some(new));
        }
        match prev {
            Some(prev) if next.child(Side::Left).is_some() => self.hang(prev, Side::Right, new),
            _ => self.hang(next, Side::Left, new),
        }
    }

    /// Puts `new` right behind `prev`, and makes the tree good from there up.
    pub fn insert_after(&self, prev: NodeRef<W>, new: NodeRef<W>) {
        let next = prev.next.get();
        new.prev.set(Some(prev));
        new.next.set(next);
        prev.next.set(Some(new));
        if let Some(next) = next {
            next.prev.set(Some(new));
        }
        match next {
            Some(next) if prev.child(Side::Right).is_some() => self.hang(next, Side::Left, new),
            _ => self.hang(prev, Side::Right, new),
        }
    }

    /// Makes `new` the child of `parent` on `side`, which is empty.
    #[inline(always)]
    fn hang(&self, parent: NodeRef<W>, side: Side, new: NodeRef<W>) {
        debug_assert!(parent.child(side).is_none());
        new.set_child(Side::Left, None);
        new.set_child(Side::Right, None);
        new.height.set(1);
        new.max.set(new.gap.get());
        attach(parent, side, Some(new));
        self.fix_up(Some(parent));
    }

    /// Takes out `node`, which has one child at most, and makes the tree good from there up.
    pub fn remove(&self, node: NodeRef<W>) {
        let (prev, next) = (node.prev.get(), node.next.get());
        if let Some(prev) = prev {
            prev.next.set(next);
        }
        if let Some(next) = next {
            next.prev.set(prev);
        }
        let child = node.child(Side::Left).or(node.child(Side::Right));
        debug_assert!(node.child(Side::Left).is_none() || node.child(Side::Right).is_none());
        let parent = node.parent.get();
        self.replace(parent, node, child);
        self.fix_up(parent);
    }

    /// Puts `new` where `old` was below `parent`, or at the root.
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

    /// Makes heights, largest gaps and balance good from `node` up, after its own gap or a child of it changed. Stops where
    /// nothing changes any more: above that, everything is as it was.
    pub fn fix_up(&self, node: Option<NodeRef<W>>) {
        let mut at = node;
        while let Some(node) = at {
            self.visit();
            // As the nodes above know this subtree.
            let before = (node.height.get(), node.max.get());
            let left_height = summary(node.child(Side::Left)).0;
            let right_height = summary(node.child(Side::Right)).0;
            let (top, after) = if left_height > right_height + 1 {
                self.rebalance(node, Side::Left)
            } else if right_height > left_height + 1 {
                self.rebalance(node, Side::Right)
            } else {
                (node, summarize(node))
            };
            if before == after {
                return;
            }
            at = top.parent.get();
        }
    }

    /// Rotates the subtree of `node`, which is higher by two on side `high`. Gives the new top, and its summary.
    fn rebalance(&self, node: NodeRef<W>, high: Side) -> (NodeRef<W>, (u32, u32)) {
        let low = high.other();
        let Some(child) = node.child(high) else {
            unreachable!("the higher side of a node is empty");
        };
        let parent = node.parent.get();
        self.visit();
        match child.child(low) {
            Some(inner) if inner.height.get() > summary(child.child(high)).0 => {
                // The inner grandchild is the higher one: it becomes the top, and its children go to either side.
                self.visit();
                attach(child, low, inner.child(high));
                attach(node, high, inner.child(low));
                self.replace(parent, node, Some(inner));
                attach(inner, high, Some(child));
                attach(inner, low, Some(node));
                summarize(node);
                summarize(child);
                (inner, summarize(inner))
            }
            inner => {
                attach(node, high, inner);
                self.replace(parent, node, Some(child));
                attach(child, low, Some(node));
                summarize(node);
                (child, summarize(child))
            }
        }
    }
}
