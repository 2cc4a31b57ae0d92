//! Bulk operations on translation tables, and on the arrays of frame numbers that fill them. None
//! has a barrier: that is the caller's (DESIGN rule 2).
//!
//! # Why pairs and vectors are allowed
//! A walker may read a descriptor at any moment, so each needs a single-copy atomic store. STP and
//! LDP of X registers, and LD1 and ST1 of `.2d`, are single-copy atomic for each 8-byte aligned
//! element, in no order (Arm ARM B2.2.1, "Requirements for single-copy atomicity"). That equals
//! relaxed atomics. DC ZVA promises nothing, so it only zeroes unlinked tables.
//!
//! # Which have a vector version
//! Those that it makes 1.3 times as fast on two of three processors. Cycles a descriptor, by
//! `llvm-mca` 19 (`-iterations=200`):
//!
//! ```text
//!              general/vector: cortex-a55    cortex-a76   neoverse-n1   used
//! fill_linear                  2.06/0.81     1.03/1.00     0.51/0.50    general
//! fill_frames                  3.50/2.69     1.38/1.01     1.00/1.00    vector
//! clear                        0.63/0.63     1.00/1.00     0.50/0.25    general
//! kinds, are_vacant            3.75/1.91     1.07/0.75     0.73/0.38    vector
//! or_of                        3.75/2.00     0.81/0.50     0.50/0.25    vector
//! consecutive                  4.94/3.38     1.82/0.88     1.25/0.78    vector
//! fill_blocks                  8.06/4.88     2.88/1.57     1.77/1.44    vector
//! ```
//!
//! Compiled code has no vector registers (softfloat), and none is saved: only whole blocks of
//! [`BLOCK`] words use them, interrupts masked, and exceptions that return do not use them.

use core::arch::asm;
use core::sync::atomic::{AtomicU64, Ordering};

use crate::layout::{PAGE_SHIFT, PAGE_SIZE};

/// Words in a turn of a vector loop.
pub const BLOCK: usize = 16;

/// Bits 7:0 and 55:48 of a descriptor.
const KIND_BITS: u64 = 0x00ff_0000_0000_00ff;

/// # Safety
/// `at` is 8-byte aligned and readable for `nr` words.
#[inline(always)]
unsafe fn words(at: *const u64, nr: usize) -> impl Iterator<Item = u64> {
    // SAFETY: the caller's promise.
    (0..nr).map(move |i| unsafe { AtomicU64::from_ptr(at.add(i).cast_mut()) }.load(Ordering::Relaxed))
}

#[repr(C, align(16))]
struct Constants<const BYTES: usize>([u8; BYTES]);

/// Bytes 0, then 6, of a block's descriptors, which say their kinds: eight of each in v16 and v17.
macro_rules! bytes_of_block {
    () => {
        concat!(
            "ld1 {{v0.2d, v1.2d, v2.2d, v3.2d}}, [{at}], #64\n",
            "ld1 {{v4.2d, v5.2d, v6.2d, v7.2d}}, [{at}], #64\n",
            "tbl v16.16b, {{v0.16b, v1.16b, v2.16b, v3.16b}}, v24.16b\n",
            "tbl v17.16b, {{v4.16b, v5.16b, v6.16b, v7.16b}}, v24.16b\n",
        )
    };
}

/// 0 in `{a}` if v0 to v7 equal v16 to v23, and the other register is 0.
macro_rules! or_of_differences {
    ($($or:literal)?) => {
        concat!(
            "eor v0.16b, v0.16b, v16.16b\n",
            "eor v1.16b, v1.16b, v17.16b\n",
            "eor v2.16b, v2.16b, v18.16b\n",
            "eor v3.16b, v3.16b, v19.16b\n",
            "eor v4.16b, v4.16b, v20.16b\n",
            "eor v5.16b, v5.16b, v21.16b\n",
            "eor v6.16b, v6.16b, v22.16b\n",
            "eor v7.16b, v7.16b, v23.16b\n",
            $("orr v7.16b, v7.16b, ", $or, ".16b\n",)?
            "orr v0.16b, v0.16b, v4.16b\n",
            "orr v1.16b, v1.16b, v5.16b\n",
            "orr v2.16b, v2.16b, v6.16b\n",
            "orr v3.16b, v3.16b, v7.16b\n",
            "orr v0.16b, v0.16b, v1.16b\n",
            "orr v2.16b, v2.16b, v3.16b\n",
            "orr v0.16b, v0.16b, v2.16b\n",
            "umaxp v0.4s, v0.4s, v0.4s\n",
            "mov {a}, v0.d[0]\n",
        )
    };
}

