//! The kernel's locks: `lock_api`'s mutex on a [word](Word), `spin`'s reader-writer lock. They mask
//! interrupts, as a handler may want the same lock. A panic takes none.
//!
//! # Order
//! A holder may take locks further down, none twice; [`order`] checks it with debug assertions.
//! Levels are those of `docs/LOCKING.md`; 1 to 3 mask nothing.
//!
//! 4. a gate of the `vmalloc` crate, for a few instructions;
//! 5. a CPU's shard;
//! 6. the common shard;
//! 7. the [walk lock](crate::mm::walk_lock);
//! 8. the [heap](crate::mm::heap): nothing is called under it;
//! 9. [frames](crate::mm::frames);
//! 10. the [console](crate::drivers::console): what logs may hold any lock.

#[cfg(debug_assertions)]
mod held;
pub mod order;
#[cfg(not(debug_assertions))]
mod unchecked;
mod word;

use core::fmt;
use core::ops::{Deref, DerefMut};
use core::sync::atomic::AtomicU64;
use core::sync::atomic::Ordering::Relaxed;

use lock_api::{Mutex, MutexGuard};
use spin::RelaxStrategy;
use spin::rwlock::{RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::arch::interrupts::{self, Masked};
use crate::arch::time;
use crate::per_cpu;
#[cfg(debug_assertions)]
use held::Token;
#[cfg(not(debug_assertions))]
use unchecked::Token;
pub use word::Word;

per_cpu! {
    static NR_WAITS: AtomicU64 = AtomicU64::new(0);
}

#[must_use]
pub fn nr_waits() -> u64 {
    NR_WAITS.iter().map(|nr| nr.load(Relaxed)).sum()
}

#[cold]
fn note_wait() {
    NR_WAITS.this().fetch_add(1, Relaxed);
}

/// YIELD: an emulator that runs CPUs in turn goes on with the holder.
#[derive(Debug)]
pub struct Turn;

impl RelaxStrategy for Turn {
    #[inline(always)]
    fn relax() {
        core::hint::spin_loop();
        time::relax();
    }
}

/// Has its own cache lines: 128 bytes, as some CPUs fetch pairs.
#[repr(C, align(128))]
#[derive(Debug)]
pub struct Padded<T>(pub T);

impl<T> Deref for Padded<T> {
    type Target = T;
    #[inline(always)]
    fn deref(&self) -> &T {
        &self.0
    }
}

/// Written often by several CPUs, on its own cache lines.
#[derive(Clone, Copy, Debug)]
pub struct HotWord {
    pub name: &'static str,
    pub start: usize,
    size: usize,
}

impl HotWord {
    pub fn of<T>(name: &'static str, word: &'static T) -> Self {
        Self {
            name,
            start: &raw const *word as usize,
            size: size_of::<T>(),
        }
    }

    #[must_use]
    pub const fn has_lines_of_its_own(&self) -> bool {
        const LINES: usize = align_of::<Padded<u8>>();
        self.start.is_multiple_of(LINES) && self.size.is_multiple_of(LINES)
    }
}

/// Masks interrupts while held.
pub struct IrqSpinLock<T> {
    lock: Mutex<Word, T>,
    class: &'static str,
}

#[derive(Debug)]
pub struct IrqSpinLockGuard<'a, T> {
    guard: MutexGuard<'a, Word, T>,
    _token: Token,
    _masked: Masked,
}

impl<T> IrqSpinLock<T> {
    pub const fn new(class: &'static str, value: T) -> Self {
        Self {
            lock: Mutex::new(value),
            class,
        }
    }

    #[inline(always)]
    #[track_caller]
    pub fn lock(&self) -> IrqSpinLockGuard<'_, T> {
        let masked = interrupts::mask();
        let token = Token::wait_for(self.class);
        let guard = match self.lock.try_lock() {
            Some(guard) => guard,
            None => self.wait(),
        };
        IrqSpinLockGuard {
            guard,
            _token: token,
            _masked: masked,
        }
    }

    #[cold]
    #[inline(never)]
    fn wait(&self) -> MutexGuard<'_, Word, T> {
        note_wait();
        self.lock.lock()
    }

    #[inline]
    #[track_caller]
    pub fn try_lock(&self) -> Option<IrqSpinLockGuard<'_, T>> {
        let masked = interrupts::mask();
        let guard = self.lock.try_lock()?;
        Some(IrqSpinLockGuard {
            guard,
            _token: Token::had(self.class),
            _masked: masked,
        })
    }

    #[must_use]
    pub fn is_locked(&self) -> bool {
        self.lock.is_locked()
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

#[derive(Debug)]
pub struct IrqRwLock<T> {
    lock: RwLock<T, Turn>,
    class: &'static str,
}

#[derive(Debug)]
pub struct IrqReadGuard<'a, T> {
    guard: RwLockReadGuard<'a, T, Turn>,
    _token: Token,
    _masked: Masked,
}

#[derive(Debug)]
pub struct IrqWriteGuard<'a, T> {
    guard: RwLockWriteGuard<'a, T, Turn>,
    _token: Token,
    _masked: Masked,
}

impl<T> IrqRwLock<T> {
    pub const fn new(class: &'static str, value: T) -> Self {
        Self {
            lock: RwLock::new(value),
            class,
        }
    }

    #[inline(always)]
    #[track_caller]
    pub fn read(&self) -> IrqReadGuard<'_, T> {
        let masked = interrupts::mask();
        let token = Token::wait_for(self.class);
        let guard = self.lock.try_read().unwrap_or_else(|| {
            note_wait();
            self.lock.read()
        });
        IrqReadGuard {
            guard,
            _token: token,
            _masked: masked,
        }
    }

    #[inline]
    #[track_caller]
    pub fn try_read(&self) -> Option<IrqReadGuard<'_, T>> {
        let masked = interrupts::mask();
        let guard = self.lock.try_read()?;
        Some(IrqReadGuard {
            guard,
            _token: Token::had(self.class),
            _masked: masked,
        })
    }

    #[inline]
    #[track_caller]
    pub fn write(&self) -> IrqWriteGuard<'_, T> {
        let masked = interrupts::mask();
        let token = Token::wait_for(self.class);
        let guard = self.lock.try_write().unwrap_or_else(|| {
            note_wait();
            self.lock.write()
        });
        IrqWriteGuard {
            guard,
            _token: token,
            _masked: masked,
        }
    }

    #[inline]
    #[track_caller]
    pub fn try_write(&self) -> Option<IrqWriteGuard<'_, T>> {
        let masked = interrupts::mask();
        let guard = self.lock.try_write()?;
        Some(IrqWriteGuard {
            guard,
            _token: Token::had(self.class),
            _masked: masked,
        })
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
