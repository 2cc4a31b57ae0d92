//! The first tables.
//!
//! - TTBR0: the first 2 MiB of the image where they physically are, read-only and executable. It
//!   exists for the few instructions of `enable_mmu`, on every CPU.
//! - TTBR1: the image at its linked address, 4 KiB pages with the permissions of each section, the
//!   page below the boot stack unmapped; the pages of the device tree in its window, read-only; the
//!   table of the fixed slots, empty.
//!
//! Nothing is writable and executable from the first moment on (rule 10), so SCTLR_EL1.WXN is on
//! with them. No TLB maintenance: the tables are complete before the MMU first walks them.

use core::ptr::write_volatile;

use kernel::arch::cpu::memory_type;
use kernel::mm::layout::{BLOCK_2M, DTB_WINDOW, FIXED_BASE, IMAGE_BASE, PAGE_SIZE};

/// A translation table.
#[repr(C, align(4096))]
struct Table([u64; 512]);

impl Table {
    const EMPTY: Self = Self([0; 512]);
}

/// Level 3 tables for the image: 16 MiB, asserted by linker.ld.
const NR_IMAGE_L3: usize = 8;

/// All of the first tables, in .bss.
#[repr(C)]
struct FirstTables {
    identity_l0: Table,
    identity_l1: Table,
    identity_l2: Table,
    kernel_l0: Table,
    kernel_l1: Table,
    fixed_l2: Table,
    fixed_l3: Table,
    dtb_l3: [Table; 2],
    image_l2: Table,
    image_l3: [Table; NR_IMAGE_L3],
}

