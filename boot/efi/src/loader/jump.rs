//! Caches and MMU off, and into the image.

use core::arch::{asm, global_asm};

use super::Place;

global_asm!(include_str!("head.s"));

unsafe extern "C" {
    fn enter_image(dtb: usize, image: usize) -> !;
    static enter_image_end: u8;
}

/// Writes `bytes` to physical addresses.
///
/// # Safety
///
/// Nothing else is there.
pub unsafe fn write(at: usize, bytes: &[u8]) {
    // SAFETY: the caller's promise; the firmware maps memory one to one.
    unsafe { core::ptr::copy_nonoverlapping(bytes.as_ptr(), at as *mut u8, bytes.len()) }
}

/// Enters the image.
///
/// # Safety
///
/// The boot services are over; image and tree are written.
pub unsafe fn enter(image: Place, tree: Place) -> ! {
    let code = enter_image as *const () as usize..&raw const enter_image_end as usize;
    // With the caches off, all of these are read from memory. The image cleans nothing that it
    // has not written.
    for place in [&image, &tree, &code] {
        clean(place);
    }
    // SAFETY: the caller's promise, and the caches are clean.
    unsafe { enter_image(tree.start, image.start) }
}

/// Cleans and invalidates data caches to the point of coherency.
fn clean(place: &Place) {
    let ctr: usize;
    // SAFETY: reading an identification register.
    unsafe { asm!("mrs {}, ctr_el0", out(reg) ctr, options(nostack, nomem, preserves_flags)) };
    let line = 4 << (ctr >> 16 & 0xf); // DminLine: log2 of words
    for at in (place.start & !(line - 1)..place.end).step_by(line) {
        // SAFETY: changes no memory that a coherent observer could read differently.
        unsafe { asm!("dc civac, {}", in(reg) at, options(nostack, preserves_flags)) };
    }
    // SAFETY: a barrier: the maintenance is complete before the caches go off.
    unsafe { asm!("dsb sy", options(nostack, preserves_flags)) };
}
