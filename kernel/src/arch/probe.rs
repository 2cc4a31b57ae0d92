//! Accesses that report a fault instead of dying of it.
//!
//! Each is one instruction that the exception table names. A spurious fault is retried before the
//! table is asked, so what is reported is what the tables say.

use core::arch::{asm, global_asm};
use core::fmt;

use super::syndrome::{FaultStatus, Syndrome, class};

global_asm!(include_str!("probe/probe.s"));

/// Why a probe did not succeed.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct FaultInfo {
    /// ESR_EL1. Never 0: IL is set for every exception a probe can take.
    pub esr: u64,
    /// FAR_EL1.
    pub far: u64,
}

impl FaultInfo {
    /// Returns the fault status of an abort; `None` if the exception was not an abort (an undefined
    /// instruction that could be fetched).
    #[must_use]
    pub fn status(&self) -> Option<FaultStatus> {
        Syndrome(self.esr).fault_status()
    }

    /// Returns whether it is a translation fault, and at which level.
    #[must_use]
    pub fn translation_level(&self) -> Option<u8> {
        match self.status() {
            Some(FaultStatus::Translation(level)) => Some(level),
            _ => None,
        }
    }

    /// Returns whether it is a permission fault, and at which level.
    #[must_use]
    pub fn permission_level(&self) -> Option<u8> {
        match self.status() {
            Some(FaultStatus::Permission(level)) => Some(level),
            _ => None,
        }
    }

    /// Returns whether a write faulted.
    #[must_use]
    pub fn is_write(&self) -> bool {
        Syndrome(self.esr).is_write()
    }

    /// Returns whether what faulted was an instruction that had been fetched: the address is
    /// executable, with anything there.
    #[must_use]
    pub fn was_executed(&self) -> bool {
        Syndrome(self.esr).class() == class::UNKNOWN
    }
}

/// "translation fault level 3", "permission fault level 2" and so on.
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

/// Runs `probe`, and turns what it may have left in the fault into an error.
fn catch<T>(probe: impl FnOnce(*mut FaultInfo) -> T) -> Result<T, FaultInfo> {
    let mut fault = FaultInfo::default();
    let value = probe(&raw mut fault);
    if fault.esr == 0 { Ok(value) } else { Err(fault) }
}

/// Loads 64 bits from `va`.
///
/// # Errors
/// The fault that the load took. An unaligned address in device memory, or with SCTLR_EL1.A, is an
/// alignment fault.
pub fn probe_read(va: usize) -> Result<u64, FaultInfo> {
    // SAFETY: a load has no effect on Rust's memory; if it faults, it has none at all.
    catch(|fault| unsafe { probe_read64_or_fault(va, fault) })
}

/// Loads 32 bits from `va`: the access that device registers take.
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
/// The fault that the store took.
///
/// # Safety
/// If the store does not fault, nothing that Rust relies on is changed by it.
pub unsafe fn probe_write(va: usize, value: u64) -> Result<(), FaultInfo> {
    // SAFETY: the caller's promise.
    catch(|fault| unsafe { probe_write64_or_fault(va, fault, value) })
}

/// Stores 32 bits at `va`.
///
/// # Errors
/// The fault that the store took.
///
/// # Safety
/// As for [`probe_write`].
pub unsafe fn probe_write32(va: usize, value: u32) -> Result<(), FaultInfo> {
    // SAFETY: the caller's promise.
    catch(|fault| unsafe { probe_write32_or_fault(va, fault, value) })
}

/// Calls `va`. An instruction there that is undefined is an error too, with
/// [`FaultInfo::was_executed`].
///
/// # Errors
/// The fault that the fetch of its first instruction took.
///
/// # Safety
/// If `va` is executable, there is a function without arguments, or an undefined instruction (0 is
/// one).
pub unsafe fn probe_exec(va: usize) -> Result<(), FaultInfo> {
    // SAFETY: the caller's promise.
    catch(|fault| unsafe { probe_call_or_fault(va, fault) })
}

/// Reads SMCR_EL1, which CPTR_EL2.TSM makes trap to an EL2 that this image configured. Undefined
/// where there is no FEAT_SME.
pub fn trap_to_el2() {
    // SMEN: EL1 itself lets it pass; FPEN as it was.
    const CPACR: u64 = 0b11 << 24 | 0b11 << 20;
    // SAFETY: what is enabled is not used, and the value read neither.
    unsafe {
        asm!("msr cpacr_el1, {0}", "isb", "mrs {0}, s3_0_c1_c2_6", inout(reg) CPACR => _, options(nostack))
    };
}

/// Asks for a power-off by HVC and then by SMC; returns if neither answers.
pub(super) fn try_system_off() {
    const SYSTEM_OFF: u64 = 0x8400_0008;
    // SAFETY: SMCCC: either it ends here, or only x0 to x17 change, or it is undefined and in the
    // table.
    let _ = catch(|fault| unsafe { hvc_or_fault(SYSTEM_OFF, fault) });
    // SAFETY: as above.
    let _ = catch(|fault| unsafe { smc_or_fault(SYSTEM_OFF, fault) });
}
