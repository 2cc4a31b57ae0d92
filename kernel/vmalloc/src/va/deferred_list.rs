//! [`DeferredList`]: a shard's deferred-free list, a stack without a lock.
//!
//! Any context may push, and it is emptied whole. A push links the area's own node, so there is
//! always room. No single one is popped, so a head that was seen before means the same list (no
//! ABA).

use super::area::Area;
use super::node::Node;
use core::ptr::null_mut;
use core::sync::atomic::{AtomicPtr, Ordering};

/// Deferred areas.
pub struct DeferredList<const W: usize> {
    newest: AtomicPtr<Node<W>>,
}

impl<const W: usize> Default for DeferredList<W> {
    fn default() -> Self {
        Self::new()
    }
}

impl<const W: usize> DeferredList<W> {
    /// Empty.
    pub const fn new() -> Self {
        Self {
            newest: AtomicPtr::new(null_mut()),
        }
    }

    /// Returns the areas from `newest` on.
    fn list(newest: *mut Node<W>) -> Option<Area<W>> {
        // SAFETY: null, or one of the `&'static Node` that `push` put there.
        let node = unsafe { newest.as_ref() }?;
        Some(Area { node })
    }

    /// Pushes `area`. Lock-free: it tries again only if another push came first.
    pub fn push(&self, area: Area<W>) {
        let node = area.node;
        let mut newest = self.newest.load(Ordering::Relaxed);
        loop {
            // The node is this call's alone until the exchange. The area below it may be read only
            // by who takes the list.
            node.chain.set(Self::list(newest).map(|below| below.node));
            // Release: the taker of the list finds the link, and the area as its last holder left
            // it.
            match self.newest.compare_exchange_weak(
                newest,
                core::ptr::from_ref(node).cast_mut(),
                Ordering::Release,
                Ordering::Relaxed,
            ) {
                Ok(_) => return,
                Err(found) => newest = found,
            }
        }
    }

    /// Takes everything out: the area handed in last, with the others [linked](Area::link) behind
    /// it.
    pub fn take_all(&self) -> Option<Area<W>> {
        Self::list(self.newest.swap(null_mut(), Ordering::Acquire))
    }
}
