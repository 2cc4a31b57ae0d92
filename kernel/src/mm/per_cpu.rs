//! Memory for the blocks of the CPUs beside the one that booted ([`percpu`]).
//!
//! It is needed before there are final tables, since each CPU says what it is first. So it is taken
//! from the RAM that this CPU knows to be free, and mapped in the first tables, in a window of the
//! fixed region, which the final tables share.

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

/// RAM that is no longer free.
#[derive(Clone, Copy, Debug)]
pub struct PerCpuMemory {
    /// The blocks.
    pub blocks: PhysRegion,
    /// Behind them, the last level tables that map them.
    pub tables: PhysRegion,
}

static MEMORY: Once<PerCpuMemory> = Once::new();

/// Returns what was taken. `None` on a machine of one CPU.
#[must_use]
pub fn memory() -> Option<&'static PerCpuMemory> {
    MEMORY.get()
}

/// Returns the physical address of something in a block, by its address in the window.
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

/// Takes, maps and fills the blocks of as many CPUs as `machine` has, this one among them.
///
/// # Errors
/// There is no room, or RAM is such that there is no plan of it.
pub fn init(info: &BootInfo, machine: &Machine<'_>) -> Result<(), InitError> {
    let nr = machine.nr_cpus();
    let size = ((nr - 1) * percpu::block_size()) as u64;
    if size == 0 {
        return Ok(());
    }
    // What this CPU can address. Another that cannot address so much fails to come up.
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
    // Single pages: whether a CPU of this machine has an erratum of groups is not known yet.
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
    // DESIGN rule 2: the entries were invalid, so there is nothing to invalidate; they are seen by
    // walks before the blocks are used, and an "invalid" that was fetched ahead is forgotten.
    dsb_ishst();
    isb();
    // SAFETY: just mapped; this is the first CPU, no other runs, and memory is set up once.
    unsafe { percpu::init_blocks(nr) };
    MEMORY.call_once(|| memory);
    Ok(())
}
