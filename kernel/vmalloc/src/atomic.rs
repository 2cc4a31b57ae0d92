//! The atomics of what has no lock: `tests/memory_orders` has loom's here.

pub use core::sync::atomic::{AtomicPtr, AtomicU64, AtomicUsize};
