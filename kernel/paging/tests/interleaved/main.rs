//! Several CPUs at once, on a machine with TLBs: the real engine runs on the worst-case model, and
//! shuttle changes from CPU to CPU at every access to a table, every barrier and every TLBI.
//!
//! `concurrent` asks whether the tables come out right on such schedules, and has no TLBs;
//! `mmu-model`'s exhaustive search has TLBs and one CPU. Here both meet: a CPU's entry may be stale
//! because of what another one does in between. After every unmap all CPUs try the addresses, and
//! the frames are reused; the model panics at the first rule that is broken. What each CPU
//! may do without a lock, and for what walks are kept out, is the contract in `src/tree.rs`.
//!
//! `defects` has a CPU for each step left out, and the model finds out all of them.

mod breaks;
mod defects;
mod kernel;
mod lazy;
mod neighbours;
mod prune;
mod seat;
mod windows;

use kernel::{Kernel, Shared};
use mmu_model::{Features, Model};
use paging::TinyGranule;
use seat::{Defect, Seat};
use std::sync::Arc;
use windows::Here;

/// The boot CPU, which sets up and looks afterwards, and two or three that run at once.
pub const CPUS: usize = 4;

/// The first page of the smallest geometry: 64 pages, tables of 4 descriptors.
pub const BASE: u64 = 0u64.wrapping_sub(64 << 12);

type Work = fn(&Kernel);

/// What is run on many schedules.
#[derive(Clone, Copy)]
pub struct Case {
    /// On CPU 0, before.
    pub setup: Work,
    /// At once, from CPU 1 on.
    pub cpus: &'static [Work],
    /// Table pages that there are.
    pub tables: usize,
}

impl Case {
    pub const fn new(setup: Work, cpus: &'static [Work]) -> Self {
        Self {
            setup,
            cpus,
            tables: 64,
        }
    }

    /// Runs it on schedules that choose the next CPU at random, and sees that all is finished and
    /// nothing lost.
    ///
    /// # Panics
    /// With the story, if a rule was broken on one of them.
    pub fn run(self) {
        self.run_with(Defect::None, schedules(1500));
    }

    fn run_with(self, defect: Defect, schedules: usize) {
        shuttle::check_random(move || self.once(defect), schedules);
    }

    fn once(self, defect: Defect) {
        let (model, root) = Model::<TinyGranule>::with_root(Features {
            cpus: CPUS,
            pool_pages: self.tables,
            tlbi_range: true,
            panics: true,
            ..Features::default()
        });
        let boot = Kernel::new(Seat::first(model, defect), root, Arc::new(Shared::default()));
        let model = boot.seat.model.clone();
        Here::is(&boot.seat);
        (self.setup)(&boot);
        let cpus: Vec<_> = (1..=self.cpus.len()).map(|number| boot.on(number)).collect();
        let running: Vec<_> = cpus
            .iter()
            .cloned()
            .zip(self.cpus)
            .map(|(kernel, work)| {
                // What starts a CPU hands over, and ends with a context synchronisation.
                model.hand_over(0, kernel.seat.number);
                shuttle::thread::spawn(move || {
                    Here::is(&kernel.seat);
                    paging::Mmu::isb(&kernel.seat);
                    work(&kernel);
                })
            })
            .collect();
        for (number, thread) in (1..).zip(running) {
            thread.join().expect("no CPU panics");
            model.hand_over(number, 0);
        }
        boot.purge(true);
        model.assert_quiescent();
        cpus.iter().chain([&boot]).for_each(Kernel::prune);
        model.assert_quiescent();
        assert_eq!(model.nr_tables(), model.nr_linked_tables(), "a table is lost");
        let (all, mut batch) = (boot.tree.range(), boot.tree.batch());
        boot.tree.unmap(all, &mut batch).expect("nothing to split");
        batch.flush();
        model.assert_quiescent();
        assert_eq!(model.nr_tables(), 1, "only the root is left");
    }
}

/// Many more in a soak.
fn schedules(otherwise: usize) -> usize {
    let wanted = std::env::var("SHUTTLE_SCHEDULES").ok();
    wanted.and_then(|nr| nr.parse().ok()).unwrap_or(otherwise)
}
