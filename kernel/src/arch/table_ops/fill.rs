//! What writes descriptors.

use core::arch::asm;

use super::BLOCK;

/// v0 to v3: eight values from `first` on, each a `step` above the one before; v4: eight steps, in both halves.
macro_rules! eight_values {
    () => {
        concat!(
            "dup v0.2d, {first}\n",
            "dup v4.2d, {step}\n",
            "add {first}, {first}, {step}\n",
            "mov v0.d[1], {first}\n",
            "add v4.2d, v4.2d, v4.2d\n",
            "add v1.2d, v0.2d, v4.2d\n",
            "add v2.2d, v1.2d, v4.2d\n",
            "add v3.2d, v2.2d, v4.2d\n",
            "shl v4.2d, v4.2d, #2\n",
        )
    };
}

/// v0 to v3: the eight values that follow.
macro_rules! next_eight {
    () => {
        concat!(
            "add v0.2d, v0.2d, v4.2d\n",
            "add v1.2d, v1.2d, v4.2d\n",
            "add v2.2d, v2.2d, v4.2d\n",
            "add v3.2d, v3.2d, v4.2d\n",
        )
    };
}

/// Stores `first`, `first + step`, `first + 2 * step`, ... to `nr` descriptors from `at` on.
///
/// # Safety
/// `at` is 8-byte aligned and mapped, Normal memory, for `nr` descriptors, that the caller may write.
#[inline]
pub unsafe fn fill_linear(at: *mut u64, nr: usize, first: u64, step: u64) {
    let (mut at, mut nr, mut first) = (at, nr, first);
    if nr == BLOCK {
        // SAFETY: sixteen stores within the caller's range: eight values, and the same raised by eight steps.
        unsafe {
            vector_asm!(
                [
                    eight_values!(),
                    "st1 {{v0.2d, v1.2d, v2.2d, v3.2d}}, [{at}], #64",
                    next_eight!(),
                    "st1 {{v0.2d, v1.2d, v2.2d, v3.2d}}, [{at}]",
                ]
                at = inout(reg) at => _,
                first = inout(reg) first => _,
                step = in(reg) step,
                options(nostack)
            );
        }
        return;
    }
    if nr > BLOCK {
        // SAFETY: stores within the caller's range: eight running values, stored and raised by eight steps, twice in each turn.
        unsafe {
            vector_asm!(
                [
                    eight_values!(),
                    "sub {nr}, {nr}, #16",
                    "2:",
                    "st1 {{v0.2d, v1.2d, v2.2d, v3.2d}}, [{at}], #64",
                    next_eight!(),
                    "st1 {{v0.2d, v1.2d, v2.2d, v3.2d}}, [{at}], #64",
                    "subs {nr}, {nr}, #16",
                    next_eight!(),
                    "b.hs 2b",
                    "add {nr}, {nr}, #16",
                    "mov {first}, v0.d[0]",
                ]
                at = inout(reg) at,
                nr = inout(reg) nr,
                first = inout(reg) first,
                step = in(reg) step,
                options(nostack)
            );
        }
    }
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
    // SAFETY: the caller's promise.
    unsafe { fill_shifted::<0>(at, nr, outputs, template) }
}

/// Stores `frames[i] << 12 | template` to `nr` descriptors from `at` on.
///
/// # Safety
/// As for [`fill_linear`]; `frames` is readable for `nr` words.
#[inline]
pub unsafe fn fill_frames(at: *mut u64, nr: usize, frames: *const u64, template: u64) {
    // SAFETY: the caller's promise.
    unsafe { fill_shifted::<12>(at, nr, frames, template) }
}