/// A loop over whole blocks, interrupts masked.
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

/// Not `.rept`: the compiler counts lines to see how far it may branch.
macro_rules! eight_times {
    ($($line:literal,)*) => {
        concat!(
            $($line,)* $($line,)* $($line,)* $($line,)* $($line,)* $($line,)* $($line,)* $($line,)*
        )
    };
}

macro_rules! fill_sixteen {
    () => {
        eight_times!(
            "stp {a}, {b}, [{at}], #16\n",
            "add {a}, {a}, {step}\n",
            "add {b}, {b}, {step}\n",
        )
    };
}

/// Stores `first`, `first + step`, ... to `nr` descriptors from `at` on.
///
/// # Safety
/// `at` is 8-byte aligned, and Normal memory that the caller may write for `nr` descriptors.
#[inline]
pub unsafe fn fill_linear(at: *mut u64, nr: usize, first: u64, step: u64) {
    // SAFETY: in the caller's range: 32 a turn, 16, pairs, the last.
    unsafe {
        asm!(
            "add {b}, {a}, {step}",
            "lsl {step}, {step}, #1",
            "subs {nr}, {nr}, #32",
            "b.lo 3f",
            "2:",
            fill_sixteen!(),
            fill_sixteen!(),
            "subs {nr}, {nr}, #32",
            "b.hs 2b",
            "3:",
            "tbz {nr}, #4, 4f",
            fill_sixteen!(),
            "4:",
            "and {nr}, {nr}, #15",
            "subs {nr}, {nr}, #2",
            "b.lo 6f",
            "5:",
            "stp {a}, {b}, [{at}], #16",
            "add {a}, {a}, {step}",
            "add {b}, {b}, {step}",
            "subs {nr}, {nr}, #2",
            "b.hs 5b",
            "6:",
            "tbz {nr}, #0, 7f",
            "str {a}, [{at}]",
            "7:",
            at = inout(reg) at => _,
            nr = inout(reg) nr => _,
            a = inout(reg) first => _,
            b = out(reg) _,
            step = inout(reg) step => _,
            options(nostack)
        );
    }
}

/// Stores `frames[i] << PAGE_SHIFT | template` to `nr` descriptors from `at` on.
///
/// # Safety
/// As for [`fill_linear`]; `frames` is readable for `nr` words.
#[inline]
pub unsafe fn fill_frames(at: *mut u64, nr: usize, frames: *const u64, template: u64) {
    let (mut at, mut frames) = (at, frames);
    if nr >= BLOCK {
        let end = at.wrapping_add(nr & !(BLOCK - 1));
        // SAFETY: in the caller's ranges.
        unsafe {
            vector_asm!(
                [
                    "dup v24.2d, {template}",
                    "2:",
                    "ld1 {{v0.2d, v1.2d, v2.2d, v3.2d}}, [{from}], #64",
                    "ld1 {{v4.2d, v5.2d, v6.2d, v7.2d}}, [{from}], #64",
                    "shl v0.2d, v0.2d, #{shift}",
                    "shl v1.2d, v1.2d, #{shift}",
                    "shl v2.2d, v2.2d, #{shift}",
                    "shl v3.2d, v3.2d, #{shift}",
                    "shl v4.2d, v4.2d, #{shift}",
                    "shl v5.2d, v5.2d, #{shift}",
                    "shl v6.2d, v6.2d, #{shift}",
                    "shl v7.2d, v7.2d, #{shift}",
                    "orr v0.16b, v0.16b, v24.16b",
                    "orr v1.16b, v1.16b, v24.16b",
                    "orr v2.16b, v2.16b, v24.16b",
                    "orr v3.16b, v3.16b, v24.16b",
                    "orr v4.16b, v4.16b, v24.16b",
                    "orr v5.16b, v5.16b, v24.16b",
                    "orr v6.16b, v6.16b, v24.16b",
                    "orr v7.16b, v7.16b, v24.16b",
                    "st1 {{v0.2d, v1.2d, v2.2d, v3.2d}}, [{at}], #64",
                    "st1 {{v4.2d, v5.2d, v6.2d, v7.2d}}, [{at}], #64",
                    "cmp {at}, {end}",
                    "b.lo 2b",
                ]
                at = inout(reg) at,
                from = inout(reg) frames,
                end = in(reg) end,
                template = in(reg) template,
                shift = const PAGE_SHIFT,
                options(nostack)
            );
        }
    }
    for i in 0..nr % BLOCK {
        // SAFETY: the rest of the caller's ranges.
        unsafe {
            let frame = frames.add(i).read();
            AtomicU64::from_ptr(at.add(i)).store(frame << PAGE_SHIFT | template, Ordering::Relaxed);
        }
    }
}

