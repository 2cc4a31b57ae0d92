//! The locks of a [`Machine`](super::Machine): the checker decides who gets them, and the model is told who learns what.
//!
//! A lock hands on what was known when it was dropped, and nothing that its former holder came to know later: each keeps
//! what was [`Released`] with it.

use super::{Plant, Small};
use mmu_model::{Model, Released};
use std::cell::RefCell;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, PoisonError, TryLockError};
use vmalloc::{Lock, WalkLock};

thread_local! {
    /// The machine of the execution under way: a [`Lock`] is made of a value and nothing else. All of an execution runs on one
    /// thread of the host.
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

/// The CPU that the running thread of the checker is.
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

/// A lock of the checker's.
pub struct CheckedLock<T>(shuttle::sync::Mutex<(T, Released)>);

// SAFETY: a mutex of the checker's.
unsafe impl<T: Send> Lock<T> for CheckedLock<T> {
    type Guard<'a>
        = CheckedGuard<'a, T>
    where
        T: 'a;
    fn new(value: T) -> Self {
        Self(shuttle::sync::Mutex::new((value, Released::default())))
    }
    fn lock(&self) -> CheckedGuard<'_, T> {
        let held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        acquire(&held.1);
        CheckedGuard(held)
    }
    fn try_lock(&self) -> Option<CheckedGuard<'_, T>> {
        let held = match self.0.try_lock() {
            Ok(held) => held,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return None,
        };
        acquire(&held.1);
        Some(CheckedGuard(held))
    }
}

pub struct CheckedGuard<'a, T>(shuttle::sync::MutexGuard<'a, (T, Released)>);

impl<T> Deref for CheckedGuard<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.0.0
    }
}

impl<T> DerefMut for CheckedGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.0.0
    }
}

impl<T> Drop for CheckedGuard<'_, T> {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.0.1 = release();
        }
    }
}

/// What was released with the walk lock: by whoever held it alone last, and by all. A walk learns of the first, a release of
/// both.
#[derive(Default)]
struct Handed {
    alone: Released,
    all: Released,
}

/// The walk lock.
#[derive(Default)]
pub struct Walks {
    lock: shuttle::sync::RwLock<()>,
    handed: std::sync::Mutex<Handed>,
}

impl Walks {
    /// Waits for whoever has it alone, and learns nothing of what he did.
    pub fn keep_releases_out(&self) -> shuttle::sync::RwLockReadGuard<'_, ()> {
        self.lock.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn handed(&self) -> std::sync::MutexGuard<'_, Handed> {
        self.handed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub struct Walk<'a> {
    walks: &'a Walks,
    _held: Option<shuttle::sync::RwLockReadGuard<'a, ()>>,
}

pub struct Release<'a> {
    walks: &'a Walks,
    _held: Option<shuttle::sync::RwLockWriteGuard<'a, ()>>,
}

// SAFETY: a lock of the checker's that many may share or one may have. A plant takes that away, and all that is lost then is the model's.
unsafe impl WalkLock for Walks {
    type Walk<'a> = Walk<'a>;
    type Release<'a> = Release<'a>;
    fn walk(&self) -> Walk<'_> {
        let (_, plant) = running();
        let excludes = plant != Plant::WalksDoNotExclude || me() != 3;
        let held = excludes.then(|| self.lock.read().unwrap_or_else(PoisonError::into_inner));
        acquire(&self.handed().alone);
        Walk {
            walks: self,
            _held: held,
        }
    }
    fn try_walk(&self) -> Option<Walk<'_>> {
        let held = match self.lock.try_read() {
            Ok(held) => held,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return None,
        };
        acquire(&self.handed().alone);
        Some(Walk {
            walks: self,
            _held: Some(held),
        })
    }
    fn release(&self) -> Release<'_> {
        let held = self.lock.write().unwrap_or_else(PoisonError::into_inner);
        acquire(&self.handed().all);
        Release {
            walks: self,
            _held: Some(held),
        }
    }
}

impl Drop for Walk<'_> {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.walks.handed().all.join(&release());
        }
    }
}

impl Drop for Release<'_> {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            let released = release();
            let mut handed = self.walks.handed();
            handed.all.join(&released);
            handed.alone.join(&released);
        }
    }
}
