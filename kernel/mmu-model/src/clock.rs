//! Which stores are known to which CPU: the memory model as far as walks depend on it. A [`Clock`]
//! is a set of stores with all earlier ones of each CPU:
//!
//! - `seen[c]`: own stores, and what `c` observed by acquires;
//! - `known[c]`: what a DSB of `c` completed. A TLBI of `c` removes what **these** overwrote. DSB
//!   ISHST completes own stores, DSB ISH also observed ones (cumulativity; Arm ARM B2.3.12 "DSB");
//! - `certain`: what any DSB completed: no walk can miss it (Arm ARM D8.2.6). Also a store-release
//!   that another CPU loaded, and what precedes it (Arm ARM B2.3, "Other-multi-copy atomicity");
//! - `context[c]`: what was certain at the last context synchronisation of `c`. Its accesses may
//!   miss the rest, translated ahead (Arm ARM D8.2.6, K13.5.3). With FEAT_ETS2 a DSB or hand-over
//!   suffices;
//! - `ordered[c]`: what later plain stores of `c` are ordered behind, by a DMB, DSB or load-acquire
//!   (Arm ARM B2.3.7, "Barrier-ordered-before"). A store-release is ordered behind all that is
//!   `seen`.

/// The largest number of CPUs.
pub const MAX_CPUS: usize = 8;

/// A CPU and its count of stores, from 1.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Hash)]
pub struct StoreId {
    pub(crate) cpu: u8,
    /// Observed after all that its CPU stored before.
    pub(crate) release: bool,
    pub(crate) number: u32,
}

/// Of each CPU, all stores up to a number.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Hash)]
pub struct Clock([u32; MAX_CPUS]);

impl Clock {
    pub fn has(&self, store: StoreId) -> bool {
        store.number <= self.0[usize::from(store.cpu)]
    }

    pub(crate) fn join(&mut self, other: &Self) {
        for (mine, theirs) in self.0.iter_mut().zip(other.0) {
            *mine = (*mine).max(theirs);
        }
    }

    pub(crate) fn with(mut self, cpu: usize, number: u32) -> Self {
        self.0[cpu] = self.0[cpu].max(number);
        self
    }
}

#[derive(Clone, Debug, Default, Hash)]
pub(crate) struct Clocks {
    seen: [Clock; MAX_CPUS],
    known: [Clock; MAX_CPUS],
    context: [Clock; MAX_CPUS],
    ordered: [Clock; MAX_CPUS],
    certain: Clock,
}

impl Clocks {
    pub(crate) fn store(&mut self, cpu: usize, release: bool) -> StoreId {
        let own = &mut self.seen[cpu].0[cpu];
        *own += 1;
        StoreId {
            cpu: cpu as u8,
            release,
            number: *own,
        }
    }

    /// No walk can miss a store-release that another CPU has loaded.
    pub(crate) fn loaded(&mut self, cpu: usize, store: StoreId) {
        if store.release && usize::from(store.cpu) != cpu {
            self.certain = self.certain.with(usize::from(store.cpu), store.number);
        }
    }

    pub(crate) fn last(&self, cpu: usize) -> u32 {
        self.seen[cpu].0[cpu]
    }

    /// A DSB has completed all own stores.
    pub(crate) fn knows_own(&self, cpu: usize) -> bool {
        self.known[cpu].0[cpu] == self.last(cpu)
    }

    pub(crate) fn seen(&self, cpu: usize) -> &Clock {
        &self.seen[cpu]
    }

    pub(crate) fn known(&self, cpu: usize) -> &Clock {
        &self.known[cpu]
    }

    pub(crate) fn context(&self, cpu: usize) -> &Clock {
        &self.context[cpu]
    }

    pub(crate) fn certain(&self) -> &Clock {
        &self.certain
    }

    pub(crate) fn before(&self, cpu: usize, release: bool) -> Clock {
        if release {
            self.seen[cpu]
        } else {
            self.ordered[cpu]
        }
    }

    /// ISHST suffices for observed stores too, which the load-acquire orders.
    pub(crate) fn dmb(&mut self, cpu: usize) {
        self.ordered[cpu] = self.seen[cpu];
    }

    pub(crate) fn dsb(&mut self, cpu: usize, loads: bool, ets2: bool) {
        self.dmb(cpu);
        let done = if loads {
            self.seen[cpu]
        } else {
            Clock::default().with(cpu, self.last(cpu))
        };
        self.known[cpu].join(&done);
        self.certain.join(&done);
        if ets2 {
            self.context[cpu].join(&self.certain);
        }
    }

    pub(crate) fn synchronise_context(&mut self, cpu: usize) {
        self.context[cpu] = self.certain;
    }

    pub(crate) fn hand_over(&mut self, from: usize, to: usize, ets2: bool) {
        let seen = self.seen[from];
        self.acquire(to, &seen, ets2);
    }

    pub(crate) fn acquire(&mut self, cpu: usize, seen: &Clock, ets2: bool) {
        self.seen[cpu].join(seen);
        self.ordered[cpu].join(seen);
        if ets2 {
            self.context[cpu].join(&self.certain);
        }
    }
}
