use kernel::arch::table_ops;

use crate::shim;

shim! {
    fn shim_fill_linear(at: *mut u64, nr: usize, first: u64, step: u64) {
        // SAFETY: the proof provides the memory, and fails an access beyond it.
        unsafe { table_ops::fill_linear(at, nr, first, step) }
    }
    fn shim_fill_frames(at: *mut u64, nr: usize, frames: *const u64, template: u64) {
        // SAFETY: as above.
        unsafe { table_ops::fill_frames(at, nr, frames, template) }
    }
    fn shim_fill_blocks(at: *mut u64, nr: usize, frames: *const u64, mask: u64, template: u64) -> usize {
        // SAFETY: as above.
        unsafe { table_ops::fill_blocks(at, nr, frames, mask, template) }
    }
    fn shim_clear(at: *mut u64, nr: usize) {
        // SAFETY: as above.
        unsafe { table_ops::clear(at, nr) }
    }
    fn shim_kinds(at: *const u64, nr: usize, out: &mut [u64; 2]) {
        // SAFETY: as above.
        let (and, or) = unsafe { table_ops::kinds(at, nr) };
        *out = [and, or];
    }
    fn shim_are_vacant(at: *const u64, nr: usize) -> bool {
        // SAFETY: as above.
        unsafe { table_ops::are_vacant(at, nr) }
    }
    fn shim_or_of(at: *const u64, nr: usize) -> u64 {
        // SAFETY: as above.
        unsafe { table_ops::or_of(at, nr) }
    }
    fn shim_nr_consecutive(at: *const u64, nr: usize, first: u64) -> usize {
        // SAFETY: as above.
        unsafe { table_ops::nr_consecutive(at, nr, first) }
    }
    fn shim_zero_table(table: *mut u64, zva_size: usize) {
        // SAFETY: as above.
        unsafe { table_ops::zero_table(table, zva_size) }
    }
}
