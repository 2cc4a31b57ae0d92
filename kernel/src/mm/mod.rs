//! Memory: the final tables, frames, the heap.
//!
//! # From the first tables to the final ones
//! 1. [`plan`]: free RAM. [Per-CPU memory](per_cpu) comes first: the tables' policy depends on all
//!    CPUs.
//! 2. Under the first tables, the engine builds the final ones through fixed slots
//!    ([`tables::EarlyTables`]).
//! 3. [`replace_ttbr1`](crate::arch::mmu::replace_ttbr1). TTBR0 stays empty.
//! 4. The rest of the plan becomes [frames].
//!
//! # The walk lock
//! Mapping or unmapping one's own range takes no lock. Readers of the whole tree hold the [walk
//! lock](walk_lock), which keeps out the freeing of tables ([`tables`]) and edits of the linear
//! map.

mod alternatives;
pub mod areas;
pub mod dump;
pub mod frames;
pub mod heap;
pub mod image;
pub mod linear;
pub mod per_cpu;
pub mod slots;
pub mod tables;

use core::cell::RefCell;
use core::fmt;
use core::sync::atomic::{AtomicUsize, Ordering};

use ::machine::device_tree::Machine;
use paging::mmu::NoMmu;
use paging::{
    Attributes, Config, Failure, Granule as _, Half, LeafSet, Outcome, PhysAddr, Tables, Tree, VirtAddr,
};
use spin::Once;
use spin::mutex::{SpinMutex, SpinMutexGuard};

use crate::BootInfo;
use crate::arch::errata::Errata;
use crate::arch::features::Features;
use crate::arch::mmu::{self, KernelMmu, dsb_ishst};
use crate::arch::{cpu, fatal, table_ops};
use crate::bootargs::{BootArgs, LinearLeaves, Rodata};
pub use crate::layout;
use crate::sync::{HotWord, IrqReadGuard, IrqRwLock, IrqWriteGuard, Padded, Turn};
pub use ::machine::{plan, regions};
pub use alternatives::apply_alternatives;
pub use areas::{
    KernelArea, alloc_stack, ioremap, ioremap_np, ioremap_wc, iounmap, kernel_vmalloc, vfree, vfree_atomic,
    vmalloc, vmalloc_nolock, vmalloc_nowait, vmalloc_to_pfn, vmap, vunmap, vzalloc,
};
use layout::{Granule, LINEAR_BASE, LINEAR_END, PAGE_SIZE};
use plan::Plan;
use regions::{PhysRegion, Regions};
use tables::{EarlyPages, EarlyTables, KernelTables, LinearMapTables};

pub type KernelTree = Tree<Granule, KernelTables, KernelMmu>;
pub type LinearMapTree = Tree<Granule, LinearMapTables, KernelMmu>;

struct Memory {
    tree: KernelTree,
    linear_map_tree: LinearMapTree,
    plan: Plan,
    linear_map: Outcome,
    linear_map_leaves: LeafSet,
    image: Outcome,
}

static MEMORY: Once<Memory> = Once::new();
/// Held from first split to last fold of an edit; interrupts stay enabled.
static LINEAR_MAP: Padded<SpinMutex<(), Turn>> = Padded(SpinMutex::new(()));
static WALKS: Padded<WalkLock> = Padded(WalkLock(IrqRwLock::new("walks", ())));
static ZVA_SIZE: AtomicUsize = AtomicUsize::new(0);

#[derive(Clone, Copy, Debug)]
pub enum InitError {
    Plan(plan::Error),
    Map(Failure),
    /// For the root, or frames' states.
    NoRoom,
}

impl fmt::Display for InitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Plan(error) => write!(f, "{error}"),
            Self::Map(failure) => write!(f, "the final tables cannot be built: {failure}"),
            Self::NoRoom => write!(f, "there is no room in RAM for its own administration"),
        }
    }
}

/// Sets up what identifying CPUs needs.
///
/// # Errors
/// There is no room. Only the early console works then.
pub fn init_early(info: &'static BootInfo, machine: &Machine<'_>) -> Result<(), InitError> {
    dump::init(info);
    slots::init(info);
    per_cpu::init(info, machine)
}

fn plan_of(info: &BootInfo, machine: &Machine<'_>, pa_bits: u8) -> Result<Plan, InitError> {
    let image = PhysRegion {
        start: info.image.start,
        end: info.image.end,
    };
    let tree = PhysRegion {
        start: info.device_tree.pa,
        end: info.device_tree.pa + info.device_tree.size as u64,
    };
    let limit = (1 << u32::from(pa_bits).min(Granule::PA_BITS)).min((LINEAR_END - LINEAR_BASE) as u64);
    Plan::new(machine, image, tree, limit, PAGE_SIZE as u64).map_err(InitError::Plan)
}

