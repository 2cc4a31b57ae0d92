//! The kernel's locks: `spin`'s, taken with interrupts masked.
//!
//! Masked, because an exception handler may want the same lock: an interrupt that spins on what the interrupted code holds never ends.
//! A panic takes no lock at all, so none of these can hide its message.
//!
//! # Order
//! A CPU that holds one of the locks below may take those further down, never one further up, and none twice:
//!
//! 1. the vmalloc subsystem's state, or the walk lock of the tables ([`mm::walk_lock`](crate::mm::walk_lock)): neither while the other is held;
//! 2. the heap ([`mm::heap`](crate::mm::heap)): never held while anything else is called, growing included;
//! 3. frames ([`mm::frames`](crate::mm::frames));
//! 4. the console ([`drivers::console`](crate::drivers::console)): a message may be logged under any lock.

use core::fmt;
use core::ops::{Deref, DerefMut};

use spin::mutex::{SpinMutex, SpinMutexGuard};
use spin::rwlock::{RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::arch::interrupts::{self, Masked};

/// A spin lock that masks interrupts on this CPU while it is held.
pub struct IrqSpinLock<T>(SpinMutex<T>);

/// The lock is held, and interrupts are masked, until this is dropped.
///
/// Fields are dropped in order: first the lock, then the mask.
#[derive(Debug)]
pub struct IrqSpinLockGuard<'a, T> {
    guard: SpinMutexGuard<'a, T>,
    _masked: Masked,
}

impl<T> IrqSpinLock<T> {
    /// An unlocked lock around `value`.
    pub const fn new(value: T) -> Self {
        Self(SpinMutex::new(value))
    }

    /// Takes the lock, and waits for it.
    #[inline]
    pub fn lock(&self) -> IrqSpinLockGuard<'_, T> {
        let masked = interrupts::mask();
        IrqSpinLockGuard {
            guard: self.0.lock(),
            _masked: masked,
        }
    }

    /// Takes the lock if nobody holds it.
    pub fn try_lock(&self) -> Option<IrqSpinLockGuard<'_, T>> {
        let masked = interrupts::mask();
        let guard = self.0.try_lock()?;
        Some(IrqSpinLockGuard {
            guard,
            _masked: masked,
        })
    }

    /// Whether somebody holds it, at this moment.
    #[must_use]
    pub fn is_locked(&self) -> bool {
        self.0.is_locked()
    }
}

impl<T> Deref for IrqSpinLockGuard<'_, T> {
    type Target = T;
    #[inline]
    fn deref(&self) -> &T {
        &self.guard
    }
}

impl<T> DerefMut for IrqSpinLockGuard<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        &mut self.guard
    }
}

impl<T> fmt::Debug for IrqSpinLock<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_locked() {
            "IrqSpinLock(locked)"
        } else {
            "IrqSpinLock(unlocked)"
        })
    }
}

/// A lock that many may share or one may have, with interrupts masked.
#[derive(Debug)]
pub struct IrqRwLock<T>(RwLock<T>);

/// Shared until this is dropped.
#[derive(Debug)]
pub struct IrqReadGuard<'a, T> {
    guard: RwLockReadGuard<'a, T>,
    _masked: Masked,
}

/// Held alone until this is dropped.
#[derive(Debug)]
pub struct IrqWriteGuard<'a, T> {
    guard: RwLockWriteGuard<'a, T>,
    _masked: Masked,
}

impl<T> IrqRwLock<T> {
    /// An unlocked lock around `value`.
    pub const fn new(value: T) -> Self {
        Self(RwLock::new(value))
    }

    /// Shares the lock with whoever else reads.
    #[inline]
    pub fn read(&self) -> IrqReadGuard<'_, T> {
        let masked = interrupts::mask();
        IrqReadGuard {
            guard: self.0.read(),
            _masked: masked,
        }
    }

    /// Takes the lock alone.
    #[inline]
    pub fn write(&self) -> IrqWriteGuard<'_, T> {
        let masked = interrupts::mask();
        IrqWriteGuard {
            guard: self.0.write(),
            _masked: masked,
        }
    }
}

impl<T> Deref for IrqReadGuard<'_, T> {
    type Target = T;
    #[inline]
    fn deref(&self) -> &T {
        &self.guard
    }
}

impl<T> Deref for IrqWriteGuard<'_, T> {
    type Target = T;
    #[inline]
    fn deref(&self) -> &T {
        &self.guard
    }
}

impl<T> DerefMut for IrqWriteGuard<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        &mut self.guard
    }
}
