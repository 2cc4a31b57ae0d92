//! `memcpy`, `memmove` and `memset` in assembly, in the place of the compiler's own.
//!
//! The target is `strict-align`, for the code that runs before the MMU is on. So the compiler's own
//! copy bytes where it cannot prove alignment, and calls them for a few dozen bytes that other
//! targets would copy in line. Once the MMU is on, an access to Normal memory needs no alignment.

use core::arch::global_asm;

global_asm!(include_str!("mem.s"));
