//! Markers for a counting emulator plugin: HINT #80 to #84, unallocated, so NOPs (Arm ARM C6.2,
//! HINT).

use core::arch::asm;

macro_rules! marker {
    ($(#[$doc:meta])* $name:ident, $number:literal) => {
        $(#[$doc])*
        #[inline(always)]
        pub fn $name() {
            // SAFETY: a NOP. No `nomem`: no access may move across it.
            unsafe { asm!(concat!("hint #", $number), options(nostack, preserves_flags)) };
        }
    };
}

marker!(
    /// Of a map or read.
    begin_map,
    "80"
);
marker!(begin_unmap, "84");
marker!(end, "81");
marker!(
    /// On all CPUs.
    next_case,
    "82"
);
