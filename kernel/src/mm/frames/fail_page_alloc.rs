//! Fault injection, Linux's `fail_page_alloc`: any allocation may fail (DESIGN rule 7).

use core::sync::atomic::{AtomicU64, Ordering};

/// To the one that fails; 0: none.
static COUNTDOWN: AtomicU64 = AtomicU64::new(0);
const BY_CHANCE: u64 = u64::MAX;

static DRAW: AtomicU64 = AtomicU64::new(0);
static ONE_IN: AtomicU64 = AtomicU64::new(1);
static NR_FAILED: AtomicU64 = AtomicU64::new(0);

/// Makes the `k`-th allocation from now on, on any CPU, fail, until the result is dropped.
///
/// # Panics
/// For k = 0, and while another is pending.
#[must_use = "the injection ends when this is dropped"]
pub fn fail_nth(k: u64) -> Injection {
    assert!(k != 0, "the first allocation is number 1");
    begin(k)
}

/// Makes about one in `one_in` allocations fail.
///
/// # Panics
/// For `one_in` = 0, and while a [`fail_nth`] is pending.
#[must_use = "the injection ends when this is dropped"]
pub fn fail_some(seed: u64, one_in: u64) -> Injection {
    assert!(one_in != 0, "one in none");
    let injection = begin(0);
    DRAW.store(seed, Ordering::Relaxed);
    ONE_IN.store(one_in, Ordering::Relaxed);
    NR_FAILED.store(0, Ordering::Relaxed);
    COUNTDOWN.store(BY_CHANCE, Ordering::Relaxed);
    injection
}

fn begin(mode: u64) -> Injection {
    let before = COUNTDOWN.swap(mode, Ordering::Relaxed);
    assert!(
        before == 0 || before == BY_CHANCE,
        "an injection with {before} allocations to go is on"
    );
    Injection {
        before,
        one_in: ONE_IN.load(Ordering::Relaxed),
    }
}

#[derive(Debug)]
pub struct Injection {
    before: u64,
    one_in: u64,
}

impl Injection {
    #[must_use]
    pub fn fired(&self) -> bool {
        match COUNTDOWN.load(Ordering::Relaxed) {
            BY_CHANCE => NR_FAILED.load(Ordering::Relaxed) != 0,
            left => left == 0,
        }
    }
}

impl Drop for Injection {
    fn drop(&mut self) {
        ONE_IN.store(self.one_in, Ordering::Relaxed);
        COUNTDOWN.store(self.before, Ordering::Relaxed);
    }
}

#[inline(always)]
pub fn fails() -> bool {
    COUNTDOWN.load(Ordering::Relaxed) != 0 && count_down()
}

#[cold]
fn count_down() -> bool {
    let step = COUNTDOWN.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| match left {
        BY_CHANCE => None,
        left => left.checked_sub(1),
    });
    match step {
        Err(BY_CHANCE) => draw(),
        step => step == Ok(1),
    }
}

/// SplitMix64 (Steele, Lea, Flood 2014).
fn draw() -> bool {
    const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut z = DRAW.fetch_add(STEP, Ordering::Relaxed).wrapping_add(STEP);
    z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    let fails = (z ^ z >> 31).is_multiple_of(ONE_IN.load(Ordering::Relaxed));
    if fails {
        NR_FAILED.fetch_add(1, Ordering::Relaxed);
    }
    fails
}
