//! The atomics of what has no lock. A module of its own so that `tests/memory_orders`, which
//! compiles those files too, has loom's there.

pub use core::sync::atomic::{AtomicPtr, AtomicU64, AtomicUsize};
