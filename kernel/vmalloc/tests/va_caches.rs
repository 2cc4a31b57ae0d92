//! One address space, a cache for each CPU in front of it, each under a lock of its own: no range is handed out twice, on schedules that
//! a model checker chooses and on real threads (those under Miri too, which watches the memory itself).

use std::sync::atomic::{AtomicUsize, Ordering};
use vmalloc::va::{Area, Cache, Error, Fit, NodePage, Space, Vpn};

/// A value that threads share: under shuttle's lock with the checker, under the host's otherwise.
trait Guarded<T>: Send + Sync {
    fn new(value: T) -> Self;
    fn with<R>(&self, f: impl FnOnce(&mut T) -> R) -> R;
}

impl<T: Send> Guarded<T> for shuttle::sync::Mutex<T> {
    fn new(value: T) -> Self {
        Self::new(value)
    }
    fn with<R>(&self, f: impl FnOnce(&mut T) -> R) -> R {
        f(&mut self.lock().expect("no panic under this lock"))
    }
}

impl<T: Send> Guarded<T> for std::sync::Mutex<T> {
    fn new(value: T) -> Self {
        Self::new(value)
    }
    fn with<R>(&self, f: impl FnOnce(&mut T) -> R) -> R {
        f(&mut self.lock().expect("no panic under this lock"))
    }
}

const CPUS: usize = 3;
const START: u64 = 1 << 30;
const PAGES: u64 = 24;

fn node_page() -> &'static mut NodePage {
    Box::leak(Box::new(NodePage::uninit()))
}

/// What is wrong with a CPU.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Plant {
    Nothing,
    /// It looks whether there is something to drain, and takes it without asking again.
    DrainsWhatWasThere,
    /// It gives a range back while it still uses it.
    GivesBackTooEarly,
}

struct Shared<S, C> {
    space: S,
    caches: [C; CPUS],
    /// Ranges in use, by whom. Bookkeeping of the test: no part of the schedules.
    used: std::sync::Mutex<Vec<(u64, u64, usize)>>,
    /// Ranges that came from a cache.
    hits: AtomicUsize,
}

impl<S: Guarded<Space<2>>, C: Guarded<Cache<2>>> Shared<S, C> {
    fn new() -> Self {
        Self {
            space: S::new(Space::new(Vpn(START), PAGES, node_page())),
            caches: std::array::from_fn(|_| C::new(Cache::new(2))),
            used: std::sync::Mutex::default(),
            hits: AtomicUsize::new(0),
        }
    }

    fn take(&self, cpu: usize, fit: &Fit, words: &[u64; 2]) -> Option<Area<2>> {
        if let Some(area) = self.caches[cpu].with(|cache| cache.take(fit, words)) {
            self.hits.fetch_add(1, Ordering::Relaxed);
            return Some(area);
        }
        loop {
            match self.space.with(|space| space.reserve(fit, words)) {
                Ok(area) => return Some(area),
                Err(Error::NoNodes) => self.space.with(|space| space.feed(node_page())),
                Err(Error::NoSpace { .. }) => return None,
                Err(other) => panic!("{other}"),
            }
        }
    }

    fn put(&self, cpu: usize, area: Area<2>) {
        if let Err(area) = self.caches[cpu].with(|cache| cache.put(area)) {
            self.space.with(|space| space.release(area));
        }
    }

    fn drain(&self, cpu: usize, plant: Plant) {
        if plant == Plant::DrainsWhatWasThere {
            if self.caches[cpu].with(|cache| cache.nr_areas()) != 0 {
                let area = self.caches[cpu].with(Cache::drain).expect("there was one");
                self.space.with(|space| space.release(area));
            }
            return;
        }
        while let Some(area) = self.caches[cpu].with(Cache::drain) {
            self.space.with(|space| space.release(area));
        }
    }

