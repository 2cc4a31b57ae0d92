//! Memory for other CPUs' [`percpu`] blocks, mapped by the first tables in a window that the final
//! ones share.

use core::cell::RefCell;

use machine::device_tree::Machine;
use paging::mmu::NoMmu;
use paging::{Attributes, Config, Granule as _, Half, LeafSet, PhysAddr, Tree, VirtAddr, vmap_range_noflush};
use spin::Once;

use super::layout::{Granule, PAGE_SIZE, PER_CPU_WINDOW, TABLE_SPAN};
use super::regions::{PhysRegion, Regions};
use super::tables::{EarlyPages, EarlyTables};
use super::{InitError, plan_of};
use crate::BootInfo;
use crate::arch::features::Features;
use crate::arch::mmu::{dsb_ishst, isb};
use crate::arch::{identity, percpu};

#[derive(Clone, Copy, Debug)]
pub struct PerCpuMemory {
    pub blocks: PhysRegion,
    /// Of the last level, after the blocks.
    pub tables: PhysRegion,
}

static MEMORY: Once<PerCpuMemory> = Once::new();

/// Returns `None` with one CPU.
#[must_use]
pub fn memory() -> Option<&'static PerCpuMemory> {
    MEMORY.get()
}

/// # Panics
/// If there are no blocks.
#[must_use]
pub fn pa(va: usize) -> u64 {
    match memory() {
        Some(memory) => memory.blocks.start + (va - PER_CPU_WINDOW) as u64,
        None => panic!("{va:#x} is in no block of a CPU: there are none"),
    }
}

/// # Errors
/// There is no room, or no plan of RAM.
pub fn init(info: &BootInfo, machine: &Machine<'_>) -> Result<(), InitError> {
    let nr = machine.nr_cpus();
    let size = ((nr - 1) * percpu::block_size()) as u64;
    if size == 0 {
        return Ok(());
    }
    // A CPU that addresses less will not come up.
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
    // Errata are not known yet.
    let config = Config {
        pa_bits: u32::from(pa_bits).min(Granule::PA_BITS),
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
    // DESIGN rule 2, entries were invalid. DSB ISHST: walks see them; ISB: discards an invalid one
    // that was fetched.
    dsb_ishst();
    isb();
    // SAFETY: just mapped; the boot CPU, once, while no other runs.
    unsafe { percpu::init_blocks(nr) };
    MEMORY.call_once(|| memory);
    Ok(())
}
