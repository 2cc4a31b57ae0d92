//! The read-modify-writes of locks and free lists: one instruction each where all CPUs have
//! FEAT_LSE, and a loop of exclusives where one has not.
//!
//! What the compiler makes for the baseline is the loop. Its load fetches the cache line to read,
//! and its store once more to write; of many CPUs that want one line, the one that has both at the
//! right moment is not any that waits longest. An atomic instruction fetches the line once, or is
//! done where the line is (Arm ARM B2.2, "Atomicity"; "Atomic instructions"). Which of the two is
//! there is decided at boot, without a test at run time: [`alternatives`](super::alternatives).

use core::arch::asm;
use core::sync::atomic::{AtomicU8, AtomicU32, AtomicU64};

use crate::{alternative, if_lse};

/// Stores `new`, and returns what was there. Acquire: later accesses are not before the load.
#[inline(always)]
pub fn swap_acquire(word: &AtomicU32, new: u32) -> u32 {
    let old: u32;
    // SAFETY: an atomic of the caller's. Memory is an operand, since what the lock protects is not
    // to be read ahead.
    unsafe {
        asm!(
            alternative!(
                "2: ldaxr {old:w}, [{word}]
                stxr {failed:w}, {new:w}, [{word}]
                cbnz {failed:w}, 2b",
                "swpa {new:w}, {old:w}, [{word}]
                b 664f
                nop",
                if_lse!()
            ),
            old = out(reg) old,
            failed = out(reg) _,
            new = in(reg) new,
            word = in(reg) word.as_ptr(),
            options(nostack, preserves_flags)
        );
    }
    old
}

/// Stores `new`, and returns what was there. Orders nothing else.
#[inline(always)]
pub fn swap_relaxed(word: &AtomicU64, new: u64) -> u64 {
    let old: u64;
    // SAFETY: an atomic of the caller's.
    unsafe {
        asm!(
            alternative!(
                "2: ldxr {old}, [{word}]
                stxr {failed:w}, {new}, [{word}]
                cbnz {failed:w}, 2b",
                "swp {new}, {old}, [{word}]
                b 664f
                nop",
                if_lse!()
            ),
            old = out(reg) old,
            failed = out(reg) _,
            new = in(reg) new,
            word = in(reg) word.as_ptr(),
            options(nostack, preserves_flags)
        );
    }
    old
}

/// Stores `new` if `expected` is there; whether it was. Orders nothing else.
#[inline(always)]
pub fn exchange_relaxed(byte: &AtomicU8, expected: u8, new: u8) -> bool {
    let found: u32;
    // SAFETY: an atomic of the caller's.
    unsafe {
        asm!(
            alternative!(
                "2: ldxrb {found:w}, [{byte}]
                cmp {found:w}, {expected:w}
                b.ne 3f
                stxrb {failed:w}, {new:w}, [{byte}]
                cbnz {failed:w}, 2b
                3:",
                "mov {found:w}, {expected:w}
                casb {found:w}, {new:w}, [{byte}]
                b 664f
                nop
                nop",
                if_lse!()
            ),
            // Written before the inputs are read for the last time.
            found = out(reg) found,
            failed = out(reg) _,
            expected = in(reg) u32::from(expected),
            new = in(reg) u32::from(new),
            byte = in(reg) byte.as_ptr(),
            options(nostack)
        );
    }
    found == u32::from(expected)
}
