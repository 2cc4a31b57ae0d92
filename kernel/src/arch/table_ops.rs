//! Bulk operations on translation tables.
//!
//! # Why pairs are allowed
//! A hardware walker may read a descriptor at any moment, so each descriptor must be written by a single-copy atomic 64-bit access. STP of two X registers
//! to an address that is 8-byte aligned is two such accesses, in no order between each other (Arm ARM, "Requirements for single-copy atomicity": a Load/Store Pair that
//! stores two general-purpose registers is two single-copy atomic accesses, one for each register, when each is aligned to its size). That is exactly what two
//! relaxed atomic stores promise, at half the instructions. The compiler never makes a pair of atomic or volatile stores, so it is done here.
//!
//! LDP the same, for reads. DC ZVA promises no such thing, so it only zeroes a table that no walker reaches.
//!
//! None has a barrier: that is the caller's (DESIGN section 3, rule 2).

use core::arch::asm;

/// Stores `first`, `first + step`, `first + 2 * step`, ... to `nr` descriptors from `at` on.
///
/// # Safety
/// `at` is 8-byte aligned and mapped, Normal memory, for `nr` descriptors, that the caller may write.
#[inline]
pub unsafe fn fill_linear(at: *mut u64, nr: usize, first: u64, step: u64) {
    // SAFETY: stores within the caller's range: four at a time, then what remains.
    unsafe {
        asm!(
            "subs {nr}, {nr}, #4",
            "b.lo 3f",
            "2:",
            "add {b}, {a}, {step}",
            "add {c}, {b}, {step}",
            "stp {a}, {b}, [{at}], #32",
            "add {b}, {c}, {step}",
            "subs {nr}, {nr}, #4",
            "stp {c}, {b}, [{at}, #-16]",
            "add {a}, {b}, {step}",
            "b.hs 2b",
            "3:",
            "adds {nr}, {nr}, #4",
            "b.eq 5f",
            "4:",
            "str {a}, [{at}], #8",
            "add {a}, {a}, {step}",
            "subs {nr}, {nr}, #1",
            "b.ne 4b",
            "5:",
            at = inout(reg) at => _,
            nr = inout(reg) nr => _,
            a = inout(reg) first => _,
            b = out(reg) _,
            c = out(reg) _,
            step = in(reg) step,
            options(nostack)
        );
    }
}

/// Stores `outputs[i] | template` to `nr` descriptors from `at` on.
///
/// # Safety
/// As for [`fill_linear`]; `outputs` is readable for `nr` words.
#[inline]
pub unsafe fn fill_outputs(at: *mut u64, nr: usize, outputs: *const u64, template: u64) {
    // SAFETY: loads and stores within the caller's ranges: two at a time, then the last of an odd number.
    unsafe {
        asm!(
            "subs {nr}, {nr}, #2",
            "b.lo 3f",
            "2:",
            "ldp {a}, {b}, [{from}], #16",
            "orr {a}, {a}, {template}",
            "orr {b}, {b}, {template}",
            "subs {nr}, {nr}, #2",
            "stp {a}, {b}, [{at}], #16",
            "b.hs 2b",
            "3:",
            "tbz {nr}, #0, 4f",
            "ldr {a}, [{from}]",
            "orr {a}, {a}, {template}",
            "str {a}, [{at}]",
            "4:",
            at = inout(reg) at => _,
            from = inout(reg) outputs => _,
            nr = inout(reg) nr => _,
            a = out(reg) _,
            b = out(reg) _,
            template = in(reg) template,
            options(nostack)
        );
    }
}

/// Stores 0 to `nr` descriptors from `at` on.
///
/// # Safety
/// As for [`fill_linear`].
#[inline]
pub unsafe fn clear(at: *mut u64, nr: usize) {
    // SAFETY: stores within the caller's range: eight at a time, then what remains. Not DC ZVA: walkers may reach this table.
    unsafe {
        asm!(
            "subs {nr}, {nr}, #8",
            "b.lo 3f",
            "2:",
            "stp xzr, xzr, [{at}], #64",
            "stp xzr, xzr, [{at}, #-48]",
            "subs {nr}, {nr}, #8",
            "stp xzr, xzr, [{at}, #-32]",
            "stp xzr, xzr, [{at}, #-16]",
            "b.hs 2b",
            "3:",
            "adds {nr}, {nr}, #8",
            "b.eq 5f",
            "4:",
            "str xzr, [{at}], #8",
            "subs {nr}, {nr}, #1",
            "b.ne 4b",
            "5:",
            at = inout(reg) at => _,
            nr = inout(reg) nr => _,
            options(nostack)
        );
    }
}

