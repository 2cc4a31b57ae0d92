//! A counter of instructions: INST_RETIRED (Arm ARM, "Common event numbers"), exact under
//! `-icount`. 32 bits are used, as more need FEAT_PMUv3p5.

use core::arch::asm;

use super::features::Features;

const INST_RETIRED: u64 = 0x08;
const PMCR_E: u64 = 1 << 0;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unavailable {
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

/// Executes `2 * rounds` instructions, `rounds` not 0.
#[inline(always)]
pub fn known_loop(rounds: u32) {
    // SAFETY: counts a register down.
    unsafe {
        asm!("2:", "subs {n:w}, {n:w}, #1", "b.ne 2b", n = inout(reg) rounds => _, options(nostack, nomem));
    }
}
