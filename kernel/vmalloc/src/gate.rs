//! [`Gate`]: mutual exclusion with interrupts enabled, for long work.

use crate::backend::{Backend, Lock, LockClass};

#[derive(Clone, Copy, Default)]
pub(crate) struct Tickets {
    next: u32,
    serving: u32,
}

/// Admits one call at a time, first come, first served. Its lock is held for a few instructions.
/// Interrupt handlers must only [try](Self::try_enter): what they interrupted may be inside.
pub(crate) struct Gate<B: Backend>(B::Lock<Tickets>);

/// Inside until dropped.
pub(crate) struct Inside<'g, B: Backend>(&'g Gate<B>);

impl<B: Backend> Gate<B> {
    pub fn new(class: LockClass) -> Self {
        Self(B::Lock::new(class, Tickets::default()))
    }

    pub fn enter(&self, backend: &B) -> Inside<'_, B> {
        let mut tickets = self.0.lock();
        let mine = tickets.next;
        tickets.next = mine.wrapping_add(1);
        while tickets.serving != mine {
            drop(tickets);
            backend.relax();
            tickets = self.0.lock();
        }
        drop(tickets);
        Inside(self)
    }

    pub fn try_enter(&self) -> Option<Inside<'_, B>> {
        let mut tickets = self.0.lock();
        if tickets.serving != tickets.next {
            return None;
        }
        tickets.next = tickets.next.wrapping_add(1);
        drop(tickets);
        Some(Inside(self))
    }
}

impl<B: Backend> Drop for Inside<'_, B> {
    fn drop(&mut self) {
        let mut tickets = self.0.0.lock();
        tickets.serving = tickets.serving.wrapping_add(1);
    }
}
