//! Which stores are known to whom: the part of the memory model that translation table walks depend on.
//!
//! Every store to table memory has a number, counted for each CPU. A set of stores that is closed towards the past of each
//! CPU is then one number for each CPU: a [`Clock`]. Four of them tell all that the rules need:
//!
//! - `seen[c]`: the stores of others that CPU `c` has observed through an acquire of a release (and, of its own, all);
//! - `known[c]`: those which a DSB of `c` has completed. A TLBI of `c` removes what **these** have overwritten. DSB ISHST
//!   completes the CPU's own stores; DSB ISH also those it has observed (cumulativity; Arm ARM B2.3.12 "DSB", and the
//!   last row of the sequence table);
//! - `certain`: those that somebody's DSB has completed: no walk of any CPU can miss them any more (Arm ARM D8.2.6);
//! - `context[c]`: those that were certain at the last context synchronisation of `c`: only these cannot be missed by the
//!   translation of an access of `c`, which may have been made ahead (Arm ARM D8.2.6, K13.5.3). With FEAT_ETS2 a DSB or a
//!   hand-over does for this what otherwise only an ISB does.

/// The largest number of CPUs.
pub const MAX_CPUS: usize = 8;

/// A store: the CPU and its number there, from 1 on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Hash)]
pub struct StoreId {
    pub(crate) cpu: u8,
    pub(crate) number: u32,
}

/// A set of stores: of each CPU all up to a number.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Hash)]
pub struct Clock([u32; MAX_CPUS]);

impl Clock {
    /// Whether the set holds `store`.
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
    certain: Clock,
}

impl Clocks {
    /// Numbers a new store of `cpu`.
    pub(crate) fn store(&mut self, cpu: usize) -> StoreId {
        let own = &mut self.seen[cpu].0[cpu];
        *own += 1;
        StoreId {
            cpu: cpu as u8,
            number: *own,
        }
    }

    /// The number of the last store of `cpu`.
    pub(crate) fn last(&self, cpu: usize) -> u32 {
        self.seen[cpu].0[cpu]
    }

    /// Whether a DSB of `cpu` has completed all of its own stores.
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

    /// DSB of `cpu`: ISHST, or ISH if `loads` too.
    pub(crate) fn dsb(&mut self, cpu: usize, loads: bool, ets2: bool) {
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
        if ets2 {
            self.context[cpu].join(&self.certain);
        }
    }
}
