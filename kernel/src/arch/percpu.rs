//! Data of one CPU, reached through TPIDR_EL1.
//!
//! TPIDR_EL1 points to a [`PerCpu`] before the CPU's vectors are installed, and the vectors rely on it: its first words tell
//! them which stacks are good.

use core::ops::Range;
use core::ptr::{addr_of, addr_of_mut};
use core::sync::atomic::{AtomicU64, Ordering};

use aarch64_cpu::registers::{MPIDR_EL1, Readable, TPIDR_EL1, Writeable};

/// CPUs that the kernel has room for.
pub const MAX_CPUS: usize = 32;
/// Bytes of a CPU's overflow stack.
pub const OVERFLOW_STACK_SIZE: usize = 8 << 10;

/// One CPU's data. The first six words are read and written by the vectors.
#[repr(C)]
pub struct PerCpu {
    /// Bounds of the stack that this CPU runs on.
    pub(super) stack_low: usize,
    pub(super) stack_high: usize,
    /// Bounds of the stack for exceptions taken while that one has no room.
    pub(super) overflow_low: usize,
    pub(super) overflow_high: usize,
    /// Where the vectors keep what they need a register for.
    pub(super) scratch: [u64; 2],
    /// Number of this CPU: 0 is the one that booted.
    index: usize,
    /// Affinity fields of MPIDR_EL1.
    mpidr: u64,
    /// For the rule of spurious faults: see `exceptions`.
    pub(super) last_retry: super::exceptions::Retry,
    /// Faults of this CPU that were retried and not fatal.
    pub(super) nr_spurious_faults: AtomicU64,
    /// Faults of this CPU that had to wait for another CPU's break window.
    pub(super) nr_window_waits: AtomicU64,
}

#[repr(C, align(16))]
struct OverflowStack([u8; OVERFLOW_STACK_SIZE]);

const fn empty() -> PerCpu {
    PerCpu {
        stack_low: 0,
        stack_high: 0,
        overflow_low: 0,
        overflow_high: 0,
        scratch: [0; 2],
        index: 0,
        mpidr: 0,
        last_retry: super::exceptions::Retry::none(),
        nr_spurious_faults: AtomicU64::new(0),
        nr_window_waits: AtomicU64::new(0),
    }
}

static mut PER_CPU: [PerCpu; MAX_CPUS] = [const { empty() }; MAX_CPUS];
static mut OVERFLOW_STACKS: [OverflowStack; MAX_CPUS] =
    [const { OverflowStack([0; OVERFLOW_STACK_SIZE]) }; MAX_CPUS];

/// Affinity fields of MPIDR_EL1: Aff3, Aff2, Aff1, Aff0.
const AFFINITY: u64 = 0xff_00ff_ffff;

/// Fills in the data of CPU `index` and points this CPU's TPIDR_EL1 to it.
///
/// # Safety
/// Called once for each `index`, by the CPU that it becomes, which runs on `stack`.
unsafe fn init(index: usize, stack: Range<usize>) {
    assert!(index < MAX_CPUS, "CPU {index} of at most {MAX_CPUS}");
    // SAFETY: the index is in bounds, only a place is computed.
    let overflow = unsafe { addr_of!(OVERFLOW_STACKS[index]) } as usize;
    // SAFETY: as above.
    let this = unsafe { addr_of_mut!(PER_CPU[index]) };
    // SAFETY: nobody else has a reference to the data of a CPU that has not come up.
    unsafe {
        this.write(PerCpu {
            stack_low: stack.start,
            stack_high: stack.end,
            overflow_low: overflow,
            overflow_high: overflow + OVERFLOW_STACK_SIZE,
            index,
            mpidr: MPIDR_EL1.get() & AFFINITY,
            ..empty()
        });
    }
    TPIDR_EL1.set(this as u64);
}

/// Sets up the first CPU.
///
/// # Safety
/// Called once, by the first CPU, which runs on `stack`.
pub unsafe fn init_boot_cpu(stack: Range<usize>) {
    // SAFETY: index 0 is the first CPU's.
    unsafe { init(0, stack) };
}

/// Sets up CPU `index`, or, when it comes up again, only finds what it had.
///
/// # Safety
/// Called by the CPU that is `index`, which is not 0 and runs on `stack`, the same each time.
pub(crate) unsafe fn init_secondary(index: usize, stack: Range<usize>) {
    // SAFETY: the index is in bounds, by the array access; only a place is computed.
    let this = unsafe { addr_of_mut!(PER_CPU[index]) };
    // SAFETY: only this CPU writes it, before now or never.
    let stack_high = unsafe { addr_of!((*this).stack_high).read() };
    if stack_high == stack.end {
        TPIDR_EL1.set(this as u64);
        return;
    }
    // SAFETY: the caller's promise.
    unsafe { init(index, stack) };
}

/// The data of the CPU that runs this. Does not go to another CPU: hence no `'static` sharing of cells in it beyond atomics.
#[must_use]
pub fn this_cpu() -> &'static PerCpu {
    // SAFETY: TPIDR_EL1 was pointed to a static before any code that calls this ran.
    unsafe { &*(TPIDR_EL1.get() as *const PerCpu) }
}

/// The number of the CPU that runs this; 0 is the one that booted.
#[must_use]
pub fn cpu_index() -> usize {
    this_cpu().index
}

impl PerCpu {
    /// Affinity fields of MPIDR_EL1, as PSCI takes them.
    #[must_use]
    pub fn mpidr(&self) -> u64 {
        self.mpidr
    }

    /// The stack this CPU runs on.
    #[must_use]
    pub fn stack(&self) -> Range<usize> {
        self.stack_low..self.stack_high
    }

    /// The stack for exceptions that find no room on it.
    #[must_use]
    pub fn overflow_stack(&self) -> Range<usize> {
        self.overflow_low..self.overflow_high
    }
}

/// Faults that were retried and not fatal, on all CPUs.
#[must_use]
pub fn nr_spurious_faults() -> u64 {
    sum(|cpu| &cpu.nr_spurious_faults)
}

/// Faults that had to wait for another CPU's break window, on all CPUs. One is counted as soon as it waits.
#[must_use]
pub fn nr_window_waits() -> u64 {
    sum(|cpu| &cpu.nr_window_waits)
}

/// Adds a counter up over all CPUs.
fn sum(counter: impl Fn(&PerCpu) -> &AtomicU64) -> u64 {
    (0..MAX_CPUS)
        .map(|index| {
            // SAFETY: the index is in bounds; counters are atomic, and only atomically used once their CPU runs.
            let cpu = unsafe { &*addr_of!(PER_CPU[index]) };
            counter(cpu).load(Ordering::Relaxed)
        })
        .sum()
}
