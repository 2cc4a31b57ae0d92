//! The address map of TTBR1: 48-bit addresses, with pages of 4, 16 or 64 KiB.
//!
//! With 52-bit addresses, `VA=52 PA=52`, the linear map begins 4 PiB below the top:
//!
//! ```text
//!  0xfff8_3c00_0000_0000 +--------------------------+ VMALLOC_END
//!                        | vmalloc                  |  60 TiB
//!  0xfff8_0000_0000_0000 +--------------------------+ VMALLOC_BASE
//!                        | linear map of all RAM    |  2 PiB
//!  0xfff0_0000_0000_0000 +--------------------------+ LINEAR_BASE
//! ```
//!
//! With 39, 42 or 47 bits (pages of 4, 64 or 16 KiB), the linear map is the lower half of the
//! addresses, and vmalloc a quarter of them behind it. What is fixed lies as with 48-bit addresses:
//!
//! ```text
//!  0xffff_ffff_ffff_ffff +--------------------------+
//!                        | (unused, 1 GiB)          |
//!  0xffff_ffff_c000_0000 +--------------------------+ IMAGE_END
//!                        | image window             |  1 GiB: .text .rodata .data .bss boot stack
//!  0xffff_ffff_8000_0000 +--------------------------+ IMAGE_BASE
//!                        | (unused)                 |
//!                        +--------------------------+ FIXED_END
//!                        | fixed slots              |  1 GiB (64K: 2 GiB): early UART, edit slots,
//!                        |                          |  device tree, blocks of the CPUs
//!  0xffff_ffff_0000_0000 +--------------------------+ FIXED_BASE
//!                        | (unused)                 |
//!  0xffff_fc00_0000_0000 +--------------------------+ VMALLOC_END
//!                        | vmalloc, ioremap, vmap,  |  60 TiB
//!                        | CPU stacks               |
//!  0xffff_c000_0000_0000 +--------------------------+ VMALLOC_BASE
//!                        | linear map of all RAM:   |  192 TiB: VA = LINEAR_BASE + PA
//!                        | VA = LINEAR_BASE + PA    |
//!  0xffff_0000_0000_0000 +--------------------------+ LINEAR_BASE
//! ```
//!
//! The fixed-slot region begins with one level 3 table of page slots, 2, 32 or 512 MiB with pages
//! of 4, 16 or 64 KiB:
//!
//! ```text
//!  FIXED_BASE              slot 0: early UART; the others: free for edits of tables (EDIT_SLOTS)
//!  DTB_WINDOW              device tree: its pages; up to 2 MiB may cross a boundary, so two tables
//!  PER_CPU_WINDOW          a block for each CPU but the first (mm::per_cpu)
//! ```

use paging::Granule as _;

/// The granules that an image may have, with its bits of address.
pub mod granules {
    #[cfg(not(any(feature = "addresses-52", feature = "fewer-levels")))]
    pub use paging::{Granule4K as Of4K, Granule16K as Of16K, Granule64K as Of64K};
    #[cfg(feature = "fewer-levels")]
    pub use paging::{Granule4K39 as Of4K, Granule16K47 as Of16K, Granule64K42 as Of64K};
    #[cfg(all(feature = "addresses-52", not(feature = "fewer-levels")))]
    pub use paging::{Granule4K52 as Of4K, Granule16K52 as Of16K, Granule64K52 as Of64K};
}

/// The translation granule of this image: `GRANULE=4K`.
#[cfg(not(any(feature = "granule-16k", feature = "granule-64k")))]
pub type Granule = granules::Of4K;
/// The translation granule of this image: `GRANULE=16K`.
#[cfg(feature = "granule-16k")]
pub type Granule = granules::Of16K;
/// The translation granule of this image: `GRANULE=64K`.
#[cfg(all(feature = "granule-64k", not(feature = "granule-16k")))]
pub type Granule = granules::Of64K;

pub const PAGE_SHIFT: u32 = Granule::PAGE_SHIFT;
/// Bytes of a page, and of a table.
pub const PAGE_SIZE: usize = 1 << PAGE_SHIFT;
pub const ENTRIES: usize = Granule::ENTRIES;
/// Bytes that a level 3 table maps.
pub const TABLE_SPAN: usize = PAGE_SIZE * ENTRIES;
/// What the image is aligned to (arm64 boot protocol).
pub const IMAGE_ALIGN: usize = 2 << 20;

pub const LINEAR_BASE: usize = 0_usize.wrapping_sub(1 << Granule::VA_BITS);
/// Half of the upper half's addresses; with 48 bits three quarters, so that most physical ones fit.
pub const LINEAR_END: usize = 0_usize.wrapping_sub(1 << (Granule::VA_BITS - BITS_OF_REST));
const BITS_OF_REST: u32 = if Granule::VA_BITS == 48 { 2 } else { 1 };

pub const VMALLOC_BASE: usize = LINEAR_END;
/// With 48 bits before the fixed region's descriptor in the root, for each granule.
pub const VMALLOC_END: usize = VMALLOC_BASE + VMALLOC_SIZE;
const VMALLOC_SIZE: usize = if Granule::VA_BITS < 48 {
    1 << (Granule::VA_BITS - 2)
} else {
    60 << 40
};

pub const FIXED_BASE: usize = 0xffff_ffff_0000_0000;
pub const FIXED_END: usize = (PER_CPU_WINDOW + PER_CPU_WINDOW_SIZE).next_multiple_of(1 << 30);

/// Also in `linker.ld`.
pub const IMAGE_BASE: usize = 0xffff_ffff_8000_0000;
pub const IMAGE_END: usize = 0xffff_ffff_c000_0000;

pub const NR_FIXED_SLOTS: usize = ENTRIES;
pub const EARLY_UART_SLOT: usize = 0;
/// Free for editing table pages that no other map reaches.
pub const EDIT_SLOTS: core::ops::Range<usize> = 1..NR_FIXED_SLOTS;

pub const DTB_WINDOW: usize = FIXED_BASE + TABLE_SPAN;
pub const DTB_WINDOW_SIZE: usize = 2 * TABLE_SPAN;
/// The arm64 boot protocol's limit.
pub const DTB_MAX_SIZE: usize = 2 << 20;

pub const PER_CPU_WINDOW: usize = (DTB_WINDOW + DTB_WINDOW_SIZE).next_multiple_of(512 << 20);
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
    // The map of PA 0 is aligned to the largest leaf of any granule.
    const LARGEST: usize = if Granule::VA_BITS < 48 { 16 << 30 } else { 1 << 39 };
    assert!(LINEAR_BASE.is_multiple_of(LARGEST) && VMALLOC_BASE.is_multiple_of(LARGEST));
    assert!(FIXED_BASE.is_multiple_of(1 << 30) && IMAGE_BASE.is_multiple_of(1 << 30));
    assert!(DTB_MAX_SIZE <= TABLE_SPAN && PER_CPU_WINDOW.is_multiple_of(TABLE_SPAN));
    assert!(DTB_WINDOW >= FIXED_BASE + NR_FIXED_SLOTS * PAGE_SIZE);
    assert!(DTB_WINDOW + DTB_WINDOW_SIZE <= PER_CPU_WINDOW);
    assert!(PER_CPU_WINDOW + PER_CPU_WINDOW_SIZE <= FIXED_END);
    assert!(EARLY_UART_SLOT < EDIT_SLOTS.start);
};
