//! The PMU of this CPU: a counter of instructions, exact under `-icount`; and all that it counts
//! at once, on silicon.

use core::arch::{asm, global_asm};
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use aarch64_cpu::asm::barrier;
use aarch64_cpu::registers::{ID_AA64DFR0_EL1, Readable};
use arch_policy::pmu::{Assignment, assign, has_long_counters, version, with_overflow};
pub use arch_policy::pmu::{Event, Lack};

use super::alternatives::{self, Condition};
use super::features::Features;

const INST_RETIRED: u64 = Event::Instructions as u64;
/// PMCR_EL0: enabled; event counters and cycles to 0; cycles, then events in 64 bits.
const PMCR_E: u64 = 1 << 0;
const PMCR_P: u64 = 1 << 1;
const PMCR_C: u64 = 1 << 2;
const PMCR_LC: u64 = 1 << 6;
const PMCR_LP: u64 = 1 << 7;
/// Of PMCNTENSET_EL0.
const CYCLES: u64 = 1 << 31;
const ALL: u64 = u32::MAX as u64;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unavailable {
    /// [`Condition::Timed`].
    Timed,
    /// ID_AA64DFR0_EL1.PMUVer.
    NoPmu,
    /// PMCR_EL0.N is 0.
    NoCounter,
    /// PMCEID0_EL0 lacks it: emulators have it under `-icount`.
    NoEvent(u64),
}

impl core::fmt::Display for Unavailable {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Timed => f.write_str("time is counted, and no instructions"),
            Self::NoPmu => f.write_str("this CPU has no PMUv3"),
            Self::NoCounter => f.write_str("the PMU has no event counter"),
            Self::NoEvent(events) => write!(
                f,
                "the PMU does not count instructions (PMCEID0_EL0 {events:#x} lacks event 0x08); boot with -icount shift=0"
            ),
        }
    }
}

/// Counter 0 of this CPU.
#[derive(Debug)]
pub struct InstructionCounter {
    _not_send: core::marker::PhantomData<*const ()>,
}

impl InstructionCounter {
    /// Starts the counter.
    ///
    /// # Errors
    /// Why there is none.
    pub fn start(features: &Features) -> Result<Self, Unavailable> {
        if is_timed() {
            return Err(Unavailable::Timed);
        }
        if features.pmu_counters.ok_or(Unavailable::NoPmu)? == 0 {
            return Err(Unavailable::NoCounter);
        }
        let events: u64;
        // SAFETY: the PMU exists.
        unsafe { asm!("mrs {}, pmceid0_el0", out(reg) events, options(nostack, nomem, preserves_flags)) };
        if events & 1 << INST_RETIRED == 0 {
            return Err(Unavailable::NoEvent(events));
        }
        // P, U and NSK 0: counts at EL1 and EL0 (Arm ARM, PMEVTYPER<n>_EL0).
        // SAFETY: nothing else uses the counter; its interrupt is disabled.
        unsafe {
            asm!(
                "msr pmintenclr_el1, {all}",
                "msr pmevtyper0_el0, {event}",
                "msr pmevcntr0_el0, xzr",
                "msr pmcntenset_el0, {first}",
                "mrs {pmcr}, pmcr_el0",
                "orr {pmcr}, {pmcr}, {enable}",
                "msr pmcr_el0, {pmcr}",
                "isb",
                all = in(reg) u64::from(u32::MAX),
                event = in(reg) INST_RETIRED,
                first = in(reg) 1u64,
                enable = in(reg) PMCR_E,
                pmcr = out(reg) _,
                options(nostack, preserves_flags)
            );
        }
        Ok(Self {
            _not_send: core::marker::PhantomData,
        })
    }

    /// Returns the count. ISB: not read early (Arm ARM, "Synchronization requirements for AArch64
    /// System registers").
    #[inline(always)]
    #[must_use]
    pub fn read(&self) -> u32 {
        let count: u64;
        // SAFETY: reads a counter.
        unsafe { asm!("isb", "mrs {}, pmevcntr0_el0", out(reg) count, options(nostack, preserves_flags)) };
        count as u32
    }
}

