use core::ops::Range;

use paging::Level;

use crate::arch::psci::Conduit;

/// What the image found at its entry, and left behind.
#[derive(Debug, Clone)]
pub struct BootInfo {
    /// Physical, with .bss and boot stack; from 2 MiB to 64 KiB bounds.
    pub image: Range<u64>,
    pub sections: Sections,
    pub device_tree: DeviceTree,
    pub entry_el: u8,
    /// `None` if the tree does not say.
    pub psci_conduit: Option<Conduit>,
    pub fixed_tables: FixedTables,
    /// To turn an MMU on; in .bss.
    pub ttbr0_identity: u64,
    /// In .bss.
    pub ttbr1_first: u64,
    pub tcr: u64,
    pub mair: u64,
    pub sctlr: u64,
    /// Physical entry for CPU_ON; its context is that of
    /// [`SecondaryArgs`](crate::smp::SecondaryArgs).
    pub secondary_entry: u64,
    /// Physical entry from a spin table, to wait for [`PEN`](crate::smp::PEN).
    pub pen_entry: u64,
    /// Physical address to go back there.
    pub pen_return: u64,
}

impl BootInfo {
    #[must_use]
    pub fn image_pa(&self, va: usize) -> u64 {
        (va - crate::layout::IMAGE_BASE) as u64 + self.image.start
    }
}

/// Linked addresses, page-aligned, contiguous from `rodata` on. `text`, `rodata`, `data` start on
/// 64 KiB.
#[derive(Debug, Clone)]
pub struct Sections {
    pub text: Range<usize>,
    pub rodata: Range<usize>,
    pub data: Range<usize>,
    /// With the first tables.
    pub bss: Range<usize>,
    pub boot_stack_guard: Range<usize>,
    pub boot_stack: Range<usize>,
}

/// Its header is checked.
#[derive(Debug, Clone, Copy)]
pub struct DeviceTree {
    pub pa: u64,
    pub size: usize,
    pub va: usize,
}

/// Of the fixed region, in .bss.
#[derive(Debug, Clone, Copy)]
pub struct FixedTables {
    pub shared_va: usize,
    pub shared_level: Level,
    /// Level 2: entry 0 links the slots' table, the next two the device tree window's. May be the
    /// shared one.
    pub l2_pa: u64,
    /// Entry n maps `layout::fixed_slot(n)`.
    pub l3_va: usize,
    pub l3_pa: u64,
    pub dtb_l3_pa: [u64; 2],
}
