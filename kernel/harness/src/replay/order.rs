//! Of a trace's order several CPUs keep: each its own events; an area is freed after it was made;
//! an event begins when all that are [`WINDOW`] or more places before it are done, which bounds
//! RAM. No deadlock: the first event not done waits only for events that are.

use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use kernel::arch::time::relax;
use trace_replay::WINDOW;

pub struct Order {
    done: Vec<AtomicBool>,
    low: AtomicUsize,
}

impl Order {
    #[must_use]
    pub fn new(nr: usize) -> Self {
        Self {
            done: (0..nr).map(|_| AtomicBool::new(false)).collect(),
            low: AtomicUsize::new(0),
        }
    }

    pub fn begin(&self, index: usize) {
        while index >= self.low.load(Ordering::Acquire) + WINDOW {
            relax();
        }
    }

    pub fn end(&self, index: usize) {
        // SeqCst: of two CPUs that finish at once, one sees both done and moves on.
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
