//! Markers in the instruction stream, for an emulator plugin that counts what lies between them.
//!
//! HINT #80 to #84 are unallocated hints: a CPU executes them as NOP (Arm ARM C6.2, HINT). They
//! change nothing but the instruction count, by one each, so the measured path is the product's.

use core::arch::asm;

macro_rules! marker {
    ($(#[$doc:meta])* $name:ident, $number:literal) => {
        $(#[$doc])*
        #[inline(always)]
        pub fn $name() {
            // SAFETY: a hint without effect. It clobbers memory so that no access moves across it.
            unsafe { asm!(concat!("hint #", $number), options(nostack, preserves_flags)) };
        }
    };
}

marker!(
    /// A measured call of the first kind begins on this CPU: a map, or a read.
    begin_map,
    "80"
);
marker!(
    /// A measured call of the second kind begins on this CPU: an unmap.
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
