//! One tree, many threads: the protocol of `tree.rs`, under a schedule checker and on real threads.
//!
//! Ranges that share no leaf need no lock, even in shared tables; `prune` alone keeps the others
//! out. A freed table is not reused while an older walk runs.

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

#[derive(Clone, Copy)]
enum Schedules {
    Random,
    /// Finds long waits at one place. No thread may spin.
    Priorities,
}

/// After `setup`; the tree must be sound in the end.
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
