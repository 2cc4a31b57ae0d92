use core::hint::black_box;

use kernel::arch::table_ops;
use paging::Pfn;

use crate::selftest::context::Context;
use crate::selftest::failure::{TestResult, expect};
use kernel::layout::PAGE_SHIFT;

/// Three blocks, as vector loops take two in a turn, and half of one.
const WORDS: usize = 3 * table_ops::BLOCK + table_ops::BLOCK / 2;
const FLAGS: u64 = 0x00ff_0000_0000_00ff;
const MARK: u64 = 0x5a5a_a5a5_1234_8765;
const BYTES: usize = 150;

fn scatter(words: &mut [u64], seed: u64) {
    let mut next = seed | 1;
    for word in words {
        next = next
            .wrapping_mul(0x5851_f42d_4c95_7f2d)
            .wrapping_add(0x1405_7b7e_f767_814f);
        *word = next;
    }
}

fn every_place(
    what: &'static str,
    operation: impl Fn(*mut u64, usize),
    expected: impl Fn(usize) -> u64,
) -> TestResult {
    for start in 0..3 {
        for nr in 0..=WORDS - 3 {
            let mut words = [MARK; WORDS];
            operation(words[start..].as_mut_ptr(), nr);
            for (i, word) in words.iter().enumerate() {
                let inside = (start..start + nr).contains(&i);
                let right = if inside { expected(i - start) } else { MARK };
                expect(what, i as u64, *word == right)?;
            }
        }
    }
    Ok(())
}

pub fn fills_equal_single_stores(_: &Context) -> TestResult {
    let (first, step) = (0x0060_0001_2345_6703, 0x1000);
    let template = 0x0060_0000_0000_0703;
    let mut numbers = [0u64; WORDS];
    scatter(&mut numbers, 7);
    let frames = numbers.map(|number| number >> 40);
    let outputs = frames.map(|frame| frame << PAGE_SHIFT);
    // SAFETY: `nr` words of an array of the caller's.
    let fill_linear = |at, nr| unsafe { table_ops::fill_linear(at, nr, first, step) };
    every_place("fill_linear", fill_linear, |i| first + i as u64 * step)?;
    // SAFETY: as above, and as many frames.
    let fill_frames = |at, nr| unsafe { table_ops::fill_frames(at, nr, frames.as_ptr(), template) };
    every_place("fill_frames", fill_frames, |i| outputs[i] | template)?;
    // SAFETY: as above.
    every_place("clear", |at, nr| unsafe { table_ops::clear(at, nr) }, |_| 0)
}

pub fn folds_equal_single_loads(_: &Context) -> TestResult {
    let mut words = [0u64; 8 * table_ops::BLOCK + 5];
    for round in 0..32u64 {
        scatter(&mut words, round);
        for nr in 0..=words.len() {
            // All alike but one: each bit of each word counts.
            let part = &mut words[..nr];
            part.iter_mut().for_each(|word| *word = 0x0060_1234_5678_9703);
            if let Some(word) = part.get_mut(round as usize * 5 % nr.max(1)) {
                *word ^= 1 << (if round < 8 { round } else { 40 + round % 16 });
            }
            let (and, or) = part
                .iter()
                .fold((!0, 0), |(and, or), word| (and & word, or | word));
            // SAFETY: `nr` words of an array.
            let found = unsafe { table_ops::kinds(part.as_ptr(), nr) };
            let same = (found.0 ^ and) & FLAGS == 0 && (found.1 ^ or) & FLAGS == 0;
            expect("kinds", nr as u64, same)?;
            // SAFETY: as above.
            let found = unsafe { table_ops::or_of(part.as_ptr(), nr) };
            expect("or_of", nr as u64, found == or)?;
        }
    }
    Ok(())
}

pub fn one_bit_is_not_vacant(_: &Context) -> TestResult {
    for nr in 0..=WORDS {
        let mut words = [!FLAGS; WORDS];
        // SAFETY: `nr` words of an array.
        let are_vacant = |words: &[u64]| unsafe { table_ops::are_vacant(words.as_ptr(), nr) };
        expect("are_vacant", nr as u64, are_vacant(&words))?;
        for place in 0..WORDS {
            let bit = (place * 7 + nr) % 16;
            words[place] |= 1 << if bit < 8 { bit } else { 40 + bit };
            let right = are_vacant(&words) == (place >= nr);
            expect("are_vacant", nr as u64, right)?;
            words[place] = !FLAGS;
        }
    }
    Ok(())
}

