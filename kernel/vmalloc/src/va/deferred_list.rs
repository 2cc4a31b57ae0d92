//! [`DeferredList`]: a lock-free stack. Any context may push; it is emptied whole, so an equal head
//! means an equal list (no ABA). Areas' own nodes are linked: there is always room.

use super::area::{Area, List};
use super::node::{Node, NodeRef};
use crate::atomic::AtomicPtr;
use core::ptr::null_mut;
use core::sync::atomic::Ordering;

/// Deferred areas.
pub struct DeferredList<const W: usize> {
    newest: AtomicPtr<Node<W>>,
}

impl<const W: usize> DeferredList<W> {
    pub const fn new() -> Self {
        Self {
            newest: AtomicPtr::new(null_mut()),
        }
    }

    fn node(newest: *mut Node<W>) -> Option<NodeRef<W>> {
        // SAFETY: null, or a `&'static Node` from `push`.
        unsafe { newest.as_ref() }
    }

    /// Pushes `area`. Retries only if another push came first.
    pub fn push(&self, area: Area<W>) {
        let node = area.node;
        let mut newest = self.newest.load(Ordering::Relaxed);
        loop {
            // The node is this call's until the exchange.
            node.chain.set(Self::node(newest));
            // Release: the taker sees the link, and the area as its last holder left it.
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

    pub fn take_all(&self) -> List<W> {
        let newest = Self::node(self.newest.swap(null_mut(), Ordering::Acquire));
        List(newest.map(|node| Area { node }))
    }
}
