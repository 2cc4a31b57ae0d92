use crate::concurrent::handle::{Handle, tree};
use crate::concurrent::pool::{Pool, Word};
use crate::support::{Naive, Rng};
use paging::{Granule4K, Visit};

/// Operations read-lock it, reuse write-locks it.
struct Epoch(std::sync::RwLock<()>);

impl Epoch {
    fn during<R>(&self, work: impl FnOnce() -> R) -> R {
        let _reading = self.0.read().expect("no panic under this lock");
        work()
    }

    pub fn quiesce<W: Word>(&self, pool: &Pool<W>) {
        let _alone = self.0.write().expect("no panic under this lock");
        pool.quiesce();
    }
}

const THREADS: u64 = 4;

fn on_threads(rounds: u64, pruning: bool, own: fn(thread: u64, rng: &mut Rng) -> (u64, u64)) {
    let pool: &'static Pool<std::sync::atomic::AtomicU64> = Box::leak(Box::new(Pool::new::<Granule4K>(256)));
    let handle = Handle(Box::leak(Box::new(tree::<Granule4K, _>(pool))));
    let epoch = Epoch(std::sync::RwLock::new(()));
    handle.map(515, 1);
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let epoch = &epoch;
            scope.spawn(move || {
                let mut rng = Rng(0x9e37_79b9 + thread);
                for round in 0..rounds {
                    let (page, pages) = own(thread, &mut rng);
                    epoch.during(|| handle.map_after_prunes(page, pages));
                    epoch.during(|| handle.assert_maps(page, pages));
                    epoch.during(|| handle.assert_maps(515, 1));
                    let gone = epoch.during(|| handle.unmap(page, pages));
                    assert_eq!(gone, pages);
                    epoch.during(|| handle.assert_vacant(page, 1));
                    if pruning && round % 4 == thread {
                        epoch.during(|| handle.prune());
                    }
                    if round % 8 == thread {
                        epoch.quiesce(pool);
                    }
                }
            });
        }
        let epoch = &epoch;
        scope.spawn(move || {
            for _ in 0..rounds {
                epoch.during(|| handle.assert_maps(515, 1));
                epoch.during(|| {
                    handle
                        .shared(|tree| {
                            tree.visit(handle.range(0, 4096), |leaf| {
                                let page = leaf.va.offset_from(handle.0.range().start) >> 12;
                                assert!(leaf.valid, "{leaf:?}");
                                assert_eq!(
                                    leaf.pa,
                                    Handle::<Granule4K, std::sync::atomic::AtomicU64>::frame(page)
                                );
                                Visit::Continue
                            })
                        })
                        .expect("a valid range");
                });
            }
        });
    });
    assert_eq!(
        Naive::of(handle.0).0.len(),
        1,
        "what every thread took out is gone, and the page that stays is there"
    );
    handle.assert_sound();
}

#[test]
fn threads_that_share_last_level_tables_disturb_nobody() {
    for pruning in [false, true] {
        on_threads(3000, pruning, |thread, rng| {
            let strip = rng.below(30) * THREADS + thread;
            (516 - 240 + strip * 8, 1 + rng.below(7))
        });
    }
}

#[test]
fn threads_that_share_level_2_tables_disturb_nobody() {
    for pruning in [false, true] {
        on_threads(1500, pruning, |thread, rng| {
            // No two threads share a table.
            (1024 + thread * 1024 + rng.below(300), 1 + rng.below(700))
        });
    }
}
