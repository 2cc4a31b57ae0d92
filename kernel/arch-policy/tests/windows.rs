//! The protocol in every order of the C11 memory model, at least as weak as Arm's here: walks are
//! relaxed loads, barriers are fences.

use arch_policy::windows::{Line, Platform, Windows};
use loom::sync::Arc;
use loom::sync::atomic::{AtomicU64, Ordering, fence};
use std::panic::{AssertUnwindSafe, catch_unwind};

const NOTHING: u8 = 0;
const ORDER_OF_THE_BREAK: u8 = 1;
const BARRIER_BEFORE_THE_QUESTION: u8 = 2;
const BARRIER_AFTER_THE_QUESTION: u8 = 3;
const RELEASE_OF_THE_MAKE: u8 = 4;

struct Without<const WHAT: u8>;

/// `own`: loom would use a load of `shared` to exclude orders.
struct Word {
    shared: AtomicU64,
    own: std::sync::atomic::AtomicU64,
}

impl Word {
    fn store(&self, value: u64, order: Ordering) {
        self.own.store(value, Ordering::Relaxed);
        self.shared.store(value, order);
    }
}

impl<const WHAT: u8> Platform for Without<WHAT> {
    type Word = Word;

    fn load(word: &Word) -> u64 {
        word.shared.load(Ordering::Acquire)
    }
    fn load_own(word: &Word) -> u64 {
        word.own.load(Ordering::Relaxed)
    }
    fn open(word: &Word, odd: u64) {
        word.store(odd, Ordering::Relaxed);
        if WHAT != ORDER_OF_THE_BREAK {
            fence(Ordering::Release);
        }
    }
    fn close(word: &Word, even: u64) {
        let release = WHAT != RELEASE_OF_THE_MAKE;
        word.store(
            even,
            if release {
                Ordering::Release
            } else {
                Ordering::Relaxed
            },
        );
    }
    fn before_question() {
        if WHAT != BARRIER_BEFORE_THE_QUESTION {
            fence(Ordering::Acquire);
        }
    }
    fn after_question() {
        if WHAT != BARRIER_AFTER_THE_QUESTION {
            fence(Ordering::Acquire);
        }
    }
}

const INVALID: u64 = 0;
const VALID: u64 = 1;

fn windows<const WHAT: u8, const CPUS: usize>() -> Windows<Without<WHAT>, [Line<Word>; CPUS]> {
    Windows::new(std::array::from_fn(|_| {
        Line(Word {
            shared: AtomicU64::new(0),
            own: std::sync::atomic::AtomicU64::new(0),
        })
    }))
}

/// CPUs from 1 on break and make leaves; CPU 0 asks for CPU 1's.
fn a_leaf_that_is_broken<const WHAT: u8, const CPUS: usize>(breaks: u64) {
    let mut model = loom::model::Builder::new();
    // With more than two CPUs, at most two preemptions.
    model.preemption_bound = (CPUS > 2).then_some(2);
    model.check(move || {
        let windows = Arc::new(windows::<WHAT, CPUS>());
        let leaves: Arc<[AtomicU64; CPUS]> = Arc::new(std::array::from_fn(|_| AtomicU64::new(VALID)));
        let breakers: Vec<_> = (1..CPUS)
            .map(|cpu| {
                let (windows, leaves) = (windows.clone(), leaves.clone());
                loom::thread::spawn(move || {
                    for _ in 0..breaks {
                        windows.open(cpu);
                        leaves[cpu].store(INVALID, Ordering::Relaxed);
                        leaves[cpu].store(VALID, Ordering::Relaxed);
                        windows.close(cpu);
                    }
                })
            })
            .collect();
        let walk = || leaves[1].load(Ordering::Relaxed) == VALID;
        assert!(
            windows.translates(0, walk, |_| loom::thread::yield_now()),
            "a fault in a window was final"
        );
        breakers.into_iter().for_each(|breaker| breaker.join().unwrap());
    });
}

fn is_seen<const WHAT: u8>() -> bool {
    catch_unwind(AssertUnwindSafe(|| a_leaf_that_is_broken::<WHAT, 2>(1))).is_err()
}

#[test]
fn a_fault_in_a_window_is_never_final() {
    a_leaf_that_is_broken::<NOTHING, 2>(1);
    a_leaf_that_is_broken::<NOTHING, 2>(2);
}

#[test]
fn nor_is_it_beside_the_windows_of_a_third_cpu() {
    a_leaf_that_is_broken::<NOTHING, 3>(1);
}

#[test]
fn each_barrier_is_needed() {
    assert!(
        is_seen::<ORDER_OF_THE_BREAK>(),
        "the break's stores before the word"
    );
    assert!(
        is_seen::<BARRIER_AFTER_THE_QUESTION>(),
        "the second sum before the question"
    );
    assert!(
        is_seen::<RELEASE_OF_THE_MAKE>(),
        "the word before the make's stores"
    );
    assert!(!is_seen::<NOTHING>());
}

/// The model has a load for AT, which an acquire does not order.
#[test]
fn a_walk_that_were_a_load_would_need_no_barrier_before_it() {
    assert!(!is_seen::<BARRIER_BEFORE_THE_QUESTION>());
}

#[test]
fn a_hole_is_final_once_no_other_window_is_open() {
    loom::model(|| {
        let windows = Arc::new(windows::<NOTHING, 2>());
        let breaker = {
            let windows = windows.clone();
            loom::thread::spawn(move || {
                windows.open(1);
                windows.close(1);
            })
        };
        assert!(!windows.translates(0, || false, |_| loom::thread::yield_now()));
        breaker.join().unwrap();
    });
}

#[test]
fn its_own_window_is_not_waited_for() {
    loom::model(|| {
        let windows = windows::<NOTHING, 2>();
        windows.open(0);
        let wait = |_| panic!("it waits for itself");
        assert!(!windows.translates(0, || false, wait));
        windows.close(0);
    });
}

#[test]
fn the_cpu_that_is_waited_for_is_named() {
    loom::model(|| {
        let windows = windows::<NOTHING, 3>();
        windows.open(2);
        let named = std::cell::Cell::new(None);
        windows.translates(0, || named.get().is_some(), |cpu| named.set(cpu));
        assert_eq!(named.get(), Some(2));
        windows.close(2);
    });
}

#[test]
#[should_panic(expected = "in its break window")]
fn a_window_in_a_window_is_refused() {
    loom::model(|| {
        let windows = windows::<NOTHING, 2>();
        windows.open(1);
        windows.open(1);
    });
}
