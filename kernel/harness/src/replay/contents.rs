//! What areas' pages hold, and what is checked of each before the area is freed.
//!
//! Each word of RAM depends on area, page and place. Tables and MMU must give the same frame. All
//! words read by the area, and two by the linear map, must be as written: the frame was not reused,
//! not even as a table. Code must be read-only by both addresses, and executable; a device
//! Device-nGnRE.

use kernel::arch::cpu::{MAIR_EL1, memory_type};
use kernel::arch::mmu::{at_s1e1r, at_s1e1w};
use kernel::layout;
use kernel::mm::linear_va;
use paging::{Pfn, VirtAddr};
use trace_replay::{Area, Kind, PAGE};
use vmalloc::{Backend, Vmalloc};

use super::failure::{Alias, What};
use super::stats::Verified;

#[must_use]
pub const fn mix(a: u64, b: u64) -> u64 {
    let mut x = a.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ b.wrapping_mul(0xd1b5_4a32_d192_ed03);
    x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ x >> 31
}

const WORDS: u64 = PAGE / 8;

const fn word(first: u64, index: u64) -> u64 {
    first.wrapping_add(index.wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

const fn first_word(area: &Area, page: u64) -> u64 {
    mix(area.id, page)
}

fn fill(va: u64, first: u64) {
    for index in 0..WORDS {
        write(va + index * 8, word(first, index));
    }
}

fn compare(
    page: u64,
    alias: Alias,
    va: u64,
    first: u64,
    indices: impl Iterator<Item = u64>,
) -> Result<(), What> {
    for index in indices {
        let (expected, found) = (word(first, index), read(va + index * 8));
        if found != expected {
            return Err(What::Lost {
                page,
                word: index,
                alias,
                expected,
                found,
            });
        }
    }
    Ok(())
}

fn write(va: u64, value: u64) {
    // SAFETY: a word of a page of the replay's, mapped writable at `va`, without another user.
    unsafe { (va as *mut u64).write_volatile(value) };
}

fn read(va: u64) -> u64 {
    // SAFETY: as above, readable.
    unsafe { (va as *const u64).read_volatile() }
}

fn alias(frame: Pfn) -> u64 {
    linear_va(frame.0 * PAGE) as u64
}

pub fn fill_area(area: &Area, va: VirtAddr) {
    for page in 0..area.pages() {
        fill(va.0 + page * PAGE, first_word(area, page));
    }
}

/// Writes by the linear map.
pub fn fill_frames(area: &Area, frames: &[Pfn]) {
    for (page, frame) in (0..).zip(frames) {
        fill(alias(*frame), first_word(area, page));
    }
}

pub fn spoil(va: VirtAddr) {
    write(va.0, !read(va.0));
}

/// Checks each page. `frame` returns the frame that a page was given.
///
/// # Errors
/// The first page that is wrong.
pub fn verify<B: Backend<Granule = layout::Granule>>(
    vm: &Vmalloc<B>,
    area: &Area,
    va: VirtAddr,
    frame: impl Fn(u64) -> Option<Pfn>,
) -> Result<Verified, What> {
    let mut verified = Verified::default();
    for page in 0..area.pages() {
        let at = va.add(page * PAGE);
        let found = vm.vmalloc_to_pfn(at)?;
        if let Some(expected) = frame(page).filter(|expected| *expected != found) {
            return Err(What::WrongFrame {
                page,
                expected,
                found,
            });
        }
        let untranslated = What::Untranslated {
            page,
            expected: found,
        };
        let mmu = at_s1e1r(at.0 as usize).map_err(|_| untranslated)?;
        if mmu.pa != found.0 * PAGE {
            return Err(untranslated);
        }
        if area.kind == Kind::Ioremap {
            let device = (MAIR_EL1 >> (8 * memory_type::DEVICE_NGNRE)) as u8;
            if mmu.attribute != device {
                let attribute = mmu.attribute;
                return Err(What::NotADevice { page, attribute });
            }
            verified.device_pages += 1;
            continue;
        }
        let first = first_word(area, page);
        compare(page, Alias::Area, at.0, first, 0..WORDS)?;
        compare(
            page,
            Alias::Linear,
            alias(found),
            first,
            [0, WORDS - 1].into_iter(),
        )?;
        verified.pages += 1;
        if area.kind.is_code() {
            for (alias, va) in [(Alias::Area, at.0), (Alias::Linear, alias(found))] {
                if at_s1e1w(va as usize).is_ok() {
                    return Err(What::Writable { page, alias });
                }
            }
            let leaf = vm.backend().tree().translate(at);
            if !leaf.is_some_and(|leaf| leaf.attributes.is_executable()) {
                return Err(What::NotExecutable { page });
            }
            verified.code_pages += 1;
        }
    }
    Ok(verified)
}

/// Checks that guard pages, below too for a stack, are unmapped. Returns their number.
///
/// # Errors
/// The one that is mapped.
pub fn verify_guards(area: &Area, va: VirtAddr) -> Result<u64, What> {
    let behind = area.kind.has_guard().then(|| va.add(area.size));
    let below = (area.kind == Kind::Stack).then(|| VirtAddr(va.0 - PAGE));
    let mut nr = 0;
    for guard in [behind, below].into_iter().flatten() {
        if at_s1e1r(guard.0 as usize).is_ok() {
            return Err(What::GuardMapped(guard));
        }
        nr += 1;
    }
    Ok(nr)
}
