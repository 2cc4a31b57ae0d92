//! Several CPUs with TLBs: the engine on the worst-case model, where shuttle may switch CPUs at
//! every table access, barrier and TLBI. After every unmap all CPUs try the addresses, and the
//! frames are reused. `defects` leaves out each step in turn.

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

pub const CPUS: usize = 4;

/// 64 pages, tables of 4 descriptors.
pub const BASE: u64 = 0u64.wrapping_sub(64 << 12);

type Work = fn(&Kernel);

#[derive(Clone, Copy)]
pub struct Case {
    pub setup: Work,
    pub cpus: &'static [Work],
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

    /// On random schedules: all finish and nothing is lost.
    ///
    /// # Panics
    /// With the story, if a rule was broken.
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
                // Ends with a context synchronisation.
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

fn schedules(otherwise: usize) -> usize {
    let wanted = std::env::var("SHUTTLE_SCHEDULES").ok();
    wanted.and_then(|nr| nr.parse().ok()).unwrap_or(otherwise)
}
