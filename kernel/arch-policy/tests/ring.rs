//! The kernel's `ring.rs` with loom's atomics, in every order of the C11 memory model, at least as
//! weak as Arm's here. What a block's holder writes to it is a cell of loom, which sees two
//! accesses that nothing orders.

#[path = "../../vmalloc/tests/memory_orders/atomic.rs"]
#[allow(dead_code, reason = "it has all that other tests need")]
mod atomic;
mod frames {
    #[path = "../../../src/mm/frames/ring.rs"]
    mod ring;
    pub mod tests;
}

mod arch {
    pub mod atomic {
        pub use crate::atomic::{AtomicU64, AtomicUsize};
        use core::sync::atomic::Ordering::Relaxed;

        pub fn swap_relaxed(word: &AtomicU64, new: u64) -> u64 {
            word.swap(new, Relaxed)
        }
    }
}
