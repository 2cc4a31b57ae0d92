//! `memcpy`, `memmove` and `memset` in assembly. The target is `strict-align`, for code before the
//! MMU is on, so the compiler's own copy bytes; with the MMU on, Normal memory needs no alignment.

use core::arch::global_asm;

global_asm!(include_str!("mem.s"));
