//! Variables of each CPU.
//!
//! What [`per_cpu!`](crate::per_cpu) declares exists once for each CPU of the machine. The image
//! has its initial value, in the section that is the template. Each CPU has a block, a copy of the
//! template: that of the CPU that booted is part of .bss, the others lie in a window of the fixed
//! region, in RAM that is taken for as many CPUs as the device tree lists (`mm::per_cpu`).
//!
//! TPIDR_EL1 points to the block of the CPU before that CPU's vectors are installed, and the
//! vectors rely on it: a block begins with a [`PerCpu`], whose first words tell which stacks are
//! good.

use core::cell::UnsafeCell;
use core::fmt;
use core::ops::Range;
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use aarch64_cpu::registers::{MPIDR_EL1, Readable, TPIDR_EL1, Writeable};

use crate::layout::{PER_CPU_WINDOW, PER_CPU_WINDOW_SIZE};

/// CPUs that the window has addresses for. Memory is taken only for those of the machine.
pub const MAX_CPUS: usize = 4096;
/// Bytes of a block at most, so that the window has room for [`MAX_CPUS`].
const MAX_BLOCK_SIZE: usize = PER_CPU_WINDOW_SIZE / MAX_CPUS;
/// Bytes of a CPU's overflow stack.
pub const OVERFLOW_STACK_SIZE: usize = 8 << 10;

unsafe extern "C" {
    /// The template: whole pages.
    static __percpu_start: u8;
    static __percpu_end: u8;
    /// The block of the CPU that booted.
    static __percpu_boot: u8;
}