    fn used(&self) -> std::sync::MutexGuard<'_, Vec<(u64, u64, usize)>> {
        self.used.lock().expect("no panic under this lock")
    }

    fn begin(&self, area: &Area<2>, cpu: usize) {
        let (start, pages) = (area.start().0, area.reserved());
        let mut used = self.used();
        for (other, length, whose) in used.iter() {
            let apart = start + pages <= *other || other + length <= start;
            assert!(
                apart,
                "{start:#x} of CPU {cpu} is handed out twice: CPU {whose} has it"
            );
        }
        used.push((start, pages, cpu));
    }

    fn end(&self, start: u64) {
        self.used().retain(|(other, ..)| *other != start);
    }

    /// What one CPU does: ranges of three sizes come and go, by its own cache and by the next one's, which it drains too.
    fn work(&self, cpu: usize, rounds: usize, plant: Plant) {
        for round in 0..rounds {
            let fit = Fit::new(1 + (round / 2 % 3) as u64);
            let words = [cpu as u64, round as u64];
            let Some(area) = self.take(cpu, &fit, &words) else {
                // Everything is in caches or in use.
                self.drain(cpu, plant);
                continue;
            };
            self.begin(&area, cpu);
            assert_eq!(area.words(), words, "somebody else's");
            let start = area.start().0;
            let home = if round % 2 == 0 { cpu } else { (cpu + 1) % CPUS };
            if plant == Plant::GivesBackTooEarly {
                self.put(home, area);
                // Here another thread may go on.
                self.caches[cpu].with(|_| ());
                self.end(start);
            } else {
                self.end(start);
                self.put(home, area);
            }
            if round % 2 == 1 {
                self.drain((cpu + 1) % CPUS, plant);
            }
        }
    }

    /// Nothing is lost.
    fn assert_whole(&self) {
        for cpu in 0..CPUS {
            self.caches[cpu]
                .with(|cache| cache.check())
                .expect("a sound cache");
            self.drain(cpu, Plant::Nothing);
        }
        let census = self.space.with(|space| space.check()).expect("a sound space");
        assert_eq!((census.gaps, census.vacant, census.live), (1, PAGES, 0));
    }
}

fn on_schedules(plant: Plant) {
    type Checked = Shared<shuttle::sync::Mutex<Space<2>>, shuttle::sync::Mutex<Cache<2>>>;
    let nr = std::env::var("SHUTTLE_SCHEDULES")
        .ok()
        .and_then(|nr| nr.parse().ok())
        .unwrap_or(3000);
    let mut config = shuttle::Config::new();
    config.stack_size = 1 << 18;
    config.failure_persistence = shuttle::FailurePersistence::None;
    config.ungraceful_shutdown_config.immediately_return_on_panic = true;
    let work = move || {
        let shared = Checked::new();
        shuttle::thread::scope(|scope| {
            for cpu in 0..CPUS {
                let shared = &shared;
                scope.spawn(move || shared.work(cpu, 6, plant));
            }
        });
        shared.assert_whole();
    };
    shuttle::Runner::new(shuttle::scheduler::RandomScheduler::new(nr), config).run(work);
}

#[test]
fn no_range_is_handed_out_twice_whoever_takes_puts_and_drains() {
    on_schedules(Plant::Nothing);
}

#[test]
fn a_drain_that_does_not_ask_again_is_noticed() {
    assert!(std::panic::catch_unwind(|| on_schedules(Plant::DrainsWhatWasThere)).is_err());
}

#[test]
fn a_range_given_back_too_early_is_noticed() {
    assert!(std::panic::catch_unwind(|| on_schedules(Plant::GivesBackTooEarly)).is_err());
}

#[test]
fn real_threads_share_a_space_and_their_caches() {
    let rounds = if cfg!(miri) { 30 } else { 20_000 };
    let shared = Shared::<std::sync::Mutex<Space<2>>, std::sync::Mutex<Cache<2>>>::new();
    std::thread::scope(|scope| {
        for cpu in 0..CPUS {
            let shared = &shared;
            scope.spawn(move || shared.work(cpu, rounds, Plant::Nothing));
        }
    });
    assert_ne!(shared.hits.load(Ordering::Relaxed), 0, "the caches are in use");
    shared.assert_whole();
}
