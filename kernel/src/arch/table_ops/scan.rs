//! What reads descriptors and frame numbers.

use core::arch::asm;

use super::BLOCK;

/// Folds whole blocks with `$op`, "and" or "orr", whose neutral word is `$neutral`. What remains is left in `$at` and `$nr`.
macro_rules! fold_blocks {
    ($op:literal, $neutral:literal, $at:ident, $nr:ident, $all:ident) => {
        // SAFETY: loads within the caller's range.
        unsafe {
            vector_asm!(
                [
                    concat!("movi v0.2d, ", $neutral),
                    concat!("movi v1.2d, ", $neutral),
                    concat!("movi v2.2d, ", $neutral),
                    concat!("movi v3.2d, ", $neutral),
                    "sub {nr}, {nr}, #16",
                    "2:",
                    "ld1 {{v4.2d, v5.2d, v6.2d, v7.2d}}, [{at}], #64",
                    "ld1 {{v16.2d, v17.2d, v18.2d, v19.2d}}, [{at}], #64",
                    concat!($op, " v0.16b, v0.16b, v4.16b"),
                    concat!($op, " v1.16b, v1.16b, v5.16b"),
                    concat!($op, " v2.16b, v2.16b, v6.16b"),
                    concat!($op, " v3.16b, v3.16b, v7.16b"),
                    "subs {nr}, {nr}, #16",
                    concat!($op, " v0.16b, v0.16b, v16.16b"),
                    concat!($op, " v1.16b, v1.16b, v17.16b"),
                    concat!($op, " v2.16b, v2.16b, v18.16b"),
                    concat!($op, " v3.16b, v3.16b, v19.16b"),
                    "b.hs 2b",
                    "add {nr}, {nr}, #16",
                    concat!($op, " v0.16b, v0.16b, v1.16b"),
                    concat!($op, " v2.16b, v2.16b, v3.16b"),
                    concat!($op, " v0.16b, v0.16b, v2.16b"),
                    "mov {all}, v0.d[0]",
                    "mov {a}, v0.d[1]",
                    concat!($op, " {all}, {all}, {a}"),
                ]
                at = inout(reg) $at,
                nr = inout(reg) $nr,
                all = out(reg) $all,
                a = out(reg) _,
                options(nostack, readonly)
            );
        }
    };
}

/// Folds what remains into `$all`.
macro_rules! fold_rest {
    ($op:literal, $at:ident, $nr:ident, $all:ident) => {
        // SAFETY: loads within the caller's range: two at a time, then the last of an odd number.
        unsafe {
            asm!(
                "subs {nr}, {nr}, #2",
                "b.lo 3f",
                "2:",
                "ldp {a}, {b}, [{at}], #16",
                concat!($op, " {a}, {a}, {b}"),
                "subs {nr}, {nr}, #2",
                concat!($op, " {all}, {all}, {a}"),
                "b.hs 2b",
                "3:",
                "tbz {nr}, #0, 4f",
                "ldr {a}, [{at}]",
                concat!($op, " {all}, {all}, {a}"),
                "4:",
                at = inout(reg) $at => _,
                nr = inout(reg) $nr => _,
                all = inout(reg) $all,
                a = out(reg) _,
                b = out(reg) _,
                options(nostack, readonly)
            );
        }
    };
}

/// The OR of `nr` descriptors (or any words) from `at` on; 0 for none.
///
/// # Safety
/// `at` is 8-byte aligned and readable for `nr` descriptors.
#[inline]
#[must_use]
pub unsafe fn or_all(at: *const u64, nr: usize) -> u64 {
    let (mut at, mut nr, mut all) = (at, nr, 0u64);
    if nr == BLOCK {
        // SAFETY: sixteen loads within the caller's range.
        unsafe {
            vector_asm!(
                [
                    "ld1 {{v0.2d, v1.2d, v2.2d, v3.2d}}, [{at}], #64",
                    "ld1 {{v4.2d, v5.2d, v6.2d, v7.2d}}, [{at}]",
                    "orr v0.16b, v0.16b, v4.16b",
                    "orr v1.16b, v1.16b, v5.16b",
                    "orr v2.16b, v2.16b, v6.16b",
                    "orr v3.16b, v3.16b, v7.16b",
                    "orr v0.16b, v0.16b, v1.16b",
                    "orr v2.16b, v2.16b, v3.16b",
                    "orr v0.16b, v0.16b, v2.16b",
                    "mov {all}, v0.d[0]",
                    "mov {a}, v0.d[1]",
                    "orr {all}, {all}, {a}",
                ]
                at = inout(reg) at => _,
                all = out(reg) all,
                a = out(reg) _,
                options(nostack, readonly)
            );
        }
        return all;
    }
    if nr > BLOCK {
        fold_blocks!("orr", "#0", at, nr, all);
    }
    fold_rest!("orr", at, nr, all);
    all
}

