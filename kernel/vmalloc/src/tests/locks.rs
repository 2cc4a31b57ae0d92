//! Locks of the host that know who may wait, and what is done while one is held.

use super::machine::{G, Vm};
use crate::{Lock, LockClass};
use mmu_model::Model;
use std::cell::Cell;
use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, MutexGuard, TryLockError, TryLockResult};

/// These tests have one thread, so a wait would never end. A test that panics has said all there is
/// to say.
pub fn unpoisoned<T>(tried: TryLockResult<T>) -> T {
    match tried {
        Ok(guard) => guard,
        Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
        Err(TryLockError::WouldBlock) => panic!("a lock is taken twice, or against the order"),
    }
}

std::thread_local! {
    /// Whether this thread is in an exception handler, which may have interrupted the holder of any
    /// lock.
    static IN_EXCEPTION: Cell<bool> = const { Cell::new(false) };
    /// Whether this thread is in `without_waiting`.
    pub static WITHOUT_WAITING: Cell<bool> = const { Cell::new(false) };
}

pub fn with<R>(flag: &'static std::thread::LocalKey<Cell<bool>>, f: impl FnOnce() -> R) -> R {
    let before = flag.replace(true);
    let result = f();
    flag.set(before);
    result
}

/// Runs `f` as an exception handler does, in which waiting for any lock is a deadlock, and is
/// reported.
pub fn in_exception<R>(f: impl FnOnce() -> R) -> R {
    with(&IN_EXCEPTION, f)
}

/// A lock is waited for.
pub fn may_wait() {
    assert!(
        !IN_EXCEPTION.get(),
        "a lock is waited for in an exception handler"
    );
    assert!(!WITHOUT_WAITING.get(), "a lock is waited for by who cannot wait");
}

fn taken<T>(tried: TryLockResult<T>) -> Option<T> {
    match tried {
        Err(TryLockError::WouldBlock) => None,
        tried => Some(unpoisoned(tried)),
    }
}

pub struct HostLock<T>(Mutex<T>);

/// What was done under one hold of a lock.
#[derive(Clone, Copy, Default, Debug)]
pub struct Hold {
    pub loads: u64,
    pub stores: u64,
    /// TLBIs and barriers.
    pub waits: u64,
}

std::thread_local! {
    /// Whether locks are taken for another CPU.
    static ELSEWHERE: Cell<bool> = const { Cell::new(false) };
    /// Locks that are held.
    static HELD: Cell<usize> = const { Cell::new(0) };
    /// What counts, and what it had counted when the first lock was taken.
    static COUNTS: Cell<Option<(&'static Model<G>, Hold)>> = const { Cell::new(None) };
    /// The most under one hold.
    static MOST: Cell<Hold> = const { Cell::new(Hold { loads: 0, stores: 0, waits: 0 }) };
}

fn counted(model: &Model<G>) -> Hold {
    let counts = model.counters();
    Hold {
        loads: counts.loads,
        stores: counts.stores,
        waits: counts.tlbi_va + counts.tlbi_range + counts.tlbi_all + counts.dsb_ish + counts.dsb_ishst,
    }
}

/// The most that was done under one hold of a lock while `f` ran.
pub fn most_under_a_hold(vm: &Vm, f: impl FnOnce()) -> Hold {
    COUNTS.set(Some((vm.backend().model, Hold::default())));
    MOST.set(Hold::default());
    f();
    COUNTS.set(None);
    MOST.get()
}

/// Memory is neither asked for nor freed under a lock of the subsystem.
pub fn holds_no_lock() {
    assert_eq!(HELD.get(), 0, "an allocator is called under a lock");
}

/// Takes locks by `f` as another CPU would: what runs meanwhile holds none of them.
pub fn elsewhere<R>(f: impl FnOnce() -> R) -> R {
    with(&ELSEWHERE, f)
}

pub struct HostGuard<'a, T> {
    guard: MutexGuard<'a, T>,
    elsewhere: bool,
}

impl<'a, T> HostGuard<'a, T> {
    fn new(guard: MutexGuard<'a, T>) -> Self {
        let elsewhere = ELSEWHERE.get();
        if elsewhere {
            return Self { guard, elsewhere };
        }
        if HELD.replace(HELD.get() + 1) == 0
            && let Some((model, _)) = COUNTS.get()
        {
            COUNTS.set(Some((model, counted(model))));
        }
        Self { guard, elsewhere }
    }
}

impl<T> Drop for HostGuard<'_, T> {
    fn drop(&mut self) {
        if self.elsewhere {
            return;
        }
        if HELD.replace(HELD.get() - 1) == 1
            && let Some((model, before)) = COUNTS.get()
        {
            let (now, most) = (counted(model), MOST.get());
            MOST.set(Hold {
                loads: most.loads.max(now.loads - before.loads),
                stores: most.stores.max(now.stores - before.stores),
                waits: most.waits.max(now.waits - before.waits),
            });
        }
    }
}

impl<T> Deref for HostGuard<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.guard
    }
}

impl<T> DerefMut for HostGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.guard
    }
}

// SAFETY: a mutex of the host.
unsafe impl<T> Lock<T> for HostLock<T> {
    type Guard<'a>
        = HostGuard<'a, T>
    where
        T: 'a;
    fn new(_class: LockClass, value: T) -> Self {
        Self(Mutex::new(value))
    }
    fn lock(&self) -> HostGuard<'_, T> {
        may_wait();
        HostGuard::new(unpoisoned(self.0.try_lock()))
    }
    fn try_lock(&self) -> Option<HostGuard<'_, T>> {
        taken(self.0.try_lock()).map(HostGuard::new)
    }
}
