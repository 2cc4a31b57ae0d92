//! As much of the crate's `va` as the list of deferred areas sees.

#[path = "../../src/va/deferred_list.rs"]
mod deferred_list;

pub use area::{Area, List};
pub use deferred_list::DeferredList;

pub mod node {
    use loom::cell::UnsafeCell;

    pub type NodeRef<const W: usize> = &'static Node<W>;

    pub struct Node<const W: usize> {
        pub chain: Owned<Option<NodeRef<W>>>,
        pub pages: Owned<u64>,
    }

    /// loom sees who else touches it.
    pub struct Owned<T>(UnsafeCell<T>);

    impl<T: Copy> Owned<T> {
        pub fn new(value: T) -> Self {
            Self(UnsafeCell::new(value))
        }
        pub fn get(&self) -> T {
            // SAFETY: nothing else touches it, or loom says so.
            self.0.with(|value| unsafe { *value })
        }
        pub fn set(&self, value: T) {
            // SAFETY: as in `get`.
            self.0.with_mut(|place| unsafe { *place = value });
        }
    }
}

mod area {
    use super::node::{Node, NodeRef, Owned};

    pub struct Area<const W: usize> {
        pub(super) node: NodeRef<W>,
    }

    // SAFETY: as the crate's, and loom sees what nothing orders.
    unsafe impl<const W: usize> Send for Area<W> {}

    impl<const W: usize> Area<W> {
        pub fn numbered(number: u64) -> Self {
            let node = Box::leak(Box::new(Node {
                chain: Owned::new(None),
                pages: Owned::new(0),
            }));
            node.pages.set(number);
            Self { node }
        }
        pub fn reserved(&self) -> u64 {
            self.node.pages.get()
        }
    }

    pub struct List<const W: usize>(pub(super) Option<Area<W>>);

    impl<const W: usize> Iterator for List<W> {
        type Item = Area<W>;
        fn next(&mut self) -> Option<Area<W>> {
            let area = self.0.take()?;
            self.0 = area.node.chain.get().map(|node| Area { node });
            Some(area)
        }
    }
}
