//! Markers for an emulator plugin, which counts what lies between them: HINT #80 to #84,
//! unallocated and thus NOPs (Arm ARM C6.2, HINT).

use core::arch::asm;

macro_rules! marker {
    ($(#[$doc:meta])* $name:ident, $number:literal) => {
        $(#[$doc])*
        #[inline(always)]
        pub fn $name() {
            // SAFETY: a NOP. No `nomem`: no access moves across it.
            unsafe { asm!(concat!("hint #", $number), options(nostack, preserves_flags)) };
        }
    };
}

marker!(
    /// A measured map or read begins on this CPU.
    begin_map,
    "80"
);
marker!(
    /// A measured unmap begins on this CPU.
    begin_unmap,
    "84"
);
marker!(
    /// The measured call on this CPU ends.
    end,
    "81"
);
marker!(
    /// The next case begins, on all CPUs.
    next_case,
    "82"
);
