//! The blocks of one order in a magazine. A test of `arch-policy` compiles this file with loom's
//! atomics.
//!
//! Put is a store-release, and a drain's exchange an acquire: writes before the free precede the
//! buddy allocator's. The own CPU finds its own store, or `EMPTY`.

use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use crate::arch::atomic::{AtomicU64, AtomicUsize, swap_relaxed};

const EMPTY: u64 = u64::MAX;

pub(super) struct Ring<const CAPACITY: usize> {
    /// Others than `nr` from the `first` on are empty.
    pub(super) slots: [AtomicU64; CAPACITY],
    /// The oldest. Only the magazine's own CPU uses it, and `nr`.
    pub(super) first: AtomicUsize,
    pub(super) nr: AtomicUsize,
}

impl<const CAPACITY: usize> Ring<CAPACITY> {
    pub(super) const fn new() -> Self {
        Self {
            slots: [const { AtomicU64::new(EMPTY) }; CAPACITY],
            first: AtomicUsize::new(0),
            nr: AtomicUsize::new(0),
        }
    }

    pub(super) fn nr_blocks(&self) -> u64 {
        self.slots.iter().filter(|slot| !is_empty(slot)).count() as u64
    }

    #[inline(always)]
    pub(super) fn slot(&self, n: usize) -> &AtomicU64 {
        &self.slots[(self.first.load(Relaxed) + n) % CAPACITY]
    }

    #[inline(always)]
    pub(super) fn push(&self, frame: u64) {
        let nr = self.nr.load(Relaxed);
        fill(self.slot(nr), frame);
        self.nr.store(nr + 1, Relaxed);
    }

    #[inline(always)]
    pub(super) fn pop(&self) -> Option<u64> {
        loop {
            let nr = self.nr.load(Relaxed).checked_sub(1)?;
            self.nr.store(nr, Relaxed);
            // Drained by another CPU.
            let frame = swap_relaxed(self.slot(nr), EMPTY);
            if frame != EMPTY {
                return Some(frame);
            }
        }
    }
}

/// What was written to the block is before that.
#[inline(always)]
pub(super) fn fill(slot: &AtomicU64, frame: u64) {
    slot.store(frame, Release);
}

/// A load keeps the line shared.
#[inline(always)]
pub(super) fn is_empty(slot: &AtomicU64) -> bool {
    slot.load(Relaxed) == EMPTY
}

/// On any CPU.
#[inline(always)]
pub(super) fn take_out(slot: &AtomicU64) -> Option<u64> {
    if is_empty(slot) {
        return None;
    }
    let frame = slot.swap(EMPTY, Acquire);
    (frame != EMPTY).then_some(frame)
}
