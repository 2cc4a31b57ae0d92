//! One tree, many threads: the protocol that `tree.rs` tells as a story, on schedules that a model checker chooses and on
//! real threads.
//!
//! Ranges that share no leaf need no lock, even where they share tables: nobody writes into a table that was unlinked,
//! nobody loses a leaf, no table is given back twice or not at all, and a reader sees what is there. A table that was given
//! back is not handed out again while an operation or a walk from before is under way, as the story demands.

mod support;

use paging::mmu::NoMmu;
use paging::{
    Attributes, Config, Error, Granule, Granule4K, Half, LeafSet, LeafSize, PhysAddr, PhysRange, Tables,
    TinyGranule, Tree, VirtRange, Visit,
};
use std::collections::BTreeSet;
use support::{Live, Naive, Rng, audit};

const DATA: Attributes = Attributes::KERNEL_DATA;
const POOL_AT: u64 = 0x40_0000_0000;

/// A word that threads share: shuttle's under the checker, the processor's otherwise.
trait Word: Default + Send + Sync {
    fn load(&self) -> u64;
    fn store(&self, value: u64);
    fn compare_exchange(&self, current: u64, new: u64) -> Result<u64, u64>;
}

macro_rules! word {
    ($atomic:ty, $ordering:ident) => {
        impl Word for $atomic {
            fn load(&self) -> u64 {
                self.load($ordering::Relaxed)
            }
            fn store(&self, value: u64) {
                self.store(value, $ordering::Relaxed);
            }
            fn compare_exchange(&self, current: u64, new: u64) -> Result<u64, u64> {
                self.compare_exchange(current, new, $ordering::AcqRel, $ordering::Acquire)
            }
        }
    };
}

use shuttle::sync::atomic::Ordering as CheckedOrdering;
use std::sync::atomic::Ordering as RealOrdering;
word!(shuttle::sync::atomic::AtomicU64, CheckedOrdering);
word!(std::sync::atomic::AtomicU64, RealOrdering);

const FREE: u8 = 0;
const IN_USE: u8 = 1;
const GIVEN_BACK: u8 = 2;

/// A pool of tables in shared words. What is given back can still be read, and waits for [`quiesce`](Self::quiesce).
struct Pool<W> {
    words: Vec<W>,
    entries: usize,
    shift: u32,
    // Bookkeeping of the test and no part of what is tested: invisible to the checker's schedules.
    states: std::sync::Mutex<Vec<u8>>,
    /// What is given back is handed out again at once.
    at_once: bool,
}

impl<W: Word> Pool<W> {
    fn new<G: Granule>(tables: usize) -> Self {
        Self {
            words: (0..tables * G::ENTRIES).map(|_| W::default()).collect(),
            entries: G::ENTRIES,
            shift: G::PAGE_SHIFT,
            states: std::sync::Mutex::new(vec![FREE; tables]),
            at_once: false,
        }
    }

    fn number(&self, table: PhysAddr) -> usize {
        let number = table
            .0
            .checked_sub(POOL_AT)
            .unwrap_or_else(|| panic!("{table:?} is no table"))
            >> self.shift;
        assert!(
            (number as usize) < self.words.len() / self.entries,
            "{table:?} is no table"
        );
        number as usize
    }

    fn word(&self, table: PhysAddr, index: usize) -> &W {
        assert!(index < self.entries);
        &self.words[self.number(table) * self.entries + index]
    }

    fn assert_writable(&self, table: PhysAddr) {
        let state = self.states.lock().expect("no panic under this lock")[self.number(table)];
        assert_eq!(state, IN_USE, "a store into {table:?}, which was given back");
    }

    /// Nobody is in an operation: what was given back may be handed out again.
    fn quiesce(&self) {
        for state in self.states.lock().expect("no panic under this lock").iter_mut() {
            if *state == GIVEN_BACK {
                *state = FREE;
            }
        }
    }
}

impl<W: Word> Live for &Pool<W> {
    fn live(&self) -> usize {
        self.states
            .lock()
            .expect("no panic under this lock")
            .iter()
            .filter(|state| **state == IN_USE)
            .count()
    }
}

// SAFETY: pages are zeroed when they are handed out, distinct, and not handed out again before `quiesce`; every access is
// atomic.
unsafe impl<W: Word> Tables for Pool<W> {
    fn alloc_table(&self) -> Option<PhysAddr> {
        let number = {
            let mut states = self.states.lock().expect("no panic under this lock");
            let number = states.iter().position(|state| *state == FREE)?;
            states[number] = IN_USE;
            number
        };
        let table = PhysAddr(POOL_AT + ((number as u64) << self.shift));
        (0..self.entries).for_each(|index| self.word(table, index).store(0));
        Some(table)
    }

