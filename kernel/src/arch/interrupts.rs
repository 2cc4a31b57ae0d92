//! Masking of interrupts on this CPU.

use core::arch::asm;
use core::marker::PhantomData;
use core::panic::Location;

use super::alternatives::is_measured;
use super::masked;

/// Interrupts (I and F) are masked until this is dropped; then DAIF is what it was before. Nests.
#[must_use = "dropping the guard restores the mask at once"]
#[derive(Debug)]
pub struct MaskedBriefly {
    daif: u64,
    /// A mask belongs to a CPU, so the guard does not go to another one.
    _not_send: PhantomData<*const ()>,
}

/// The same for a section that is [measured](masked).
#[must_use = "dropping the guard restores the mask at once"]
#[derive(Debug)]
pub struct Masked {
    _briefly: MaskedBriefly,
}

/// Masks IRQ and FIQ on this CPU.
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

/// Masks IRQ and FIQ on this CPU for a few instructions, always the same: they are not measured.
#[inline(always)]
pub fn mask_briefly() -> MaskedBriefly {
    let daif: u64;
    // Not marked as free of memory effects: what the guard protects stays behind it.
    // SAFETY: masking has no effect on memory.
    unsafe { asm!("mrs {}, daif", "msr daifset, #0b0011", out(reg) daif, options(nostack, preserves_flags)) };
    MaskedBriefly {
        daif,
        _not_send: PhantomData,
    }
}

/// Masks everything that DAIF masks, debug exceptions and SError too. For what takes no lock; it is
/// not measured.
#[inline(always)]
pub fn mask_all() -> MaskedBriefly {
    let daif: u64;
    // SAFETY: as for `mask`.
    unsafe { asm!("mrs {}, daif", "msr daifset, #0b1111", out(reg) daif, options(nostack, preserves_flags)) };
    MaskedBriefly {
        daif,
        _not_send: PhantomData,
    }
}

impl Drop for MaskedBriefly {
    #[inline(always)]
    fn drop(&mut self) {
        // SAFETY: restores what `mask` read on this CPU.
        unsafe { asm!("msr daif, {}", in(reg) self.daif, options(nostack, preserves_flags)) };
    }
}

/// Unmasks SError, so that an asynchronous abort is reported where it happens and not at the next
/// unmasking.
pub fn unmask_serror() {
    // SAFETY: the vectors are installed and report it.
    unsafe { asm!("msr daifclr, #0b0100", options(nostack, preserves_flags)) };
}