/// The AND of `nr` descriptors from `at` on; all ones for none.
///
/// # Safety
/// As for [`or_all`].
#[inline]
#[must_use]
pub unsafe fn and_all(at: *const u64, nr: usize) -> u64 {
    let (mut at, mut nr, mut all) = (at, nr, u64::MAX);
    if nr >= BLOCK {
        fold_blocks!("and", "#0xffffffffffffffff", at, nr, all);
    }
    fold_rest!("and", at, nr, all);
    all
}

/// The AND and the OR of `nr` descriptors from `at` on, each read once; all ones and 0 for none.
///
/// # Safety
/// As for [`or_all`].
#[inline]
#[must_use]
pub unsafe fn and_or_all(at: *const u64, nr: usize) -> (u64, u64) {
    let (mut at, mut nr, mut and, mut or) = (at, nr, u64::MAX, 0u64);
    if nr == BLOCK {
        // SAFETY: sixteen loads within the caller's range.
        unsafe {
            vector_asm!(
                [
                    "ld1 {{v0.2d, v1.2d, v2.2d, v3.2d}}, [{at}], #64",
                    "ld1 {{v4.2d, v5.2d, v6.2d, v7.2d}}, [{at}]",
                    "and v16.16b, v0.16b, v4.16b",
                    "and v17.16b, v1.16b, v5.16b",
                    "and v18.16b, v2.16b, v6.16b",
                    "and v19.16b, v3.16b, v7.16b",
                    "orr v0.16b, v0.16b, v4.16b",
                    "orr v1.16b, v1.16b, v5.16b",
                    "orr v2.16b, v2.16b, v6.16b",
                    "orr v3.16b, v3.16b, v7.16b",
                    "and v16.16b, v16.16b, v17.16b",
                    "and v18.16b, v18.16b, v19.16b",
                    "orr v0.16b, v0.16b, v1.16b",
                    "orr v2.16b, v2.16b, v3.16b",
                    "and v16.16b, v16.16b, v18.16b",
                    "orr v0.16b, v0.16b, v2.16b",
                    "mov {and}, v16.d[0]",
                    "mov {a}, v16.d[1]",
                    "and {and}, {and}, {a}",
                    "mov {or}, v0.d[0]",
                    "mov {a}, v0.d[1]",
                    "orr {or}, {or}, {a}",
                ]
                at = inout(reg) at => _,
                and = out(reg) and,
                or = out(reg) or,
                a = out(reg) _,
                options(nostack, readonly)
            );
        }
        return (and, or);
    }
    if nr > BLOCK {
        // SAFETY: loads within the caller's range.
        unsafe {
            vector_asm!(
                [
                    "movi v0.2d, #0xffffffffffffffff",
                    "movi v1.2d, #0xffffffffffffffff",
                    "movi v2.2d, #0xffffffffffffffff",
                    "movi v3.2d, #0xffffffffffffffff",
                    "movi v20.2d, #0",
                    "movi v21.2d, #0",
                    "movi v22.2d, #0",
                    "movi v23.2d, #0",
                    "sub {nr}, {nr}, #16",
                    "2:",
                    "ld1 {{v4.2d, v5.2d, v6.2d, v7.2d}}, [{at}], #64",
                    "ld1 {{v16.2d, v17.2d, v18.2d, v19.2d}}, [{at}], #64",
                    "and v0.16b, v0.16b, v4.16b",
                    "and v1.16b, v1.16b, v5.16b",
                    "and v2.16b, v2.16b, v6.16b",
                    "and v3.16b, v3.16b, v7.16b",
                    "orr v20.16b, v20.16b, v4.16b",
                    "orr v21.16b, v21.16b, v5.16b",
                    "orr v22.16b, v22.16b, v6.16b",
                    "orr v23.16b, v23.16b, v7.16b",
                    "subs {nr}, {nr}, #16",
                    "and v0.16b, v0.16b, v16.16b",
                    "and v1.16b, v1.16b, v17.16b",
                    "and v2.16b, v2.16b, v18.16b",
                    "and v3.16b, v3.16b, v19.16b",
                    "orr v20.16b, v20.16b, v16.16b",
                    "orr v21.16b, v21.16b, v17.16b",
                    "orr v22.16b, v22.16b, v18.16b",
                    "orr v23.16b, v23.16b, v19.16b",
                    "b.hs 2b",
                    "add {nr}, {nr}, #16",
                    "and v0.16b, v0.16b, v1.16b",
                    "and v2.16b, v2.16b, v3.16b",
                    "and v0.16b, v0.16b, v2.16b",
                    "mov {and}, v0.d[0]",
                    "mov {a}, v0.d[1]",
                    "and {and}, {and}, {a}",
                    "orr v20.16b, v20.16b, v21.16b",
                    "orr v22.16b, v22.16b, v23.16b",
                    "orr v20.16b, v20.16b, v22.16b",
                    "mov {or}, v20.d[0]",
                    "mov {a}, v20.d[1]",
                    "orr {or}, {or}, {a}",
                ]
                at = inout(reg) at,
                nr = inout(reg) nr,
                and = out(reg) and,
                or = out(reg) or,
                a = out(reg) _,
                options(nostack, readonly)
            );
        }
    }
    // SAFETY: loads within the caller's range: two at a time, then the last of an odd number.
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

/// As [`and_or_all`] for bits 7:0 and 55:48; the others are arbitrary.
///
/// # Safety
/// As for [`or_all`].
#[inline]
#[must_use]
pub unsafe fn flags(at: *const u64, nr: usize) -> (u64, u64) {
    // Below this the plain fold is shorter.
    if nr < 4 * BLOCK {
        // SAFETY: the caller's promise.
        return unsafe { and_or_all(at, nr) };
    }
    let (mut at, mut nr) = (at, nr);
    let (mut and, mut or): (u64, u64);
    // SAFETY: loads within the caller's range. TBL gathers byte 0 of eight descriptors, then byte 6 of them.
    unsafe {
        vector_asm!(
            [
                "movi v20.2d, #0xffffffffffffffff",
                "movi v21.2d, #0",
                "fmov d24, {places}",
                "movi v25.8b, #6",
                "add v25.8b, v25.8b, v24.8b",
                "mov v24.d[1], v25.d[0]",
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
                "and {and}, {and}, #0xff",
                "bfi {and}, {a}, #48, #8",
                "mov {or}, v21.d[0]",
                "mov {a}, v21.d[1]",
                "and {or}, {or}, #0xff",
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
    if nr != 0 {
        // SAFETY: the caller's promise.
        let (rest_and, rest_or) = unsafe { and_or_all(at, nr) };
        and &= rest_and;
        or |= rest_or;
    }
    (and, or)
}

/// How many of the `nr` words from `at` on are `first`, `first + 1`, `first + 2` and so on, before the first that is not.
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
                    "add v16.2d, v16.2d, v24.2d",
                    "add v17.2d, v17.2d, v24.2d",
                    "add v18.2d, v18.2d, v24.2d",
                    "add v19.2d, v19.2d, v24.2d",
                    "add v20.2d, v20.2d, v24.2d",
                    "add v21.2d, v21.2d, v24.2d",
                    "add v22.2d, v22.2d, v24.2d",
                    "add v23.2d, v23.2d, v24.2d",
                    "subs {nr}, {nr}, #16",
                    "b.hs 2b",
                    "b 4f",
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
