//! Bulk operations on translation tables, and on the arrays of frame numbers that fill them.
//!
//! # Why pairs and vectors are allowed
//! A hardware walker may read a descriptor at any moment, so each descriptor must be written by a
//! single-copy atomic 64-bit access. The compiler never makes one access of two atomic or volatile
//! ones, so it is done here. What the architecture promises (Arm ARM B2.2.1, "Requirements for
//! single-copy atomicity"):
//!
//! - STP and LDP of two X registers at an address that is 8-byte aligned are two single-copy atomic
//!   accesses, in no order between each other;
//! - LD1 of registers with 64-bit elements (`.2d`) reads each element by itself: single-copy atomic
//!   where it is 8-byte aligned, in no order between them.
//!
//! That is what so many relaxed atomic accesses promise. DC ZVA promises no such thing, so it only
//! zeroes a table that no walker reaches.
//!
//! # Which have a vector version
//! Those that it makes at least 1.3 times as fast on two of three processors. Cycles for a
//! descriptor in the steady state, by `llvm-mca` 19 (`-iterations=200`, all data in the first cache):
//!
//! ```text
//!                          cortex-a55   cortex-a76   neoverse-n1   instructions
//! fill_linear  general        2.13         1.06          0.52          1.63   <- used
//!              vector         0.81         1.00          0.50          0.94
//! fill_frames  general        3.50         1.38          1.00          2.50   <- used
//!              vector         2.63         1.07          1.00          1.38
//! clear        general        0.75         1.00          0.50          0.63   <- used
//!              vector         0.63         1.00          0.25          0.25
//! kinds        general        2.50         1.26          0.79          2.88
//!              vector         1.81         0.76          0.32          0.63   <- used
//! consecutive  general        5.13         1.26          0.76          3.00
//!              vector         3.50         0.88          0.78          1.88   <- used
//! ```
//!
//! # Vector registers
//! The kernel is built without them (softfloat), so no compiled code has anything in them, and none
//! is saved anywhere. They are used here alone, and only for whole blocks of [`BLOCK`] words: with
//! interrupts masked from the first use to the last, so that no handler that comes in between can
//! come here too; a synchronous exception that returns (a probe, a retry in a break window) does not
//! come here. CPACR_EL1.FPEN lets every CPU use them; [`Features`](super::features::Features) says
//! whether it has them.
//!
//! None has a barrier: that is the caller's (DESIGN rule 2).

use core::arch::asm;

/// Words that a vector loop takes in a turn.
pub const BLOCK: usize = 16;