    fn free_table(&self, table: PhysAddr) {
        let state = std::mem::replace(
            &mut self.states.lock().expect("no panic under this lock")[self.number(table)],
            if self.at_once { FREE } else { GIVEN_BACK },
        );
        assert_eq!(state, IN_USE, "{table:?} is given back twice");
    }

    fn load(&self, table: PhysAddr, index: usize) -> u64 {
        self.word(table, index).load()
    }

    fn store(&self, table: PhysAddr, index: usize, value: u64) {
        self.assert_writable(table);
        self.word(table, index).store(value);
    }

    fn compare_exchange(&self, table: PhysAddr, index: usize, current: u64, new: u64) -> Result<(), u64> {
        self.word(table, index)
            .compare_exchange(current, new)
            .map(|_| self.assert_writable(table))
    }
}

type Shared<'p, G, W> = Tree<G, &'p Pool<W>, NoMmu>;

fn tree<G: Granule, W: Word>(pool: &Pool<W>) -> Shared<'_, G, W> {
    let root = pool.alloc_table().expect("memory");
    Tree::new(root, Half::High, pool, NoMmu::default(), Config::default())
}

/// A thread's handle on a tree whose pool lives for as long as the program, as a kernel's does.
struct Handle<G: Granule, W: Word + 'static>(&'static Shared<'static, G, W>);

impl<G: Granule, W: Word> Clone for Handle<G, W> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<G: Granule, W: Word> Copy for Handle<G, W> {}

impl<G: Granule, W: Word> Handle<G, W> {
    fn range(self, page: u64, pages: u64) -> VirtRange {
        VirtRange::new(
            self.0.range().start.add(page << G::PAGE_SHIFT),
            pages << G::PAGE_SHIFT,
        )
    }

    fn frame(page: u64) -> PhysAddr {
        PhysAddr((0x1000 + page) << G::PAGE_SHIFT)
    }

    fn try_map(self, page: u64, pages: u64) -> Result<(), Error> {
        let mut source = PhysRange::new(Self::frame(page), pages);
        let range = self.range(page, pages);
        self.0
            .map(range, &mut source, DATA, LeafSet::ALL)
            .map(|outcome| assert_eq!(outcome.leaves.pages::<G>(), pages))
            .map_err(|failure| failure.error)
    }

    fn map(self, page: u64, pages: u64) {
        self.try_map(page, pages)
            .unwrap_or_else(|error| panic!("map of {pages} pages at {page}: {error}"));
    }

    /// Unlinks emptied tables on the way.
    fn unmap(self, page: u64, pages: u64) -> u64 {
        let mut batch = self.0.batch();
        let outcome = self
            .0
            .unmap(self.range(page, pages), &mut batch)
            .expect("nothing to split");
        batch.flush();
        outcome.leaves.pages::<G>()
    }

    fn unmap_keeping(self, page: u64, pages: u64) -> u64 {
        let mut batch = self.0.batch();
        let range = self.range(page, pages);
        let outcome = self
            .0
            .unmap_keeping_tables(range, &mut batch)
            .expect("nothing to split");
        batch.flush();
        outcome.leaves.pages::<G>()
    }

    fn prune(self) {
        self.0.prune(self.0.range()).expect("the tree's own range");
    }

    fn assert_maps(self, page: u64, pages: u64) {
        for page in page..page + pages {
            let va = self.range(page, 1).start;
            let leaf = self
                .0
                .translate(va)
                .unwrap_or_else(|| panic!("page {page} is not mapped"));
            assert_eq!(leaf.translate(va), Self::frame(page), "page {page}");
        }
    }

    fn assert_vacant(self, page: u64, pages: u64) {
        for page in page..page + pages {
            assert_eq!(self.0.translate(self.range(page, 1).start), None, "page {page}");
        }
    }

    /// Counts are true, nothing is lost; and all can be taken down to the root.
    fn assert_sound(self) {
        self.prune();
        let mut seen = BTreeSet::new();
        self.0
            .check(|table, _| seen.insert(table), |_| true)
            .unwrap_or_else(|error| panic!("{error}"));
        audit(self.0);
        self.unmap_keeping(0, 1 << (G::VA_BITS - G::PAGE_SHIFT));
        self.prune();
        assert_eq!(self.0.tables().live(), 1, "only the root is left");
    }
}

