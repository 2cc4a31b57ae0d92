//! No range is handed out twice, under a schedule checker and on real threads (with Miri too).

use crate::va::{Area, Cache, Error, Fit, NodePage, Space, Vpn};
use std::boxed::Box;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::vec::Vec;

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
const PIECE: u64 = 8;
const PAGES: u64 = 6 * PIECE;

fn node_page() -> &'static mut NodePage {
    Box::leak(Box::new(NodePage::uninit()))
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Plant {
    Nothing,
    TakesWhatWasFree,
    GivesBackTooEarly,
}

struct Cpu {
    space: Space<2>,
    cache: Cache<2>,
}

struct Shared<S, C> {
    common: S,
    cpus: [C; CPUS],
    /// Adds no schedules.
    used: std::sync::Mutex<Vec<(u64, u64, usize)>>,
    hits: AtomicUsize,
}

fn piece() -> Fit {
    Fit::new(PIECE).guarded(0, 0).congruent(PIECE, 0)
}

impl<S: Guarded<Space<2>>, C: Guarded<Cpu>> Shared<S, C> {
    fn new() -> Self {
        Self {
            common: S::new(Space::new(Vpn(START), PAGES, node_page())),
            cpus: std::array::from_fn(|cpu| {
                C::new(Cpu {
                    space: Space::empty(cpu as u16, PAGES, node_page()),
                    cache: Cache::new(2, 0),
                })
            }),
            used: std::sync::Mutex::default(),
            hits: AtomicUsize::new(0),
        }
    }

    fn take(&self, cpu: usize, fit: &Fit, words: &[u64; 2], plant: Plant) -> Option<Area<2>> {
        let seen = self.common.with(|common| common.lowest(&piece()));
        self.cpus[cpu].with(|own| {
            if let Some(area) = own.cache.take(fit, words) {
                self.hits.fetch_add(1, Ordering::Relaxed);
                return Some(area);
            }
            match own.space.reserve(fit, words) {
                Ok(area) => return Some(area),
                Err(Error::NoNodes) => own.space.feed(node_page()),
                Err(Error::NoSpace { .. }) => {}
                Err(other) => panic!("{other}"),
            }
            let start = self.common.with(|common| {
                let start = if plant == Plant::TakesWhatWasFree {
                    seen.ok()?
                } else {
                    common.lowest(&piece()).ok()?
                };
                if common.nr_spare_nodes() == 0 {
                    common.feed(node_page());
                }
                let removed = common.remove(start, PIECE);
                assert!(plant == Plant::TakesWhatWasFree || removed == Ok(true));
                Some(start)
            })?;
            own.space.add(start, PIECE).expect("nodes suffice");
            own.space.reserve(fit, words).ok()
        })
    }

    fn put(&self, area: Area<2>) {
        self.cpus[area.owner() as usize].with(|own| {
            if let Some(given_up) = own.cache.put(area) {
                own.space.release(given_up);
            }
        });
    }

    fn drain(&self, cpu: usize) {
        self.cpus[cpu].with(|own| {
            while let Some(area) = own.cache.give_up() {
                own.space.release(area);
            }
            while let Ok(start) = own.space.lowest(&piece()) {
                if own.space.nr_spare_nodes() == 0 {
                    own.space.feed(node_page());
                }
                assert_eq!(own.space.remove(start, PIECE), Ok(true));
                self.common.with(|common| {
                    if common.nr_spare_nodes() == 0 {
                        common.feed(node_page());
                    }
                    common.add(start, PIECE).expect("a node is spare");
                });
            }
        });
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

    /// It also frees and drains the next CPU's.
    fn work(&self, cpu: usize, rounds: usize, plant: Plant) {
        for round in 0..rounds {
            let fit = Fit::new(1 + (round / 2 % 3) as u64);
            let words = [cpu as u64, round as u64];
            let from = if round % 2 == 0 { cpu } else { (cpu + 1) % CPUS };
            let Some(area) = self.take(from, &fit, &words, plant) else {
                self.drain(cpu);
                continue;
            };
            self.begin(&area, cpu);
            assert_eq!(
                ([area.word(0), area.word(1)], area.owner() as usize),
                (words, from),
                "somebody else's"
            );
            let start = area.start().0;
            if plant == Plant::GivesBackTooEarly {
                self.put(area);
                self.cpus[cpu].with(|_| ());
                self.end(start);
            } else {
                self.end(start);
                self.put(area);
            }
            if round % 2 == 1 {
                self.drain((cpu + 1) % CPUS);
            }
        }
    }

    fn assert_whole(&self) {
        for cpu in 0..CPUS {
            self.cpus[cpu]
                .with(|own| own.cache.check().and(own.space.check()))
                .expect("a sound CPU");
            self.drain(cpu);
            assert_eq!(self.cpus[cpu].with(|own| own.space.pages), 0);
        }
        let census = self.common.with(|space| space.check()).expect("a sound space");
        assert_eq!((census.gaps, census.vacant, census.live), (1, PAGES, 0));
    }
}

fn on_schedules(plant: Plant) {
    type Checked = Shared<shuttle::sync::Mutex<Space<2>>, shuttle::sync::Mutex<Cpu>>;
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
fn a_piece_that_is_taken_as_it_was_seen_is_noticed() {
    assert!(std::panic::catch_unwind(|| on_schedules(Plant::TakesWhatWasFree)).is_err());
}

#[test]
fn a_range_freed_too_early_is_noticed() {
    assert!(std::panic::catch_unwind(|| on_schedules(Plant::GivesBackTooEarly)).is_err());
}

#[test]
fn real_threads_share_a_space_and_their_pieces() {
    let rounds = if cfg!(miri) { 30 } else { 20_000 };
    let shared = Shared::<std::sync::Mutex<Space<2>>, std::sync::Mutex<Cpu>>::new();
    std::thread::scope(|scope| {
        for cpu in 0..CPUS {
            let shared = &shared;
            scope.spawn(move || shared.work(cpu, rounds, Plant::Nothing));
        }
    });
    assert_ne!(shared.hits.load(Ordering::Relaxed), 0, "the caches are in use");
    shared.assert_whole();
}
