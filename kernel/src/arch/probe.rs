//! Accesses that report a fault: instructions in the exception table. Spurious faults are retried
//! first, so what is reported is what the tables say.

use core::arch::{asm, global_asm};
use core::fmt;

use super::syndrome::{FaultStatus, Syndrome, class};

global_asm!(include_str!("probe/probe.s"));

/// Why a probe failed.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct FaultInfo {
    /// ESR_EL1. Never 0: IL is set in every exception of a probe.
    pub esr: u64,
    pub far: u64,
}

impl FaultInfo {
    /// Returns the fault status; `None` for an undefined instruction that was fetched.
    #[must_use]
    pub fn status(&self) -> Option<FaultStatus> {
        Syndrome(self.esr).fault_status()
    }

    /// Returns the level of a translation fault.
    #[must_use]
    pub fn translation_level(&self) -> Option<u8> {
        match self.status() {
            Some(FaultStatus::Translation(level)) => Some(level),
            _ => None,
        }
    }

    /// Returns the level of a permission fault.
    #[must_use]
    pub fn permission_level(&self) -> Option<u8> {
        match self.status() {
            Some(FaultStatus::Permission(level)) => Some(level),
            _ => None,
        }
    }

    #[must_use]
    pub fn is_write(&self) -> bool {
        Syndrome(self.esr).is_write()
    }

    /// Returns whether an instruction was fetched, so that the address is executable.
    #[must_use]
    pub fn was_executed(&self) -> bool {
        Syndrome(self.esr).class() == class::UNKNOWN
    }
}

impl fmt::Display for FaultInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.status() {
            Some(status) => write!(f, "{status}"),
            None => write!(f, "{}", Syndrome(self.esr)),
        }
    }
}

impl fmt::Debug for FaultInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {:#x}", Syndrome(self.esr), self.far)
    }
}

unsafe extern "C" {
    fn probe_read64_or_fault(va: usize, fault: *mut FaultInfo) -> u64;
    fn probe_read32_or_fault(va: usize, fault: *mut FaultInfo) -> u32;
    fn probe_write64_or_fault(va: usize, fault: *mut FaultInfo, value: u64);
    fn probe_write32_or_fault(va: usize, fault: *mut FaultInfo, value: u32);
    fn probe_call_or_fault(va: usize, fault: *mut FaultInfo);
    fn hvc_or_fault(function: u64, fault: *mut FaultInfo);
    fn smc_or_fault(function: u64, fault: *mut FaultInfo);
}

/// Runs `probe`, and returns the fault that it reports as an error.
fn catch<T>(probe: impl FnOnce(*mut FaultInfo) -> T) -> Result<T, FaultInfo> {
    let mut fault = FaultInfo::default();
    let value = probe(&raw mut fault);
    if fault.esr == 0 { Ok(value) } else { Err(fault) }
}

/// Loads 64 bits from `va`.
///
/// # Errors
/// The fault of the load: an alignment fault, too, in device memory or with SCTLR_EL1.A.
pub fn probe_read(va: usize) -> Result<u64, FaultInfo> {
    // SAFETY: a load has no effect on Rust's memory.
    catch(|fault| unsafe { probe_read64_or_fault(va, fault) })
}

/// Loads 32 bits from `va`, as device registers need.
///
/// # Errors
/// As for [`probe_read`].
pub fn probe_read32(va: usize) -> Result<u32, FaultInfo> {
    // SAFETY: as for `probe_read`.
    catch(|fault| unsafe { probe_read32_or_fault(va, fault) })
}

/// Stores 64 bits at `va`.
///
/// # Errors
/// The fault of the store.
///
/// # Safety
/// A store that does not fault changes nothing that Rust relies on.
pub unsafe fn probe_write(va: usize, value: u64) -> Result<(), FaultInfo> {
    // SAFETY: the caller's promise.
    catch(|fault| unsafe { probe_write64_or_fault(va, fault, value) })
}

/// Stores 32 bits at `va`.
///
/// # Errors
/// The fault of the store.
///
/// # Safety
/// As for [`probe_write`].
pub unsafe fn probe_write32(va: usize, value: u32) -> Result<(), FaultInfo> {
    // SAFETY: the caller's promise.
    catch(|fault| unsafe { probe_write32_or_fault(va, fault, value) })
}

/// Calls `va`.
///
/// # Errors
/// The fault of the first fetch; or an undefined instruction there, with
/// [`FaultInfo::was_executed`].
///
/// # Safety
/// If `va` is executable, a function without arguments or an undefined instruction (0 is one) is
/// there.
pub unsafe fn probe_exec(va: usize) -> Result<(), FaultInfo> {
    // SAFETY: the caller's promise.
    catch(|fault| unsafe { probe_call_or_fault(va, fault) })
}

/// Reads SMCR_EL1, which CPTR_EL2.TSM traps to an EL2 that this image configured. Undefined without
/// FEAT_SME.
pub fn trap_to_el2() {
    // SMEN, so that EL1 does not trap it; FPEN as before.
    const CPACR: u64 = 0b11 << 24 | 0b11 << 20;
    // SAFETY: neither SME nor the value is used.
    unsafe {
        asm!("msr cpacr_el1, {0}", "isb", "mrs {0}, s3_0_c1_c2_6", inout(reg) CPACR => _, options(nostack))
    };
}

/// Asks for power-off by HVC and then SMC; returns if neither answers.
pub(super) fn try_system_off() {
    const SYSTEM_OFF: u64 = 0x8400_0008;
    // SAFETY: SMCCC: it ends here, changes only x0 to x17, or is undefined and in the table.
    let _ = catch(|fault| unsafe { hvc_or_fault(SYSTEM_OFF, fault) });
    // SAFETY: as above.
    let _ = catch(|fault| unsafe { smc_or_fault(SYSTEM_OFF, fault) });
}