/// `asm!` around a loop over whole blocks with vector registers, interrupts masked.
macro_rules! vector_asm {
    ([$($line:expr,)*] $($operands:tt)*) => {
        asm!(
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

/// The lines eight times over. Not by `.rept`: the compiler counts lines to see how far it may branch.
macro_rules! eight_times {
    ($($line:literal,)*) => {
        concat!(
            $($line,)* $($line,)* $($line,)* $($line,)* $($line,)* $($line,)* $($line,)* $($line,)*
        )
    };
}

/// Stores `first`, `first + step`, `first + 2 * step`, ... to `nr` descriptors from `at` on.
///
/// # Safety
/// `at` is 8-byte aligned and mapped, Normal memory, for `nr` descriptors, that the caller may write.
#[inline]
pub unsafe fn fill_linear(at: *mut u64, nr: usize, first: u64, step: u64) {
    // SAFETY: `nr` stores within the caller's range: sixteen in a turn, then pairs, then the last.
    unsafe {
        asm!(
            "add {b}, {a}, {step}",
            "lsl {step}, {step}, #1",
            "subs {nr}, {nr}, #16",
            "b.lo 3f",
            "2:",
            eight_times!(
                "stp {a}, {b}, [{at}], #16\n",
                "add {a}, {a}, {step}\n",
                "add {b}, {b}, {step}\n",
            ),
            "subs {nr}, {nr}, #16",
            "b.hs 2b",
            "3:",
            "adds {nr}, {nr}, #14",
            "b.mi 5f",
            "4:",
            "stp {a}, {b}, [{at}], #16",
            "add {a}, {a}, {step}",
            "add {b}, {b}, {step}",
            "subs {nr}, {nr}, #2",
            "b.pl 4b",
            "5:",
            "tbz {nr}, #0, 6f",
            "str {a}, [{at}]",
            "6:",
            at = inout(reg) at => _,
            nr = inout(reg) nr => _,
            a = inout(reg) first => _,
            b = out(reg) _,
            step = inout(reg) step => _,
            options(nostack)
        );
    }
}

/// Stores `frames[i] << 12 | template` to `nr` descriptors from `at` on.
///
/// # Safety
/// As for [`fill_linear`]; `frames` is readable for `nr` words.
#[inline]
pub unsafe fn fill_frames(at: *mut u64, nr: usize, frames: *const u64, template: u64) {
    // SAFETY: loads and stores within the caller's ranges: eight in a turn, then one by one.
    unsafe {
        asm!(
            "subs {nr}, {nr}, #8",
            "b.lo 3f",
            "2:",
            "ldp {a}, {b}, [{from}]",
            "ldp {c}, {d}, [{from}, #16]",
            "ldp {e}, {f}, [{from}, #32]",
            "ldp {g}, {h}, [{from}, #48]",
            "orr {a}, {template}, {a}, lsl #12",
            "orr {b}, {template}, {b}, lsl #12",
            "stp {a}, {b}, [{at}]",
            "orr {c}, {template}, {c}, lsl #12",
            "orr {d}, {template}, {d}, lsl #12",
            "stp {c}, {d}, [{at}, #16]",
            "orr {e}, {template}, {e}, lsl #12",
            "orr {f}, {template}, {f}, lsl #12",
            "stp {e}, {f}, [{at}, #32]",
            "orr {g}, {template}, {g}, lsl #12",
            "orr {h}, {template}, {h}, lsl #12",
            "stp {g}, {h}, [{at}, #48]",
            "add {from}, {from}, #64",
            "add {at}, {at}, #64",
            "subs {nr}, {nr}, #8",
            "b.hs 2b",
            "3:",
            "adds {nr}, {nr}, #8",
            "b.eq 5f",
            "4:",
            "ldr {a}, [{from}], #8",
            "orr {a}, {template}, {a}, lsl #12",
            "subs {nr}, {nr}, #1",
            "str {a}, [{at}], #8",
            "b.ne 4b",
            "5:",
            at = inout(reg) at => _,
            from = inout(reg) frames => _,
            nr = inout(reg) nr => _,
            template = in(reg) template,
            a = out(reg) _, b = out(reg) _, c = out(reg) _, d = out(reg) _,
            e = out(reg) _, f = out(reg) _, g = out(reg) _, h = out(reg) _,
            options(nostack)
        );
    }
}

/// Stores 0 to `nr` descriptors from `at` on. Not DC ZVA: walkers may reach this table.
///
/// # Safety
/// As for [`fill_linear`].
#[inline]
pub unsafe fn clear(at: *mut u64, nr: usize) {
    // SAFETY: `nr` stores within the caller's range: sixteen in a turn, then pairs, then the last.
    unsafe {
        asm!(
            "subs {nr}, {nr}, #16",
            "b.lo 3f",
            "2:",
            eight_times!("stp xzr, xzr, [{at}], #16\n",),
            "subs {nr}, {nr}, #16",
            "b.hs 2b",
            "3:",
            "adds {nr}, {nr}, #14",
            "b.mi 5f",
            "4:",
            "stp xzr, xzr, [{at}], #16",
            "subs {nr}, {nr}, #2",
            "b.pl 4b",
            "5:",
            "tbz {nr}, #0, 6f",
            "str xzr, [{at}]",
            "6:",
            at = inout(reg) at => _,
            nr = inout(reg) nr => _,
            options(nostack)
        );
    }
}

/// Zeroes a table that no walker reaches. `zva_size` is
/// [`Features::zva_size`](super::features::Features::zva_size): 0 means that DC ZVA is not to be used.
///
/// # Safety
/// `table` is 4 KiB-aligned, mapped as Normal memory (DC ZVA faults on Device memory), writable by the
/// caller, and not linked into live tables.
#[inline]
pub unsafe fn zero_table(table: *mut u64, zva_size: usize) {
    const SIZE: usize = 4096;
    // Eight in a turn; a block may be as large as 2 KiB.
    if zva_size == 0 || zva_size > SIZE / 8 {
        // SAFETY: the caller's promise.
        unsafe { clear(table, SIZE / 8) };
        return;
    }
    // SAFETY: eight block sizes are a power of two that divides a page, so each DC ZVA stays in it.
    unsafe {
        asm!(
            "2:",
            eight_times!("dc zva, {at}\n", "add {at}, {at}, {size}\n",),
            "cmp {at}, {end}",
            "b.lo 2b",
            at = inout(reg) table => _,
            size = in(reg) zva_size,
            end = in(reg) table as usize + SIZE,
            options(nostack)
        );
    }
}

/// The AND and the OR of bits 7:0 and 55:48 of `nr` descriptors from `at` on, which say what kinds
/// they are. The other bits are arbitrary.
///
/// # Safety
/// `at` is 8-byte aligned and readable for `nr` descriptors.
#[inline]
#[must_use]
pub unsafe fn kinds(at: *const u64, nr: usize) -> (u64, u64) {
    let (mut and, mut or) = (u64::MAX, 0u64);
    let (mut at, mut nr) = (at, nr);
    if nr >= BLOCK {
        // SAFETY: loads within the caller's range. TBL takes byte 0 of eight descriptors, then byte 6
        // of them, into one register; at the end the eight of each are folded into one.
        unsafe {
            vector_asm!(
                [
                    "fmov d24, {places}",
                    "movi v25.8b, #6",
                    "add v25.8b, v25.8b, v24.8b",
                    "mov v24.d[1], v25.d[0]",
                    "movi v20.2d, #0xffffffffffffffff",
                    "movi v21.2d, #0",
                    "sub {nr}, {nr}, #16",
                    "2:",
                    "ld1 {{v0.2d, v1.2d, v2.2d, v3.2d}}, [{at}], #64",
                    "ld1 {{v4.2d, v5.2d, v6.2d, v7.2d}}, [{at}], #64",
                    "tbl v16.16b, {{v0.16b, v1.16b, v2.16b, v3.16b}}, v24.16b",
                    "tbl v17.16b, {{v4.16b, v5.16b, v6.16b, v7.16b}}, v24.16b",
                    "subs {nr}, {nr}, #16",
                    "and v20.16b, v20.16b, v16.16b",
                    "orr v21.16b, v21.16b, v16.16b",
                    "and v20.16b, v20.16b, v17.16b",
                    "orr v21.16b, v21.16b, v17.16b",
                    "b.hs 2b",
                    "add {nr}, {nr}, #16",
                    "ushr v16.2d, v20.2d, #32",
                    "ushr v17.2d, v21.2d, #32",
                    "and v20.16b, v20.16b, v16.16b",
                    "orr v21.16b, v21.16b, v17.16b",
                    "ushr v16.2d, v20.2d, #16",
                    "ushr v17.2d, v21.2d, #16",
                    "and v20.16b, v20.16b, v16.16b",
                    "orr v21.16b, v21.16b, v17.16b",
                    "ushr v16.2d, v20.2d, #8",
                    "ushr v17.2d, v21.2d, #8",
                    "and v20.16b, v20.16b, v16.16b",
                    "orr v21.16b, v21.16b, v17.16b",
                    "mov {and}, v20.d[0]",
                    "mov {a}, v20.d[1]",
                    "bfi {and}, {a}, #48, #8",
                    "mov {or}, v21.d[0]",
                    "mov {a}, v21.d[1]",
                    "bfi {or}, {a}, #48, #8",
                ]
                at = inout(reg) at,
                nr = inout(reg) nr,
                and = out(reg) and,
                or = out(reg) or,
                a = out(reg) _,
                places = in(reg) 0x3830_2820_1810_0800u64,
                options(nostack, readonly)
            );
        }
    }
    // SAFETY: as above: two at a time, then the last of an odd number.
    unsafe {
        asm!(
            "subs {nr}, {nr}, #2",
            "b.lo 3f",
            "2:",
            "ldp {a}, {b}, [{at}], #16",
            "and {c}, {a}, {b}",
            "orr {a}, {a}, {b}",
            "and {and}, {and}, {c}",
            "subs {nr}, {nr}, #2",
            "orr {or}, {or}, {a}",
            "b.hs 2b",
            "3:",
            "tbz {nr}, #0, 4f",
            "ldr {a}, [{at}]",
            "and {and}, {and}, {a}",
            "orr {or}, {or}, {a}",
            "4:",
            at = inout(reg) at => _,
            nr = inout(reg) nr => _,
            and = inout(reg) and,
            or = inout(reg) or,
            a = out(reg) _,
            b = out(reg) _,
            c = out(reg) _,
            options(nostack, readonly)
        );
    }
    (and, or)
}

/// How many of the `nr` words from `at` on are `first`, `first + 1`, `first + 2` and so on, before the
/// first that is not.
///
/// # Safety
/// `at` is 8-byte aligned and readable for `nr` words.
#[inline]
#[must_use]
pub unsafe fn nr_consecutive(at: *const u64, nr: usize, first: u64) -> usize {
    let all = nr;
    let (mut at, mut nr) = (at, nr);
    if nr >= BLOCK {
        // SAFETY: loads within the caller's range. Blocks that are right in all words are passed over.
        unsafe {
            vector_asm!(
                [
                    "dup v16.2d, {first}",
                    "add {a}, {first}, #1",
                    "mov v16.d[1], {a}",
                    "mov {a}, #2",
                    "dup v24.2d, {a}",
                    "add v17.2d, v16.2d, v24.2d",
                    "add v18.2d, v17.2d, v24.2d",
                    "add v19.2d, v18.2d, v24.2d",
                    "add v20.2d, v19.2d, v24.2d",
                    "add v21.2d, v20.2d, v24.2d",
                    "add v22.2d, v21.2d, v24.2d",
                    "add v23.2d, v22.2d, v24.2d",
                    "shl v24.2d, v24.2d, #3",
                    "sub {nr}, {nr}, #16",
                    "2:",
                    "ld1 {{v0.2d, v1.2d, v2.2d, v3.2d}}, [{at}], #64",
                    "ld1 {{v4.2d, v5.2d, v6.2d, v7.2d}}, [{at}], #64",
                    "eor v0.16b, v0.16b, v16.16b",
                    "eor v1.16b, v1.16b, v17.16b",
                    "eor v2.16b, v2.16b, v18.16b",
                    "eor v3.16b, v3.16b, v19.16b",
                    "eor v4.16b, v4.16b, v20.16b",
                    "eor v5.16b, v5.16b, v21.16b",
                    "eor v6.16b, v6.16b, v22.16b",
                    "eor v7.16b, v7.16b, v23.16b",
                    "orr v0.16b, v0.16b, v4.16b",
                    "orr v1.16b, v1.16b, v5.16b",
                    "orr v2.16b, v2.16b, v6.16b",
                    "orr v3.16b, v3.16b, v7.16b",
                    "orr v0.16b, v0.16b, v1.16b",
                    "orr v2.16b, v2.16b, v3.16b",
                    "orr v0.16b, v0.16b, v2.16b",
                    "umaxp v0.4s, v0.4s, v0.4s",
                    "mov {a}, v0.d[0]",
                    "cbnz {a}, 3f",
                    "subs {nr}, {nr}, #16",
                    "b.lo 4f",
                    "add v16.2d, v16.2d, v24.2d",
                    "add v17.2d, v17.2d, v24.2d",
                    "add v18.2d, v18.2d, v24.2d",
                    "add v19.2d, v19.2d, v24.2d",
                    "add v20.2d, v20.2d, v24.2d",
                    "add v21.2d, v21.2d, v24.2d",
                    "add v22.2d, v22.2d, v24.2d",
                    "add v23.2d, v23.2d, v24.2d",
                    "b 2b",
                    "3:",
                    "sub {at}, {at}, #128",
                    "4:",
                    "add {nr}, {nr}, #16",
                ]
                at = inout(reg) at,
                nr = inout(reg) nr,
                first = in(reg) first,
                a = out(reg) _,
                options(nostack, readonly)
            );
        }
    }
    let mut expected = first.wrapping_add((all - nr) as u64);
    while nr != 0 {
        // SAFETY: within the caller's range.
        if unsafe { at.read() } != expected {
            break;
        }
        // SAFETY: as above, or one past its end.
        at = unsafe { at.add(1) };
        expected = expected.wrapping_add(1);
        nr -= 1;
    }
    all - nr
}
