//! Spurious faults: translation faults on an address that another CPU has mapped, without TLB
//! maintenance (rule 2), or is between breaking and making (rule 3, [`BreakWindow`]).
//!
//! `AT` decides, asked again until no window is open ([`arch_policy::windows`]), without a limit: a
//! window's owner runs, or a failed CPU ends the kernel.

use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering, fence};
use core::time::Duration;

use arch_policy::windows::{Line, Platform, Windows, Words};

use super::Frame;
use crate::arch::mmu::{self, Access};
use crate::arch::percpu::{cpu_index, nr_cpus, this_cpu};
use crate::arch::syndrome::FaultStatus;
use crate::arch::time::{Deadline, relax, ticks};
use crate::arch::{early_console, fatal, psci};
use crate::per_cpu;

/// Of one instruction and address, without windows.
const MAX_RETRIES: usize = 64;
/// After it, retries are unrelated.
const PAUSE: Duration = Duration::from_millis(1);
const STALL: Duration = Duration::from_secs(20);

#[derive(Debug)]
struct Cpus;

impl Platform for Cpus {
    type Word = AtomicU64;

    fn load(word: &AtomicU64) -> u64 {
        word.load(Ordering::Acquire)
    }
    fn load_own(word: &AtomicU64) -> u64 {
        word.load(Ordering::Relaxed)
    }
    #[inline]
    fn open(word: &AtomicU64, odd: u64) {
        word.store(odd, Ordering::Relaxed);
        // Rule 3, open before break: DMB ISH, for all CPUs and walkers.
        fence(Ordering::Release);
    }
    #[inline]
    fn close(word: &AtomicU64, even: u64) {
        word.store(even, Ordering::Release);
    }
    fn before_question() {
        mmu::dsb_ish();
        mmu::isb();
    }
    fn after_question() {
        // `mmu::translate` has an ISB before PAR_EL1 is read.
    }
}

per_cpu! {
    static WINDOW: Line<AtomicU64> = Line(AtomicU64::new(0));
}

impl Words for Cpus {
    type Word = AtomicU64;

    fn nr(&self) -> usize {
        nr_cpus()
    }
    #[inline]
    fn of(&self, cpu: usize) -> &AtomicU64 {
        &WINDOW.of(cpu).0
    }
    #[inline(always)]
    fn own(&self, _cpu: usize) -> &AtomicU64 {
        &WINDOW.this().0
    }
}

static WINDOWS: Windows<Cpus, Cpus> = Windows::new(Cpus);

/// Spans break to make: other CPUs' faults wait for its end. Interrupts are masked, the owner does
/// not access what is broken, and windows do not nest.
#[must_use = "the window closes when this is dropped"]
#[derive(Debug)]
pub struct BreakWindow(());

impl BreakWindow {
    /// Opens a window, before the descriptor is made invalid.
    #[inline]
    pub fn open() -> Self {
        WINDOWS.open(cpu_index());
        Self(())
    }

    /// Takes over a window that was forgotten.
    pub fn adopt() -> Self {
        Self(())
    }
}

impl Drop for BreakWindow {
    #[inline]
    fn drop(&mut self) {
        WINDOWS.close(cpu_index());
    }
}

per_cpu! {
    /// With everything masked.
    static LAST_RETRY: Retry = Retry::none();
}

#[derive(Debug)]
struct Retry {
    elr: AtomicUsize,
    far: AtomicUsize,
    windows: AtomicU64,
    count: AtomicUsize,
    at: AtomicU64,
}

impl Retry {
    const fn none() -> Self {
        Self {
            elr: AtomicUsize::new(0),
            far: AtomicUsize::new(0),
            windows: AtomicU64::new(0),
            count: AtomicUsize::new(0),
            at: AtomicU64::new(0),
        }
    }

    /// Returns `false` after too many of the same. Other CPUs' windows restart the count: an
    /// instruction that polls may fault in each.
    fn may_retry(&self, elr: usize, far: usize) -> bool {
        let now = ticks();
        let windows = WINDOWS.look(cpu_index()).sum;
        let same = self.elr.load(Ordering::Relaxed) == elr
            && self.far.load(Ordering::Relaxed) == far
            && self.windows.load(Ordering::Relaxed) == windows
            && now.wrapping_sub(self.at.load(Ordering::Relaxed)) < Deadline::ticks_of(PAUSE);
        let count = if same {
            self.count.load(Ordering::Relaxed) + 1
        } else {
            1
        };
        self.elr.store(elr, Ordering::Relaxed);
        self.far.store(far, Ordering::Relaxed);
        self.windows.store(windows, Ordering::Relaxed);
        self.count.store(count, Ordering::Relaxed);
        self.at.store(now, Ordering::Relaxed);
        count <= MAX_RETRIES
    }
}

pub fn retry(frame: &Frame) -> bool {
    let syndrome = frame.syndrome();
    let Some(FaultStatus::Translation(_)) = syndrome.fault_status() else {
        return false;
    };
    // Bit 55 selects TTBR1.
    if !syndrome.far_valid() || frame.far & 1 << 55 == 0 {
        return false;
    }
    let access = if syndrome.is_write() {
        Access::Write
    } else {
        Access::Read
    };
    let far = frame.far as usize;
    if !translates(far, access) || !LAST_RETRY.this().may_retry(frame.elr as usize, far) {
        return false;
    }
    this_cpu().nr_spurious_faults.fetch_add(1, Ordering::Relaxed);
    true
}

fn translates(va: usize, access: Access) -> bool {
    // The retry reports other faults.
    let question = || !matches!(mmu::translate(va, access), Err(abort) if matches!(abort.status, FaultStatus::Translation(_)));
    let this = cpu_index();
    // The owner may have stopped in its window.
    if fatal::failed_cpu() == Some(this) {
        return question();
    }
    let mut stall = None;
    WINDOWS.translates(this, question, |open| {
        // Perhaps the owner.
        if fatal::failed_cpu().is_some() {
            psci::park();
        }
        let since = *stall.get_or_insert_with(|| {
            this_cpu().nr_window_waits.fetch_add(1, Ordering::Relaxed);
            Deadline::after(STALL)
        });
        relax();
        if let Some(owner) = open
            && since.is_past()
        {
            early_console::print(format_args!(
                "vmwalk: CPU {this} has waited {STALL:?} for CPU {owner} to make what it broke, to reach {va:#x}\n"
            ));
            stall = Some(Deadline::after(STALL));
        }
    })
}