/// Stores 0 to `nr` descriptors from `at` on. Not DC ZVA: walkers may reach this table.
///
/// # Safety
/// As for [`fill_linear`].
#[inline]
pub unsafe fn clear(at: *mut u64, nr: usize) {
    // SAFETY: as in `fill_linear`.
    unsafe {
        asm!(
            "subs {nr}, {nr}, #32",
            "b.lo 3f",
            "2:",
            eight_times!("stp xzr, xzr, [{at}], #16\n",),
            eight_times!("stp xzr, xzr, [{at}], #16\n",),
            "subs {nr}, {nr}, #32",
            "b.hs 2b",
            "3:",
            "tbz {nr}, #4, 4f",
            eight_times!("stp xzr, xzr, [{at}], #16\n",),
            "4:",
            "and {nr}, {nr}, #15",
            "subs {nr}, {nr}, #2",
            "b.lo 6f",
            "5:",
            "stp xzr, xzr, [{at}], #16",
            "subs {nr}, {nr}, #2",
            "b.hs 5b",
            "6:",
            "tbz {nr}, #0, 7f",
            "str xzr, [{at}]",
            "7:",
            at = inout(reg) at => _,
            nr = inout(reg) nr => _,
            options(nostack)
        );
    }
}

/// Zeroes a table that no walker reaches, by DC ZVA unless
/// [`zva_size`](super::features::Features::zva_size) is 0.
///
/// # Safety
/// `table` is page-aligned, Normal memory (DC ZVA faults on Device memory), writable by the caller,
/// and not linked into live tables.
#[inline]
pub unsafe fn zero_table(table: *mut u64, zva_size: usize) {
    const SIZE: usize = PAGE_SIZE;
    // Eight in a turn; a block may be 2 KiB.
    if zva_size == 0 || zva_size > SIZE / 8 {
        // SAFETY: the caller's promise.
        unsafe { clear(table, SIZE / 8) };
        return;
    }
    // SAFETY: eight blocks divide a page, so each DC ZVA stays in it.
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

/// Bytes 0, then 6, of eight descriptors in four registers.
static PLACES: Constants<16> = Constants([0, 8, 16, 24, 32, 40, 48, 56, 6, 14, 22, 30, 38, 46, 54, 62]);

/// Returns the AND and OR of descriptors; only bits 7:0 and 55:48, the kinds, are valid.
///
/// # Safety
/// `at` is 8-byte aligned and readable for `nr` descriptors.
#[inline]
#[must_use]
pub unsafe fn kinds(at: *const u64, nr: usize) -> (u64, u64) {
    let (mut and, mut or) = (u64::MAX, 0u64);
    let mut at = at;
    if nr >= BLOCK {
        let end = at.wrapping_add(nr & !(BLOCK - 1));
        // SAFETY: in the caller's range. Collects the OR, and for the AND the OR of complements, of
        // the bytes that TBL picks.
        unsafe {
            vector_asm!(
                [
                    "adrp {a}, {places}",
                    "ldr q24, [{a}, :lo12:{places}]",
                    "movi v20.2d, #0",
                    "movi v21.2d, #0",
                    "tbnz {nr}, #4, 3f",
                    "2:",
                    bytes_of_block!(),
                    "orr v20.16b, v20.16b, v16.16b",
                    "orn v21.16b, v21.16b, v16.16b",
                    "orr v20.16b, v20.16b, v17.16b",
                    "orn v21.16b, v21.16b, v17.16b",
                    "3:",
                    bytes_of_block!(),
                    "orr v20.16b, v20.16b, v16.16b",
                    "orn v21.16b, v21.16b, v16.16b",
                    "orr v20.16b, v20.16b, v17.16b",
                    "orn v21.16b, v21.16b, v17.16b",
                    "cmp {at}, {end}",
                    "b.lo 2b",
                    "uzp1 v16.4s, v20.4s, v21.4s",
                    "uzp2 v17.4s, v20.4s, v21.4s",
                    "orr v16.16b, v16.16b, v17.16b",
                    "rev32 v17.8h, v16.8h",
                    "orr v16.16b, v16.16b, v17.16b",
                    "rev16 v17.16b, v16.16b",
                    "orr v16.16b, v16.16b, v17.16b",
                    "mov {or}, v16.d[0]",
                    "mov {and}, v16.d[1]",
                ]
                at = inout(reg) at,
                nr = in(reg) nr,
                end = in(reg) end,
                and = out(reg) and,
                or = out(reg) or,
                a = out(reg) _,
                places = sym PLACES,
                options(nostack, readonly)
            );
        }
        and = !and;
    }
    // SAFETY: the rest of the caller's range.
    for word in unsafe { words(at, nr % BLOCK) } {
        (and, or) = (and & word, or | word);
    }
    (and, or)
}

/// Returns whether bits 7:0 and 55:48 of `nr` descriptors from `at` on are 0.
///
/// # Safety
/// As for [`kinds`].
#[inline]
#[must_use]
pub unsafe fn are_vacant(at: *const u64, nr: usize) -> bool {
    let (mut or, mut at) = (0u64, at);
    if nr >= BLOCK {
        let end = at.wrapping_add(nr & !(BLOCK - 1));
        // SAFETY: in the caller's range; half of `kinds`.
        unsafe {
            vector_asm!(
                [
                    "adrp {or}, {places}",
                    "ldr q24, [{or}, :lo12:{places}]",
                    "movi v20.2d, #0",
                    "tbnz {nr}, #4, 3f",
                    "2:",
                    bytes_of_block!(),
                    "orr v20.16b, v20.16b, v16.16b",
                    "orr v20.16b, v20.16b, v17.16b",
                    "3:",
                    bytes_of_block!(),
                    "orr v20.16b, v20.16b, v16.16b",
                    "orr v20.16b, v20.16b, v17.16b",
                    "cmp {at}, {end}",
                    "b.lo 2b",
                    "umaxp v20.4s, v20.4s, v20.4s",
                    "mov {or}, v20.d[0]",
                ]
                at = inout(reg) at,
                nr = in(reg) nr,
                end = in(reg) end,
                or = out(reg) or,
                places = sym PLACES,
                options(nostack, readonly)
            );
        }
    }
    // SAFETY: the rest of the caller's range.
    let rest = unsafe { words(at, nr % BLOCK) };
    rest.fold(or, |or, word| or | word & KIND_BITS) == 0
}

/// Returns the OR of `nr` words from `at` on.
///
/// # Safety
/// As for [`kinds`].
#[inline]
#[must_use]
pub unsafe fn or_of(at: *const u64, nr: usize) -> u64 {
    let (mut or, mut at) = (0u64, at);
    if nr >= BLOCK {
        let end = at.wrapping_add(nr & !(BLOCK - 1));
        // SAFETY: in the caller's range.
        unsafe {
            vector_asm!(
                [
                    "movi v16.2d, #0",
                    "movi v17.2d, #0",
                    "2:",
                    "ld1 {{v0.2d, v1.2d, v2.2d, v3.2d}}, [{at}], #64",
                    "ld1 {{v4.2d, v5.2d, v6.2d, v7.2d}}, [{at}], #64",
                    "orr v0.16b, v0.16b, v2.16b",
                    "orr v1.16b, v1.16b, v3.16b",
                    "orr v4.16b, v4.16b, v6.16b",
                    "orr v5.16b, v5.16b, v7.16b",
                    "orr v0.16b, v0.16b, v4.16b",
                    "orr v1.16b, v1.16b, v5.16b",
                    "cmp {at}, {end}",
                    "orr v16.16b, v16.16b, v0.16b",
                    "orr v17.16b, v17.16b, v1.16b",
                    "b.lo 2b",
                    "orr v16.16b, v16.16b, v17.16b",
                    "mov {or}, v16.d[0]",
                    "mov {a}, v16.d[1]",
                    "orr {or}, {or}, {a}",
                ]
                at = inout(reg) at,
                end = in(reg) end,
                or = out(reg) or,
                a = out(reg) _,
                options(nostack, readonly)
            );
        }
    }
    // SAFETY: the rest of the caller's range.
    unsafe { words(at, nr % BLOCK) }.fold(or, |or, word| or | word)
}

/// Returns how many words are `first`, `first + 1` and so on.
///
/// # Safety
/// As for [`kinds`].
#[inline]
#[must_use]
pub unsafe fn nr_consecutive(at: *const u64, nr: usize, first: u64) -> usize {
    let all = nr;
    let (mut at, mut nr) = (at, nr);
    if nr >= BLOCK {
        // SAFETY: in the caller's range.
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
                    or_of_differences!(),
                    "cbnz {a}, 3f",
                    "subs {nr}, {nr}, #16",
                    "add v16.2d, v16.2d, v24.2d",
                    "add v17.2d, v17.2d, v24.2d",
                    "add v18.2d, v18.2d, v24.2d",
                    "add v19.2d, v19.2d, v24.2d",
                    "add v20.2d, v20.2d, v24.2d",
                    "add v21.2d, v21.2d, v24.2d",
                    "add v22.2d, v22.2d, v24.2d",
                    "add v23.2d, v23.2d, v24.2d",
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
        // SAFETY: in the caller's range.
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

static INDEXES: Constants<{ 8 * BLOCK }> = {
    let mut bytes = [0; 8 * BLOCK];
    let mut i = 0;
    while i < BLOCK {
        bytes[8 * i] = i as u8;
        i += 1;
    }
    Constants(bytes)
};

/// Does [`fill_frames`] for blocks of [`BLOCK`] consecutive frames whose first has no bit of
/// `head_mask`, up to the first that is not such. Returns how many. Blocks need not continue each
/// other.
///
/// `head_mask` has the bits below a block's alignment, `template` none of an address.
///
/// # Safety
/// As for [`fill_frames`].
#[inline]
#[must_use]
pub unsafe fn fill_blocks(
    at: *mut u64,
    nr: usize,
    frames: *const u64,
    head_mask: u64,
    template: u64,
) -> usize {
    if nr < BLOCK {
        return 0;
    }
    let end = at.wrapping_add(nr & !(BLOCK - 1));
    let mut last = at;
    // SAFETY: in the caller's ranges.
    unsafe {
        vector_asm!(
            [
                "adrp {a}, {indexes}",
                "add {a}, {a}, :lo12:{indexes}",
                "ld1 {{v16.2d, v17.2d, v18.2d, v19.2d}}, [{a}], #64",
                "ld1 {{v20.2d, v21.2d, v22.2d, v23.2d}}, [{a}]",
                "dup v25.2d, {template}",
                "dup v26.2d, {mask}",
                // Offsets of the block's descriptors.
                "shl v8.2d, v16.2d, #{shift}",
                "shl v9.2d, v17.2d, #{shift}",
                "shl v10.2d, v18.2d, #{shift}",
                "shl v11.2d, v19.2d, #{shift}",
                "shl v12.2d, v20.2d, #{shift}",
                "shl v13.2d, v21.2d, #{shift}",
                "shl v14.2d, v22.2d, #{shift}",
                "shl v15.2d, v23.2d, #{shift}",
                "2:",
                "ld1 {{v0.2d, v1.2d, v2.2d, v3.2d}}, [{from}], #64",
                "ld1 {{v4.2d, v5.2d, v6.2d, v7.2d}}, [{from}], #64",
                "dup v24.2d, v0.d[0]",
                "and v27.16b, v24.16b, v26.16b",
                "sub v0.2d, v0.2d, v24.2d",
                "sub v1.2d, v1.2d, v24.2d",
                "sub v2.2d, v2.2d, v24.2d",
                "sub v3.2d, v3.2d, v24.2d",
                "sub v4.2d, v4.2d, v24.2d",
                "sub v5.2d, v5.2d, v24.2d",
                "sub v6.2d, v6.2d, v24.2d",
                "sub v7.2d, v7.2d, v24.2d",
                or_of_differences!("v27"),
                "cbnz {a}, 3f",
                "shl v24.2d, v24.2d, #{shift}",
                "orr v24.16b, v24.16b, v25.16b",
                "add v0.2d, v24.2d, v8.2d",
                "add v1.2d, v24.2d, v9.2d",
                "add v2.2d, v24.2d, v10.2d",
                "add v3.2d, v24.2d, v11.2d",
                "add v4.2d, v24.2d, v12.2d",
                "add v5.2d, v24.2d, v13.2d",
                "add v6.2d, v24.2d, v14.2d",
                "add v7.2d, v24.2d, v15.2d",
                "st1 {{v0.2d, v1.2d, v2.2d, v3.2d}}, [{at}], #64",
                "st1 {{v4.2d, v5.2d, v6.2d, v7.2d}}, [{at}], #64",
                "cmp {at}, {end}",
                "b.lo 2b",
                "3:",
            ]
            at = inout(reg) last,
            end = in(reg) end,
            from = inout(reg) frames => _,
            template = in(reg) template,
            mask = in(reg) head_mask,
            a = out(reg) _,
            indexes = sym INDEXES,
            shift = const PAGE_SHIFT,
            options(nostack)
        );
    }
    (last as usize - at as usize) / 8
}