/// Called at [`begin`] and, with the ticks between the two, at [`end`], which returns what it
/// returns. Neither is counted.
#[derive(Clone, Copy, Debug)]
pub struct Hooks {
    pub begin: extern "C" fn(),
    pub end: extern "C" fn(ticks: u64) -> u64,
}

/// With [`Condition::Timed`]: addresses of the two, and the time at which the first returned.
static HOOKS: [AtomicU64; 3] = [const { AtomicU64::new(0) }; 3];

/// Called by [`begin`] and [`end`] from now on, if [`is_timed`].
pub fn set_hooks(hooks: Hooks) {
    HOOKS[0].store(hooks.begin as usize as u64, Relaxed);
    HOOKS[1].store(hooks.end as usize as u64, Relaxed);
}

// Keep all registers and NZCV: what stands around a site is compiled for a read of a counter. The
// time is read next to it. On the stack: x29 and x30.
global_asm!(
    "
    .macro timed_keep_registers
    stp x0, x1, [sp, #-176]!
    stp x2, x3, [sp, #16]
    stp x4, x5, [sp, #32]
    stp x6, x7, [sp, #48]
    stp x8, x9, [sp, #64]
    stp x10, x11, [sp, #80]
    stp x12, x13, [sp, #96]
    stp x14, x15, [sp, #112]
    stp x16, x17, [sp, #128]
    mrs x9, nzcv
    stp x18, x9, [sp, #144]
    str x30, [sp, #160]
    adrp x9, {hooks}
    add x9, x9, :lo12:{hooks}
    .endm

    .macro timed_restore_registers
    ldr x30, [sp, #160]
    ldp x18, x9, [sp, #144]
    msr nzcv, x9
    ldp x2, x3, [sp, #16]
    ldp x4, x5, [sp, #32]
    ldp x6, x7, [sp, #48]
    ldp x10, x11, [sp, #80]
    ldp x12, x13, [sp, #96]
    ldp x14, x15, [sp, #112]
    ldp x16, x17, [sp, #128]
    .endm

    .pushsection .text.timed, \"ax\"
    .global timed_begin
    .type timed_begin, %function
timed_begin:
    timed_keep_registers
    ldr x9, [x9]
    blr x9
    timed_restore_registers
    adrp x9, {hooks}
    add x9, x9, :lo12:{hooks}
    isb
    mrs x8, cntvct_el0
    str x8, [x9, #16]
    ldp x8, x9, [sp, #64]
    ldp x0, x1, [sp], #176
    ret
    .size timed_begin, . - timed_begin

    // Leaves what the hook returned above x29 and x30.
    .global timed_end
    .type timed_end, %function
timed_end:
    stp x8, x9, [sp, #-16]!
    isb
    mrs x8, cntvct_el0
    adrp x9, {hooks}
    add x9, x9, :lo12:{hooks}
    ldr x9, [x9, #16]
    sub x8, x8, x9
    str x8, [sp, #32]
    ldp x8, x9, [sp], #16
    timed_keep_registers
    ldr x0, [sp, #176 + 16]
    ldr x9, [x9, #8]
    blr x9
    str x0, [sp, #176 + 16]
    timed_restore_registers
    ldp x8, x9, [sp, #64]
    ldp x0, x1, [sp], #176
    ret
    .size timed_end, . - timed_end
    .popsection
    ",
    hooks = sym HOOKS
);

/// A read of counter 0, or a branch out of line ([`Condition::Timed`]).
macro_rules! counted_or {
    ($($line:literal,)*) => {{
        let count: u64;
        // SAFETY: reads a counter, or gets as many registers back as it gave. No red zone.
        unsafe {
            asm!(
                "661: isb",
                "mrs {count}, pmevcntr0_el0",
                "662:",
                ".pushsection .alternatives, \"a\"",
                ".balign 4",
                ".word 661b - .",
                ".word 663f - .",
                ".word 0",
                ".word {timed}",
                ".popsection",
                ".pushsection .text.timed, \"ax\"",
                "663: stp x29, x30, [sp, #-32]!",
                $($line,)*
                "b 662b",
                ".popsection",
                count = out(reg) count,
                timed = const Condition::Timed as u32,
                options(nostack, preserves_flags)
            );
        }
        count as u32
    }};
}

/// Returns counter 0, as [`InstructionCounter::read`]; after the hook, 0.
#[inline(always)]
#[must_use]
pub fn begin() -> u32 {
    counted_or!("bl timed_begin", "ldp x29, x30, [sp], #32", "mov {count}, xzr",)
}

/// Returns counter 0, or what the hook returned.
#[inline(always)]
#[must_use]
pub fn end() -> u32 {
    counted_or!(
        "bl timed_end",
        "ldp x29, x30, [sp], #16",
        "ldr {count}, [sp], #16",
    )
}

/// Returns whether [`begin`] and [`end`] call [`Hooks`].
#[must_use]
pub fn is_timed() -> bool {
    alternatives::nr_replaced(Condition::Timed) != 0
}

macro_rules! write {
    ($register:literal, $value:expr) => {
        // SAFETY: a register of the PMU that is there; its interrupt is disabled.
        unsafe { asm!(concat!("msr ", $register, ", {}"), in(reg) $value, options(nostack, preserves_flags)) }
    };
}

macro_rules! read {
    ($register:literal) => {{
        let value: u64;
        // SAFETY: a register of the PMU that is there.
        unsafe { asm!(concat!("mrs {}, ", $register), out(reg) value, options(nostack, preserves_flags)) };
        value
    }};
}

/// What is counted: [`Counters::TIME`], [`Counters::CYCLES`], and an [`Event`] from
/// [`Counters::EVENTS`] on.
pub type Counts = [u64; Counters::NR];

/// The counters of this CPU, and the time.
#[derive(Debug)]
pub struct Counters {
    version: Option<&'static str>,
    nr_counters: u8,
    events: Assignment,
    long: bool,
    enabled: u64,
    _not_send: core::marker::PhantomData<*const ()>,
}

impl Counters {
    /// Ticks of CNTVCT_EL0.
    pub const TIME: usize = 0;
    pub const CYCLES: usize = 1;
    pub const EVENTS: usize = 2;
    pub const NR: usize = Self::EVENTS + Event::ALL.len();

    /// Returns those that this CPU has, programmed and stopped.
    #[must_use]
    pub fn new(features: &Features) -> Self {
        let pmuver = ID_AA64DFR0_EL1.get() >> 8 & 0xf;
        let mut counters = Self {
            version: version(pmuver),
            nr_counters: 0,
            events: [Err(Lack::NoPmu); Event::ALL.len()],
            long: has_long_counters(pmuver),
            enabled: 0,
            _not_send: core::marker::PhantomData,
        };
        if let Some(nr) = features.pmu_counters.filter(|_| counters.version.is_some()) {
            counters.nr_counters = nr;
            counters.events = assign(nr, [read!("pmceid0_el0"), read!("pmceid1_el0")]);
            counters.program();
        }
        counters
    }

    /// P, U and NSK 0: all count at EL1 and EL0 (Arm ARM, PMEVTYPER<n>_EL0, PMCCFILTR_EL0).
    fn program(&mut self) {
        write!("pmintenclr_el1", ALL);
        write!("pmcntenclr_el0", ALL);
        write!("pmccfiltr_el0", 0u64);
        self.enabled = CYCLES;
        for (event, counter) in Event::ALL.into_iter().zip(self.events) {
            if let Ok(counter) = counter {
                write_type(counter, event);
                self.enabled |= 1 << counter;
            }
        }
        barrier::isb(barrier::SY);
    }

    #[must_use]
    pub const fn version(&self) -> &'static str {
        match self.version {
            Some(version) => version,
            None => "none",
        }
    }

    /// PMCR_EL0.N.
    #[must_use]
    pub const fn nr_counters(&self) -> u8 {
        self.nr_counters
    }

    /// Name and place in [`Counts`] of each, or why it is not counted.
    pub fn each(&self) -> impl Iterator<Item = (&'static str, Result<usize, Lack>)> {
        let cycles = self.version.map(|_| Self::CYCLES).ok_or(Lack::NoPmu);
        let events = (Self::EVENTS..).zip(Event::ALL.into_iter().zip(self.events));
        [("ticks", Ok(Self::TIME)), ("cycles", cycles)]
            .into_iter()
            .chain(events.map(|(place, (event, counter))| (event.name(), counter.map(|_| place))))
    }

    /// Zeroes and starts them.
    pub fn begin(&self) {
        if self.version.is_none() {
            return;
        }
        let long = if self.long { PMCR_LP } else { 0 };
        write!("pmcr_el0", PMCR_E | PMCR_P | PMCR_C | PMCR_LC | long);
        write!("pmovsclr_el0", ALL);
        // At 0, and not marked, before they count (Arm ARM, "Synchronization requirements for
        // AArch64 System registers").
        barrier::isb(barrier::SY);
        write!("pmcntenset_el0", self.enabled);
        barrier::isb(barrier::SY);
    }

    /// Stops them. The time is the caller's.
    #[must_use]
    pub fn end(&self) -> Counts {
        let mut counts = [0; Self::NR];
        if self.version.is_none() {
            return counts;
        }
        barrier::isb(barrier::SY);
        write!("pmcntenclr_el0", self.enabled);
        // Stopped before any is read.
        barrier::isb(barrier::SY);
        counts[Self::CYCLES] = read!("pmccntr_el0");
        let overflowed = read!("pmovsset_el0");
        for (count, counter) in counts[Self::EVENTS..].iter_mut().zip(self.events) {
            if let Ok(counter) = counter {
                *count = read_counter(counter);
                if !self.long {
                    *count = with_overflow(*count, overflowed >> counter & 1 != 0);
                }
            }
        }
        counts
    }
}

fn write_type(counter: u8, event: Event) {
    let event = event as u64;
    match counter {
        0 => write!("pmevtyper0_el0", event),
        1 => write!("pmevtyper1_el0", event),
        2 => write!("pmevtyper2_el0", event),
        3 => write!("pmevtyper3_el0", event),
        _ => write!("pmevtyper4_el0", event),
    }
}

fn read_counter(counter: u8) -> u64 {
    match counter {
        0 => read!("pmevcntr0_el0"),
        1 => read!("pmevcntr1_el0"),
        2 => read!("pmevcntr2_el0"),
        3 => read!("pmevcntr3_el0"),
        _ => read!("pmevcntr4_el0"),
    }
}

/// Returns what counter 0, of 32 bits, says of `work` when it begins `before` counts below an
/// overflow, and what the cycle counter says; `None` if the CPU has not both.
pub fn across_an_overflow(features: &Features, before: u32, work: impl FnOnce()) -> Option<(u64, u64)> {
    let mut counters = Counters::new(features);
    if features.pmu_counters? == 0 || !Event::Cycles.is_in([read!("pmceid0_el0"), 0]) {
        return None;
    }
    (counters.long, counters.events) = (false, [Err(Lack::NoEvent); Event::ALL.len()]);
    (counters.events[0], counters.enabled) = (Ok(0), CYCLES | 1);
    write_type(0, Event::Cycles);
    counters.begin();
    write!("pmcntenclr_el0", counters.enabled);
    barrier::isb(barrier::SY);
    let start = u32::MAX - before + 1;
    write!("pmevcntr0_el0", u64::from(start));
    write!("pmccntr_el0", 0u64);
    barrier::isb(barrier::SY);
    write!("pmcntenset_el0", counters.enabled);
    work();
    let counts = counters.end();
    Some((
        counts[Counters::EVENTS] - u64::from(start),
        counts[Counters::CYCLES],
    ))
}

/// Executes `2 * rounds` instructions, `rounds` not 0.
#[inline(always)]
pub fn known_loop(rounds: u32) {
    // SAFETY: counts a register down.
    unsafe {
        asm!("2:", "subs {n:w}, {n:w}, #1", "b.ne 2b", n = inout(reg) rounds => _, options(nostack, nomem));
    }
}