/// Declares a variable of which each CPU has one: `per_cpu! { static NAME: Type = initial; }`.
///
/// It is used through [`EachCpu`]. Its type is `Sync`, since any CPU may look at another's.
#[macro_export]
macro_rules! per_cpu {
    ($(#[$meta:meta])* $vis:vis static $NAME:ident: $T:ty = $initial:expr;) => {
        $(#[$meta])*
        #[unsafe(link_section = ".percpu")]
        $vis static $NAME: $crate::arch::percpu::EachCpu<$T> = {
            let initial: $T = $initial;
            // SAFETY: a static of the section that is the template.
            unsafe { $crate::arch::percpu::EachCpu::in_template(initial) }
        };
    };
}

/// One `T` for each CPU. Itself it is the initial value.
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

    /// That of the CPU that runs this.
    #[inline(always)]
    #[must_use]
    pub fn this(&'static self) -> &'static T {
        let at = (self.0.get() as usize).wrapping_add(this_cpu().offset);
        // SAFETY: in this CPU's block, which began as a copy of the template.
        unsafe { &*(at as *const T) }
    }

    /// That of CPU `cpu`.
    ///
    /// # Panics
    /// If the machine has no such CPU.
    #[must_use]
    pub fn of(&'static self, cpu: usize) -> &'static T {
        let at = (self.0.get() as usize).wrapping_add(offset_of_block(cpu));
        // SAFETY: in the block of a CPU of the machine, which began as a copy of the template.
        unsafe { &*(at as *const T) }
    }

    /// That of CPU `cpu`, if the machine has such a CPU.
    #[must_use]
    pub fn get(&'static self, cpu: usize) -> Option<&'static T> {
        (cpu < nr_cpus()).then(|| self.of(cpu))
    }

    /// Returns those of all CPUs of the machine, in order.
    pub fn iter(&'static self) -> impl Iterator<Item = &'static T> {
        (0..nr_cpus()).map(|cpu| self.of(cpu))
    }
}

impl<T> fmt::Debug for EachCpu<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EachCpu")
    }
}

/// One CPU's data. The first six words are read and written by the vectors.
#[repr(C, align(128))]
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
    /// From the template to the block.
    offset: usize,
    /// Affinity fields of MPIDR_EL1.
    mpidr: u64,
    /// Faults of this CPU that were retried and not fatal.
    pub(super) nr_spurious_faults: AtomicU64,
    /// Faults of this CPU that had to wait for another CPU's break window.
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

/// First in the template, by its section.
#[unsafe(link_section = ".percpu.first")]
static CPU: EachCpu<PerCpu> = {
    // SAFETY: that section is the beginning of the template.
    unsafe { EachCpu::in_template(empty()) }
};

per_cpu! {
    static OVERFLOW_STACK: OverflowStack = OverflowStack(UnsafeCell::new([0; OVERFLOW_STACK_SIZE]));
}

/// CPUs of the machine that have a block.
static NR_CPUS: AtomicUsize = AtomicUsize::new(1);

/// CPUs of the machine, whether they are up or not: each has a number below this.
#[must_use]
pub fn nr_cpus() -> usize {
    NR_CPUS.load(Ordering::Relaxed)
}

/// Returns the bytes of a block: whole pages.
#[must_use]
pub fn block_size() -> usize {
    &raw const __percpu_end as usize - &raw const __percpu_start as usize
}

/// Returns where the block of CPU `cpu` begins.
fn block(cpu: usize) -> usize {
    match cpu.checked_sub(1) {
        None => &raw const __percpu_boot as usize,
        Some(other) => PER_CPU_WINDOW + other * block_size(),
    }
}

/// From the template to the block of CPU `cpu`.
fn offset_of_block(cpu: usize) -> usize {
    assert!(cpu < nr_cpus(), "CPU {cpu} of {}", nr_cpus());
    block(cpu).wrapping_sub(&raw const __percpu_start as usize)
}

/// Makes the block of CPU `cpu` a copy of the template.
///
/// # Safety
/// The block is mapped, and that CPU does not run.
unsafe fn copy_template(cpu: usize) {
    // SAFETY: the template is whole; the block is as large, and the caller's.
    unsafe { core::ptr::copy_nonoverlapping(&raw const __percpu_start, block(cpu) as *mut u8, block_size()) };
}

/// Makes blocks of the CPUs from 1 to `nr`, which are to be numbered so from now on.
///
/// # Panics
/// If blocks have outgrown the window.
///
/// # Safety
/// Called once, by the first CPU, while no other runs. The window is mapped writable as far as
/// their blocks reach.
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

/// Affinity fields of MPIDR_EL1: Aff3, Aff2, Aff1, Aff0.
pub const AFFINITY: u64 = 0xff_00ff_ffff;

/// Fills in the data of CPU `index` and points this CPU's TPIDR_EL1 to it.
///
/// # Safety
/// Called once for each `index`, by the CPU that it becomes, which runs on `stack`. Its block is
/// there.
unsafe fn init(index: usize, stack: Range<usize>) {
    let overflow = OVERFLOW_STACK.of(index).0.get() as usize;
    let this = block(index) as *mut PerCpu;
    // SAFETY: a block begins with it, and there is no other reference to that of a CPU that has not
    // come up.
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

/// Sets up the first CPU.
///
/// # Safety
/// Called once, by the first CPU, which runs on `stack`.
pub unsafe fn init_boot_cpu(stack: Range<usize>) {
    // SAFETY: its block is part of the image, and this CPU has used nothing of it yet.
    unsafe { copy_template(0) };
    // SAFETY: index 0 is the first CPU's.
    unsafe { init(0, stack) };
}

/// Sets up CPU `index`, or, when it comes up again, only finds what it had.
///
/// # Safety
/// Called by the CPU that is `index`, which is not 0 and runs on `stack`, the same each time.
pub(crate) unsafe fn init_secondary(index: usize, stack: Range<usize>) {
    let this = CPU.of(index);
    // Only this CPU writes it, before now or never.
    if this.stack_high == stack.end {
        TPIDR_EL1.set(&raw const *this as u64);
        return;
    }
    // SAFETY: the caller's promise.
    unsafe { init(index, stack) };
}

/// Returns the data of the CPU that runs this. Does not go to another CPU: hence no `'static`
/// sharing of cells in it beyond atomics.
#[inline(always)]
#[must_use]
pub fn this_cpu() -> &'static PerCpu {
    // SAFETY: TPIDR_EL1 was pointed to this CPU's block before any code that calls this ran.
    unsafe { &*(TPIDR_EL1.get() as *const PerCpu) }
}

/// Returns the number of the CPU that runs this; 0 is the one that booted.
#[inline(always)]
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

    /// Returns the stack this CPU runs on.
    #[must_use]
    pub fn stack(&self) -> Range<usize> {
        self.stack_low..self.stack_high
    }

    /// Returns the stack for exceptions that find no room on it.
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

/// Faults that had to wait for another CPU's break window, on all CPUs. One is counted as soon as
/// it waits.
#[must_use]
pub fn nr_window_waits() -> u64 {
    sum(|cpu| &cpu.nr_window_waits)
}

/// Adds a counter up over all CPUs.
fn sum(counter: impl Fn(&PerCpu) -> &AtomicU64) -> u64 {
    CPU.iter().map(|cpu| counter(cpu).load(Ordering::Relaxed)).sum()
}
