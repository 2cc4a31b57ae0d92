//! What each CPU holds, with debug assertions.

use core::sync::atomic::{AtomicU8, Ordering::Relaxed};

use spin::mutex::SpinMutex;

use super::order::{Graph, Violation};
use crate::per_cpu;

const MAX_HELD: usize = 8;

static GRAPH: SpinMutex<Graph> = SpinMutex::new(Graph::new());

/// In order of taking; its own CPU's.
struct Held {
    classes: [AtomicU8; MAX_HELD],
    nr: AtomicU8,
}

per_cpu! {
    static HELD: Held = Held {
        classes: [const { AtomicU8::new(0) }; MAX_HELD],
        nr: AtomicU8::new(0),
    };
}

/// Dropped after the lock, before interrupts are unmasked.
#[derive(Debug)]
pub struct Token {
    class: u8,
}

impl Token {
    /// Tracks a lock about to be waited for.
    ///
    /// # Panics
    /// If the wait may close a cycle.
    pub fn wait_for(name: &'static str) -> Self {
        Self::take(name, true)
    }

    pub fn had(name: &'static str) -> Self {
        Self::take(name, false)
    }

    fn take(name: &'static str, waits: bool) -> Self {
        let held = HELD.this();
        let nr = usize::from(held.nr.load(Relaxed));
        let mut classes = [0; MAX_HELD];
        for (copy, class) in classes.iter_mut().zip(&held.classes) {
            *copy = class.load(Relaxed);
        }
        let noted = {
            let mut graph = GRAPH.lock();
            graph.class(name).and_then(|class| {
                if waits {
                    graph.wait_for(class, &classes[..nr])?;
                }
                Ok(class)
            })
        };
        // Outside the graph's lock, as a panic prints.
        let class = match noted {
            Ok(class) => class,
            Err(violation) => panic!("lock order: {violation}"),
        };
        match held.classes.get(nr) {
            Some(slot) => slot.store(class, Relaxed),
            None => panic!("lock order: {}", Violation::NoRoom { class: name }),
        }
        held.nr.store(nr as u8 + 1, Relaxed);
        Self { class }
    }
}

impl Drop for Token {
    fn drop(&mut self) {
        // The newest of its class: guards drop in any order.
        let held = HELD.this();
        let nr = usize::from(held.nr.load(Relaxed));
        let classes = &held.classes[..nr];
        let Some(at) = classes.iter().rposition(|held| held.load(Relaxed) == self.class) else {
            return;
        };
        for (to, from) in classes[at..].iter().zip(&classes[at + 1..]) {
            to.store(from.load(Relaxed), Relaxed);
        }
        held.nr.store(nr as u8 - 1, Relaxed);
    }
}
