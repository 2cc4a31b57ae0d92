//! What the boot side tells the kernel.

use core::ops::Range;

use paging::Level;

use crate::arch::psci::Conduit;

/// What the image found when it was entered, and what it left behind.
#[derive(Debug, Clone)]
pub struct BootInfo {
    /// Physical addresses, with .bss and the boot stack. Starts on 2 MiB, ends on 64 KiB.
    pub image: Range<u64>,
    pub sections: Sections,
    pub device_tree: DeviceTree,
    /// The exception level of the entry: 1 or 2.
    pub entry_el: u8,
    /// `None` if the tree has no `/psci` node that says it.
    pub psci_conduit: Option<Conduit>,
    /// Tables of the fixed region.
    pub fixed_tables: FixedTables,
    /// TTBR0 of the identity map by which CPUs turn their MMU on. Its tables are in .bss.
    pub ttbr0_identity: u64,
    /// TTBR1 of the first tables, which are in .bss.
    pub ttbr1_first: u64,
    /// TCR_EL1 of every CPU.
    pub tcr: u64,
    pub mair: u64,
    /// SCTLR_EL1 with the MMU on.
    pub sctlr: u64,
    /// Physical entry of a CPU that PSCI CPU_ON starts. The context is the physical address of its
    /// [`SecondaryArgs`](crate::smp::SecondaryArgs).
    pub secondary_entry: u64,
    /// Physical entry of a CPU from a spin table: it waits there for [`PEN`](crate::smp::PEN).
    pub pen_entry: u64,
    /// Physical address by which it returns there, in the identity map.
    pub pen_return: u64,
}

impl BootInfo {
    /// Returns the physical address of a linked address.
    #[must_use]
    pub fn image_pa(&self, va: usize) -> u64 {
        (va - crate::layout::IMAGE_BASE) as u64 + self.image.start
    }
}

/// Sections at their linked addresses, page-aligned, side by side from `rodata` to the guard page.
/// `text`, `rodata`, `data` start on 64 KiB.
#[derive(Debug, Clone)]
pub struct Sections {
    /// Read-only and executable.
    pub text: Range<usize>,
    /// Read-only.
    pub rodata: Range<usize>,
    pub data: Range<usize>,
    /// Zeroed data, with the first tables.
    pub bss: Range<usize>,
    /// The page below the boot stack, unmapped in the image window.
    pub boot_stack_guard: Range<usize>,
    /// The stack of the boot CPU.
    pub boot_stack: Range<usize>,
}

/// The flattened device tree. Its header is checked, and its structure parses.
#[derive(Debug, Clone, Copy)]
pub struct DeviceTree {
    /// 8-byte aligned.
    pub pa: u64,
    /// `totalsize`, in bytes.
    pub size: usize,
    /// Where the fixed region maps it, read-only.
    pub va: usize,
}

/// The tables of the fixed region. All lie in .bss, so in the image window.
#[derive(Debug, Clone, Copy)]
pub struct FixedTables {
    /// The last table that region and image share in the first tables.
    pub shared_va: usize,
    pub shared_level: Level,
    /// Physical address of the level 2 table: entry 0 links the slots' level 3 table, the next two
    /// those of the device tree window. May be the shared one.
    pub l2_pa: u64,
    /// The slots' level 3 table: entry n maps `layout::fixed_slot(n)`.
    pub l3_va: usize,
    pub l3_pa: u64,
    /// Level 3 tables of the device tree window.
    pub dtb_l3_pa: [u64; 2],
}
