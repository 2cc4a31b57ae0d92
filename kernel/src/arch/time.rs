//! The generic timer's virtual counter, for bounded waits.

use core::arch::asm;
use core::time::Duration;

use aarch64_cpu::registers::{CNTFRQ_EL0, Readable};

/// Returns the virtual counter. Read in order: no earlier than what is before it in the program.
#[must_use]
pub fn ticks() -> u64 {
    let ticks: u64;
    // The ISB keeps the read from being made early (Arm ARM, "The Generic Timer in AArch64 state").
    // SAFETY: reading a counter.
    unsafe { asm!("isb", "mrs {}, cntvct_el0", out(reg) ticks, options(nostack, preserves_flags)) };
    ticks
}

/// Returns what the virtual counter says of the time since the machine was reset. Under `-icount
/// shift=0`, that is a nanosecond for each instruction.
#[must_use]
pub fn since_reset() -> Duration {
    let ticks = u128::from(ticks());
    let nanoseconds = ticks * 1_000_000_000 / u128::from(frequency());
    Duration::from_nanos(nanoseconds as u64)
}

/// Ticks a second. Firmware that left CNTFRQ_EL0 zero gets the 62.5 MHz of the emulator.
fn frequency() -> u64 {
    match CNTFRQ_EL0.get() {
        0 => 62_500_000,
        hz => hz,
    }
}

/// A step of a loop that waits for another CPU or a device: YIELD, so that an emulator which runs
/// its CPUs in turn goes on with the next. Not WFE: nothing promises an event.
#[inline(always)]
pub fn relax() {
    // SAFETY: a hint.
    unsafe { asm!("yield", options(nostack, nomem, preserves_flags)) };
}

/// Looks between one reading of the counter and the next.
const LOOKS: u32 = 256;

/// A point in the future.
#[derive(Clone, Copy, Debug)]
pub struct Deadline(u64);

impl Deadline {
    /// `wait` from now.
    #[must_use]
    pub fn after(wait: Duration) -> Self {
        Self(ticks().saturating_add(Self::ticks_of(wait)))
    }

    /// Returns how many ticks `wait` is.
    #[must_use]
    pub fn ticks_of(wait: Duration) -> u64 {
        (wait.as_nanos() * u128::from(frequency()) / 1_000_000_000) as u64
    }

    /// Returns whether it is past.
    #[must_use]
    pub fn is_past(self) -> bool {
        ticks() >= self.0
    }

    /// Waits until `done` says so, or until then. Whether it was done.
    ///
    /// The counter is read once in 256 looks. Reading it is dear: it drains the pipeline, and an
    /// emulator takes a lock around it that all its CPUs share, so that a few which wait keep away
    /// the one that works.
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

    /// Waits until then.
    pub fn wait(self) {
        self.wait_until(|| false);
    }
}