#[unsafe(link_section = ".bss.boot_tables")]
static mut TABLES: FirstTables = FirstTables {
    identity_l0: Table::EMPTY,
    identity_l1: Table::EMPTY,
    identity_l2: Table::EMPTY,
    kernel_l0: Table::EMPTY,
    kernel_l1: Table::EMPTY,
    fixed_l2: Table::EMPTY,
    fixed_l3: Table::EMPTY,
    dtb_l3: [Table::EMPTY; 2],
    image_l2: Table::EMPTY,
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
const BLOCK: u64 = 0b01;
const PAGE: u64 = 0b11;
const READ_ONLY: u64 = 0b10 << 6; // AP[2:1]: EL1 only
const INNER_SHAREABLE: u64 = 0b11 << 8;
const ACCESS_FLAG: u64 = 1 << 10;
const PXN: u64 = 1 << 53;
const UXN: u64 = 1 << 54;
const NORMAL: u64 = memory_type::NORMAL << 2 | INNER_SHAREABLE | ACCESS_FLAG | UXN;

const TEXT: u64 = NORMAL | READ_ONLY;
const RODATA: u64 = NORMAL | READ_ONLY | PXN;
const DATA: u64 = NORMAL | PXN;

/// Index into the table of `level` for `va`.
const fn index(va: usize, level: usize) -> usize {
    va >> (39 - 9 * level) & 511
}

/// Stores descriptor `i` of `table`.
#[inline(always)]
unsafe fn set(table: *mut Table, i: usize, descriptor: u64) {
    let slot = table.cast::<u64>().wrapping_add(i & 511);
    // SAFETY: inside the table, by the mask; the caller owns the table.
    unsafe { write_volatile(slot, descriptor) };
}

/// Builds the tables and returns TTBR0 and TTBR1.
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
            // SAFETY: only a place is computed, inside of the static.
            unsafe { &raw mut (*tables).$name }
        }};
    }
    macro_rules! store {
        ($table:ident [$va:expr, $level:literal] = $descriptor:expr) => {{
            let (table, descriptor) = (table!($table), $descriptor);
            // SAFETY: by this function's contract the tables are ours alone.
            unsafe { set(table, index($va, $level), descriptor) };
        }};
    }
    macro_rules! link {
        ($from:ident [$va:expr, $level:literal] => $to:ident) => {
            store!($from[$va, $level] = table!($to) as u64 | TABLE)
        };
    }

    let identity = image_pa as usize;
    link!(identity_l0[identity, 0] => identity_l1);
    link!(identity_l1[identity, 1] => identity_l2);
    store!(identity_l2[identity, 2] = image_pa | TEXT | BLOCK);

    link!(kernel_l0[FIXED_BASE, 0] => kernel_l1);
    const { assert!(index(FIXED_BASE, 0) == index(IMAGE_BASE, 0)) };
    link!(kernel_l1[FIXED_BASE, 1] => fixed_l2);
    link!(fixed_l2[FIXED_BASE, 2] => fixed_l3);
    link!(kernel_l1[IMAGE_BASE, 1] => image_l2);

    // The device tree: its pages and no more. What lies beside it may be memory that is not to be
    // mapped, where a read ahead of the program is an error.
    let dtb_l3 = table!(dtb_l3).cast::<Table>();
    link!(fixed_l2[DTB_WINDOW, 2] => dtb_l3);
    let dtb_end = dtb_pa.wrapping_add(dtb_size);
    let mut pa = dtb_pa & !(PAGE_SIZE as u64 - 1);
    let mut page = dtb_pa as usize >> 12 & 511;
    while pa < dtb_end {
        let l3 = dtb_l3.wrapping_add(page >> 9);
        if page == 512 {
            store!(fixed_l2[DTB_WINDOW + BLOCK_2M, 2] = l3 as u64 | TABLE);
        }
        // SAFETY: the tables are ours alone, and at most 2 MiB from within the first of them end in
        // the second.
        unsafe { set(l3, page, pa | RODATA | PAGE) };
        pa = pa.wrapping_add(PAGE_SIZE as u64);
        page = page.wrapping_add(1);
    }

    // The image. PC-relative addresses of its symbols are physical here.
    let image_l3 = table!(image_l3).cast::<Table>();
    let start = &raw const __image_start as u64;
    let text_end = &raw const __text_end as u64;
    let rodata_end = &raw const __rodata_end as u64;
    let guard = &raw const __boot_stack_guard as u64;
    let end = &raw const __image_end as u64;
    let mut pa = start;
    let mut page = 0;
    while pa < end {
        let l3 = image_l3.wrapping_add(page >> 9);
        if page & 511 == 0 {
            let va = IMAGE_BASE | page << 12;
            store!(image_l2[va, 2] = l3 as u64 | TABLE);
        }
        let descriptor = if pa < text_end {
            pa | TEXT | PAGE
        } else if pa < rodata_end {
            pa | RODATA | PAGE
        } else if pa == guard {
            0
        } else {
            pa | DATA | PAGE
        };
        // SAFETY: the tables are ours alone; linker.ld asserts that the image has no more pages
        // than they have entries.
        unsafe { set(l3, page, descriptor) };
        pa = pa.wrapping_add(PAGE_SIZE as u64);
        page = page.wrapping_add(1);
    }
    (table!(identity_l0) as u64, table!(kernel_l0) as u64)
}

/// The addresses, in the image window, of the tables of the fixed region.
pub struct FixedTables {
    /// Level 2.
    pub l2: usize,
    /// Level 3, of the page slots.
    pub l3: usize,
    /// Level 3, of the device tree window.
    pub dtb_l3: [usize; 2],
}

/// Returns where they are.
pub fn fixed_tables() -> FixedTables {
    let tables = &raw mut TABLES;
    // SAFETY: only places are computed, inside of the static.
    let (l2, l3, dtb) = unsafe {
        (
            &raw mut (*tables).fixed_l2,
            &raw mut (*tables).fixed_l3,
            &raw mut (*tables).dtb_l3,
        )
    };
    FixedTables {
        l2: l2 as usize,
        l3: l3 as usize,
        dtb_l3: [dtb as usize, dtb as usize + size_of::<Table>()],
    }
}
