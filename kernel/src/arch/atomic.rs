//! Read-modify-writes: one instruction where all CPUs have FEAT_LSE
//! ([`alternatives`](super::alternatives)), else a loop of exclusives, which fetches the line twice
//! and may starve.

use core::arch::asm;
use core::sync::atomic::AtomicU8;
pub use core::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize};

use crate::{alternative, if_lse};

#[inline(always)]
pub fn swap_acquire(word: &AtomicU32, new: u32) -> u32 {
    let old: u32;
    // SAFETY: the caller's atomic. No `nomem`: the lock's data must not be read earlier.
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

#[inline(always)]
pub fn swap_relaxed(word: &AtomicU64, new: u64) -> u64 {
    let old: u64;
    // SAFETY: the caller's atomic.
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

/// Returns whether `expected` was there.
#[inline(always)]
pub fn exchange_relaxed(byte: &AtomicU8, expected: u8, new: u8) -> bool {
    let found: u32;
    // SAFETY: the caller's atomic.
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
            // Not `lateout`: written before the inputs are last read.
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
