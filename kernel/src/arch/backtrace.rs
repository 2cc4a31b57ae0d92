//! Backtraces by frame records (AAPCS64, "The Frame Pointer"). They may be corrupt: each is probed
//! and must lie above the last, and their number is bounded.

use core::arch::asm;

use super::early_console::print;
use super::probe::probe_read;
use crate::layout::LINEAR_BASE;

const MAX_FRAMES: usize = 48;

/// Returns the caller's frame pointer.
#[inline(always)]
#[must_use]
pub fn frame_pointer() -> usize {
    let fp: usize;
    // SAFETY: reads a register.
    unsafe { asm!("mov {}, x29", out(reg) fp, options(nostack, nomem, preserves_flags)) };
    fp
}

/// Calls `each` with the return addresses from `fp` outwards.
pub fn walk(mut fp: usize, mut each: impl FnMut(u64)) {
    // From the overflow stack to the stack that overflowed.
    let mut steps_down = 1;
    for _ in 0..MAX_FRAMES {
        if fp < LINEAR_BASE || !fp.is_multiple_of(8) {
            return;
        }
        let (Ok(next), Ok(return_address)) = (probe_read(fp), probe_read(fp + 8)) else {
            return;
        };
        if return_address == 0 {
            return;
        }
        each(return_address);
        let next = next as usize;
        if next <= fp {
            if steps_down == 0 {
                return;
            }
            steps_down -= 1;
        }
        fp = next;
    }
}

pub fn dump(fp: usize) {
    print(format_args!("backtrace (return addresses):\n"));
    let mut nr = 0;
    walk(fp, |address| {
        print(format_args!("  #{nr:<2} {address:#018x}\n"));
        nr += 1;
    });
    if nr == 0 {
        print(format_args!("  (no frame record at {fp:#x})\n"));
    }
}
