//! Words beside the tables: counters and flags by which CPUs tell each other about them, in the
//! memory model's own order.
//!
//! A store has a number, as a store to a table has, and is ordered behind a set of others (Arm ARM
//! B2.3, "Ordering relations"): behind all that its CPU has stored or observed if it is a
//! store-release; if it is a plain one, only behind what a barrier or a load-acquire put before it.
//! A CPU that observes it has observed these too. Nothing else: a store is **not** ordered behind
//! an earlier store-release or store-exclusive of its own CPU, and may be observed first.
//!
//! So a load may return an old value as long as nothing that the CPU has observed is ordered behind
//! a later one. What a walk reads is observed too: a CPU that takes a translation fault has
//! observed the store that made the descriptor invalid.

use crate::access::{Access, Fault};
use crate::clock::{Clock, MAX_CPUS, StoreId};
use crate::machine::Machine;
use crate::violation::Event;
use crate::{Cpu, Model};
use paging::{Granule, PhysAddr, VirtAddr};

/// A word of a [`Model`]. See [`Model::word`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Word(usize);

/// A value that the word had, and what observing it brings along.
#[derive(Clone, Copy, Debug)]
struct Stored {
    value: u64,
    store: StoreId,
    behind: Clock,
}

/// The values of a word in coherence order.
#[derive(Clone, Debug)]
pub(crate) struct History {
    stored: Vec<Stored>,
    /// For each CPU the last that it has loaded: it never goes back (Arm ARM B2.3, "coherence
    /// order").
    loaded: [usize; MAX_CPUS],
}

/// How a store is ordered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Order {
    Plain,
    Release,
}

impl History {
    /// Returns the oldest value that a CPU may load which has observed `seen`.
    fn oldest(&self, cpu: usize, seen: &Clock) -> usize {
        let observed = self.stored.iter().rposition(|stored| seen.has(stored.store));
        observed.unwrap_or(0).max(self.loaded[cpu])
    }
}

impl<G: Granule> Machine<G> {
    fn word_load(&mut self, cpu: usize, word: Word, pick: impl FnOnce(usize) -> usize) -> u64 {
        let history = &self.s.words[word.0];
        let oldest = history.oldest(cpu, self.s.clocks.seen(cpu));
        let nr = history.stored.len() - oldest;
        let at = oldest + pick(nr);
        assert!(at < history.stored.len(), "a pick out of {nr} values");
        self.word_acquire(cpu, word, at)
    }

    fn word_acquire(&mut self, cpu: usize, word: Word, at: usize) -> u64 {
        let history = &mut self.s.words[word.0];
        history.loaded[cpu] = at;
        let Stored { value, behind, .. } = history.stored[at];
        self.event(cpu, Event::WordLoad { word: word.0, value });
        self.s.clocks.acquire(cpu, &behind, self.features.ets2);
        value
    }

    fn word_store(&mut self, cpu: usize, word: Word, value: u64, order: Order) {
        let release = order == Order::Release;
        let store = self.s.clocks.store(cpu, release);
        self.event(
            cpu,
            Event::WordStore {
                word: word.0,
                value,
                release,
            },
        );
        let behind = self.s.clocks.before(cpu, release);
        self.s.words[word.0].stored.push(Stored { value, store, behind });
    }

    /// A load-exclusive and a store-exclusive that succeeded: nothing comes between them in
    /// coherence order, so the load returned the last value. The store brings along what that one
    /// does.
    fn word_add(&mut self, cpu: usize, word: Word, add: u64, acquire: bool) -> u64 {
        let history = &self.s.words[word.0];
        let last = history.stored.len() - 1;
        let Stored { value, behind, .. } = history.stored[last];
        if acquire {
            self.word_acquire(cpu, word, last);
        }
        self.word_store(cpu, word, value.wrapping_add(add), Order::Release);
        if let Some(stored) = self.s.words[word.0].stored.last_mut() {
            stored.behind.join(&behind);
        }
        value
    }
}

impl<G: Granule> Model<G> {
    /// Makes a word that is no table memory, with `value` in it, which every CPU knows.
    #[must_use]
    pub fn word(&self, value: u64) -> Word {
        let words = &mut self.machine().s.words;
        words.push(History {
            stored: vec![Stored {
                value,
                store: StoreId::default(),
                behind: Clock::default(),
            }],
            loaded: [0; MAX_CPUS],
        });
        Word(words.len() - 1)
    }
}

impl<G: Granule> Cpu<'_, G> {
    /// LDAR: loads a word with acquire. There may be several values that the load is permitted to
    /// return: `pick` gets how many, and says which, the oldest being 0.
    ///
    /// # Panics
    /// If `pick` says one that there is not.
    pub fn load_acquire(&self, word: Word, pick: impl FnOnce(usize) -> usize) -> u64 {
        self.with(|machine, cpu| machine.word_load(cpu, word, pick))
    }

    /// STR: stores a word.
    pub fn store_plain(&self, word: Word, value: u64) {
        self.with(|machine, cpu| machine.word_store(cpu, word, value, Order::Plain));
    }

    /// STLR: stores a word with release.
    pub fn store_release(&self, word: Word, value: u64) {
        self.with(|machine, cpu| machine.word_store(cpu, word, value, Order::Release));
    }

    /// LDAXR, ADD, STLXR: adds to a word, wrapping, and returns what it was. What the CPU stores
    /// later is ordered behind the load, not behind the store.
    pub fn fetch_add_acq_rel(&self, word: Word, add: u64) -> u64 {
        self.with(|machine, cpu| machine.word_add(cpu, word, add, true))
    }

    /// LDXR, ADD, STLXR: adds to a word, wrapping, and returns what it was.
    pub fn fetch_add_release(&self, word: Word, add: u64) -> u64 {
        self.with(|machine, cpu| machine.word_add(cpu, word, add, false))
    }

    /// DMB ISHST: what this CPU stores later is ordered behind what it has stored.
    pub fn dmb_ishst(&self) {
        self.with(|machine, cpu| machine.dmb(cpu, false));
    }

    /// DMB ISH: what this CPU stores later is ordered behind what it has stored or observed.
    pub fn dmb_ish(&self) {
        self.with(|machine, cpu| machine.dmb(cpu, true));
    }

    /// AT S1E1R or S1E1W, and the ISB behind it: what the MMU translates `va` to. A walk that may
    /// miss the descriptor that stands there now does. The CPU has then observed the store that
    /// made it invalid, and what that is ordered behind.
    ///
    /// # Errors
    /// The fault.
    pub fn at(&self, va: VirtAddr, access: Access) -> Result<PhysAddr, Fault> {
        self.with(|machine, cpu| machine.ask(cpu, va.0, access))
            .map(PhysAddr)
    }
}