type Checked = Handle<TinyGranule, shuttle::sync::atomic::AtomicU64>;

/// How the next thread to run is chosen.
#[derive(Clone, Copy)]
enum Schedules {
    /// At each step anew.
    Random,
    /// By priorities, which change a few times: finds what takes a long wait at one place. No thread may spin on another.
    Priorities,
}

/// Runs `threads` at once on many schedules, on a tree made by `setup`, and sees a sound tree afterwards.
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

#[test]
fn two_threads_in_one_table_count_right() {
    on_schedules(
        |_| {},
        &[
            |tree| {
                tree.map(0, 1);
                tree.assert_maps(0, 1);
                assert_eq!(tree.unmap_keeping(0, 1), 1);
                tree.assert_vacant(0, 1);
            },
            |tree| {
                tree.map(1, 2);
                tree.assert_maps(1, 2);
                assert_eq!(tree.unmap_keeping(1, 2), 2);
                tree.map(1, 1);
                tree.assert_maps(1, 1);
            },
        ],
    );
}

#[test]
fn a_table_is_made_by_one_of_those_who_miss_it() {
    on_schedules(
        |_| {},
        &[
            |tree| tree.map(0, 1),
            |tree| tree.map(1, 1),
            |tree| {
                tree.map(5, 1);
                tree.assert_maps(5, 1);
            },
        ],
    );
}

#[test]
fn a_table_that_empties_is_unlinked_or_used_and_never_both() {
    on_schedules(
        |tree| tree.map(0, 1),
        &[
            |tree| assert_eq!(tree.unmap(0, 1), 1),
            |tree| {
                tree.map(1, 1);
                tree.assert_maps(1, 1);
                tree.map(2, 1);
                tree.assert_maps(1, 2);
            },
        ],
    );
}

#[test]
fn whoever_takes_the_last_leaf_takes_the_table() {
    on_schedules(
        |tree| {
            tree.map(0, 1);
            tree.map(1, 1);
            tree.map(6, 1);
        },
        &[
            |tree| assert_eq!(tree.unmap(0, 1), 1),
            |tree| assert_eq!(tree.unmap(1, 1), 1),
            |tree| assert_eq!(tree.unmap(6, 1), 1),
        ],
    );
}

#[test]
fn a_hole_is_passed_over_while_its_tables_go() {
    on_schedules(
        |tree| tree.map(9, 1),
        &[
            // The last leaf below two tables: both go.
            |tree| assert_eq!(tree.unmap(9, 1), 1),
            // Holes under the same tables, in their first descriptors and over the border of two of them.
            |tree| assert_eq!(tree.unmap(0, 7), 0),
            |tree| assert_eq!(tree.unmap(8, 1), 0),
        ],
    );
}

#[test]
fn an_emptied_table_that_was_replaced_meanwhile_is_another() {
    for schedules in [Schedules::Random, Schedules::Priorities] {
        on_schedules_of(
            24,
            schedules,
            |tree| {
                tree.map(1, 1);
                tree.map(12, 1);
            },
            &[
                // Holes: two of the first table and one of the second.
                |tree| assert_eq!(tree.unmap(2, 3), 0),
                |tree| {
                    assert_eq!(tree.unmap(1, 1), 1);
                    tree.map(1, 1);
                    assert_eq!(tree.unmap(1, 1), 1);
                    tree.map(1, 1);
                    assert_eq!(tree.unmap(1, 1), 1);
                },
            ],
        );
    }
}

#[test]
fn a_map_is_not_refused_for_what_is_on_its_way_out() {
    on_schedules(
        |tree| {
            tree.map(3, 1);
            tree.map(20, 1);
        },
        &[
            |tree| assert_eq!(tree.unmap(3, 1), 1),
            |tree| assert_eq!(tree.unmap(20, 1), 1),
            |tree| {
                tree.map(4, 13);
                tree.assert_maps(4, 13);
                assert_eq!(tree.unmap(4, 13), 13);
            },
        ],
    );
}

#[test]
fn pruning_beside_maps_loses_nothing() {
    on_schedules(
        |tree| {
            tree.map(0, 1);
            tree.unmap_keeping(0, 1);
        },
        &[
            |tree| tree.prune(),
            |tree| {
                tree.map(1, 1);
                tree.assert_maps(1, 1);
            },
            |tree| {
                tree.map(6, 1);
                tree.assert_maps(6, 1);
                assert_eq!(tree.unmap_keeping(6, 1), 1);
                tree.prune();
            },
        ],
    );
}

