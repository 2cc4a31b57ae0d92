//! Spurious faults: a translation fault on a kernel address that the MMU now translates.
//!
//! They have two causes. A mapping made by another CPU, where this CPU's walk was ahead of the store it raced with: there is no TLB maintenance for
//! a descriptor that was invalid (rule 2), and no CPU is told. And break-before-make: the range is invalid for a moment, by design (rule 3).
//! In both the access is right and succeeds when it is made again.
//!
//! `AT` decides: it asks the MMU itself. While some CPU is between break and make ([`BreakWindow`]) a fault that `AT` confirms may still be
//! of the second kind, so it is asked again until the window closes, for a bounded time. And a CPU that retries the same instruction for the same
//! address over and over, without having made progress, is not in a race: then the fault is reported.

use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use core::time::Duration;

use super::Frame;
use crate::arch::mmu::{self, Access};
use crate::arch::percpu::this_cpu;
use crate::arch::syndrome::FaultStatus;
use crate::arch::time::{Deadline, relax, ticks};

/// Retries of one instruction for one address without a pause.
const MAX_RETRIES: u64 = 64;
/// What counts as a pause: a CPU that did something else in between.
const PAUSE: Duration = Duration::from_millis(1);
/// How long windows may follow each other before a fault in them is reported.
const WINDOW_LIMIT: Duration = Duration::from_millis(500);

/// Windows open now, on all CPUs, in the lower half; those ever opened in the upper: two equal values with none open say that none was open in between.
static WINDOWS: AtomicU64 = AtomicU64::new(0);
const ONE_OPEN: u64 = 1;
const ONE_OPENED: u64 = 1 << 32;

/// From before the break until after the make: faults of other CPUs wait for the end of it.
#[must_use = "the window closes when this is dropped"]
#[derive(Debug)]
pub struct BreakWindow(());

impl BreakWindow {
    /// Before the descriptor is made invalid.
    pub fn open() -> Self {
        // Acquire and release: the break's stores stay behind this.
        WINDOWS.fetch_add(ONE_OPEN + ONE_OPENED, Ordering::AcqRel);
        Self(())
    }

    /// Takes over a window that was opened and then forgotten, between two calls that could not hand it on.
    pub fn adopt() -> Self {
        Self(())
    }
}

impl Drop for BreakWindow {
    fn drop(&mut self) {
        // The new descriptor is visible to walks (the engine's DSB) before the window is seen closed.
        WINDOWS.fetch_sub(ONE_OPEN, Ordering::Release);
    }
}

/// The last retry of a CPU. Only that CPU uses it, and only here, with everything masked.
#[derive(Debug)]
pub struct Retry {
    elr: AtomicUsize,
    far: AtomicUsize,
    count: AtomicUsize,
    at: AtomicU64,
}

impl Retry {
    /// None yet.
    pub(crate) const fn none() -> Self {
        Self {
            elr: AtomicUsize::new(0),
            far: AtomicUsize::new(0),
            count: AtomicUsize::new(0),
            at: AtomicU64::new(0),
        }
    }

    /// Counts one more; `false` if these are too many of the same.
    fn may_retry(&self, elr: usize, far: usize) -> bool {
        let now = ticks();
        let pause = Deadline::ticks_of(PAUSE);
        let same = self.elr.load(Ordering::Relaxed) == elr
            && self.far.load(Ordering::Relaxed) == far
            && now.wrapping_sub(self.at.load(Ordering::Relaxed)) < pause;
        let count = if same {
            self.count.load(Ordering::Relaxed) + 1
        } else {
            1
        };
        self.elr.store(elr, Ordering::Relaxed);
        self.far.store(far, Ordering::Relaxed);
        self.count.store(count, Ordering::Relaxed);
        self.at.store(now, Ordering::Relaxed);
        count as u64 <= MAX_RETRIES
    }
}

/// Whether the fault is spurious, so that the access is to be made again.
pub fn retry(frame: &Frame) -> bool {
    let syndrome = frame.syndrome();
    let Some(FaultStatus::Translation(_)) = syndrome.fault_status() else {
        return false;
    };
    // Bit 55 selects TTBR1: a kernel address.
    if !syndrome.far_valid() || frame.far & 1 << 55 == 0 {
        return false;
    }
    let access = if syndrome.is_write() {
        Access::Write
    } else {
        Access::Read
    };
    let far = frame.far as usize;
    if !translates(far, access) || !this_cpu().last_retry.may_retry(frame.elr as usize, far) {
        return false;
    }
    this_cpu().nr_spurious_faults.fetch_add(1, Ordering::Relaxed);
    true
}

/// Whether `AT` translates `va`, now or when no window is open.
///
/// Not: when the windows that are open now have closed. One CPU may open the next over the same address right after, and its break then looks as if the
/// first had left nothing behind. Only a question that no window was open for has a final answer.
fn translates(va: usize, access: Access) -> bool {
    // Anything but a translation fault is an answer: a permission fault is met, and reported, by the retry.
    let ask = || !matches!(mmu::translate(va, access), Err(abort) if matches!(abort.status, FaultStatus::Translation(_)));
    let limit = Deadline::after(WINDOW_LIMIT);
    loop {
        let before = WINDOWS.load(Ordering::Acquire);
        // The question comes after the look at the windows: AT is no access that an acquire would order (Arm ARM, "Address translation instructions").
        mmu::dsb_ish();
        mmu::isb();
        if ask() {
            return true;
        }
        // The question ended with an ISB, so this look comes after it.
        let none_was_open = before as u32 == 0 && WINDOWS.load(Ordering::Acquire) == before;
        if none_was_open || limit.is_past() {
            return false;
        }
        relax();
    }
}
