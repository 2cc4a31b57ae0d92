//! Memory for the [`percpu`] blocks of the CPUs but the boot CPU.
//!
//! It is needed before there are final tables, for CPUs to identify themselves. So it comes from
//! RAM known to be free, and the first tables map it in a window of the fixed region, which the
//! final tables share.

use core::cell::RefCell;

use machine::device_tree::Machine;
use paging::mmu::NoMmu;
use paging::{Attributes, Config, Half, LeafSet, PhysAddr, Tree, VirtAddr, vmap_range_noflush};
use spin::Once;

use super::layout::{Granule, PAGE_SIZE, PER_CPU_WINDOW, TABLE_SPAN};
use super::regions::{PhysRegion, Regions};
use super::tables::{EarlyPages, EarlyTables};
use super::{InitError, plan_of};
use crate::BootInfo;
use crate::arch::features::Features;
use crate::arch::mmu::{dsb_ishst, isb};
use crate::arch::{identity, percpu};

/// RAM taken.
#[derive(Clone, Copy, Debug)]
pub struct PerCpuMemory {
    /// The blocks.
    pub blocks: PhysRegion,
    /// After them, the last level tables that map them.
    pub tables: PhysRegion,
}

static MEMORY: Once<PerCpuMemory> = Once::new();

/// Returns what was taken. `None` on a machine of one CPU.
#[must_use]
pub fn memory() -> Option<&'static PerCpuMemory> {
    MEMORY.get()
}

/// Returns the physical address of a byte in a block, by its address in the window.
///
/// # Panics
/// If there are no blocks.
#[must_use]
pub fn pa(va: usize) -> u64 {
    match memory() {
        Some(memory) => memory.blocks.start + (va - PER_CPU_WINDOW) as u64,
        None => panic!("{va:#x} is in no block of a CPU: there are none"),
    }
}

/// Takes, maps and fills the blocks for all CPUs of `machine`.
///
/// # Errors
/// There is no room, or no plan of RAM can be made.
pub fn init(info: &BootInfo, machine: &Machine<'_>) -> Result<(), InitError> {
    let nr = machine.nr_cpus();
    let size = ((nr - 1) * percpu::block_size()) as u64;
    if size == 0 {
        return Ok(());
    }
    // A CPU that cannot address so much fails to come up.
    let pa_bits = Features::of(&identity::read()).pa_bits;
    let mut plan = plan_of(info, machine, pa_bits)?;
    let tables = (size as usize).div_ceil(TABLE_SPAN) * PAGE_SIZE;
    let start = plan.free.take(size + tables as u64).ok_or(InitError::NoRoom)?;
    let memory = PerCpuMemory {
        blocks: PhysRegion {
            start,
            end: start + size,
        },
        tables: PhysRegion {
            start: start + size,
            end: start + size + tables as u64,
        },
    };
    let mut free = Regions::new();
    free.add(memory.tables).map_err(|_| InitError::NoRoom)?;
    let pages = RefCell::new(EarlyPages {
        free,
        taken: Regions::new(),
    });
    // Pages: errata of groups are not known yet.
    let config = Config {
        pa_bits: u32::from(pa_bits.min(48)),
        leaves: LeafSet::PAGES,
        ..Config::default()
    };
    let first_tables = Tree::<Granule, _, _>::new(
        PhysAddr(info.ttbr1_first),
        Half::High,
        EarlyTables::new(&pages),
        NoMmu::default(),
        config,
    );
    vmap_range_noflush(
        &first_tables,
        VirtAddr(PER_CPU_WINDOW as u64),
        PhysAddr(start),
        size,
        Attributes::KERNEL_DATA,
        LeafSet::PAGES,
    )
    .map_err(InitError::Map)?;
    drop(first_tables);
    // DESIGN rule 2: the entries were invalid. DSB ISHST: walks see them before the blocks are
    // used; ISB: this CPU forgets an invalid one that it fetched.
    dsb_ishst();
    isb();
    // SAFETY: just mapped; called once, by the boot CPU, while no other runs.
    unsafe { percpu::init_blocks(nr) };
    MEMORY.call_once(|| memory);
    Ok(())
}
