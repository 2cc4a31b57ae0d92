//! The first tables.
//!
//! - TTBR0: the first 2 MiB of the image where they physically are, read-only and executable, for
//!   the few instructions of `enable_mmu`.
//! - TTBR1: the image at its linked address, with the permissions of each section, the page below
//!   the boot stack unmapped; the device tree in its window, read-only; the table of the fixed
//!   slots, empty.
//!
//! All in pages: a block of 32 or 512 MiB would map what lies beside the image. Nothing is writable
//! and executable (rule 10), so SCTLR_EL1.WXN is on. No TLB maintenance: the tables are complete
//! before the MMU first walks them.

use core::ptr::write_volatile;

use kernel::arch::cpu::{memory_type, ttbr};
use kernel::mm::layout::{
    DTB_WINDOW, ENTRIES, FIXED_BASE, Granule, IMAGE_ALIGN, IMAGE_BASE, PAGE_SHIFT, PAGE_SIZE, TABLE_SPAN,
};
use paging::{Granule as _, Level, PhysAddr};

#[repr(C)]
#[cfg_attr(not(any(feature = "granule-16k", feature = "granule-64k")), repr(align(4096)))]
#[cfg_attr(feature = "granule-16k", repr(align(16384)))]
#[cfg_attr(feature = "granule-64k", repr(align(65536)))]
struct Table([u64; ENTRIES]);

const _: () = assert!(align_of::<Table>() == PAGE_SIZE);

impl Table {
    const EMPTY: Self = Self([0; ENTRIES]);
}

const ROOT: isize = Granule::ROOT_LEVEL as isize;
/// The last that the fixed region and the image share.
const SHARED: isize = if index(FIXED_BASE, 1) == index(IMAGE_BASE, 1) {
    2
} else {
    1
};
/// Level 3 tables for the image: 16 MiB, asserted by linker.ld.
const NR_IMAGE_L3: usize = (16_usize << 20).div_ceil(TABLE_SPAN);

/// In .bss.
#[repr(C)]
struct FirstTables {
    /// Down to level 3.
    identity: [Table; (4 - ROOT) as usize],
    /// Down to level [`SHARED`].
    shared: [Table; (SHARED + 1 - ROOT) as usize],
    /// Where it is not shared.
    fixed_l2: [Table; (2 - SHARED) as usize],
    image_l2: [Table; (2 - SHARED) as usize],
    fixed_l3: Table,
    dtb_l3: [Table; 2],
    image_l3: [Table; NR_IMAGE_L3],
}

#[unsafe(link_section = ".bss.boot_tables")]
static mut TABLES: FirstTables = FirstTables {
    identity: [Table::EMPTY; (4 - ROOT) as usize],
    shared: [Table::EMPTY; (SHARED + 1 - ROOT) as usize],
    fixed_l2: [Table::EMPTY; (2 - SHARED) as usize],
    image_l2: [Table::EMPTY; (2 - SHARED) as usize],
    fixed_l3: Table::EMPTY,
    dtb_l3: [Table::EMPTY; 2],
    image_l3: [Table::EMPTY; NR_IMAGE_L3],
};

unsafe extern "C" {
    static __image_start: u8;
    static __text_end: u8;
    static __rodata_end: u8;
    static __boot_stack_guard: u8;
    static __image_end: u8;
}

// Descriptor bits: Arm ARM, "VMSAv8-64 translation table format descriptors".
const TABLE: u64 = 0b11;
const PAGE: u64 = 0b11;
const READ_ONLY: u64 = 0b10 << 6; // AP[2:1]: EL1 only
const INNER_SHAREABLE: u64 = (0b11 << 8) & Granule::ATTRIBUTES;
const ACCESS_FLAG: u64 = 1 << 10;
const PXN: u64 = 1 << 53;
const UXN: u64 = 1 << 54;
const NORMAL: u64 = memory_type::NORMAL << 2 | INNER_SHAREABLE | ACCESS_FLAG | UXN;

const TEXT: u64 = NORMAL | READ_ONLY;
const RODATA: u64 = NORMAL | READ_ONLY | PXN;
const DATA: u64 = NORMAL | PXN;

const fn index(va: usize, level: isize) -> usize {
    let shift = PAGE_SHIFT.wrapping_add(Granule::INDEX_BITS.wrapping_mul(3_isize.wrapping_sub(level) as u32));
    (va & ((1 << Granule::VA_BITS) - 1)).wrapping_shr(shift) & (ENTRIES - 1)
}

/// As a descriptor holds it.
#[inline(always)]
fn at(pa: u64) -> u64 {
    Granule::encode(PhysAddr(pa))
}

#[inline(always)]
unsafe fn set(table: *mut Table, i: usize, descriptor: u64) {
    let slot = table.cast::<u64>().wrapping_add(i & (ENTRIES - 1));
    // SAFETY: inside the table, by the mask; the caller owns the table.
    unsafe { write_volatile(slot, descriptor) };
}

/// Links `first`, the table of level `from` for `va`, and those behind it to each other, down to
/// level `to`. Returns the last.
#[inline(always)]
unsafe fn link_chain(first: *mut Table, va: usize, from: isize, to: isize) -> *mut Table {
    let (mut table, mut level) = (first, from);
    while level < to {
        let next = table.wrapping_add(1);
        // SAFETY: the caller owns the tables.
        unsafe { set(table, index(va, level), at(next as u64) | TABLE) };
        (table, level) = (next, level.wrapping_add(1));
    }
    table
}

