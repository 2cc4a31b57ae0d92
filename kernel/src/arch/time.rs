//! The virtual counter, for bounded waits.

use core::arch::asm;
use core::time::Duration;

use aarch64_cpu::registers::{CNTFRQ_EL0, Readable};

#[must_use]
pub fn ticks() -> u64 {
    let ticks: u64;
    // ISB: not read early (Arm ARM, "The Generic Timer in AArch64 state").
    // SAFETY: reads a counter.
    unsafe { asm!("isb", "mrs {}, cntvct_el0", out(reg) ticks, options(nostack, preserves_flags)) };
    ticks
}

#[must_use]
pub fn since_reset() -> Duration {
    let ticks = u128::from(ticks());
    let nanoseconds = ticks * 1_000_000_000 / u128::from(frequency());
    Duration::from_nanos(nanoseconds as u64)
}

/// The emulator's if firmware left CNTFRQ_EL0 0.
#[must_use]
pub fn frequency() -> u64 {
    match CNTFRQ_EL0.get() {
        0 => 62_500_000,
        hz => hz,
    }
}

/// YIELD: an emulator goes on with its next CPU. Not WFE: nothing promises an event.
#[inline(always)]
pub fn relax() {
    // SAFETY: a hint.
    unsafe { asm!("yield", options(nostack, nomem, preserves_flags)) };
}

const LOOKS: u32 = 256;

#[derive(Clone, Copy, Debug)]
pub struct Deadline(u64);

impl Deadline {
    #[must_use]
    pub fn after(wait: Duration) -> Self {
        Self(ticks().saturating_add(Self::ticks_of(wait)))
    }

    #[must_use]
    pub fn ticks_of(wait: Duration) -> u64 {
        (wait.as_nanos() * u128::from(frequency()) / 1_000_000_000) as u64
    }

    #[must_use]
    pub fn is_past(self) -> bool {
        ticks() >= self.0
    }

    /// Waits for `done`; returns whether it was. Reads the counter once in 256 calls: that drains
    /// the pipeline, and emulated CPUs share a lock for it.
    pub fn wait_until(self, mut done: impl FnMut() -> bool) -> bool {
        loop {
            for _ in 0..LOOKS {
                if done() {
                    return true;
                }
                relax();
            }
            if self.is_past() {
                return done();
            }
        }
    }

    pub fn wait(self) {
        self.wait_until(|| false);
    }
}
