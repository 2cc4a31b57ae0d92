//! The address map of TTBR1: 48-bit addresses, 4 KiB granule.
//!
//! ```text
//!  0xffff_ffff_ffff_ffff +--------------------------+
//!                        | (unused, 1 GiB)          |
//!  0xffff_ffff_c000_0000 +--------------------------+ IMAGE_END
//!                        | image window             |  1 GiB: .text .rodata .data .bss boot stack
//!  0xffff_ffff_8000_0000 +--------------------------+ IMAGE_BASE
//!                        | (unused, 1 GiB)          |
//!  0xffff_ffff_4000_0000 +--------------------------+ FIXED_END
//!                        | fixed slots              |  1 GiB: early UART, edit slots, device tree,
//!                        |                          |  blocks of the CPUs
//!  0xffff_ffff_0000_0000 +--------------------------+ FIXED_BASE
//!                        | (unused)                 |
//!  0xffff_c000_0000_0000 +--------------------------+ VMALLOC_END
//!                        | vmalloc, ioremap, vmap,  |  64 TiB
//!                        | CPU stacks               |
//!  0xffff_8000_0000_0000 +--------------------------+ VMALLOC_BASE
//!                        | linear map of all RAM:   |  128 TiB: VA = LINEAR_BASE + PA
//!                        | VA = LINEAR_BASE + PA    |
//!  0xffff_0000_0000_0000 +--------------------------+ LINEAR_BASE
//! ```
//!
//! The fixed-slot region begins with one 2 MiB stretch of 4 KiB slots (a level 3 table), then the
//! device tree window:
//!
//! ```text
//!  FIXED_BASE + 0          slot 0: early UART
//!  FIXED_BASE + 4 KiB * n  slots 1..512: free for edits of tables (EDIT_SLOTS)
//!  FIXED_BASE + 2 MiB      device tree: its pages; up to 2 MiB may cross a boundary, so two tables
//!  FIXED_BASE + 512 MiB    a block for each CPU but the first (mm::per_cpu)
//! ```

/// Bytes of a page (the 4 KiB granule).
pub const PAGE_SIZE: usize = 1 << 12;
/// Bytes that a level 2 block maps.
pub const BLOCK_2M: usize = 1 << 21;

/// First address of the linear map; the map of PA 0.
pub const LINEAR_BASE: usize = 0xffff_0000_0000_0000;
/// One past the linear map: 128 TiB.
pub const LINEAR_END: usize = 0xffff_8000_0000_0000;

/// First address of the vmalloc region.
pub const VMALLOC_BASE: usize = 0xffff_8000_0000_0000;
/// One past the vmalloc region: 64 TiB.
pub const VMALLOC_END: usize = 0xffff_c000_0000_0000;

/// First address of the fixed slots.
pub const FIXED_BASE: usize = 0xffff_ffff_0000_0000;
/// One past the fixed slots: 1 GiB.
pub const FIXED_END: usize = 0xffff_ffff_4000_0000;

/// The address the image is linked at; `linker.ld` has the same number.
pub const IMAGE_BASE: usize = 0xffff_ffff_8000_0000;
/// One past the image window: 1 GiB.
pub const IMAGE_END: usize = 0xffff_ffff_c000_0000;

/// Page slots at the start of the fixed region: what one level 3 table maps.
pub const NR_FIXED_SLOTS: usize = 512;
/// The slot of the early UART.
pub const EARLY_UART_SLOT: usize = 0;
/// The slots that are free for editing table pages that no other map reaches.
pub const EDIT_SLOTS: core::ops::Range<usize> = 1..NR_FIXED_SLOTS;

/// The device tree window: what two level 3 tables map, after that of the page slots.
pub const DTB_WINDOW: usize = FIXED_BASE + BLOCK_2M;
/// Bytes of the device tree window.
pub const DTB_WINDOW_SIZE: usize = 2 * BLOCK_2M;
/// The largest device tree that the arm64 boot protocol allows.
pub const DTB_MAX_SIZE: usize = BLOCK_2M;

/// The window of the blocks of all CPUs but the one that booted.
pub const PER_CPU_WINDOW: usize = FIXED_BASE + (512 << 20);
/// Bytes of that window.
pub const PER_CPU_WINDOW_SIZE: usize = 512 << 20;

/// Returns the address of page slot `slot` of the fixed region.
#[must_use]
pub const fn fixed_slot(slot: usize) -> usize {
    assert!(slot < NR_FIXED_SLOTS);
    FIXED_BASE + slot * PAGE_SIZE
}

const _: () = {
    assert!(LINEAR_BASE < LINEAR_END);
    assert!(LINEAR_END <= VMALLOC_BASE && VMALLOC_BASE < VMALLOC_END);
    assert!(VMALLOC_END <= FIXED_BASE && FIXED_BASE < FIXED_END);
    assert!(FIXED_END <= IMAGE_BASE && IMAGE_BASE < IMAGE_END);
    // The map of PA 0 is level 0 aligned, so that the linear map may use every leaf size.
    assert!(LINEAR_BASE.is_multiple_of(1 << 39) && VMALLOC_BASE.is_multiple_of(1 << 39));
    assert!(FIXED_BASE.is_multiple_of(1 << 30) && IMAGE_BASE.is_multiple_of(1 << 30));
    assert!(DTB_WINDOW >= FIXED_BASE + NR_FIXED_SLOTS * PAGE_SIZE);
    assert!(DTB_WINDOW + DTB_WINDOW_SIZE <= PER_CPU_WINDOW);
    assert!(PER_CPU_WINDOW + PER_CPU_WINDOW_SIZE <= FIXED_END);
    assert!(EARLY_UART_SLOT < EDIT_SLOTS.start);
};
