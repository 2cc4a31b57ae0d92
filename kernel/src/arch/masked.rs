//! The longest section with interrupts masked, measured: since the boot, on each CPU.
//!
//! A section lasts from the first guard that a CPU takes to the last that it drops: a lock, or a
//! mask of its own ([`interrupts`](super::interrupts)). What is done in it is counted in steps
//! ([`Count`]): these have the bound of DESIGN rule 14, on any machine. How long it takes is read
//! from CNTVCT_EL0, which an emulator derives from the instructions that it has executed
//! (`-icount`): what one takes is measured by a loop of a known length. Elsewhere it is time.
//!
//! It is measured in a build with debug assertions, in a boot that is asked to, as by
//! `masked=1`. In others of that build each place where it would be is a NOP
//! ([`Condition::Measured`](super::alternatives::Condition)).
//!
//! Not measured: what [`mask_briefly`](super::interrupts::mask_briefly) guards, a few instructions
//! that no argument makes more.

use core::arch::asm;
use core::fmt;
use core::panic::Location;
use core::sync::atomic::{AtomicPtr, AtomicU64, AtomicUsize, Ordering::Relaxed};

use super::alternatives::is_measured;
use super::pmu::known_loop;
use super::time;
use crate::per_cpu;

/// What is counted of a section.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Count {
    /// Ticks of CNTVCT_EL0.
    Ticks,
    /// Descriptors that are written.
    Written,
    /// Descriptors that are looked at many at a time.
    LookedAt,
    /// Blocks of frames that go to or from the buddy allocator.
    Blocks,
}

impl Count {
    /// Number of them.
    const NR: usize = 4;
    /// Those that have a bound, the same on any machine.
    pub const BOUNDED: [Self; Self::NR - 1] = [Self::Written, Self::LookedAt, Self::Blocks];

    /// The most that one section may have; `None` for what depends on the machine.
    #[must_use]
    pub const fn bound(self) -> Option<u64> {
        match self {
            Self::Ticks => None,
            // A table that is filled, and the group of 16 that it takes a block from, broken and
            // made (DESIGN rule 3).
            Self::Written => Some(512 + 2 * 16),
            // A table's.
            Self::LookedAt => Some(512),
            Self::Blocks => Some(64),
        }
    }

    /// What it is.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ticks => "ticks",
            Self::Written => "descriptors written",
            Self::LookedAt => "descriptors looked at",
            Self::Blocks => "blocks of frames",
        }
    }
}

/// A section: where it began and ended, and what was done in it.
struct Section {
    began_by: AtomicPtr<Location<'static>>,
    ended_at: AtomicUsize,
    counts: [AtomicU64; Count::NR],
}

impl Section {
    const fn new() -> Self {
        Self {
            began_by: AtomicPtr::new(core::ptr::null_mut()),
            ended_at: AtomicUsize::new(0),
            counts: [const { AtomicU64::new(0) }; Count::NR],
        }
    }

    fn note(&self, now: Found) {
        self.began_by
            .store(core::ptr::from_ref(now.began_by).cast_mut(), Relaxed);
        self.ended_at.store(now.ended_at, Relaxed);
        for (count, now) in self.counts.iter().zip(now.counts) {
            count.store(now, Relaxed);
        }
    }

    fn found(&self) -> Option<Found> {
        // SAFETY: null, or a location of the program.
        let began_by: &'static Location<'static> = unsafe { self.began_by.load(Relaxed).as_ref() }?;
        Some(Found {
            began_by,
            ended_at: self.ended_at.load(Relaxed),
            counts: core::array::from_fn(|i| self.counts[i].load(Relaxed)),
        })
    }
}

/// What one CPU measures. Only that CPU writes it.
struct Measured {
    /// Guards that the CPU has.
    depth: AtomicUsize,
    /// The section that it is in. Its ticks are those of its beginning.
    current: Section,
    /// Of each count, the section that had the most.
    most: [Section; Count::NR],
}

per_cpu! {
    static MEASURED: Measured = Measured {
        depth: AtomicUsize::new(0),
        current: Section::new(),
        most: [const { Section::new() }; Count::NR],
    };
}

/// A section that is over.
#[derive(Clone, Copy, Debug)]
pub struct Found {
    /// What took the first guard.
    pub began_by: &'static Location<'static>,
    /// Where the last was dropped.
    pub ended_at: usize,
    counts: [u64; Count::NR],
}

impl Found {
    /// How much of it the section had.
    #[must_use]
    pub const fn count(&self, count: Count) -> u64 {
        self.counts[count as usize]
    }
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for count in Count::BOUNDED {
            write!(f, "{} {}, ", self.count(count), count.name())?;
        }
        write!(f, "from {} to {:#x}", self.began_by, self.ended_at)
    }
}

/// A guard is taken, with interrupts masked by now.
#[cold]
#[inline(never)]
pub(super) fn begin(by: &'static Location<'static>) {
    let measured = MEASURED.this();
    let depth = measured.depth.load(Relaxed);
    measured.depth.store(depth + 1, Relaxed);
    if depth == 0 {
        measured.current.note(Found {
            began_by: by,
            ended_at: 0,
            counts: [time::ticks(), 0, 0, 0],
        });
    }
}

/// A guard is dropped; interrupts are still masked.
#[cold]
#[inline(never)]
pub(super) fn end() {
    let measured = MEASURED.this();
    // None for a guard that was taken before anything was measured.
    let Some(depth) = measured.depth.load(Relaxed).checked_sub(1) else {
        return;
    };
    measured.depth.store(depth, Relaxed);
    let Some(mut now) = measured.current.found().filter(|_| depth == 0) else {
        return;
    };
    // The return address, of the frame record (AAPCS64 6.4.6).
    // SAFETY: functions of this image have frame records.
    unsafe { asm!("ldr {}, [x29, #8]", out(reg) now.ended_at, options(nostack, readonly, preserves_flags)) };
    now.counts[Count::Ticks as usize] = time::ticks() - now.count(Count::Ticks);
    for (i, most) in measured.most.iter().enumerate() {
        if now.counts[i] > most.counts[i].load(Relaxed) {
            most.note(now);
        }
    }
}

/// `nr` descriptors are written.
#[inline(always)]
pub fn writes(nr: usize) {
    if is_measured() {
        step(Count::Written, nr);
    }
}

/// `nr` descriptors are looked at.
#[inline(always)]
pub fn looks_at(nr: usize) {
    if is_measured() {
        step(Count::LookedAt, nr);
    }
}

/// The buddy allocator takes or gives a block of frames.
#[inline(always)]
pub fn moves_block() {
    if is_measured() {
        step(Count::Blocks, 1);
    }
}

#[cold]
fn step(what: Count, nr: usize) {
    let measured = MEASURED.this();
    if measured.depth.load(Relaxed) != 0 {
        let count = &measured.current.counts[what as usize];
        count.store(count.load(Relaxed) + nr as u64, Relaxed);
    }
}

/// The section that had the most of `count` so far, on any CPU; `None` if none had any.
#[must_use]
pub fn most(count: Count) -> Option<Found> {
    MEASURED
        .iter()
        .filter_map(|measured| measured.most[count as usize].found())
        .max_by_key(|found| found.count(count))
}

/// Ticks of CNTVCT_EL0 that a million instructions take.
#[must_use]
pub fn ticks_of_a_million() -> u64 {
    let began = time::ticks();
    known_loop(500_000);
    time::ticks() - began
}
