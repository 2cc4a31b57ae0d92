//! What is kept of a trace's order when several CPUs replay it.
//!
//! 1. Each CPU performs its own events in their order, purges among them.
//! 2. An area ends after it was made, whichever CPUs do it.
//! 3. No event begins before all are done that are [`WINDOW`] or more places before it, on any CPU.
//!
//! Nothing else is kept, as nothing else is kept between CPUs anywhere. The third bounds what the
//! CPUs can hold at a time, which is how the RAM is known that they need. There is no deadlock: the
//! first event that is not done waits for nothing that is not done.

use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use kernel::arch::time::relax;
use trace_replay::WINDOW;

/// Which events are done.
pub struct Order {
    done: Vec<AtomicBool>,
    /// The first that is not.
    low: AtomicUsize,
}

impl Order {
    /// Of `nr` events none is done.
    #[must_use]
    pub fn new(nr: usize) -> Self {
        Self {
            done: (0..nr).map(|_| AtomicBool::new(false)).collect(),
            low: AtomicUsize::new(0),
        }
    }

    /// Waits until event `index` may begin.
    pub fn begin(&self, index: usize) {
        while index >= self.low.load(Ordering::Acquire) + WINDOW {
            relax();
        }
    }

    /// Event `index` is done.
    pub fn end(&self, index: usize) {
        // Sequentially consistent, all of it: of two CPUs that are done at the same time, one at
        // least sees both and moves on.
        self.done[index].store(true, Ordering::SeqCst);
        let mut low = self.low.load(Ordering::SeqCst);
        while self.done.get(low).is_some_and(|done| done.load(Ordering::SeqCst)) {
            low = match self
                .low
                .compare_exchange(low, low + 1, Ordering::SeqCst, Ordering::SeqCst)
            {
                Ok(_) => low + 1,
                Err(moved) => moved,
            };
        }
    }
}
