//! [`Word`]: what a mutex of `lock_api` is made of.

use super::Turn;
use crate::arch::atomic::{self, AtomicU32};
use core::sync::atomic::Ordering::{Relaxed, Release};
use lock_api::{GuardNoSend, RawMutex};
use spin::RelaxStrategy;

/// 1 while held. Taken without a load before, which would fetch the line twice.
#[derive(Debug)]
pub struct Word(AtomicU32);

// SAFETY: one swap of a 1 finds the 0.
unsafe impl RawMutex for Word {
    const INIT: Self = Self(AtomicU32::new(0));
    type GuardMarker = GuardNoSend;

    fn lock(&self) {
        while !self.try_lock() {
            // Waiters share the line.
            while self.is_locked() {
                Turn::relax();
            }
        }
    }
    #[inline(always)]
    fn try_lock(&self) -> bool {
        atomic::swap_acquire(&self.0, 1) == 0
    }
    #[inline(always)]
    unsafe fn unlock(&self) {
        self.0.store(0, Release);
    }
    fn is_locked(&self) -> bool {
        self.0.load(Relaxed) != 0
    }
}
