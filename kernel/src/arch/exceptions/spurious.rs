//! Spurious faults: a translation fault on a kernel address that the MMU now translates.
//!
//! They have two causes. A mapping made by another CPU, where this CPU's walk was ahead of the
//! store it raced with: there is no TLB maintenance for a descriptor that was invalid (rule 2), and
//! no CPU is told. And break-before-make: the range is invalid for a moment, by design (rule 3). In
//! both the access is right and succeeds when it is made again.
//!
//! `AT` decides: it asks the MMU itself. While another CPU is between break and make
//! ([`BreakWindow`]) a fault that `AT` confirms may still be of the second kind, so it is asked
//! again until no window is open: [`arch_policy::windows`] has the protocol. There is no limit in
//! time: a CPU that has a window open runs, or will, and a CPU that failed ends the kernel.
//!
//! A CPU that faults over and over, by the same instruction on the same address, without a window
//! in between that would explain it, is not in a race: then the fault is reported.

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

/// Retries of one instruction for one address without a pause and without a window.
const MAX_RETRIES: usize = 64;
/// What counts as a pause: a CPU that did something else in between.
const PAUSE: Duration = Duration::from_millis(1);
/// After how long a CPU that waits says so.
const STALL: Duration = Duration::from_secs(20);

/// What the protocol of the windows runs on.
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
        // DMB ISH: the inner shareable domain has all CPUs, and their walkers with them.
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
        // `mmu::translate` ends with an ISB before PAR_EL1 is read.
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

/// From before the break until after the make: faults of other CPUs wait for the end of it.
///
/// Interrupts are masked meanwhile, and what is broken is not touched. A window within a window is
/// refused.
#[must_use = "the window closes when this is dropped"]
#[derive(Debug)]
pub struct BreakWindow(());

impl BreakWindow {
    /// Before the descriptor is made invalid.
    #[inline]
    pub fn open() -> Self {
        WINDOWS.open(cpu_index());
        Self(())
    }

    /// Takes over a window that was opened and then forgotten, between two calls that could not
    /// hand it on.
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
    /// Used by that CPU alone, with everything masked.
    static LAST_RETRY: Retry = Retry::none();
}

/// The last retry of a CPU.
#[derive(Debug)]
struct Retry {
    elr: AtomicUsize,
    far: AtomicUsize,
    windows: AtomicU64,
    count: AtomicUsize,
    at: AtomicU64,
}

impl Retry {
    /// None yet.
    const fn none() -> Self {
        Self {
            elr: AtomicUsize::new(0),
            far: AtomicUsize::new(0),
            windows: AtomicU64::new(0),
            count: AtomicUsize::new(0),
            at: AtomicU64::new(0),
        }
    }

    /// Counts one more; `false` if these are too many of the same.
    ///
    /// The same instruction may fault on the same address any number of times and be right each
    /// time: one that polls a word does, in every window over it. So the count starts anew where
    /// other CPUs opened or closed windows since the last.
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

/// Returns whether the fault is spurious, so that the access is to be made again.
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
    if !translates(far, access) || !LAST_RETRY.this().may_retry(frame.elr as usize, far) {
        return false;
    }
    this_cpu().nr_spurious_faults.fetch_add(1, Ordering::Relaxed);
    true
}

/// Returns whether `AT` translates `va`, now or once no other CPU has a window open.
fn translates(va: usize, access: Access) -> bool {
    // Anything but a translation fault is an answer: a permission fault is met, and reported, by
    // the retry.
    let question = || !matches!(mmu::translate(va, access), Err(abort) if matches!(abort.status, FaultStatus::Translation(_)));
    let this = cpu_index();
    // A CPU that reports its own failure waits for no other: that one may have stopped in its
    // window.
    if fatal::failed_cpu() == Some(this) {
        return question();
    }
    let mut stall = None;
    WINDOWS.translates(this, question, |open| {
        // Another CPU failed, perhaps the one that this one waits for: it reports and ends the
        // kernel.
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
