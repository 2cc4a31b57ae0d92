//! Per-CPU variables: each CPU has a copy of the template `.percpu`, at TPIDR_EL1. The boot CPU's
//! is in .bss, others in a window of the fixed region (`mm::per_cpu`).

use core::cell::UnsafeCell;
use core::fmt;
use core::ops::Range;
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use aarch64_cpu::registers::{MPIDR_EL1, Readable, TPIDR_EL1, Writeable};

use crate::layout::{PER_CPU_WINDOW, PER_CPU_WINDOW_SIZE};

/// By the window's addresses.
pub const MAX_CPUS: usize = 4096;
const MAX_BLOCK_SIZE: usize = PER_CPU_WINDOW_SIZE / MAX_CPUS;
pub const OVERFLOW_STACK_SIZE: usize = 8 << 10;

unsafe extern "C" {
    /// Whole pages.
    static __percpu_start: u8;
    static __percpu_end: u8;
    static __percpu_boot: u8;
}

/// Declares an [`EachCpu`]: `per_cpu! { static NAME: Type = initial; }`.
#[macro_export]
macro_rules! per_cpu {
    ($(#[$meta:meta])* $vis:vis static $NAME:ident: $T:ty = $initial:expr;) => {
        $(#[$meta])*
        #[unsafe(link_section = ".percpu")]
        $vis static $NAME: $crate::arch::percpu::EachCpu<$T> = {
            let initial: $T = $initial;
            // SAFETY: in the template's section.
            unsafe { $crate::arch::percpu::EachCpu::in_template(initial) }
        };
    };
}

/// A `T` for each CPU; itself the initial value.
#[repr(transparent)]
pub struct EachCpu<T>(UnsafeCell<T>);

// SAFETY: gives shared references to instances, and the template is only copied.
unsafe impl<T: Sync> Sync for EachCpu<T> {}

impl<T> EachCpu<T> {
    /// # Safety
    /// It becomes a static of the section `.percpu`.
    #[doc(hidden)]
    pub const unsafe fn in_template(initial: T) -> Self {
        Self(UnsafeCell::new(initial))
    }

    #[inline(always)]
    #[must_use]
    pub fn this(&'static self) -> &'static T {
        let at = (self.0.get() as usize).wrapping_add(this_cpu().offset);
        // SAFETY: in this CPU's copy of the template.
        unsafe { &*(at as *const T) }
    }

    /// # Panics
    /// If there is no such CPU.
    #[must_use]
    pub fn of(&'static self, cpu: usize) -> &'static T {
        let at = (self.0.get() as usize).wrapping_add(offset_of_block(cpu));
        // SAFETY: in a CPU's copy of the template.
        unsafe { &*(at as *const T) }
    }

    #[must_use]
    pub fn get(&'static self, cpu: usize) -> Option<&'static T> {
        (cpu < nr_cpus()).then(|| self.of(cpu))
    }

    pub fn iter(&'static self) -> impl Iterator<Item = &'static T> {
        (0..nr_cpus()).map(|cpu| self.of(cpu))
    }
}

impl<T> fmt::Debug for EachCpu<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EachCpu")
    }
}

/// The vectors use the first six words.
#[repr(C, align(128))]
pub struct PerCpu {
    pub(super) stack_low: usize,
    pub(super) stack_high: usize,
    pub(super) overflow_low: usize,
    pub(super) overflow_high: usize,
    pub(super) scratch: [u64; 2],
    index: usize,
    /// From template to block.
    offset: usize,
    mpidr: u64,
    pub(super) nr_spurious_faults: AtomicU64,
    /// Faults that waited for another's break window.
    pub(super) nr_window_waits: AtomicU64,
}

#[repr(C, align(16))]
struct OverflowStack(UnsafeCell<[u8; OVERFLOW_STACK_SIZE]>);

// SAFETY: only its address is used.
unsafe impl Sync for OverflowStack {}

const fn empty() -> PerCpu {
    PerCpu {
        stack_low: 0,
        stack_high: 0,
        overflow_low: 0,
        overflow_high: 0,
        scratch: [0; 2],
        index: 0,
        offset: 0,
        mpidr: 0,
        nr_spurious_faults: AtomicU64::new(0),
        nr_window_waits: AtomicU64::new(0),
    }
}

#[unsafe(link_section = ".percpu.first")]
static CPU: EachCpu<PerCpu> = {
    // SAFETY: in the template's section.
    unsafe { EachCpu::in_template(empty()) }
};

per_cpu! {
    static OVERFLOW_STACK: OverflowStack = OverflowStack(UnsafeCell::new([0; OVERFLOW_STACK_SIZE]));
}

static NR_CPUS: AtomicUsize = AtomicUsize::new(1);

#[must_use]
pub fn nr_cpus() -> usize {
    NR_CPUS.load(Ordering::Relaxed)
}

#[must_use]
pub fn block_size() -> usize {
    &raw const __percpu_end as usize - &raw const __percpu_start as usize
}

fn block(cpu: usize) -> usize {
    match cpu.checked_sub(1) {
        None => &raw const __percpu_boot as usize,
        Some(other) => PER_CPU_WINDOW + other * block_size(),
    }
}

fn offset_of_block(cpu: usize) -> usize {
    assert!(cpu < nr_cpus(), "CPU {cpu} of {}", nr_cpus());
    block(cpu).wrapping_sub(&raw const __percpu_start as usize)
}

/// # Safety
/// The block is mapped, and CPU `cpu` does not run.
unsafe fn copy_template(cpu: usize) {
    // SAFETY: both have this size, and the block is the caller's.
    unsafe { core::ptr::copy_nonoverlapping(&raw const __percpu_start, block(cpu) as *mut u8, block_size()) };
}

/// Initialises the blocks of CPUs 1 to `nr` - 1.
///
/// # Panics
/// If they do not fit the window.
///
/// # Safety
/// Called once, while no other CPU runs. The window is mapped for them, writable.
pub unsafe fn init_blocks(nr: usize) {
    assert!(
        block_size() <= MAX_BLOCK_SIZE && nr <= MAX_CPUS,
        "{nr} blocks of {} bytes have no room in the window",
        block_size()
    );
    for cpu in 1..nr {
        // SAFETY: the caller's promise.
        unsafe { copy_template(cpu) };
    }
    NR_CPUS.store(nr, Ordering::Relaxed);
}

pub const AFFINITY: u64 = 0xff_00ff_ffff;

/// # Safety
/// Called once for each `index`, by that CPU, on `stack`. Its block is there.
unsafe fn init(index: usize, stack: Range<usize>) {
    let overflow = OVERFLOW_STACK.of(index).0.get() as usize;
    let this = block(index) as *mut PerCpu;
    // SAFETY: begins the block, without references before its CPU comes up.
    unsafe {
        this.write(PerCpu {
            stack_low: stack.start,
            stack_high: stack.end,
            overflow_low: overflow,
            overflow_high: overflow + OVERFLOW_STACK_SIZE,
            index,
            offset: offset_of_block(index),
            mpidr: MPIDR_EL1.get() & AFFINITY,
            ..empty()
        });
    }
    TPIDR_EL1.set(this as u64);
}

/// Sets up the boot CPU.
///
/// # Safety
/// Called once, by the boot CPU, on `stack`.
pub unsafe fn init_boot_cpu(stack: Range<usize>) {
    // SAFETY: part of the image, not used yet.
    unsafe { copy_template(0) };
    // SAFETY: 0 is the boot CPU.
    unsafe { init(0, stack) };
}

/// Sets up CPU `index`, or when it comes up again only TPIDR_EL1.
///
/// # Safety
/// Called by CPU `index`, not 0, always on the same `stack`.
pub(crate) unsafe fn init_secondary(index: usize, stack: Range<usize>) {
    let this = CPU.of(index);
    if this.stack_high == stack.end {
        TPIDR_EL1.set(&raw const *this as u64);
        return;
    }
    // SAFETY: the caller's promise.
    unsafe { init(index, stack) };
}

/// Returns this CPU's data, which others may read.
#[inline(always)]
#[must_use]
pub fn this_cpu() -> &'static PerCpu {
    // SAFETY: TPIDR_EL1 is set before any caller runs.
    unsafe { &*(TPIDR_EL1.get() as *const PerCpu) }
}

#[inline(always)]
#[must_use]
pub fn cpu_index() -> usize {
    this_cpu().index
}

impl PerCpu {
    #[must_use]
    pub fn mpidr(&self) -> u64 {
        self.mpidr
    }

    #[must_use]
    pub fn stack(&self) -> Range<usize> {
        self.stack_low..self.stack_high
    }

    #[must_use]
    pub fn overflow_stack(&self) -> Range<usize> {
        self.overflow_low..self.overflow_high
    }
}

#[must_use]
pub fn nr_spurious_faults() -> u64 {
    sum(|cpu| &cpu.nr_spurious_faults)
}

/// Counts waits as they begin.
#[must_use]
pub fn nr_window_waits() -> u64 {
    sum(|cpu| &cpu.nr_window_waits)
}

fn sum(counter: impl Fn(&PerCpu) -> &AtomicU64) -> u64 {
    CPU.iter().map(|cpu| counter(cpu).load(Ordering::Relaxed)).sum()
}
