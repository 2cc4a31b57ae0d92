//! loom's atomics, with orders left out on request.

use core::sync::atomic::Ordering::{self, AcqRel, Acquire, Relaxed, Release};
use loom::sync::atomic as checked;
use std::cell::Cell;
use std::fmt;
use std::sync::OnceLock;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Missing {
    Nothing,
    Release,
    Acquire,
    /// A load and a store.
    Exchange,
}

std::thread_local! {
    static MISSING: Cell<Missing> = const { Cell::new(Missing::Nothing) };
}

/// Restored on drop.
pub struct Without;

impl Drop for Without {
    fn drop(&mut self) {
        MISSING.set(Missing::Nothing);
    }
}

pub fn without(missing: Missing) -> Without {
    MISSING.set(missing);
    Without
}

fn weakened(order: Ordering) -> Ordering {
    match (MISSING.get(), order) {
        (Missing::Release, Release) | (Missing::Acquire, Acquire) => Relaxed,
        (Missing::Release, AcqRel) => Acquire,
        (Missing::Acquire, AcqRel) => Release,
        _ => order,
    }
}

macro_rules! atomic {
    ($name:ident$(<$of:ident>)?, $value:ty) => {
        /// loom knows it from its first use.
        pub struct $name$(<$of: 'static>)? {
            first: $value,
            checked: OnceLock<checked::$name$(<$of>)?>,
        }

        // SAFETY: an address is as good on one thread as on another.
        $(unsafe impl<$of> Sync for $name<$of> {}
        // SAFETY: the same.
        unsafe impl<$of> Send for $name<$of> {})?

        impl$(<$of>)? fmt::Debug for $name$(<$of>)? {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(stringify!($name))
            }
        }

        #[allow(dead_code, reason = "each has all that any of them needs")]
        impl$(<$of>)? $name$(<$of>)? {
            pub const fn new(first: $value) -> Self {
                Self { first, checked: OnceLock::new() }
            }
            fn checked(&self) -> &checked::$name$(<$of>)? {
                self.checked.get_or_init(|| checked::$name::new(self.first))
            }
            pub fn load(&self, order: Ordering) -> $value {
                self.checked().load(weakened(order))
            }
            pub fn store(&self, value: $value, order: Ordering) {
                self.checked().store(value, weakened(order));
            }
            pub fn swap(&self, value: $value, order: Ordering) -> $value {
                if MISSING.get() == Missing::Exchange {
                    let found = self.checked().load(Acquire);
                    self.checked().store(value, Relaxed);
                    return found;
                }
                self.checked().swap(value, weakened(order))
            }
            pub fn compare_exchange(&self, old: $value, new: $value, order: Ordering, failed: Ordering) -> Result<$value, $value> {
                if MISSING.get() == Missing::Exchange {
                    let found = self.checked().load(failed);
                    if found != old {
                        return Err(found);
                    }
                    self.checked().store(new, Release);
                    return Ok(found);
                }
                self.checked().compare_exchange(old, new, weakened(order), weakened(failed))
            }
            pub fn compare_exchange_weak(&self, old: $value, new: $value, order: Ordering, failed: Ordering) -> Result<$value, $value> {
                self.compare_exchange(old, new, order, failed)
            }
        }
    };
}

atomic!(AtomicPtr<T>, *mut T);
atomic!(AtomicBool, bool);
atomic!(AtomicU32, u32);
atomic!(AtomicU64, u64);
atomic!(AtomicUsize, usize);

macro_rules! counts {
    ($name:ident, $value:ty) => {
        #[allow(dead_code, reason = "each has all that any of them needs")]
        impl $name {
            pub fn fetch_add(&self, value: $value, order: Ordering) -> $value {
                self.checked().fetch_add(value, weakened(order))
            }
            pub fn fetch_sub(&self, value: $value, order: Ordering) -> $value {
                self.checked().fetch_sub(value, weakened(order))
            }
            pub fn fetch_and(&self, value: $value, order: Ordering) -> $value {
                self.checked().fetch_and(value, weakened(order))
            }
            pub fn fetch_or(&self, value: $value, order: Ordering) -> $value {
                self.checked().fetch_or(value, weakened(order))
            }
        }
    };
}

counts!(AtomicU64, u64);
counts!(AtomicUsize, usize);
