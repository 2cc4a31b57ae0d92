//! Fixed slots (Linux's fixmap), usable without the linear map: a level 3 table in .bss, written
//! directly. Unused ones hold [`EMPTY`], so that it is never pruned.

use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use paging::{Attributes, Descriptor, Granule as _, PhysAddr};

use super::layout::{EDIT_SLOTS, Granule, NR_FIXED_SLOTS, PAGE_SIZE, fixed_slot};
use crate::BootInfo;
use crate::arch::mmu::{dsb_ishst, flush_page, isb};

/// 0 before [`init`].
static TABLE: AtomicUsize = AtomicUsize::new(0);

/// Invalid (bit 0 clear) but not vacant.
pub const EMPTY: Descriptor = Descriptor(Attributes::KERNEL_DATA.bits() & Granule::ATTRIBUTES | 0b10);

/// While the linear map is built.
pub const EARLY_TABLE_SLOTS: core::ops::Range<usize> = EDIT_SLOTS.start..EDIT_SLOTS.start + 64;
/// While a part of the linear map is broken.
pub const BREAK_SLOTS: [usize; 4] = [
    NR_FIXED_SLOTS - 4,
    NR_FIXED_SLOTS - 3,
    NR_FIXED_SLOTS - 2,
    NR_FIXED_SLOTS - 1,
];

const _: () = assert!(EARLY_TABLE_SLOTS.end <= BREAK_SLOTS[0]);

pub fn init(info: &BootInfo) {
    TABLE.store(info.fixed_tables.l3_va, Ordering::Release);
    for slot in 0..NR_FIXED_SLOTS {
        // Invalid before and after: nothing to invalidate.
        let _ = descriptor(slot).compare_exchange(0, EMPTY.0, Ordering::Relaxed, Ordering::Relaxed);
    }
}

fn descriptor(slot: usize) -> &'static AtomicU64 {
    assert!(slot < NR_FIXED_SLOTS, "fixed slot {slot}");
    let table = TABLE.load(Ordering::Acquire) as *const AtomicU64;
    assert!(!table.is_null(), "a fixed slot before there are any");
    // SAFETY: 512 descriptors in .bss, only used as atomics from here on.
    unsafe { &*table.add(slot) }
}

/// Maps `pa`'s page, and returns the address. No other CPU may use the slot.
pub fn map(slot: usize, pa: PhysAddr, attributes: Attributes) -> usize {
    let new = Descriptor::leaf::<Granule>(3, pa.align_down(PAGE_SIZE as u64), attributes, false);
    unmap(slot);
    descriptor(slot).store(new.0, Ordering::Relaxed);
    // DESIGN rule 2. DSB ISHST: complete before a walk; ISB: discards an invalid one that was
    // fetched.
    dsb_ishst();
    isb();
    fixed_slot(slot) + (pa.0 as usize & (PAGE_SIZE - 1))
}

pub fn unmap(slot: usize) {
    let old = descriptor(slot).swap(EMPTY.0, Ordering::Relaxed);
    if Descriptor(old).is_valid() {
        // DESIGN rule 3: the slot may map another frame next.
        flush_page(fixed_slot(slot));
    }
}
