//! Word 0 of a page is made of words 1 and 2: the area's number and the page's, and the address
//! (`VA_WORD`), for the CPU that frees the frame.

use kernel::arch::mmu::at_s1e1r;
use kernel::arch::time::relax;
use kernel::mm::linear_va;
use paging::{PhysAddr, VirtAddr};
use vmalloc::{Backend, Vmalloc};

use super::Finding;
use crate::selftest::backend::VA_WORD;
use crate::selftest::source::PAGE;
use crate::selftest::verify::{read, write};

const LOST_DATA: &str = "found other data in an area than were written";
const OTHER_ALIAS: &str = "found other data through the linear map than were written";
const NO_FRAME: &str = "found a page of an area without a frame";
const OTHER_DEVICE: &str = "found another device behind an ioremap than was mapped";

fn key(id: u32, page: u64) -> u64 {
    u64::from(id) << 32 | page
}

fn stamp(key: u64) -> u64 {
    key.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ key >> 7
}

pub fn fill(va: VirtAddr, pages: core::ops::Range<u64>, id: u32) {
    for page in pages {
        let at = (va.0 + page * PAGE) as usize;
        let key = key(id, page);
        write(at + 8 * VA_WORD, at as u64);
        write(at + 8, key);
        write(at, stamp(key));
    }
}

fn is_marked(at: usize, key: u64) -> bool {
    read(at) == stamp(key) && read(at + 8) == key
}

/// Verifies pages at their addresses and in the linear map.
pub fn verify<B: Backend>(vm: &Vmalloc<B>, va: VirtAddr, pages: u64, id: u32) -> Result<(), Finding> {
    for page in 0..pages {
        let at = va.add(page * PAGE);
        if !is_marked(at.0 as usize, key(id, page)) {
            return Err(Finding::new(LOST_DATA, at.0));
        }
        let frame = vm
            .vmalloc_to_pfn(at)
            .map_err(|error| Finding::refused(NO_FRAME, at.0, error))?;
        if !is_marked(linear_va(frame.0 * PAGE), key(id, page)) {
            return Err(Finding::new(OTHER_ALIAS, at.0));
        }
        // In turn, each TLBI of another CPU waits for this one's slice to end.
        relax();
    }
    Ok(())
}

pub fn id_at(va: VirtAddr) -> u32 {
    (read(va.0 as usize + 8) >> 32) as u32
}

/// Verifies pages by the MMU and by the tables, without an access.
pub fn verify_device<B: Backend>(
    vm: &Vmalloc<B>,
    va: VirtAddr,
    pages: u64,
    device: PhysAddr,
) -> Result<(), Finding> {
    for page in 0..pages {
        let (at, pa) = (va.add(page * PAGE), device.add(page * PAGE));
        let by_mmu = at_s1e1r(at.0 as usize).map_or(u64::MAX, |translation| translation.pa);
        let by_tables = vm.vmalloc_to_pfn(at).map(|frame| frame.0 * PAGE);
        if by_mmu != pa.0 || by_tables != Ok(pa.0) {
            return Err(Finding::new(OTHER_DEVICE, at.0));
        }
    }
    Ok(())
}
