//! Accesses that report a fault, by the exception table.

use core::arch::{asm, global_asm};
use core::fmt;

use super::syndrome::{FaultStatus, Syndrome, class};

global_asm!(include_str!("probe/probe.s"));

#[derive(Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct FaultInfo {
    /// ESR_EL1; never 0, as IL is set.
    pub esr: u64,
    pub far: u64,
}

impl FaultInfo {
    /// Returns `None` for an undefined instruction.
    #[must_use]
    pub fn status(&self) -> Option<FaultStatus> {
        Syndrome(self.esr).fault_status()
    }

    #[must_use]
    pub fn translation_level(&self) -> Option<i8> {
        match self.status() {
            Some(FaultStatus::Translation(level)) => Some(level),
            _ => None,
        }
    }

    #[must_use]
    pub fn permission_level(&self) -> Option<i8> {
        match self.status() {
            Some(FaultStatus::Permission(level)) => Some(level),
            _ => None,
        }
    }

    #[must_use]
    pub fn is_write(&self) -> bool {
        Syndrome(self.esr).is_write()
    }

    /// Returns whether an instruction was fetched.
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

fn catch<T>(probe: impl FnOnce(*mut FaultInfo) -> T) -> Result<T, FaultInfo> {
    let mut fault = FaultInfo::default();
    let value = probe(&raw mut fault);
    if fault.esr == 0 { Ok(value) } else { Err(fault) }
}

/// Loads 64 bits.
///
/// # Errors
/// The fault; alignment, too, in device memory or with SCTLR_EL1.A.
pub fn probe_read(va: usize) -> Result<u64, FaultInfo> {
    // SAFETY: a load has no effect on memory.
    catch(|fault| unsafe { probe_read64_or_fault(va, fault) })
}

/// Loads 32 bits, as device registers need.
///
/// # Errors
/// As [`probe_read`].
pub fn probe_read32(va: usize) -> Result<u32, FaultInfo> {
    // SAFETY: as for `probe_read`.
    catch(|fault| unsafe { probe_read32_or_fault(va, fault) })
}

/// Stores 64 bits.
///
/// # Errors
/// The fault.
///
/// # Safety
/// A store without a fault changes nothing that Rust relies on.
pub unsafe fn probe_write(va: usize, value: u64) -> Result<(), FaultInfo> {
    // SAFETY: the caller's promise.
    catch(|fault| unsafe { probe_write64_or_fault(va, fault, value) })
}

/// Stores 32 bits.
///
/// # Errors
/// The fault.
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
/// The fault of the first fetch, or of an undefined instruction ([`FaultInfo::was_executed`]).
///
/// # Safety
/// If it is executable, a function without arguments or an undefined instruction (0) is there.
pub unsafe fn probe_exec(va: usize) -> Result<(), FaultInfo> {
    // SAFETY: the caller's promise.
    catch(|fault| unsafe { probe_call_or_fault(va, fault) })
}

/// Reads SMCR_EL1, which this image's EL2 traps. Undefined without FEAT_SME.
pub fn trap_to_el2() {
    // SMEN: no trap to EL1; FPEN as before.
    const CPACR: u64 = 0b11 << 24 | 0b11 << 20;
    // SAFETY: neither SME nor the value is used.
    unsafe {
        asm!("msr cpacr_el1, {0}", "isb", "mrs {0}, s3_0_c1_c2_6", inout(reg) CPACR => _, options(nostack))
    };
}

/// Powers off by HVC or SMC; returns if neither answers.
pub(super) fn try_system_off() {
    const SYSTEM_OFF: u64 = 0x8400_0008;
    // SAFETY: SMCCC: ends here, changes only x0 to x17, or is undefined and in the table.
    let _ = catch(|fault| unsafe { hvc_or_fault(SYSTEM_OFF, fault) });
    // SAFETY: as above.
    let _ = catch(|fault| unsafe { smc_or_fault(SYSTEM_OFF, fault) });
}
