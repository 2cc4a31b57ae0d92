//! Bulk operations on translation tables, and on the arrays of frame numbers that fill them.
//!
//! # Why pairs and vectors are allowed
//! A hardware walker may read a descriptor at any moment, so each descriptor must be written by a single-copy atomic 64-bit access. The compiler never makes one
//! access of two atomic or volatile ones, so it is done here. What the architecture promises (Arm ARM B2.2.1, "Requirements for single-copy atomicity"):
//!
//! - STP and LDP of two X registers at an address that is 8-byte aligned are two single-copy atomic accesses, in no order between each other;
//! - ST1 and LD1 of registers with 64-bit elements (`.2d`) access each element by itself: single-copy atomic where it is 8-byte aligned, in no order between them.
//!
//! That is exactly what so many relaxed atomic accesses promise, at a fraction of the instructions. DC ZVA promises no such thing, so it only zeroes a table that no
//! walker reaches.
//!
//! # Vector registers
//! The kernel is built without them (softfloat), so no compiled code has anything in them, and none is saved anywhere. They are used here alone, from [`BLOCK`]
//! descriptors on: with interrupts masked from the first use to the last, so that no handler that comes in between can come here too; a synchronous exception
//! that returns (a probe, a retry in a break window) does not come here. CPACR_EL1.FPEN lets every CPU use them; [`Features`](super::features::Features) says whether it has them.
//!
//! None has a barrier: that is the caller's (DESIGN section 3, rule 2).

/// From this many elements on the vector loops are used, and so many are done in a turn.
pub const BLOCK: usize = 16;

/// `asm!` around a loop over whole blocks with vector registers, interrupts masked. v8 to v15 are left alone.
macro_rules! vector_asm {
    ([$($line:expr,)*] $($operands:tt)*) => {
        core::arch::asm!(
            ".arch_extension simd",
            "mrs {daif}, daif",
            "msr daifset, #0b0011",
            $($line,)*
            "msr daif, {daif}",
            daif = out(reg) _,
            $($operands)*
        )
    };
}

mod fill;
mod scan;

pub use fill::{clear, fill_frames, fill_linear, fill_outputs, zero_table};
pub use scan::{and_all, and_or_all, flags, nr_consecutive, or_all};
