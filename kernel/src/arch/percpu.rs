//! Per-CPU variables ([`per_cpu!`](crate::per_cpu)).
//!
//! The section `.percpu` of the image is a template with the initial values. Each CPU has a block,
//! a copy of it: the boot CPU's is in .bss, the others lie in a window of the fixed region
//! (`mm::per_cpu`).
//!
//! TPIDR_EL1 points to the block before the CPU's vectors are installed. A block begins with a
//! [`PerCpu`], by which the vectors find a good stack.

use core::cell::UnsafeCell;
use core::fmt;
use core::ops::Range;
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use aarch64_cpu::registers::{MPIDR_EL1, Readable, TPIDR_EL1, Writeable};

use crate::layout::{PER_CPU_WINDOW, PER_CPU_WINDOW_SIZE};

/// CPUs that the window has addresses for. Memory is taken only for those of the machine.
pub const MAX_CPUS: usize = 4096;
const MAX_BLOCK_SIZE: usize = PER_CPU_WINDOW_SIZE / MAX_CPUS;
/// In bytes.
pub const OVERFLOW_STACK_SIZE: usize = 8 << 10;

unsafe extern "C" {
    /// The template: whole pages.
    static __percpu_start: u8;
    static __percpu_end: u8;
    /// The boot CPU's block.
    static __percpu_boot: u8;
}