/// Returns TTBR0 and TTBR1.
///
/// # Safety
///
/// MMU off, .bss zeroed, called once. `image_pa` is 2 MiB-aligned; the device tree is at most 2 MiB
/// long.
#[unsafe(link_section = ".boot.text")]
pub unsafe fn build(image_pa: u64, dtb_pa: u64, dtb_size: u64) -> (u64, u64) {
    let tables = &raw mut TABLES;
    // With the MMU off an address is physical.
    macro_rules! table {
        ($name:ident) => {{
            // SAFETY: only a place is computed.
            unsafe { &raw mut (*tables).$name }.cast::<Table>()
        }};
    }
    macro_rules! store {
        ($table:ident [$i:expr] = $descriptor:expr) => {{
            let (i, descriptor) = ($i, $descriptor);
            // SAFETY: by this function's contract the tables are ours alone.
            unsafe { set($table, i, descriptor) };
        }};
    }
    macro_rules! link {
        ($from:ident [$va:expr, $level:expr] => $to:ident) => {
            store!($from[index($va, $level)] = at($to as u64) | TABLE)
        };
    }

    let (identity, shared) = (table!(identity), table!(shared));
    // SAFETY: by this function's contract the tables are ours alone.
    let identity_l3 = unsafe { link_chain(identity, image_pa as usize, ROOT, 3) };
    let mut within = 0;
    while within < IMAGE_ALIGN {
        let pa = (image_pa as usize).wrapping_add(within);
        store!(identity_l3[index(pa, 3)] = at(pa as u64) | TEXT | PAGE);
        within = within.wrapping_add(PAGE_SIZE);
    }

    // SAFETY: as above.
    let lowest = unsafe { link_chain(shared, FIXED_BASE, ROOT, SHARED) };
    let (fixed_l2, image_l2) = if SHARED == 2 {
        (lowest, lowest)
    } else {
        let (fixed, image) = (table!(fixed_l2), table!(image_l2));
        link!(lowest[FIXED_BASE, SHARED] => fixed);
        link!(lowest[IMAGE_BASE, SHARED] => image);
        (fixed, image)
    };
    let fixed_l3 = table!(fixed_l3);
    link!(fixed_l2[FIXED_BASE, 2] => fixed_l3);

    // Its pages and no more: what lies beside it may be memory that is not to be mapped.
    let dtb_l3 = table!(dtb_l3);
    link!(fixed_l2[DTB_WINDOW, 2] => dtb_l3);
    let dtb_end = dtb_pa.wrapping_add(dtb_size);
    let mut pa = dtb_pa & !(PAGE_SIZE as u64 - 1);
    let mut page = index(dtb_pa as usize, 3);
    while pa < dtb_end {
        let l3 = dtb_l3.wrapping_add(page / ENTRIES);
        if page == ENTRIES {
            link!(fixed_l2[DTB_WINDOW + TABLE_SPAN, 2] => l3);
        }
        // SAFETY: the tables are ours alone, and at most 2 MiB from within the first of them end in
        // the second.
        unsafe { set(l3, page, at(pa) | RODATA | PAGE) };
        pa = pa.wrapping_add(PAGE_SIZE as u64);
        page = page.wrapping_add(1);
    }

    // PC-relative addresses of its symbols are physical here.
    let image_l3 = table!(image_l3);
    let start = &raw const __image_start as u64;
    let text_end = &raw const __text_end as u64;
    let rodata_end = &raw const __rodata_end as u64;
    let guard = &raw const __boot_stack_guard as u64;
    let end = &raw const __image_end as u64;
    let mut pa = start;
    let mut page = 0;
    while pa < end {
        let l3 = image_l3.wrapping_add(page / ENTRIES);
        if page & (ENTRIES - 1) == 0 {
            link!(image_l2[IMAGE_BASE | page << PAGE_SHIFT, 2] => l3);
        }
        let descriptor = if pa < text_end {
            at(pa) | TEXT | PAGE
        } else if pa < rodata_end {
            at(pa) | RODATA | PAGE
        } else if pa == guard {
            0
        } else {
            at(pa) | DATA | PAGE
        };
        // SAFETY: the tables are ours alone; linker.ld asserts that the image has no more pages
        // than they have entries.
        unsafe { set(l3, page, descriptor) };
        pa = pa.wrapping_add(PAGE_SIZE as u64);
        page = page.wrapping_add(1);
    }
    (ttbr(identity as u64), ttbr(shared as u64))
}

/// Addresses in the image window.
pub struct FixedTables {
    /// The last that the image shares, and its level.
    pub shared: (usize, Level),
    /// Level 2.
    pub l2: usize,
    /// Level 3, of the page slots.
    pub l3: usize,
    /// Level 3, of the device tree window.
    pub dtb_l3: [usize; 2],
}

pub fn fixed_tables() -> FixedTables {
    let tables = &raw mut TABLES;
    // SAFETY: only places are computed.
    let (shared, l2, l3, dtb) = unsafe {
        (
            (&raw mut (*tables).shared)
                .cast::<Table>()
                .wrapping_add((SHARED - ROOT) as usize),
            (&raw mut (*tables).fixed_l2).cast::<Table>(),
            &raw mut (*tables).fixed_l3,
            &raw mut (*tables).dtb_l3,
        )
    };
    FixedTables {
        shared: (shared as usize, SHARED as Level),
        l2: if SHARED == 2 { shared } else { l2 } as usize,
        l3: l3 as usize,
        dtb_l3: [dtb as usize, dtb as usize + size_of::<Table>()],
    }
}
