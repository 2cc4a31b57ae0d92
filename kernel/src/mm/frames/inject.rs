//! Allocations that fail on purpose: for the rule that any k-th one may (DESIGN rule 7).

use core::sync::atomic::{AtomicU64, Ordering};

/// Allocations until the one that fails, that one counted; 0 for none.
static COUNTDOWN: AtomicU64 = AtomicU64::new(0);

/// The `k`-th allocation from now on fails, counted from 1, whichever CPU makes it; those before and after it do not. Until the
/// result is dropped.
///
/// # Panics
/// For k = 0, and while another injection is on.
#[must_use = "the injection ends when this is dropped"]
pub fn fail_nth(k: u64) -> Injection {
    assert!(k != 0, "the first allocation is number 1");
    let before = COUNTDOWN.swap(k, Ordering::Relaxed);
    assert!(before == 0, "an injection with {before} allocations to go is on");
    Injection(())
}

/// An injection that is on.
#[derive(Debug)]
pub struct Injection(());

impl Injection {
    /// Whether the allocation has failed.
    #[must_use]
    pub fn fired(&self) -> bool {
        COUNTDOWN.load(Ordering::Relaxed) == 0
    }
}

impl Drop for Injection {
    fn drop(&mut self) {
        COUNTDOWN.store(0, Ordering::Relaxed);
    }
}

/// Whether this allocation is the one.
#[inline(always)]
pub fn fails() -> bool {
    COUNTDOWN.load(Ordering::Relaxed) != 0 && count_down()
}

#[cold]
fn count_down() -> bool {
    let step = COUNTDOWN.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
    step == Ok(1)
}