/// Sets up the final tables and frames. After [`init_early`].
///
/// # Errors
/// Why it cannot. Only the early console works then.
///
/// # Panics
/// When called twice.
pub fn init(
    info: &'static BootInfo,
    machine: &Machine<'_>,
    args: &BootArgs,
    features: &Features,
    errata: Errata,
) -> Result<(), InitError> {
    assert!(!MEMORY.is_completed(), "memory was set up twice");
    ZVA_SIZE.store(features.zva_size, Ordering::Relaxed);
    let mut plan = plan_of(info, machine, features.pa_bits)?;
    let mut taken = Regions::new();
    if let Some(memory) = per_cpu::memory() {
        for region in [memory.blocks, memory.tables] {
            plan.free
                .remove(region)
                .map_err(|error| InitError::Plan(error.into()))?;
        }
        taken
            .add(memory.tables)
            .map_err(|error| InitError::Plan(error.into()))?;
    }
    let config = config(features, errata);
    let pages = RefCell::new(EarlyPages {
        free: plan.free.clone(),
        taken,
    });
    let early = EarlyTables::new(&pages);
    let root = early.alloc_table().ok_or(InitError::NoRoom)?;
    // No CPU walks it yet.
    let building = Tree::<Granule, _, _>::new(root, Half::High, early, NoMmu::default(), config);
    let leaves = match args.linear {
        LinearLeaves::Largest => LeafSet::ALL,
        LinearLeaves::Pages => LeafSet::PAGES,
    };
    let constant = match args.rodata {
        Rodata::Full => Attributes::KERNEL_RODATA,
        Rodata::On => Attributes::KERNEL_DATA,
    };
    let linear_map = linear::map(&building, &plan.ram, info, leaves, constant).map_err(InitError::Map)?;
    let image = image::map(&building, info).map_err(InitError::Map)?;
    image::link_fixed_window(&building, info);
    drop(building);
    // DESIGN rule 2: complete before walks begin.
    dsb_ishst();
    // SAFETY: image and fixed window keep their frames; the rest is new.
    unsafe { mmu::replace_ttbr1(info.ttbr0_identity, |va| info.image_pa(va), root.0) };

    let EarlyPages { free, taken } = pages.into_inner();
    frames::init(free, taken).map_err(|_| InitError::NoRoom)?;
    let kernel_mmu = KernelMmu::new(features);
    MEMORY.call_once(|| Memory {
        tree: Tree::new(root, Half::High, KernelTables, kernel_mmu, config),
        linear_map_tree: Tree::new(root, Half::High, LinearMapTables::new(), kernel_mmu, config),
        plan,
        linear_map,
        linear_map_leaves: leaves,
        image,
    });
    fatal::set_dump_walk(dump::walk);
    areas::init().map_err(|_| InitError::NoRoom)
}

/// The engine repeats TLBIs, so [`KernelMmu`] does not.
fn config(features: &Features, errata: Errata) -> Config {
    let config = Config {
        pa_bits: u32::from(features.pa_bits).min(Granule::PA_BITS),
        repeat_tlbi: errata.repeat_tlbi,
        break_executable: errata.break_executable,
        ..Config::default()
    };
    if errata.no_cont {
        Config {
            leaves: config.leaves.without_groups(),
            ..config
        }
    } else {
        config
    }
}

fn memory() -> &'static Memory {
    match MEMORY.get() {
        Some(memory) => memory,
        None => panic!("memory is used before it is set up"),
    }
}

#[derive(Debug)]
pub struct WalkLock(IrqRwLock<()>);

impl WalkLock {
    /// Takes it to read any part of the tree, without using the heap.
    #[track_caller]
    pub fn walk(&self) -> Walk<'_> {
        let linear_map = LINEAR_MAP.lock();
        Walk {
            _tables: self.0.read(),
            _linear_map: linear_map,
        }
    }

    /// Takes it to free a table.
    #[track_caller]
    fn release(&self) -> IrqWriteGuard<'_, ()> {
        self.0.write()
    }
}

#[must_use]
pub struct Walk<'a> {
    _tables: IrqReadGuard<'a, ()>,
    _linear_map: SpinMutexGuard<'a, (), Turn>,
}

#[must_use]
pub fn walk_lock() -> &'static WalkLock {
    &WALKS
}

#[must_use]
pub fn hot_words() -> [HotWord; 2] {
    [
        HotWord::of("the walk lock", &WALKS),
        HotWord::of("the lock of the linear map", &LINEAR_MAP),
    ]
}

/// Returns the tree. The [walk lock](walk_lock) is for others' addresses.
#[must_use]
pub fn kernel_tree() -> &'static KernelTree {
    &memory().tree
}

/// Runs `f` with the linear map to itself.
pub fn with_linear_map_tables<R>(f: impl FnOnce(&'static LinearMapTree) -> R) -> R {
    let _alone = LINEAR_MAP.lock();
    f(&memory().linear_map_tree)
}

/// Returns it, for the holder of `LINEAR_MAP`.
#[must_use]
pub fn linear_map_tree() -> &'static LinearMapTree {
    &memory().linear_map_tree
}

#[must_use]
pub fn kernel_ttbr1() -> u64 {
    cpu::ttbr(kernel_tree().root().0)
}

#[must_use]
pub fn memory_plan() -> &'static Plan {
    &memory().plan
}

#[must_use]
pub fn linear_map_leaves() -> LeafSet {
    memory().linear_map_leaves
}

#[must_use]
pub fn linear_map_outcome() -> &'static Outcome {
    &memory().linear_map
}

#[must_use]
pub fn image_outcome() -> &'static Outcome {
    &memory().image
}

#[inline(always)]
#[must_use]
pub const fn linear_va(pa: u64) -> usize {
    LINEAR_BASE + pa as usize
}

#[must_use]
pub const fn linear_pa(va: usize) -> Option<u64> {
    if va >= LINEAR_BASE && va < LINEAR_END {
        Some((va - LINEAR_BASE) as u64)
    } else {
        None
    }
}

/// Returns the bytes of DC ZVA; 0 if unused.
#[must_use]
pub fn zva_size() -> usize {
    ZVA_SIZE.load(Ordering::Relaxed)
}

/// # Safety
/// `va` is page-aligned, mapped writable as Normal memory, the caller's alone, and not walked.
#[inline]
pub unsafe fn zero_page(va: usize) {
    // SAFETY: the caller's promise.
    unsafe { table_ops::zero_table(va as *mut u64, zva_size()) };
}

#[must_use]
pub fn translate(va: usize) -> Option<PhysAddr> {
    let va = VirtAddr(va as u64);
    let _walk = WALKS.walk();
    kernel_tree().translate(va).map(|leaf| leaf.translate(va))
}
