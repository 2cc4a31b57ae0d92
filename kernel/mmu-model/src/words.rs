//! Counters and flags beside the tables, in the memory model's order.
//!
//! A store-release is ordered behind all that its CPU stored or observed, a plain store behind what
//! a barrier or load-acquire precedes it with (Arm ARM B2.3, "Ordering relations"). A store is
//! **not** ordered behind an earlier store-release or store-exclusive of its CPU. A translation
//! fault observes the invalidating store.

use crate::access::{Access, Fault};
use crate::clock::{Clock, MAX_CPUS, StoreId};
use crate::machine::Machine;
use crate::violation::Event;
use crate::{Cpu, Model};
use paging::{Granule, PhysAddr, VirtAddr};

/// See [`Model::word`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Word(usize);

#[derive(Clone, Copy, Debug)]
struct Stored {
    value: u64,
    store: StoreId,
    behind: Clock,
}

#[derive(Clone, Debug)]
pub(crate) struct History {
    stored: Vec<Stored>,
    /// Never goes back (Arm ARM B2.3, "coherence order").
    loaded: [usize; MAX_CPUS],
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Order {
    Plain,
    Release,
}

impl History {
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

    /// Nothing comes between in coherence order: the load returns the last value, and the store
    /// brings along what that does.
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
    /// Makes a word, whose `value` every CPU knows.
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
    /// Loads by LDAR. `pick` gets the number of permitted values and chooses one; 0 is the oldest.
    ///
    /// # Panics
    /// If `pick` chooses one that does not exist.
    pub fn load_acquire(&self, word: Word, pick: impl FnOnce(usize) -> usize) -> u64 {
        self.with(|machine, cpu| machine.word_load(cpu, word, pick))
    }

    /// Stores by STR.
    pub fn store_plain(&self, word: Word, value: u64) {
        self.with(|machine, cpu| machine.word_store(cpu, word, value, Order::Plain));
    }

    /// Stores by STLR.
    pub fn store_release(&self, word: Word, value: u64) {
        self.with(|machine, cpu| machine.word_store(cpu, word, value, Order::Release));
    }

    /// Adds by LDAXR and STLXR. Later stores are ordered behind the load, not the store.
    pub fn fetch_add_acq_rel(&self, word: Word, add: u64) -> u64 {
        self.with(|machine, cpu| machine.word_add(cpu, word, add, true))
    }

    /// Adds by LDXR and STLXR.
    pub fn fetch_add_release(&self, word: Word, add: u64) -> u64 {
        self.with(|machine, cpu| machine.word_add(cpu, word, add, false))
    }

    /// Orders later stores behind own earlier ones.
    pub fn dmb_ishst(&self) {
        self.with(|machine, cpu| machine.dmb(cpu, false));
    }

    /// Orders later stores behind those made or observed.
    pub fn dmb_ish(&self) {
        self.with(|machine, cpu| machine.dmb(cpu, true));
    }

    /// AT S1E1R or S1E1W, and its ISB. The walk misses what it may. The store behind an invalid
    /// descriptor, and what precedes that, is then observed.
    ///
    /// # Errors
    /// The fault.
    pub fn at(&self, va: VirtAddr, access: Access) -> Result<PhysAddr, Fault> {
        self.with(|machine, cpu| machine.ask(cpu, va.0, access))
            .map(PhysAddr)
    }
}
