//! The longest section with interrupts masked on each CPU, from its first guard to its last:
//! measured with debug assertions and `masked=1`. Steps ([`Count`]) have the bounds of DESIGN rule
//! 14 on any machine; CNTVCT_EL0 counts instructions under `-icount`.

use core::arch::asm;
use core::fmt;
use core::panic::Location;
use core::sync::atomic::{AtomicPtr, AtomicU64, AtomicUsize, Ordering::Relaxed};

use super::alternatives::is_measured;
use super::pmu::known_loop;
use super::time;
use crate::per_cpu;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Count {
    /// Of CNTVCT_EL0.
    Ticks,
    Written,
    /// Many at a time.
    LookedAt,
    /// With the buddy allocator.
    Blocks,
    /// Pages of them.
    States,
}

impl Count {
    const NR: usize = 5;
    pub const BOUNDED: [Self; Self::NR - 1] = [Self::Written, Self::LookedAt, Self::Blocks, Self::States];

    /// Returns the limit; `None` for what depends on the machine.
    #[must_use]
    pub const fn bound(self) -> Option<u64> {
        match self {
            Self::Ticks => None,
            Self::Written | Self::LookedAt => Some(512),
            Self::Blocks => Some(64),
            Self::States => Some(1),
        }
    }

    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ticks => "ticks",
            Self::Written => "descriptors written",
            Self::LookedAt => "descriptors looked at",
            Self::Blocks => "blocks of frames",
            Self::States => "pages of frames' states",
        }
    }
}

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

struct Measured {
    depth: AtomicUsize,
    current: Section,
    most: [Section; Count::NR],
}

per_cpu! {
    static MEASURED: Measured = Measured {
        depth: AtomicUsize::new(0),
        current: Section::new(),
        most: [const { Section::new() }; Count::NR],
    };
}

#[derive(Clone, Copy, Debug)]
pub struct Found {
    pub began_by: &'static Location<'static>,
    pub ended_at: usize,
    counts: [u64; Count::NR],
}

impl Found {
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
            counts: [time::ticks(), 0, 0, 0, 0],
        });
    }
}

#[cold]
#[inline(never)]
pub(super) fn end() {
    let measured = MEASURED.this();
    let Some(depth) = measured.depth.load(Relaxed).checked_sub(1) else {
        return;
    };
    measured.depth.store(depth, Relaxed);
    let Some(mut now) = measured.current.found().filter(|_| depth == 0) else {
        return;
    };
    // The return address (AAPCS64 6.4.6).
    // SAFETY: functions have frame records.
    unsafe { asm!("ldr {}, [x29, #8]", out(reg) now.ended_at, options(nostack, readonly, preserves_flags)) };
    now.counts[Count::Ticks as usize] = time::ticks() - now.count(Count::Ticks);
    for (i, most) in measured.most.iter().enumerate() {
        if now.counts[i] > most.counts[i].load(Relaxed) {
            most.note(now);
        }
    }
}

#[inline(always)]
pub fn writes(nr: usize) {
    if is_measured() {
        step(Count::Written, nr);
    }
}

#[inline(always)]
pub fn looks_at(nr: usize) {
    if is_measured() {
        step(Count::LookedAt, nr);
    }
}

#[inline(always)]
pub fn moves_block() {
    if is_measured() {
        step(Count::Blocks, 1);
    }
}

#[inline(always)]
pub fn writes_states() {
    if is_measured() {
        step(Count::States, 1);
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

#[must_use]
pub fn most(count: Count) -> Option<Found> {
    MEASURED
        .iter()
        .filter_map(|measured| measured.most[count as usize].found())
        .max_by_key(|found| found.count(count))
}

#[must_use]
pub fn ticks_of_a_million() -> u64 {
    let began = time::ticks();
    known_loop(500_000);
    time::ticks() - began
}
