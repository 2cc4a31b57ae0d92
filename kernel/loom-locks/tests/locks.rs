//! The walk lock (`spin`'s reader-writer lock), the lock of `vmalloc`'s feature `spin`, and the
//! kernel's own [`Word`], compiled with loom's atomics. What they guard is a cell of loom's, which
//! sees two accesses that nothing orders.

#[path = "../../src/sync/word.rs"]
mod word;

/// What [`word`] asks of the machine.
mod arch {
    pub mod atomic {
        use portable_atomic::Ordering::{self, Acquire};

        #[derive(Debug)]
        pub struct AtomicU32(portable_atomic::AtomicU32);

        impl AtomicU32 {
            pub const fn new(value: u32) -> Self {
                Self(portable_atomic::AtomicU32::new(value))
            }
            pub fn load(&self, order: Ordering) -> u32 {
                self.0.load(order)
            }
            /// An exchange: loom has no order between stores of different threads, and a thread
            /// that waits would read its own for ever.
            pub fn store(&self, value: u32, order: Ordering) {
                self.0.swap(value, order);
            }
        }

        pub fn swap_acquire(word: &AtomicU32, new: u32) -> u32 {
            word.0.swap(new, Acquire)
        }
    }
}

use lock_api::Mutex;
use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::thread;
use portable_atomic::{Missing, without};
use spin::RelaxStrategy;
use spin::mutex::SpinMutex;
use spin::rwlock::RwLock;
use std::panic::{AssertUnwindSafe, catch_unwind};
use word::Word;

/// As the kernel's: lets another go on.
pub struct Turn;

impl RelaxStrategy for Turn {
    fn relax() {
        thread::yield_now();
    }
}

/// Written under a lock that has no other holder.
struct Guarded(UnsafeCell<u32>);

// SAFETY: loom tells of accesses at once.
unsafe impl Sync for Guarded {}

impl Guarded {
    fn new() -> Self {
        Self(UnsafeCell::new(0))
    }
    fn add(&self) {
        // SAFETY: loom tells of accesses at once.
        self.0.with_mut(|value| unsafe { *value += 1 });
    }
    fn get(&self) -> u32 {
        // SAFETY: the same.
        self.0.with(|value| unsafe { *value })
    }
}

/// What adds one under `lock`.
type Adds<L> = fn(&L);

/// Two threads have it alone, once each, and no addition is lost.
fn both_add<L: Send + Sync + 'static>(new: fn() -> L, add: Adds<L>, sum: fn(&L) -> u32) {
    let lock = Arc::new(new());
    // loom takes the first use of a word for its making.
    assert_eq!(sum(&lock), 0);
    let other = {
        let lock = Arc::clone(&lock);
        thread::spawn(move || add(&lock))
    };
    add(&lock);
    other.join().expect("it ends");
    assert_eq!(sum(&lock), 2);
}

type WalkLock = RwLock<Guarded, Turn>;

fn walk_lock() -> Arc<WalkLock> {
    let lock = Arc::new(WalkLock::new(Guarded::new()));
    assert_eq!(lock.read().get(), 0);
    lock
}

/// A reader sees all of what a writer did or none of it; another may read with it.
fn readers_and_a_writer() {
    let lock = walk_lock();
    // Two that wait would give way to each other for ever.
    let readers = [true, false].map(|waits| {
        let lock = Arc::clone(&lock);
        thread::spawn(move || {
            let guarded = if waits { Some(lock.read()) } else { lock.try_read() };
            if let Some(guarded) = guarded {
                let first = guarded.get();
                assert!(first != 1 && first == guarded.get());
            }
        })
    });
    {
        let guarded = lock.write();
        guarded.add();
        guarded.add();
    }
    for reader in readers {
        reader.join().expect("it ends");
    }
    assert_eq!(lock.read().get(), 2);
}

fn two_writers() {
    both_add(
        || WalkLock::new(Guarded::new()),
        |lock| lock.write().add(),
        |lock| lock.read().get(),
    );
}

/// Who does not wait is refused or has it, and writes as one.
fn those_that_try() {
    let lock = walk_lock();
    let other = {
        let lock = Arc::clone(&lock);
        thread::spawn(move || lock.try_read().map_or(0, |guarded| guarded.get()))
    };
    let wrote = lock.try_write().map(|guarded| guarded.add()).is_some();
    assert!(other.join().expect("it ends") <= u32::from(wrote));
    assert_eq!(lock.read().get(), u32::from(wrote));
}

fn spin_mutex() {
    both_add(
        || SpinMutex::<Guarded, Turn>::new(Guarded::new()),
        |lock| lock.lock().add(),
        |lock| lock.lock().get(),
    );
}

fn word() {
    both_add(
        || Mutex::<Word, Guarded>::new(Guarded::new()),
        |lock| lock.lock().add(),
        |lock| lock.lock().get(),
    );
}

const ALL: [fn(); 5] = [
    readers_and_a_writer,
    two_writers,
    those_that_try,
    spin_mutex,
    word,
];

fn in_every_order(body: fn()) {
    let mut model = loom::model::Builder::new();
    // Orders that differ by so many switches to another thread that could go on.
    model.preemption_bound = Some(4);
    model.check(body);
}

fn goes_wrong_without(missing: Missing, body: fn()) -> bool {
    catch_unwind(AssertUnwindSafe(|| {
        let _without = without(missing);
        in_every_order(body);
    }))
    .is_err()
}

#[test]
fn readers_see_what_a_writer_wrote_and_are_never_beside_it() {
    in_every_order(readers_and_a_writer);
}

#[test]
fn writers_are_alone() {
    in_every_order(two_writers);
}

#[test]
fn those_that_do_not_wait_are_refused_or_alone() {
    in_every_order(those_that_try);
}

#[test]
fn one_holds_the_mutex_of_the_feature_spin() {
    in_every_order(spin_mutex);
}

#[test]
fn one_holds_the_kernels_word() {
    in_every_order(word);
}

#[test]
fn without_release_each_is_found_out() {
    assert!(
        ALL.into_iter()
            .all(|body| goes_wrong_without(Missing::Release, body))
    );
}

#[test]
fn without_acquire_each_is_found_out() {
    assert!(
        ALL.into_iter()
            .all(|body| goes_wrong_without(Missing::Acquire, body))
    );
}

#[test]
fn with_a_load_and_a_store_for_an_exchange_each_is_found_out() {
    assert!(
        [two_writers, spin_mutex, word]
            .into_iter()
            .all(|body: fn()| goes_wrong_without(Missing::Exchange, body))
    );
}
