//! [`SpinLock`]: a [`Lock`] over the crate `spin`'s.

use crate::backend::{Lock, LockClass};
use core::marker::PhantomData;
use core::ops::{Deref, DerefMut};
use spin::mutex::{SpinMutex, SpinMutexGuard};

/// How a CPU masks interrupts.
///
/// # Safety
///
/// From [`mask`](Self::mask) until its result is passed to [`restore`](Self::restore) the calling
/// CPU takes no interrupt, and calls nest.
pub unsafe trait Interrupts {
    /// The previous mask.
    type Saved: Copy;
    /// Masks interrupts, and returns the previous mask.
    fn mask() -> Self::Saved;
    /// Restores this CPU's mask.
    fn restore(saved: Self::Saved);
}

/// For kernels without interrupts, and host tests.
// SAFETY: there are no interrupts.
unsafe impl Interrupts for () {
    type Saved = ();
    fn mask() {}
    fn restore((): ()) {}
}

/// A spin lock that masks interrupts by `I` while held.
#[derive(Debug)]
pub struct SpinLock<T, I> {
    mutex: SpinMutex<T>,
    interrupts: PhantomData<fn() -> I>,
}

/// Fields drop in order: the lock before the mask.
pub struct SpinLockGuard<'a, T, I: Interrupts> {
    guard: SpinMutexGuard<'a, T>,
    _masked: Masked<I>,
}

/// Not `Send`: the mask is this CPU's.
struct Masked<I: Interrupts>(I::Saved, PhantomData<*const ()>);

impl<I: Interrupts> Masked<I> {
    fn new() -> Self {
        Self(I::mask(), PhantomData)
    }
}

impl<I: Interrupts> Drop for Masked<I> {
    fn drop(&mut self) {
        I::restore(self.0);
    }
}

// SAFETY: `spin`'s mutex, which acquires and releases.
unsafe impl<T, I: Interrupts> Lock<T> for SpinLock<T, I> {
    type Guard<'a>
        = SpinLockGuard<'a, T, I>
    where
        Self: 'a;
    fn new(_class: LockClass, value: T) -> Self {
        Self {
            mutex: SpinMutex::new(value),
            interrupts: PhantomData,
        }
    }
    #[inline]
    fn lock(&self) -> Self::Guard<'_> {
        // A handler that wants this lock would wait for ever.
        let masked = Masked::new();
        SpinLockGuard {
            guard: self.mutex.lock(),
            _masked: masked,
        }
    }
    #[inline]
    fn try_lock(&self) -> Option<Self::Guard<'_>> {
        let masked = Masked::new();
        Some(SpinLockGuard {
            guard: self.mutex.try_lock()?,
            _masked: masked,
        })
    }
}

impl<T, I: Interrupts> Deref for SpinLockGuard<'_, T, I> {
    type Target = T;
    #[inline]
    fn deref(&self) -> &T {
        &self.guard
    }
}

impl<T, I: Interrupts> DerefMut for SpinLockGuard<'_, T, I> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        &mut self.guard
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    std::thread_local! {
        static MASKED: Cell<bool> = const { Cell::new(false) };
    }

    struct Flag;

    // SAFETY: a thread takes no interrupt.
    unsafe impl Interrupts for Flag {
        type Saved = bool;
        fn mask() -> bool {
            MASKED.replace(true)
        }
        fn restore(saved: bool) {
            MASKED.set(saved);
        }
    }

    type Checked<T> = SpinLock<T, Flag>;

    #[test]
    fn a_holder_has_interrupts_masked_and_then_as_they_were() {
        let lock = Checked::new(LockClass::Shard, 1);
        let inner = Checked::new(LockClass::CommonShard, ());
        let mut held = lock.lock();
        *held += 1;
        drop(inner.lock());
        assert!(MASKED.get(), "a lock within unmasked");
        assert!(lock.try_lock().is_none(), "it is held");
        assert!(MASKED.get(), "a lock that was refused unmasked");
        drop(held);
        assert!(!MASKED.get());
        assert_eq!(lock.try_lock().map(|held| (*held, MASKED.get())), Some((2, true)));
        assert!(!MASKED.get());
    }

    #[test]
    fn one_holds_it_at_a_time() {
        let lock = Checked::new(LockClass::Shard, (0, 0));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..50 {
                        let mut held = lock.lock();
                        held.0 += 1;
                        std::thread::yield_now();
                        held.1 = held.0;
                    }
                });
            }
        });
        assert_eq!(*lock.lock(), (200, 200));
    }
}
