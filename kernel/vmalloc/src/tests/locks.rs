//! Locks of the host that check who may wait, and measure holds.

use super::machine::{G, Vm};
use crate::{Lock, LockClass};
use mmu_model::Model;
use std::cell::Cell;
use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, MutexGuard, TryLockError, TryLockResult};

/// A test that panicked has reported already.
pub fn unpoisoned<T>(tried: TryLockResult<T>) -> T {
    match tried {
        Ok(guard) => guard,
        Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
        Err(TryLockError::WouldBlock) => panic!("a lock is taken twice, or against the order"),
    }
}

std::thread_local! {
    /// Any lock's holder may have been interrupted.
    static IN_EXCEPTION: Cell<bool> = const { Cell::new(false) };
    pub static WITHOUT_WAITING: Cell<bool> = const { Cell::new(false) };
}

pub fn with<R>(flag: &'static std::thread::LocalKey<Cell<bool>>, f: impl FnOnce() -> R) -> R {
    let before = flag.replace(true);
    let result = f();
    flag.set(before);
    result
}

pub fn in_exception<R>(f: impl FnOnce() -> R) -> R {
    with(&IN_EXCEPTION, f)
}

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

#[derive(Clone, Copy, Default, Debug)]
pub struct Hold {
    pub loads: u64,
    pub stores: u64,
    pub waits: u64,
}

std::thread_local! {
    static ELSEWHERE: Cell<bool> = const { Cell::new(false) };
    static HELD: Cell<usize> = const { Cell::new(0) };
    static COUNTS: Cell<Option<(&'static Model<G>, Hold)>> = const { Cell::new(None) };
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

pub fn most_under_a_hold(vm: &Vm, f: impl FnOnce()) -> Hold {
    COUNTS.set(Some((vm.backend().model, Hold::default())));
    MOST.set(Hold::default());
    f();
    COUNTS.set(None);
    MOST.get()
}

pub fn holds_no_lock() {
    assert_eq!(HELD.get(), 0, "an allocator is called under a lock");
}

/// As another CPU would.
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