#[test]
fn a_block_where_a_table_is_being_pruned_stays() {
    on_schedules(
        |tree| {
            tree.map(5, 1);
            tree.unmap_keeping(5, 1);
            tree.map(12, 1);
        },
        &[
            |tree| tree.prune(),
            |tree| {
                // Exactly the block that the empty table translates; and then two of them at once.
                tree.map(4, 4);
                tree.assert_maps(4, 4);
                let leaf = tree.0.translate(tree.range(4, 1).start).expect("mapped");
                assert_eq!(leaf.size, LeafSize::BLOCK2);
            },
        ],
    );
    on_schedules(
        |tree| {
            tree.map(1, 1);
            tree.map(5, 1);
            tree.unmap_keeping(1, 1);
            tree.unmap_keeping(5, 1);
            tree.map(12, 1);
        },
        &[
            |tree| tree.prune(),
            |tree| {
                tree.map(0, 8);
                tree.assert_maps(0, 8);
            },
            |tree| tree.prune(),
        ],
    );
}

#[test]
fn a_table_that_an_unmap_covers_whole_is_pruned_or_buried_and_never_both() {
    let setup: fn(Checked) = |tree| {
        tree.map(5, 1);
        tree.unmap_keeping(5, 1);
        tree.map(9, 1);
    };
    // The empty table's own span; all of the table above it; and all that there is.
    on_schedules(
        setup,
        &[
            |tree| tree.prune(),
            |tree| assert_eq!(tree.unmap_keeping(4, 4), 0),
        ],
    );
    on_schedules(
        setup,
        &[
            |tree| tree.prune(),
            |tree| assert_eq!(tree.unmap_keeping(0, 16), 1),
        ],
    );
    on_schedules(
        setup,
        &[
            |tree| tree.prune(),
            |tree| assert_eq!(tree.unmap(0, 64), 1),
            |tree| tree.prune(),
        ],
    );
}

#[test]
fn a_failed_map_leaves_its_neighbours_alone() {
    // One table short: whichever thread it is that misses it takes back what is its own.
    on_schedules_of(
        5,
        Schedules::Random,
        |_| {},
        &[
            |tree| {
                if tree.try_map(0, 5).is_ok() {
                    tree.assert_maps(0, 5);
                } else {
                    tree.assert_vacant(0, 5);
                }
            },
            |tree| {
                if tree.try_map(6, 8).is_ok() {
                    tree.assert_maps(6, 8);
                } else {
                    tree.assert_vacant(6, 8);
                }
            },
        ],
    );
}

#[test]
fn a_reader_sees_what_is_there_and_nothing_else() {
    on_schedules(
        |tree| {
            tree.map(2, 1);
            tree.map(9, 1);
        },
        &[
            |tree| {
                assert_eq!(tree.unmap(9, 1), 1);
                tree.map(9, 1);
                tree.map(10, 3);
                assert_eq!(tree.unmap(9, 4), 4);
            },
            |tree| {
                for _ in 0..3 {
                    tree.assert_maps(2, 1);
                    // Whatever else a walk gives: a page that somebody has mapped, to its frame.
                    tree.0
                        .visit(tree.range(0, 16), |leaf| {
                            let page = leaf.va.offset_from(tree.0.range().start) >> 12;
                            assert!(leaf.valid, "{leaf:?}");
                            assert_eq!(leaf.pa, Checked::frame(page), "{leaf:?}");
                            Visit::Continue
                        })
                        .expect("a valid range");
                    let walk = tree.0.walk(tree.range(8, 1).start).expect("in range");
                    assert_eq!(walk.leaf, None, "nobody maps page 8");
                }
            },
        ],
    );
}

#[test]
fn a_reader_never_meets_a_table_that_a_failed_map_has_given_up() {
    // Two tables but for the root, which are handed out again at once. A map misses a third; the next wants both for another
    // page.
    on_schedules_with(
        || Pool {
            at_once: true,
            ..Pool::new::<TinyGranule>(3)
        },
        Schedules::Priorities,
        |_| {},
        &[
            |tree| {
                let failed = tree.try_map(1, 10);
                assert_eq!(failed, Err(Error::OutOfTables(3)));
                // Its tables are not to be had for this.
                let elsewhere = tree.try_map(51, 1);
                assert_eq!(elsewhere, Err(Error::OutOfTables(2)));
            },
            |tree| {
                for _ in 0..3 {
                    tree.0
                        .visit(tree.range(0, 16), |leaf| {
                            let page = leaf.va.offset_from(tree.0.range().start) >> 12;
                            assert_eq!(leaf.pa, Checked::frame(page), "{leaf:?}");
                            Visit::Continue
                        })
                        .expect("a valid range");
                }
            },
        ],
    );
}