/// Declares a per-CPU variable, an [`EachCpu`]: `per_cpu! { static NAME: Type = initial; }`. Its
/// type is `Sync`, as any CPU may read another's.
#[macro_export]
macro_rules! per_cpu {
    ($(#[$meta:meta])* $vis:vis static $NAME:ident: $T:ty = $initial:expr;) => {
        $(#[$meta])*
        #[unsafe(link_section = ".percpu")]
        $vis static $NAME: $crate::arch::percpu::EachCpu<$T> = {
            let initial: $T = $initial;
            // SAFETY: a static in the template's section.
            unsafe { $crate::arch::percpu::EachCpu::in_template(initial) }
        };
    };
}

/// One `T` for each CPU; itself the initial value.
#[repr(transparent)]
pub struct EachCpu<T>(UnsafeCell<T>);

// SAFETY: only shared references to instances are handed out, and the template is only copied.
unsafe impl<T: Sync> Sync for EachCpu<T> {}

impl<T> EachCpu<T> {
    /// Returns the initial value.
    ///
    /// # Safety
    /// It becomes a static of the section `.percpu`, and nothing else.
    #[doc(hidden)]
    pub const unsafe fn in_template(initial: T) -> Self {
        Self(UnsafeCell::new(initial))
    }

    /// Returns this CPU's.
    #[inline(always)]
    #[must_use]
    pub fn this(&'static self) -> &'static T {
        let at = (self.0.get() as usize).wrapping_add(this_cpu().offset);
        // SAFETY: in this CPU's block, a copy of the template.
        unsafe { &*(at as *const T) }
    }

    /// Returns that of CPU `cpu`.
    ///
    /// # Panics
    /// If the machine has no such CPU.
    #[must_use]
    pub fn of(&'static self, cpu: usize) -> &'static T {
        let at = (self.0.get() as usize).wrapping_add(offset_of_block(cpu));
        // SAFETY: in a CPU's block, a copy of the template.
        unsafe { &*(at as *const T) }
    }

    /// Returns that of CPU `cpu`, if the machine has it.
    #[must_use]
    pub fn get(&'static self, cpu: usize) -> Option<&'static T> {
        (cpu < nr_cpus()).then(|| self.of(cpu))
    }

    /// Returns those of all CPUs, in order.
    pub fn iter(&'static self) -> impl Iterator<Item = &'static T> {
        (0..nr_cpus()).map(|cpu| self.of(cpu))
    }
}

impl<T> fmt::Debug for EachCpu<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EachCpu")
    }
}

/// One CPU's data. The vectors use the first six words.
#[repr(C, align(128))]
pub struct PerCpu {
    /// The CPU's stack.
    pub(super) stack_low: usize,
    pub(super) stack_high: usize,
    /// The stack for exceptions when that one is full.
    pub(super) overflow_low: usize,
    pub(super) overflow_high: usize,
    /// The vectors spill registers here.
    pub(super) scratch: [u64; 2],
    /// 0 for the boot CPU.
    index: usize,
    /// From the template to the block.
    offset: usize,
    /// Affinity fields of MPIDR_EL1.
    mpidr: u64,
    /// Faults that were retried.
    pub(super) nr_spurious_faults: AtomicU64,
    /// Faults that waited for another CPU's break window.
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

/// First in the template.
#[unsafe(link_section = ".percpu.first")]
static CPU: EachCpu<PerCpu> = {
    // SAFETY: in the template's section.
    unsafe { EachCpu::in_template(empty()) }
};

per_cpu! {
    static OVERFLOW_STACK: OverflowStack = OverflowStack(UnsafeCell::new([0; OVERFLOW_STACK_SIZE]));
}

/// CPUs that have a block.
static NR_CPUS: AtomicUsize = AtomicUsize::new(1);

/// Returns how many CPUs the machine has, up or not.
#[must_use]
pub fn nr_cpus() -> usize {
    NR_CPUS.load(Ordering::Relaxed)
}

/// Returns the bytes of a block: whole pages.
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

/// Returns the offset from the template to the block of CPU `cpu`.
fn offset_of_block(cpu: usize) -> usize {
    assert!(cpu < nr_cpus(), "CPU {cpu} of {}", nr_cpus());
    block(cpu).wrapping_sub(&raw const __percpu_start as usize)
}

/// Makes the block of CPU `cpu` a copy of the template.
///
/// # Safety
/// The block is mapped, and that CPU does not run.
unsafe fn copy_template(cpu: usize) {
    // SAFETY: the template and the block have this size, and the block is the caller's.
    unsafe { core::ptr::copy_nonoverlapping(&raw const __percpu_start, block(cpu) as *mut u8, block_size()) };
}

/// Makes the blocks of CPUs 1 to `nr` - 1.
///
/// # Panics
/// If blocks have outgrown the window.
///
/// # Safety
/// Called once, by the boot CPU, while no other runs. The window is mapped writable as far as the
/// blocks reach.
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

/// Aff3, Aff2, Aff1, Aff0 of MPIDR_EL1.
pub const AFFINITY: u64 = 0xff_00ff_ffff;

/// Fills in the data of CPU `index` and points TPIDR_EL1 to it.
///
/// # Safety
/// Called once for each `index`, by that CPU, on `stack`. Its block is there.
unsafe fn init(index: usize, stack: Range<usize>) {
    let overflow = OVERFLOW_STACK.of(index).0.get() as usize;
    let this = block(index) as *mut PerCpu;
    // SAFETY: a block begins with it, and a CPU that has not come up has no reference to its own.
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
    // SAFETY: its block is part of the image, and not used yet.
    unsafe { copy_template(0) };
    // SAFETY: index 0 is the boot CPU's.
    unsafe { init(0, stack) };
}

/// Sets up CPU `index`; if it comes up again, only sets TPIDR_EL1.
///
/// # Safety
/// Called by CPU `index`, not 0, on `stack`, the same each time.
pub(crate) unsafe fn init_secondary(index: usize, stack: Range<usize>) {
    let this = CPU.of(index);
    // Written by this CPU only, before now or never.
    if this.stack_high == stack.end {
        TPIDR_EL1.set(&raw const *this as u64);
        return;
    }
    // SAFETY: the caller's promise.
    unsafe { init(index, stack) };
}

/// Returns this CPU's data. Shared across CPUs, so it holds no cells but atomics.
#[inline(always)]
#[must_use]
pub fn this_cpu() -> &'static PerCpu {
    // SAFETY: TPIDR_EL1 points to this CPU's block before any caller runs.
    unsafe { &*(TPIDR_EL1.get() as *const PerCpu) }
}

/// Returns the number of this CPU; 0 is the boot CPU.
#[inline(always)]
#[must_use]
pub fn cpu_index() -> usize {
    this_cpu().index
}

impl PerCpu {
    /// Returns the affinity fields of MPIDR_EL1, as PSCI takes them.
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

/// Returns the faults that were retried, on all CPUs.
#[must_use]
pub fn nr_spurious_faults() -> u64 {
    sum(|cpu| &cpu.nr_spurious_faults)
}

/// Returns the faults that waited for another CPU's break window, on all CPUs, counted as they
/// begin to wait.
#[must_use]
pub fn nr_window_waits() -> u64 {
    sum(|cpu| &cpu.nr_window_waits)
}

fn sum(counter: impl Fn(&PerCpu) -> &AtomicU64) -> u64 {
    CPU.iter().map(|cpu| counter(cpu).load(Ordering::Relaxed)).sum()
}