pub fn blocks_end_before_the_first_wrong_one(_: &Context) -> TestResult {
    const BLOCK: usize = table_ops::BLOCK;
    for nr in 0..=WORDS {
        for wrong in 0..=nr {
            let mut frames = [0u64; WORDS];
            for (i, frame) in frames.iter_mut().enumerate() {
                *frame = 0xf_fff0_1230 - 0x100 * (i / BLOCK) as u64 + (i % BLOCK) as u64;
            }
            if let Some(frame) = frames[..nr].get_mut(wrong) {
                *frame ^= 1 << ((wrong * 7 + nr) % 64);
            }
            let mut written = [MARK; WORDS];
            // SAFETY: `nr` words of two arrays.
            let found =
                unsafe { table_ops::fill_blocks(written.as_mut_ptr(), nr, frames.as_ptr(), 0, FLAGS) };
            let right = wrong.min(nr) / BLOCK * BLOCK;
            expect("fill_blocks", wrong as u64, found == right)?;
            for (i, (descriptor, frame)) in written.iter().zip(frames).enumerate() {
                let value = if i < right {
                    frame << PAGE_SHIFT | FLAGS
                } else {
                    MARK
                };
                expect("fill_blocks", i as u64, *descriptor == value)?;
            }
            let head = wrong / BLOCK * BLOCK;
            let mask = 1 << ((wrong + nr) % 64);
            frames[head..]
                .iter_mut()
                .zip(0..BLOCK as u64)
                .for_each(|(frame, i)| *frame = mask + i);
            // SAFETY: as above.
            let found =
                unsafe { table_ops::fill_blocks(written.as_mut_ptr(), nr, frames.as_ptr(), mask, FLAGS) };
            let allowed = frames
                .iter()
                .step_by(BLOCK)
                .take_while(|first| *first & mask == 0)
                .count()
                * BLOCK;
            expect("fill_blocks", mask, found == allowed.min(nr / BLOCK * BLOCK))?;
        }
    }
    Ok(())
}

pub fn runs_end_at_the_first_wrong_frame(_: &Context) -> TestResult {
    let first = 0xf_fff0_1234;
    for nr in 0..=WORDS {
        for wrong in 0..=nr {
            let mut frames = [Pfn(0); WORDS];
            for (i, frame) in frames.iter_mut().enumerate() {
                *frame = Pfn(first + i as u64);
            }
            if let Some(frame) = frames[..nr].get_mut(wrong) {
                frame.0 ^= 1 << ((wrong * 7 + nr) % 64);
            }
            // SAFETY: `nr` frames of an array, each a word.
            let found = unsafe { table_ops::nr_consecutive(frames.as_ptr().cast(), nr, first) };
            expect("nr_consecutive", wrong as u64, found == wrong)?;
        }
    }
    Ok(())
}

unsafe extern "C" {
    fn memcpy(to: *mut u8, from: *const u8, nr: usize) -> *mut u8;
    fn memmove(to: *mut u8, from: *const u8, nr: usize) -> *mut u8;
    fn memset(to: *mut u8, value: i32, nr: usize) -> *mut u8;
}

pub fn memory_functions_equal_byte_loops(_: &Context) -> TestResult {
    let mut source = [0u8; BYTES];
    for (i, byte) in source.iter_mut().enumerate() {
        *byte = (i as u8).wrapping_mul(0x6d) ^ 0xa5;
    }
    for nr in 0..BYTES - 40 {
        for from in 0..17 {
            for to in [0, 1, 7, 8, 15, 16, 17, 31, 33] {
                let mut copied = [0x77u8; BYTES];
                // SAFETY: `nr` bytes fit behind both places, in different arrays.
                let result = unsafe { memcpy(copied.as_mut_ptr().add(to), source.as_ptr().add(from), nr) };
                expect("memcpy's result", nr as u64, result == copied[to..].as_mut_ptr())?;
                let right = |i: usize| {
                    if (to..to + nr).contains(&i) {
                        source[i - to + from]
                    } else {
                        0x77
                    }
                };
                expect("memcpy", nr as u64, (0..BYTES).all(|i| copied[i] == right(i)))?;
                let mut moved = source;
                let at = black_box(moved.as_mut_ptr());
                // SAFETY: as above, in one array.
                unsafe { memmove(at.add(to), at.add(from), nr) };
                let right = |i: usize| {
                    if (to..to + nr).contains(&i) {
                        source[i - to + from]
                    } else {
                        source[i]
                    }
                };
                expect("memmove", nr as u64, (0..BYTES).all(|i| moved[i] == right(i)))?;
            }
            let mut set = source;
            // SAFETY: as above. Only the low byte of the value counts.
            unsafe { memset(black_box(set.as_mut_ptr()).add(from), 0x1_a9, nr) };
            let right = |i: usize| {
                if (from..from + nr).contains(&i) {
                    0xa9
                } else {
                    source[i]
                }
            };
            expect("memset", nr as u64, (0..BYTES).all(|i| set[i] == right(i)))?;
        }
    }
    Ok(())
}
