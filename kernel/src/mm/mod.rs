//! Memory: the final tables, frames, the heap, and what is built on them.
//!
//! # From the first tables to the final ones
//! 1. [`plan`]: free RAM by the device tree. [Per-CPU memory](per_cpu) is taken first, since all
//!    CPUs are identified before the tables' policy is known.
//! 2. Under the first tables, the engine builds the final ones in pages of the plan, through fixed
//!    slots ([`tables::EarlyTables`]): the [linear map](linear), the [image], and the shared fixed
//!    window.
//! 3. [`replace_ttbr1`](crate::arch::mmu::replace_ttbr1) switches, with walks off meanwhile; TTBR0
//!    is empty from then on.
//! 4. The rest of the plan becomes [frames], for vmalloc ([areas]).
//!
//! # The walk lock
//! Mapping or unmapping one's own range of the one tree takes no lock: the engine permits it side
//! by side, and vmalloc keeps a table linked while its area is walked. Readers of the whole tree
//! (dump, audit) share the [walk lock](walk_lock). It is held exclusively to free a table
//! ([`tables::KernelTables`]), and to edit the linear map.

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
use paging::{Attributes, Config, Failure, Half, LeafSet, Outcome, PhysAddr, Tables, Tree, VirtAddr};
use spin::Once;

use crate::BootInfo;
use crate::arch::errata::Errata;
use crate::arch::features::Features;
use crate::arch::mmu::{self, KernelMmu, dsb_ishst};
use crate::arch::{fatal, table_ops};
use crate::bootargs::{BootArgs, LinearLeaves, Rodata};
pub use crate::layout;
use crate::sync::{HotWord, IrqReadGuard, IrqRwLock, IrqWriteGuard, Padded};
pub use ::machine::{plan, regions};
pub use alternatives::apply_alternatives;
pub use areas::{
    KernelArea, alloc_stack, ioremap, ioremap_np, ioremap_wc, iounmap, kernel_vmalloc, vfree, vfree_atomic,
    vmalloc, vmalloc_nolock, vmalloc_nowait, vmalloc_to_pfn, vmap, vunmap, vzalloc,
};
use layout::{Granule, LINEAR_BASE, LINEAR_END};
use plan::Plan;
use regions::{PhysRegion, Regions};
use tables::{EarlyPages, EarlyTables, KernelTables, LinearMapTables};

/// The kernel's tree, but for the linear map.
pub type KernelTree = Tree<Granule, KernelTables, KernelMmu>;
/// The same tree, for the linear map.
pub type LinearMapTree = Tree<Granule, LinearMapTables, KernelMmu>;

struct Memory {
    tree: KernelTree,
    linear_map_tree: LinearMapTree,
    plan: Plan,
    linear_map: Outcome,
    /// What the linear map may have.
    linear_map_leaves: LeafSet,
    image: Outcome,
}

static MEMORY: Once<Memory> = Once::new();
static WALKS: Padded<WalkLock> = Padded(WalkLock(IrqRwLock::new("walks", ())));
/// [`Features::zva_size`].
static ZVA_SIZE: AtomicUsize = AtomicUsize::new(0);

/// Why memory cannot be set up: the loader, the device tree, or too small a machine.
#[derive(Clone, Copy, Debug)]
pub enum InitError {
    Plan(plan::Error),
    /// A map cannot be built: most likely, RAM has no room for its tables.
    Map(Failure),
    /// For the root table, or the states of frames.
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

/// Sets up what CPUs need to identify themselves: fixed slots and per-CPU memory.
///
/// # Errors
/// There is no room. Only the early console works then.
pub fn init_early(info: &'static BootInfo, machine: &Machine<'_>) -> Result<(), InitError> {
    dump::init(info);
    slots::init(info);
    per_cpu::init(info, machine)
}

/// Plans RAM for a CPU with `pa_bits` of physical address.
fn plan_of(info: &BootInfo, machine: &Machine<'_>, pa_bits: u8) -> Result<Plan, InitError> {
    let image = PhysRegion {
        start: info.image.start,
        end: info.image.end,
    };
    let tree = PhysRegion {
        start: info.device_tree.pa,
        end: info.device_tree.pa + info.device_tree.size as u64,
    };
    let limit = (1 << pa_bits.min(48)).min((LINEAR_END - LINEAR_BASE) as u64);
    Plan::new(machine, image, tree, limit).map_err(InitError::Plan)
}

/// Sets up the final tables, frames, and the walks of fatal exceptions. After [`init_early`].
///
/// # Errors
/// Why it cannot. Only the early console works then.
///
/// # Panics
/// When it is called a second time.
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
    // No barriers or TLBIs while it is built: no CPU walks it yet.
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
    // SAFETY: image and fixed window stay mapped to the same frames; linear map and vmalloc are
    // new.
    unsafe { mmu::replace_ttbr1(info.ttbr0_identity, |va| info.image_pa(va), root.0) };

