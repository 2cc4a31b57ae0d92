//! What the boot side tells the kernel.

use core::ops::Range;

use paging::Level;

use crate::arch::psci::Conduit;

/// What the image found when it was entered, and what it left behind.
#[derive(Debug, Clone)]
pub struct BootInfo {
    /// Physical addresses of the image, .bss and boot stack included. Starts on 2 MiB, ends on 64
    /// KiB.
    pub image: Range<u64>,
    /// Bounds of the sections at their linked addresses.
    pub sections: Sections,
    /// The device tree.
    pub device_tree: DeviceTree,
    /// The exception level that the loader entered at: 1 or 2.
    pub entry_el: u8,
    /// How PSCI is called; `None` if the tree has no `/psci` node that says it.
    pub psci_conduit: Option<Conduit>,
    /// Tables of the fixed region, for linking into the final tables and for edit slots.
    pub fixed_tables: FixedTables,
    /// TTBR0 value of the identity map that CPUs use to turn their MMU on. Its tables are part of
    /// .bss.
    pub ttbr0_identity: u64,
    /// TTBR1 value of the first tables. Its tables are part of .bss.
    pub ttbr1_first: u64,
    /// TCR_EL1 as it is now on the first CPU, and as every CPU starts.
    pub tcr: u64,
    /// MAIR_EL1.
    pub mair: u64,
    /// SCTLR_EL1 with the MMU on.
    pub sctlr: u64,
    /// Physical address that a CPU is started at through PSCI CPU_ON, with the physical address of
    /// its [`SecondaryArgs`](crate::smp::SecondaryArgs) as the context.
    pub secondary_entry: u64,
    /// Physical address that a CPU in a spin table is let go to: it waits there for
    /// [`PEN`](crate::smp::PEN).
    pub pen_entry: u64,
    /// Physical address at which such a CPU goes back there, from the identity map.
    pub pen_return: u64,
}

impl BootInfo {
    /// Returns the physical address of something in the image, by its linked address.
    #[must_use]
    pub fn image_pa(&self, va: usize) -> u64 {
        (va - crate::layout::IMAGE_BASE) as u64 + self.image.start
    }
}

/// Bounds of the sections, linked addresses. `text`, `rodata`, `data` start on 64 KiB; all bounds
/// are page-aligned. `rodata` ends where `data` starts, `data` where `bss` starts, `bss` where the
/// guard page is.
#[derive(Debug, Clone)]
pub struct Sections {
    /// Code: read-only and executable.
    pub text: Range<usize>,
    /// Constants: read-only.
    pub rodata: Range<usize>,
    /// Initialised data.
    pub data: Range<usize>,
    /// Zeroed data, the first tables among it.
    pub bss: Range<usize>,
    /// The page below the boot stack: to stay unmapped in the image window.
    pub boot_stack_guard: Range<usize>,
    /// The stack of the first CPU.
    pub boot_stack: Range<usize>,
}

/// The flattened device tree that the loader passed; its header was checked, and its structure
/// parses.
#[derive(Debug, Clone, Copy)]
pub struct DeviceTree {
    /// Physical address, 8-byte aligned.
    pub pa: u64,
    /// `totalsize` of its header, in bytes.
    pub size: usize,
    /// Where it is mapped, read-only: in the window of the fixed region.
    pub va: usize,
}

/// The tables behind the fixed region. All lie in .bss, so they are reached through the image
/// window.
#[derive(Debug, Clone, Copy)]
pub struct FixedTables {
    /// The last table that the region shares with the image in the first tables.
    pub shared_va: usize,
    /// Its level.
    pub shared_level: Level,
    /// Physical address of the region's level 2 table: entry 0 links the level 3 table of the
    /// slots, the next two link those of the device tree window. May be the one that is shared.
    pub l2_pa: u64,
    /// The level 3 table of the page slots: entry n maps `layout::fixed_slot(n)`.
    pub l3_va: usize,
    /// Its physical address.
    pub l3_pa: u64,
    /// The physical addresses of the level 3 tables of the device tree window.
    pub dtb_l3_pa: [u64; 2],
}
