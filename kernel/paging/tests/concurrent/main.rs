//! One tree, many threads: the protocol that `tree.rs` tells as a story, on schedules that a model
//! checker chooses and on real threads.
//!
//! Ranges that share no leaf need no lock, even where they share tables: no table is written to
//! after it was unlinked, no leaf is lost, no table is freed twice or not at all, and a reader
//! sees what is there. Only `prune` keeps all others out, by a readers' lock as a kernel has it. A
//! table that was freed is not handed out again while a walk from before is under way, as the
//! story demands.

mod handle;
mod neighbours;
mod pool;
mod real_threads;
mod tables;

use handle::{Handle, tree};
use paging::{Attributes, TinyGranule};
use pool::Pool;

const DATA: Attributes = Attributes::KERNEL_DATA;

type Checked = Handle<TinyGranule, shuttle::sync::atomic::AtomicU64>;

/// How the next thread to run is chosen.
#[derive(Clone, Copy)]
enum Schedules {
    /// At each step anew.
    Random,
    /// By priorities, which change a few times: finds what takes a long wait at one place. No
    /// thread may spin on another.
    Priorities,
}

/// Runs `threads` at once on many schedules, on a tree made by `setup`, and sees a sound tree
/// afterwards.
fn on_schedules(setup: fn(Checked), threads: &'static [fn(Checked)]) {
    on_schedules_of(24, Schedules::Random, setup, threads);
}

fn on_schedules_of(tables: usize, schedules: Schedules, setup: fn(Checked), threads: &'static [fn(Checked)]) {
    on_schedules_with(
        move || Pool::new::<TinyGranule>(tables),
        schedules,
        setup,
        threads,
    );
}

fn on_schedules_with(
    pool: impl Fn() -> Pool<shuttle::sync::atomic::AtomicU64> + Send + Sync + 'static,
    schedules: Schedules,
    setup: fn(Checked),
    threads: &'static [fn(Checked)],
) {
    // Many more in a soak.
    let nr = std::env::var("SHUTTLE_SCHEDULES")
        .ok()
        .and_then(|nr| nr.parse().ok())
        .unwrap_or(1500);
    let work = move || {
        let pool: &'static Pool<_> = Box::leak(Box::new(pool()));
        let handle = Handle(Box::leak(Box::new(tree::<TinyGranule, _>(pool))));
        setup(handle);
        let running: Vec<_> = threads
            .iter()
            .map(|work| shuttle::thread::spawn(move || work(handle)))
            .collect();
        for thread in running {
            thread.join().expect("no thread panics");
        }
        handle.assert_sound();
    };
    match schedules {
        Schedules::Random => shuttle::check_random(work, nr),
        Schedules::Priorities => shuttle::check_pct(work, nr, 4),
    }
}