/// Stores `words[i] << SHIFT | template` to `nr` descriptors from `at` on.
///
/// # Safety
/// As for [`fill_linear`]; `words` is readable for `nr` words.
#[inline]
unsafe fn fill_shifted<const SHIFT: u32>(at: *mut u64, nr: usize, words: *const u64, template: u64) {
    let (mut at, mut nr, mut from) = (at, nr, words);
    if nr >= BLOCK {
        // SAFETY: loads and stores within the caller's ranges. A shift by nothing is left out.
        unsafe {
            vector_asm!(
                [
                    "dup v16.2d, {template}",
                    "sub {nr}, {nr}, #16",
                    "2:",
                    "ld1 {{v0.2d, v1.2d, v2.2d, v3.2d}}, [{from}], #64",
                    "ld1 {{v4.2d, v5.2d, v6.2d, v7.2d}}, [{from}], #64",
                    ".if {shift}",
                    "shl v0.2d, v0.2d, #{shift}",
                    "shl v1.2d, v1.2d, #{shift}",
                    "shl v2.2d, v2.2d, #{shift}",
                    "shl v3.2d, v3.2d, #{shift}",
                    "shl v4.2d, v4.2d, #{shift}",
                    "shl v5.2d, v5.2d, #{shift}",
                    "shl v6.2d, v6.2d, #{shift}",
                    "shl v7.2d, v7.2d, #{shift}",
                    ".endif",
                    "orr v0.16b, v0.16b, v16.16b",
                    "orr v1.16b, v1.16b, v16.16b",
                    "orr v2.16b, v2.16b, v16.16b",
                    "orr v3.16b, v3.16b, v16.16b",
                    "orr v4.16b, v4.16b, v16.16b",
                    "orr v5.16b, v5.16b, v16.16b",
                    "orr v6.16b, v6.16b, v16.16b",
                    "orr v7.16b, v7.16b, v16.16b",
                    "st1 {{v0.2d, v1.2d, v2.2d, v3.2d}}, [{at}], #64",
                    "subs {nr}, {nr}, #16",
                    "st1 {{v4.2d, v5.2d, v6.2d, v7.2d}}, [{at}], #64",
                    "b.hs 2b",
                    "add {nr}, {nr}, #16",
                ]
                at = inout(reg) at,
                from = inout(reg) from,
                nr = inout(reg) nr,
                template = in(reg) template,
                shift = const SHIFT,
                options(nostack)
            );
        }
    }
    // SAFETY: as above: two at a time, then the last of an odd number.
    unsafe {
        asm!(
            "subs {nr}, {nr}, #2",
            "b.lo 3f",
            "2:",
            "ldp {a}, {b}, [{from}], #16",
            "orr {a}, {template}, {a}, lsl #{shift}",
            "orr {b}, {template}, {b}, lsl #{shift}",
            "subs {nr}, {nr}, #2",
            "stp {a}, {b}, [{at}], #16",
            "b.hs 2b",
            "3:",
            "tbz {nr}, #0, 4f",
            "ldr {a}, [{from}]",
            "orr {a}, {template}, {a}, lsl #{shift}",
            "str {a}, [{at}]",
            "4:",
            at = inout(reg) at => _,
            from = inout(reg) from => _,
            nr = inout(reg) nr => _,
            a = out(reg) _,
            b = out(reg) _,
            template = in(reg) template,
            shift = const SHIFT,
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
    let (mut at, mut nr) = (at, nr);
    if nr == BLOCK {
        // SAFETY: sixteen stores within the caller's range.
        unsafe {
            asm!(
                "stp xzr, xzr, [{at}]",
                "stp xzr, xzr, [{at}, #16]",
                "stp xzr, xzr, [{at}, #32]",
                "stp xzr, xzr, [{at}, #48]",
                "stp xzr, xzr, [{at}, #64]",
                "stp xzr, xzr, [{at}, #80]",
                "stp xzr, xzr, [{at}, #96]",
                "stp xzr, xzr, [{at}, #112]",
                at = in(reg) at,
                options(nostack, preserves_flags)
            );
        }
        return;
    }
    if nr > BLOCK {
        // SAFETY: stores within the caller's range. Not DC ZVA: walkers may reach this table.
        unsafe {
            vector_asm!(
                [
                    "movi v0.2d, #0",
                    "movi v1.2d, #0",
                    "movi v2.2d, #0",
                    "movi v3.2d, #0",
                    "sub {nr}, {nr}, #16",
                    "2:",
                    "st1 {{v0.2d, v1.2d, v2.2d, v3.2d}}, [{at}], #64",
                    "subs {nr}, {nr}, #16",
                    "st1 {{v0.2d, v1.2d, v2.2d, v3.2d}}, [{at}], #64",
                    "b.hs 2b",
                    "add {nr}, {nr}, #16",
                ]
                at = inout(reg) at,
                nr = inout(reg) nr,
                options(nostack)
            );
        }
    }
    // SAFETY: stores within the caller's range: two at a time, then the last of an odd number.
    unsafe {
        asm!(
            "subs {nr}, {nr}, #2",
            "b.lo 3f",
            "2:",
            "subs {nr}, {nr}, #2",
            "stp xzr, xzr, [{at}], #16",
            "b.hs 2b",
            "3:",
            "tbz {nr}, #0, 4f",
            "str xzr, [{at}]",
            "4:",
            at = inout(reg) at => _,
            nr = inout(reg) nr => _,
            options(nostack)
        );
    }
}

/// Zeroes a table that no walker reaches. `zva_size` is [`Features::zva_size`](super::super::features::Features::zva_size): 0 means that DC ZVA is not to be used.
///
/// # Safety
/// `table` is 4 KiB-aligned, mapped as Normal memory (DC ZVA faults on Device memory), writable by the caller, and not linked into live tables.
#[inline]
pub unsafe fn zero_table(table: *mut u64, zva_size: usize) {
    const SIZE: usize = 4096;
    // Four in a turn; a block may be as large as 2 KiB.
    if zva_size == 0 || zva_size > SIZE / 4 {
        // SAFETY: the caller's promise.
        unsafe { clear(table, SIZE / 8) };
        return;
    }
    // SAFETY: four block sizes are a power of two that divides a page, so each DC ZVA stays in it.
    unsafe {
        asm!(
            "2:",
            "dc zva, {at}",
            "add {at}, {at}, {size}",
            "dc zva, {at}",
            "add {at}, {at}, {size}",
            "dc zva, {at}",
            "add {at}, {at}, {size}",
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
