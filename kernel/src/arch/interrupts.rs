use core::arch::asm;
use core::marker::PhantomData;
use core::panic::Location;

use super::alternatives::is_measured;
use super::masked;

/// IRQ and FIQ are masked until this is dropped. Nests.
#[must_use = "dropping the guard restores the mask at once"]
#[derive(Debug)]
pub struct MaskedBriefly {
    daif: u64,
    _not_send: PhantomData<*const ()>,
}

/// In a section that is [measured](masked).
#[must_use = "dropping the guard restores the mask at once"]
#[derive(Debug)]
pub struct Masked {
    _briefly: MaskedBriefly,
}

#[inline(always)]
#[track_caller]
pub fn mask() -> Masked {
    let briefly = mask_briefly();
    if is_measured() {
        masked::begin(Location::caller());
    }
    Masked { _briefly: briefly }
}

impl Drop for Masked {
    #[inline(always)]
    fn drop(&mut self) {
        if is_measured() {
            masked::end();
        }
    }
}

/// Masks IRQ and FIQ unmeasured, for a few instructions.
#[inline(always)]
pub fn mask_briefly() -> MaskedBriefly {
    let daif: u64;
    // No `nomem`: protected accesses stay after it.
    // SAFETY: no effect on memory.
    unsafe { asm!("mrs {}, daif", "msr daifset, #0b0011", out(reg) daif, options(nostack, preserves_flags)) };
    MaskedBriefly {
        daif,
        _not_send: PhantomData,
    }
}

/// Masks debug exceptions and SError, too; for what takes no lock.
#[inline(always)]
pub fn mask_all() -> MaskedBriefly {
    let daif: u64;
    // SAFETY: as for `mask_briefly`.
    unsafe { asm!("mrs {}, daif", "msr daifset, #0b1111", out(reg) daif, options(nostack, preserves_flags)) };
    MaskedBriefly {
        daif,
        _not_send: PhantomData,
    }
}

impl Drop for MaskedBriefly {
    #[inline(always)]
    fn drop(&mut self) {
        // SAFETY: restores what this CPU had.
        unsafe { asm!("msr daif, {}", in(reg) self.daif, options(nostack, preserves_flags)) };
    }
}

/// Lets asynchronous aborts be reported where they happen.
pub fn unmask_serror() {
    // SAFETY: the vectors are installed and report it.
    unsafe { asm!("msr daifclr, #0b0100", options(nostack, preserves_flags)) };
}
