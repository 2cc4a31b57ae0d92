//! loom's atomics, with orders left out on request, where `spin` expects those of a target that
//! has none.

#[path = "../../../vmalloc/tests/memory_orders/atomic.rs"]
mod checked;

pub use checked::{AtomicBool, AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Missing, Without, without};
pub use core::sync::atomic::{Ordering, fence};