/// The OR of `nr` descriptors from `at` on; 0 for none.
///
/// # Safety
/// `at` is 8-byte aligned and readable for `nr` descriptors.
#[inline]
#[must_use]
pub unsafe fn or_all(at: *const u64, nr: usize) -> u64 {
    let all: u64;
    // SAFETY: loads within the caller's range.
    unsafe {
        asm!(
            "subs {nr}, {nr}, #4",
            "b.lo 3f",
            "2:",
            "ldp {a}, {b}, [{at}], #32",
            "ldp {c}, {d}, [{at}, #-16]",
            "orr {a}, {a}, {b}",
            "orr {c}, {c}, {d}",
            "orr {all}, {all}, {a}",
            "subs {nr}, {nr}, #4",
            "orr {all}, {all}, {c}",
            "b.hs 2b",
            "3:",
            "adds {nr}, {nr}, #4",
            "b.eq 5f",
            "4:",
            "ldr {a}, [{at}], #8",
            "subs {nr}, {nr}, #1",
            "orr {all}, {all}, {a}",
            "b.ne 4b",
            "5:",
            at = inout(reg) at => _,
            nr = inout(reg) nr => _,
            all = inout(reg) 0u64 => all,
            a = out(reg) _,
            b = out(reg) _,
            c = out(reg) _,
            d = out(reg) _,
            options(nostack, readonly)
        );
    }
    all
}

/// The AND of `nr` descriptors from `at` on; all ones for none.
///
/// # Safety
/// As for [`or_all`].
#[inline]
#[must_use]
pub unsafe fn and_all(at: *const u64, nr: usize) -> u64 {
    let all: u64;
    // SAFETY: loads within the caller's range.
    unsafe {
        asm!(
            "subs {nr}, {nr}, #4",
            "b.lo 3f",
            "2:",
            "ldp {a}, {b}, [{at}], #32",
            "ldp {c}, {d}, [{at}, #-16]",
            "and {a}, {a}, {b}",
            "and {c}, {c}, {d}",
            "and {all}, {all}, {a}",
            "subs {nr}, {nr}, #4",
            "and {all}, {all}, {c}",
            "b.hs 2b",
            "3:",
            "adds {nr}, {nr}, #4",
            "b.eq 5f",
            "4:",
            "ldr {a}, [{at}], #8",
            "subs {nr}, {nr}, #1",
            "and {all}, {all}, {a}",
            "b.ne 4b",
            "5:",
            at = inout(reg) at => _,
            nr = inout(reg) nr => _,
            all = inout(reg) u64::MAX => all,
            a = out(reg) _,
            b = out(reg) _,
            c = out(reg) _,
            d = out(reg) _,
            options(nostack, readonly)
        );
    }
    all
}

/// The AND and the OR of `nr` descriptors from `at` on, each read once; all ones and 0 for none.
///
/// # Safety
/// As for [`or_all`].
#[inline]
#[must_use]
pub unsafe fn and_or_all(at: *const u64, nr: usize) -> (u64, u64) {
    let (and, or): (u64, u64);
    // SAFETY: loads within the caller's range.
    unsafe {
        asm!(
            "subs {nr}, {nr}, #4",
            "b.lo 3f",
            "2:",
            "ldp {a}, {b}, [{at}], #32",
            "ldp {c}, {d}, [{at}, #-16]",
            "and {e}, {a}, {b}",
            "orr {a}, {a}, {b}",
            "and {b}, {c}, {d}",
            "orr {c}, {c}, {d}",
            "and {and}, {and}, {e}",
            "orr {or}, {or}, {a}",
            "and {and}, {and}, {b}",
            "subs {nr}, {nr}, #4",
            "orr {or}, {or}, {c}",
            "b.hs 2b",
            "3:",
            "adds {nr}, {nr}, #4",
            "b.eq 5f",
            "4:",
            "ldr {a}, [{at}], #8",
            "subs {nr}, {nr}, #1",
            "and {and}, {and}, {a}",
            "orr {or}, {or}, {a}",
            "b.ne 4b",
            "5:",
            at = inout(reg) at => _,
            nr = inout(reg) nr => _,
            and = inout(reg) u64::MAX => and,
            or = inout(reg) 0u64 => or,
            a = out(reg) _,
            b = out(reg) _,
            c = out(reg) _,
            d = out(reg) _,
            e = out(reg) _,
            options(nostack, readonly)
        );
    }
    (and, or)
}

/// Zeroes a table that no walker reaches. `zva_size` is [`Features::zva_size`](super::features::Features::zva_size): 0 means that DC ZVA is not to be used.
///
/// # Safety
/// `table` is 4 KiB-aligned, mapped as Normal memory (DC ZVA faults on Device memory), writable by the caller, and not linked into live tables.
#[inline]
pub unsafe fn zero_table(table: *mut u64, zva_size: usize) {
    const SIZE: usize = 4096;
    if zva_size == 0 || zva_size > SIZE {
        // SAFETY: the caller's promise.
        unsafe { clear(table, SIZE / 8) };
        return;
    }
    // SAFETY: the block size is a power of two that divides a page, so each DC ZVA stays in it.
    unsafe {
        asm!(
            "2:",
            "dc zva, {at}",
            "add {at}, {at}, {size}",
            "cmp {at}, {end}",
            "b.lo 2b",
            at = inout(reg) table => _,
            size = in(reg) zva_size,
            end = in(reg) table as usize + SIZE,
            options(nostack)
        );
    }
}
