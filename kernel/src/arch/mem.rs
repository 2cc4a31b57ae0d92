//! `memcpy`, `memmove` and `memset`: the compiler's copy bytes, as the target is `strict-align` for
//! code before the MMU is on.

use core::arch::global_asm;

global_asm!(include_str!("mem.s"));