    let EarlyPages { free, taken } = pages.into_inner();
    frames::init(&plan.ram, free, &taken).map_err(|_| InitError::NoRoom)?;
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

/// Returns the tree's policy. The engine repeats TLBIs once a batch, so [`KernelMmu`] does not.
fn config(features: &Features, errata: Errata) -> Config {
    let config = Config {
        pa_bits: u32::from(features.pa_bits.min(48)),
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

/// The lock around walks of the kernel's tree.
#[derive(Debug)]
pub struct WalkLock(IrqRwLock<()>);

impl WalkLock {
    /// Shares the lock, to read any part of the tree. The heap must not be used meanwhile.
    #[track_caller]
    pub fn walk(&self) -> IrqReadGuard<'_, ()> {
        self.0.read()
    }

    /// [`walk`](Self::walk), if that needs no waiting.
    #[track_caller]
    pub fn try_walk(&self) -> Option<IrqReadGuard<'_, ()>> {
        self.0.try_read()
    }

    /// Takes it exclusively, to free a table or edit the linear map.
    #[track_caller]
    pub fn release(&self) -> IrqWriteGuard<'_, ()> {
        self.0.write()
    }
}

/// Returns the lock around walks of the whole tree.
#[must_use]
pub fn walk_lock() -> &'static WalkLock {
    &WALKS
}

/// Returns what all CPUs write here.
#[must_use]
pub fn hot_words() -> [HotWord; 1] {
    [HotWord::of("the walk lock", &WALKS)]
}

/// Returns the kernel's tree. Hold the [walk lock](walk_lock) to read others' addresses.
#[must_use]
pub fn kernel_tree() -> &'static KernelTree {
    &memory().tree
}

/// Runs `f` with [`linear_map_tree`] under the exclusive walk lock. `f` must not use the heap.
pub fn with_linear_map_tables<R>(f: impl FnOnce(&'static LinearMapTree) -> R) -> R {
    let _alone = WALKS.release();
    f(&memory().linear_map_tree)
}

/// Returns the tree that may edit the linear map, for the exclusive holder of the [walk
/// lock](walk_lock).
#[must_use]
pub fn linear_map_tree() -> &'static LinearMapTree {
    &memory().linear_map_tree
}

/// Returns TTBR1_EL1 of the final tables.
#[must_use]
pub fn kernel_ttbr1() -> u64 {
    kernel_tree().root().0
}

/// Returns what of RAM is free, reserved, or the kernel's.
#[must_use]
pub fn memory_plan() -> &'static Plan {
    &memory().plan
}

/// Returns what leaves the linear map may have.
#[must_use]
pub fn linear_map_leaves() -> LeafSet {
    memory().linear_map_leaves
}

/// Returns the linear map's leaves as built.
#[must_use]
pub fn linear_map_outcome() -> &'static Outcome {
    &memory().linear_map
}

/// Returns those of the image's map.
#[must_use]
pub fn image_outcome() -> &'static Outcome {
    &memory().image
}

/// Returns the address of `pa` in the linear map.
#[inline(always)]
#[must_use]
pub const fn linear_va(pa: u64) -> usize {
    LINEAR_BASE + pa as usize
}

/// Returns the physical address of `va`, in the linear map.
#[must_use]
pub const fn linear_pa(va: usize) -> Option<u64> {
    if va >= LINEAR_BASE && va < LINEAR_END {
        Some((va - LINEAR_BASE) as u64)
    } else {
        None
    }
}

/// Returns the bytes that DC ZVA zeroes; 0 if it is not used.
#[must_use]
pub fn zva_size() -> usize {
    ZVA_SIZE.load(Ordering::Relaxed)
}

/// Zeroes a page.
///
/// # Safety
/// `va` is page-aligned, mapped writable as Normal memory, the caller's alone, and reached by no
/// table walk.
#[inline]
pub unsafe fn zero_page(va: usize) {
    // SAFETY: the caller's promise.
    unsafe { table_ops::zero_table(va as *mut u64, zva_size()) };
}

/// Returns what the tables translate `va` to.
#[must_use]
pub fn translate(va: usize) -> Option<PhysAddr> {
    let va = VirtAddr(va as u64);
    let _walk = WALKS.walk();
    kernel_tree().translate(va).map(|leaf| leaf.translate(va))
}