#[test]
fn blocks_in_one_table_are_cut_beside_each_other() {
    on_schedules(
        |tree| {
            tree.map(0, 4);
            tree.map(8, 4);
        },
        &[
            |tree| {
                assert_eq!(tree.unmap_keeping(1, 2), 2);
                tree.assert_maps(0, 1);
                tree.assert_maps(3, 1);
                tree.assert_vacant(1, 2);
            },
            |tree| {
                let mut batch = tree.0.batch();
                tree.0
                    .protect(tree.range(9, 1), Attributes::read_only, &mut batch)
                    .expect("memory suffices");
                batch.flush();
                tree.assert_maps(8, 4);
                tree.0
                    .coalesce(tree.range(8, 4), &mut tree.0.batch())
                    .expect("takes no memory");
                tree.assert_maps(8, 4);
            },
            |tree| {
                tree.map(5, 2);
                assert_eq!(tree.unmap(5, 2), 2);
            },
        ],
    );
}

// Real threads.

/// What is given back waits until nobody is in an operation: operations read-lock this, reuse write-locks it.
struct Epoch(std::sync::RwLock<()>);

impl Epoch {
    fn during<R>(&self, work: impl FnOnce() -> R) -> R {
        let _reading = self.0.read().expect("no panic under this lock");
        work()
    }

    fn quiesce<W: Word>(&self, pool: &Pool<W>) {
        let _alone = self.0.write().expect("no panic under this lock");
        pool.quiesce();
    }
}

const THREADS: u64 = 4;

/// Threads map, check and unmap pages that are interleaved within the same last-level and level 2 tables.
fn on_threads(rounds: u64, keeping: bool, own: fn(thread: u64, rng: &mut Rng) -> (u64, u64)) {
    let pool: &'static Pool<std::sync::atomic::AtomicU64> = Box::leak(Box::new(Pool::new::<Granule4K>(256)));
    let handle = Handle(Box::leak(Box::new(tree::<Granule4K, _>(pool))));
    let epoch = Epoch(std::sync::RwLock::new(()));
    // One page that stays, in the midst of all.
    handle.map(515, 1);
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let epoch = &epoch;
            scope.spawn(move || {
                let mut rng = Rng(0x9e37_79b9 + thread);
                for round in 0..rounds {
                    let (page, pages) = own(thread, &mut rng);
                    epoch.during(|| handle.map(page, pages));
                    epoch.during(|| handle.assert_maps(page, pages));
                    epoch.during(|| handle.assert_maps(515, 1));
                    let gone = epoch.during(|| {
                        if keeping {
                            handle.unmap_keeping(page, pages)
                        } else {
                            handle.unmap(page, pages)
                        }
                    });
                    assert_eq!(gone, pages);
                    epoch.during(|| handle.assert_vacant(page, 1));
                    if keeping && round % 4 == thread {
                        epoch.during(|| handle.prune());
                    }
                    if round % 8 == thread {
                        epoch.quiesce(pool);
                    }
                }
            });
        }
        // A reader that owns nothing.
        let epoch = &epoch;
        scope.spawn(move || {
            for _ in 0..rounds {
                epoch.during(|| handle.assert_maps(515, 1));
                epoch.during(|| {
                    handle
                        .0
                        .visit(handle.range(0, 4096), |leaf| {
                            let page = leaf.va.offset_from(handle.0.range().start) >> 12;
                            assert!(leaf.valid, "{leaf:?}");
                            assert_eq!(
                                leaf.pa,
                                Handle::<Granule4K, std::sync::atomic::AtomicU64>::frame(page)
                            );
                            Visit::Continue
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
    for keeping in [false, true] {
        on_threads(3000, keeping, |thread, rng| {
            // Strips of 8 pages, each thread its own, over two tables.
            let strip = rng.below(30) * THREADS + thread;
            (516 - 240 + strip * 8, 1 + rng.below(7))
        });
    }
}

#[test]
fn threads_that_share_level_2_tables_disturb_nobody() {
    for keeping in [false, true] {
        on_threads(1500, keeping, |thread, rng| {
            // Up to 1.5 tables each, from odd places: a table's worth of blocks lies between threads.
            (1024 + thread * 1024 + rng.below(300), 1 + rng.below(700))
        });
    }
}
