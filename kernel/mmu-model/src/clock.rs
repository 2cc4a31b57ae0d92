//! Which stores are known to whom: the part of the memory model that translation table walks depend
//! on.
//!
//! Every store to table memory has a number, counted for each CPU. A set of stores that is closed
//! towards the past of each CPU is then one number for each CPU: a [`Clock`]. Five of them tell all
//! that the rules need:
//!
//! - `seen[c]`: the stores of others that CPU `c` has observed through an acquire of a release
//!   (and, of its own, all);
//! - `known[c]`: those which a DSB of `c` has completed. A TLBI of `c` removes what **these** have
//!   overwritten. DSB ISHST completes the CPU's own stores; DSB ISH also those it has observed
//!   (cumulativity; Arm ARM B2.3.12 "DSB", and the last row of the sequence table);
//! - `certain`: those that a DSB of any CPU has completed: no walk can miss them any more (Arm ARM
//!   D8.2.6). So are a store-release that another CPU has loaded, and what is ordered before it:
//!   what one other observer has observed all have (Arm ARM B2.3, "Other-multi-copy atomicity").
//!   That is how a CPU may map below a link that another one is still to complete;
//! - `context[c]`: those that were certain at the last context synchronisation of `c`: only these
//!   cannot be missed by the translation of an access of `c`, which may have been made ahead (Arm
//!   ARM D8.2.6, K13.5.3). With FEAT_ETS2 a DSB or a hand-over does for this what otherwise only an
//!   ISB does;
//! - `ordered[c]`: those that any further plain store of `c` is ordered behind, so that an observer
//!   of the one has observed the others: by a DMB or DSB between them, or by a load-acquire (Arm
//!   ARM B2.3.7, "Barrier-ordered-before"). A store-release is ordered behind all that is `seen`;
//!   what is stored later is not ordered behind a store-release.

/// The largest number of CPUs.
pub const MAX_CPUS: usize = 8;

/// A store: the CPU and its number there, from 1 on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Hash)]
pub struct StoreId {
    pub(crate) cpu: u8,
    /// Whether it is a store-release: it is observed after all that its CPU has stored before.
    pub(crate) release: bool,
    pub(crate) number: u32,
}

/// A set of stores: of each CPU all up to a number.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Hash)]
pub struct Clock([u32; MAX_CPUS]);

impl Clock {
    /// Returns whether the set holds `store`.
    pub fn has(&self, store: StoreId) -> bool {
        store.number <= self.0[usize::from(store.cpu)]
    }

    pub(crate) fn join(&mut self, other: &Self) {
        for (mine, theirs) in self.0.iter_mut().zip(other.0) {
            *mine = (*mine).max(theirs);
        }
    }

    /// The same set and all stores of `cpu` up to that number.
    pub(crate) fn with(mut self, cpu: usize, number: u32) -> Self {
        self.0[cpu] = self.0[cpu].max(number);
        self
    }
}

/// The clocks of all CPUs.
#[derive(Clone, Debug, Default, Hash)]
pub(crate) struct Clocks {
    seen: [Clock; MAX_CPUS],
    known: [Clock; MAX_CPUS],
    context: [Clock; MAX_CPUS],
    ordered: [Clock; MAX_CPUS],
    certain: Clock,
}

impl Clocks {
    /// Numbers a new store of `cpu`.
    pub(crate) fn store(&mut self, cpu: usize, release: bool) -> StoreId {
        let own = &mut self.seen[cpu].0[cpu];
        *own += 1;
        StoreId {
            cpu: cpu as u8,
            release,
            number: *own,
        }
    }

    /// `cpu` loads what `store` has stored: if it is another CPU's store-release, no walk can miss
    /// it any more.
    pub(crate) fn loaded(&mut self, cpu: usize, store: StoreId) {
        if store.release && usize::from(store.cpu) != cpu {
            self.certain = self.certain.with(usize::from(store.cpu), store.number);
        }
    }

    /// Returns the number of the last store of `cpu`.
    pub(crate) fn last(&self, cpu: usize) -> u32 {
        self.seen[cpu].0[cpu]
    }

    /// Returns whether a DSB of `cpu` has completed all of its own stores.
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

    /// Returns what the last store of `cpu` is ordered behind: an observer of it has observed
    /// these.
    pub(crate) fn before(&self, cpu: usize, release: bool) -> Clock {
        if release {
            self.seen[cpu]
        } else {
            self.ordered[cpu]
        }
    }

    /// DMB of `cpu`. ISHST does what ISH does: what the CPU has observed, it has observed by a
    /// load-acquire, behind which its stores are ordered anyhow.
    pub(crate) fn dmb(&mut self, cpu: usize) {
        self.ordered[cpu] = self.seen[cpu];
    }

    /// DSB of `cpu`: ISHST, or ISH if `loads` too. It orders as a DMB does, and completes.
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

    /// Context synchronisation of `cpu`: ISB, exception entry or return.
    pub(crate) fn synchronise_context(&mut self, cpu: usize) {
        self.context[cpu] = self.certain;
    }

    /// `from` stores with release, `to` loads that with acquire.
    pub(crate) fn hand_over(&mut self, from: usize, to: usize, ets2: bool) {
        let seen = self.seen[from];
        self.acquire(to, &seen, ets2);
    }

    /// `cpu` loads with acquire what was stored with release by one that had seen `seen` by then.
    pub(crate) fn acquire(&mut self, cpu: usize, seen: &Clock, ets2: bool) {
        self.seen[cpu].join(seen);
        self.ordered[cpu].join(seen);
        if ets2 {
            self.context[cpu].join(&self.certain);
        }
    }
}
