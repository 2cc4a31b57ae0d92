//! The checker decides who gets them. A lock passes on what its holder knew when it was
//! [`Released`], and nothing later.

use super::{Plant, Small};
use mmu_model::{Model, Released};
use std::cell::{OnceCell, RefCell, UnsafeCell};
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, PoisonError, TryLockError};
use vmalloc::{Lock, LockClass};

thread_local! {
    /// A [`Lock`] is made from a value alone. An execution has one host thread.
    static RUNNING: RefCell<Option<(Arc<Model<Small>>, Plant)>> = const { RefCell::new(None) };
}

pub(super) fn set_running(model: &Arc<Model<Small>>, plant: Plant) {
    RUNNING.set(Some((Arc::clone(model), plant)));
}

fn running() -> (Arc<Model<Small>>, Plant) {
    RUNNING
        .with_borrow(Clone::clone)
        .expect("a machine before its locks")
}

pub fn me() -> usize {
    usize::from(shuttle::current::me())
}

fn acquire(released: &Released) {
    let (model, plant) = running();
    if plant != Plant::LocksDoNotOrder {
        model.acquire(me(), released);
    }
}

fn release() -> Released {
    let (model, _) = running();
    model.release(me())
}

pub struct CheckedLock<T> {
    lock: shuttle::sync::Mutex<Released>,
    value: UnsafeCell<T>,
}

// SAFETY: one thread at a time has a guard. Where locks do not exclude, all threads are one of the
// host's.
unsafe impl<T: Send> Sync for CheckedLock<T> {}

impl<T> CheckedLock<T> {
    fn guard<'a>(&'a self, held: Option<shuttle::sync::MutexGuard<'a, Released>>) -> CheckedGuard<'a, T> {
        let guard = CheckedGuard {
            lock: self,
            held: OnceCell::new(),
        };
        let (_, plant) = running();
        if held.is_some() || plant != Plant::NoHoldOfNothing {
            guard.hold(held);
        }
        guard
    }
}

// SAFETY: a mutex of the checker's; where a plant breaks it, only the model's state suffers.
unsafe impl<T: Send> Lock<T> for CheckedLock<T> {
    type Guard<'a>
        = CheckedGuard<'a, T>
    where
        T: 'a;
    fn new(_class: LockClass, value: T) -> Self {
        Self {
            lock: shuttle::sync::Mutex::default(),
            value: UnsafeCell::new(value),
        }
    }
    fn lock(&self) -> CheckedGuard<'_, T> {
        self.guard(None)
    }
    fn try_lock(&self) -> Option<CheckedGuard<'_, T>> {
        match self.lock.try_lock() {
            Ok(held) => Some(self.guard(Some(held))),
            Err(TryLockError::Poisoned(poisoned)) => Some(self.guard(Some(poisoned.into_inner()))),
            Err(TryLockError::WouldBlock) => None,
        }
    }
}

pub struct CheckedGuard<'a, T> {
    lock: &'a CheckedLock<T>,
    held: OnceCell<Option<shuttle::sync::MutexGuard<'a, Released>>>,
}

impl<'a, T> CheckedGuard<'a, T> {
    fn hold(&self, held: Option<shuttle::sync::MutexGuard<'a, Released>>) {
        self.held.get_or_init(|| {
            let held = held.unwrap_or_else(|| self.lock.lock.lock().unwrap_or_else(PoisonError::into_inner));
            acquire(&held);
            let (_, plant) = running();
            let excludes = plant != Plant::LooksDoNotExclude || me() != 3;
            excludes.then_some(held)
        });
    }
}

impl<T> Deref for CheckedGuard<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        self.hold(None);
        // SAFETY: see `CheckedLock`.
        unsafe { &*self.lock.value.get() }
    }
}

impl<T> DerefMut for CheckedGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.hold(None);
        // SAFETY: see `CheckedLock`.
        unsafe { &mut *self.lock.value.get() }
    }
}

impl<T> Drop for CheckedGuard<'_, T> {
    fn drop(&mut self) {
        if let Some(Some(held)) = self.held.get_mut()
            && !std::thread::panicking()
        {
            **held = release();
        }
    }
}

/// For judging what TLBs may hold.
#[derive(Default)]
pub struct Edits(shuttle::sync::RwLock<Released>);

impl Edits {
    /// And learns nothing from one.
    pub fn keep_out(&self) -> shuttle::sync::RwLockReadGuard<'_, Released> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn is_under_way(&self) -> bool {
        self.0.try_read().is_err()
    }

    pub fn edit<R>(&self, f: impl FnOnce() -> R) -> R {
        let mut held = self.0.write().unwrap_or_else(PoisonError::into_inner);
        acquire(&held);
        let result = f();
        if !std::thread::panicking() {
            *held = release();
        }
        result
    }
}
