//! Masking of interrupts on this CPU.

use core::arch::asm;
use core::marker::PhantomData;

/// Interrupts (I and F) are masked until this is dropped; then DAIF is what it was before. Nests.
#[must_use = "dropping the guard restores the mask at once"]
#[derive(Debug)]
pub struct Masked {
    daif: u64,
    /// A mask belongs to a CPU, so the guard does not go to another one.
    _not_send: PhantomData<*const ()>,
}

/// Masks IRQ and FIQ on this CPU.
#[inline(always)]
pub fn mask() -> Masked {
    let daif: u64;
    // Not marked as free of memory effects: what the guard protects stays behind it.
    // SAFETY: masking has no effect on memory.
    unsafe { asm!("mrs {}, daif", "msr daifset, #0b0011", out(reg) daif, options(nostack, preserves_flags)) };
    Masked {
        daif,
        _not_send: PhantomData,
    }
}

/// Masks everything that DAIF masks, debug exceptions and SError too.
#[inline(always)]
pub fn mask_all() -> Masked {
    let daif: u64;
    // SAFETY: as for `mask`.
    unsafe { asm!("mrs {}, daif", "msr daifset, #0b1111", out(reg) daif, options(nostack, preserves_flags)) };
    Masked {
        daif,
        _not_send: PhantomData,
    }
}

impl Drop for Masked {
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
