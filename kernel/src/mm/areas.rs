//! The vmalloc subsystem of the kernel: crate [`vmalloc`](mod@vmalloc) on the kernel's tree, frames and locks, and its calls under
//! the names that Linux gives them.
//!
//! What they return owns its area: dropping it gives everything back. [`into_raw`](VmArea::into_raw) leaves it to whoever knows the address, and the call of
//! its kind takes it back by that.
//!
//! In a traced build (feature `trace`) each is a function of its own, for a debugger to break on.

use core::panic::Location;
use core::sync::atomic::{AtomicU64, Ordering};

use paging::{
    Failure, FrameArray, Granule4K, LeafSet, Mmu, Outcome, Pfn, PhysAddr, Tables, Tree, VirtAddr, VirtRange,
};
use spin::Once;
use vmalloc::va::{NodePage, NodePages};
use vmalloc::{Backend, Config, Error, FlushPolicy, LinearEdit, Lock, Request, VmArea, Vmalloc};

use super::layout::{PAGE_SIZE, VMALLOC_BASE, VMALLOC_END};
use super::regions::PhysRegion;
use super::tables::KernelTables;
use super::{
    KernelTree, WalkLock, frames, kernel_tree, linear_map_tree, linear_va, memory_plan, walk_lock, zero_page,
};
use crate::arch::cache;
use crate::arch::mmu::KernelMmu;
use crate::arch::percpu::cpu_index;
use crate::arch::probe::probe_read;
use crate::bootargs::LinearLeaves;
use crate::sync::{IrqReadGuard, IrqSpinLock, IrqSpinLockGuard, IrqWriteGuard};

/// What the kernel gives to the vmalloc subsystem.
#[derive(Clone, Copy, Debug)]
pub struct KernelBackend;

/// The kernel's vmalloc subsystem.
pub type KernelVmalloc = Vmalloc<KernelBackend>;
/// An area of it.
pub type KernelArea = VmArea<'static, KernelBackend>;

static VMALLOC: Once<KernelVmalloc> = Once::new();
/// Frames taken for the subsystem's nodes: they are never given back, which a leak test must know.
static NR_NODE_FRAMES: AtomicU64 = AtomicU64::new(0);

/// What is withheld at most until one flush covers it all: 256 areas, or 32 MiB of addresses.
const CONFIG: Config = Config {
    leaves: LeafSet::ALL,
    flush: FlushPolicy::Lazy {
        areas: 256,
        pages: (32 << 20) / PAGE_SIZE as u64,
    },
    cached_areas: 256,
};

/// Sets the subsystem up.
///
/// # Errors
/// There is no frame for it.
pub fn init() -> Result<(), Error> {
    let range = VirtRange::new(VirtAddr(VMALLOC_BASE as u64), (VMALLOC_END - VMALLOC_BASE) as u64);
    let vmalloc = Vmalloc::new(range, KernelBackend, CONFIG)?;
    VMALLOC.call_once(|| vmalloc);
    Ok(())
}

/// The kernel's vmalloc subsystem, or `None` before it is set up.
pub fn get() -> Option<&'static KernelVmalloc> {
    VMALLOC.get()
}

/// The kernel's vmalloc subsystem.
///
/// # Panics
/// Before it is set up.
#[must_use]
pub fn kernel_vmalloc() -> &'static KernelVmalloc {
    match get() {
        Some(vmalloc) => vmalloc,
        None => panic!("vmalloc is used before it is set up"),
    }
}

/// Frames that the subsystem holds for its nodes, for ever.
#[must_use]
pub fn nr_node_frames() -> u64 {
    NR_NODE_FRAMES.load(Ordering::Relaxed)
}

// SAFETY: `spin`'s mutex, which acquires and releases.
unsafe impl<T: Send> Lock<T> for IrqSpinLock<T> {
    type Guard<'a>
        = IrqSpinLockGuard<'a, T>
    where
        Self: 'a;
    fn new(value: T) -> Self {
        IrqSpinLock::new(core::any::type_name::<T>(), value)
    }
    #[inline(always)]
    fn lock(&self) -> IrqSpinLockGuard<'_, T> {
        IrqSpinLock::lock(self)
    }
    fn try_lock(&self) -> Option<IrqSpinLockGuard<'_, T>> {
        IrqSpinLock::try_lock(self)
    }
}

// SAFETY: `spin`'s read-write lock, which acquires and releases.
unsafe impl vmalloc::WalkLock for WalkLock {
    type Walk<'a> = IrqReadGuard<'a, ()>;
    type Release<'a> = IrqWriteGuard<'a, ()>;
    #[inline(always)]
    fn walk(&self) -> IrqReadGuard<'_, ()> {
        WalkLock::walk(self)
    }
    fn try_walk(&self) -> Option<IrqReadGuard<'_, ()>> {
        WalkLock::try_walk(self)
    }
    fn release(&self) -> IrqWriteGuard<'_, ()> {
        WalkLock::release(self)
    }
}

impl NodePages for KernelBackend {
    fn node_page(&self) -> Option<&'static mut NodePage> {
        let frame = frames::allocate(0)?;
        NR_NODE_FRAMES.fetch_add(1, Ordering::Relaxed);
        let page = linear_va(frame.0 * PAGE_SIZE as u64) as *mut NodePage;
        // SAFETY: a frame of our own, in the linear map, that is never freed; a node page may have arbitrary contents.
        Some(unsafe { &mut *page })
    }
}

/// What [`Backend::edit_linear_map`] says, by this handle on the kernel's tables.
///
/// # Errors
/// There is no page for a table.
pub fn edit_linear_map<T: Tables, M: Mmu>(
    tree: &Tree<Granule4K, T, M>,
    pa: PhysAddr,
    size: u64,
    edit: LinearEdit,
) -> Result<Outcome, Failure> {
    // A map of single pages is to stay one.
    if matches!(edit, LinearEdit::Coalesce | LinearEdit::Fold(_))
        && crate::args().linear == LinearLeaves::Pages
    {
        return Ok(Outcome::default());
    }
    let va = VirtAddr(linear_va(pa.0) as u64);
    edit.apply(tree, VirtRange::new(va, size))
}

/// The address of word `index` of `frame` in the linear map.
fn word(frame: Pfn, index: usize) -> *mut u64 {
    assert!(index < PAGE_SIZE / size_of::<u64>(), "word {index} of a frame");
    (linear_va(frame.0 * PAGE_SIZE as u64) as *mut u64).wrapping_add(index)
}

// SAFETY: 1. `frames` gives a block to nobody else before it is freed, aligned to its size; 2. the tree translates all of TTBR1, and nobody else maps or
// unmaps in the vmalloc region; 3. whoever else changes the tree does so through `mm`, which takes the same lock; 4. `arch::cache` and `smp` keep it.
unsafe impl Backend for KernelBackend {
    type Granule = Granule4K;
    type Tables = KernelTables;
    type Mmu = KernelMmu;
    type Lock<T: Send> = IrqSpinLock<T>;
    type WalkLock = WalkLock;

    #[inline]
    fn tree(&self) -> &KernelTree {
        kernel_tree()
    }
    #[inline]
    fn walks(&self) -> &WalkLock {
        walk_lock()
    }
    #[inline]
    fn alloc_frames(&self, order: u32) -> Option<Pfn> {
        frames::allocate(u8::try_from(order).ok()?)
    }
    #[inline]
    fn free_frames(&self, first: Pfn, order: u32) {
        frames::free(first, order as u8);
    }
    fn take_over(&self, frame: Pfn) -> bool {
        frames::take_over(frame)
    }
    fn hand_back(&self, frame: Pfn) {
        frames::hand_back(frame);
    }
    fn max_order(&self) -> u32 {
        u32::from(frames::MAX_ORDER)
    }
    fn nr_frames(&self) -> u64 {
        frames::nr_total()
    }
    fn zero_frames(&self, first: Pfn, order: u32) {
        let start = linear_va(first.0 * PAGE_SIZE as u64);
        (start..start + (PAGE_SIZE << order))
            .step_by(PAGE_SIZE)
            .for_each(|page| {
                // SAFETY: each page of a block that was just allocated, in the linear map.
                unsafe { zero_page(page) };
            });
    }
    fn read_word(&self, frame: Pfn, index: usize) -> u64 {
        // SAFETY: in a frame that `alloc_frames` gave, by the caller's promise; nobody else uses it.
        unsafe { word(frame, index).read() }
    }
    fn write_word(&self, frame: Pfn, index: usize, value: u64) {
        // SAFETY: as above.
        unsafe { word(frame, index).write(value) };
    }
    fn is_ram(&self, start: PhysAddr, size: u64) -> bool {
        let range = PhysRegion {
            start: start.0,
            end: start.0.saturating_add(size),
        };
        memory_plan()
            .ram
            .iter()
            .any(|ram| !ram.intersection(&range).is_empty())
    }
    fn without_waiting<R>(&self, f: impl FnOnce() -> R) -> R {
        frames::without_waiting(f)
    }
    fn deferred_free_refused(&self, va: VirtAddr, by: &'static Location<'static>, error: &Error) {
        log::error!("vfree_atomic({va}) by {by}: {error}");
    }
    #[inline]
    fn cpu(&self) -> usize {
        cpu_index()
    }
    fn edit_linear_map(&self, pa: PhysAddr, size: u64, edit: LinearEdit) -> Result<Outcome, Failure> {
        edit_linear_map(linear_map_tree(), pa, size, edit)
    }
    fn publish_instructions(&self, range: VirtRange) {
        // The other CPUs: `smp`, "Code".
        cache::publish_instructions(range.start.0 as usize, range.size as usize);
    }
    fn read_memory(&self, pa: PhysAddr, out: &mut [u8]) -> bool {
        // The alias of a frame may be invalid by a `set_memory_invalid` through another area: probed, not trusted.
        for (at, byte) in (pa.0..).zip(out) {
            match probe_read(linear_va(at & !7)) {
                Ok(word) => *byte = word.to_le_bytes()[(at & 7) as usize],
                Err(_) => return false,
            }
        }
        true
    }
}

/// Maps device registers: Device-nGnRE, never executable.
///
/// # Errors
/// As [`Vmalloc::ioremap`].
#[track_caller]
#[cfg_attr(feature = "trace", inline(never))]
pub fn ioremap(pa: PhysAddr, size: u64) -> Result<KernelArea, Error> {
    kernel_vmalloc().ioremap(pa, size)
}

/// The same as Normal memory that is not cached.
///
/// # Errors
/// As [`Vmalloc::ioremap_wc`].
#[track_caller]
#[cfg_attr(feature = "trace", inline(never))]
pub fn ioremap_wc(pa: PhysAddr, size: u64) -> Result<KernelArea, Error> {
    kernel_vmalloc().ioremap_wc(pa, size)
}

/// The same as Device-nGnRnE.
///
/// # Errors
/// As [`Vmalloc::ioremap_np`].
#[track_caller]
#[cfg_attr(feature = "trace", inline(never))]
pub fn ioremap_np(pa: PhysAddr, size: u64) -> Result<KernelArea, Error> {
    kernel_vmalloc().ioremap_np(pa, size)
}

/// Gives back a mapping of [`ioremap`] and its kin that was made raw.
///
/// # Errors
/// As [`Vmalloc::iounmap`].
///
/// # Safety
/// As [`Vmalloc::vfree`].
#[track_caller]
#[cfg_attr(feature = "trace", inline(never))]
pub unsafe fn iounmap(va: VirtAddr) -> Result<(), Error> {
    // SAFETY: the caller's promise.
    unsafe { kernel_vmalloc().iounmap(va) }
}

/// Maps pages of somebody else's, one behind the other.
///
/// # Errors
/// As [`Vmalloc::vmap`].
#[track_caller]
#[cfg_attr(feature = "trace", inline(never))]
pub fn vmap<A: FrameArray + ?Sized>(frames: &A) -> Result<KernelArea, Error> {
    kernel_vmalloc().vmap(frames)
}

/// Gives back a mapping of [`vmap`] that was made raw.
///
/// # Errors
/// As [`Vmalloc::vunmap`].
///
/// # Safety
/// As [`Vmalloc::vfree`].
#[track_caller]
#[cfg_attr(feature = "trace", inline(never))]
pub unsafe fn vunmap(va: VirtAddr) -> Result<(), Error> {
    // SAFETY: the caller's promise.
    unsafe { kernel_vmalloc().vunmap(va) }
}

/// Virtually contiguous memory with arbitrary contents.
///
/// # Errors
/// As [`Vmalloc::vmalloc`].
#[track_caller]
#[cfg_attr(feature = "trace", inline(never))]
pub fn vmalloc(size: u64) -> Result<KernelArea, Error> {
    kernel_vmalloc().vmalloc(size)
}

/// The same, zeroed.
///
/// # Errors
/// As [`Vmalloc::vzalloc`].
#[track_caller]
#[cfg_attr(feature = "trace", inline(never))]
pub fn vzalloc(size: u64) -> Result<KernelArea, Error> {
    kernel_vmalloc().vzalloc(size)
}

/// A stack with an unmapped guard page on either side.
///
/// # Errors
/// As [`Vmalloc::alloc_stack`].
#[track_caller]
#[cfg_attr(feature = "trace", inline(never))]
pub fn alloc_stack(size: u64) -> Result<KernelArea, Error> {
    kernel_vmalloc().alloc_stack(size)
}

/// Gives back memory of [`vmalloc()`] and its kin that was made raw.
///
/// # Errors
/// As [`Vmalloc::vfree`].
///
/// # Safety
/// As [`Vmalloc::vfree`].
#[track_caller]
#[cfg_attr(feature = "trace", inline(never))]
pub unsafe fn vfree(va: VirtAddr) -> Result<(), Error> {
    // SAFETY: the caller's promise.
    unsafe { kernel_vmalloc().vfree(va) }
}

/// The same as [`vmalloc()`] for whoever cannot wait: under a lock, with interrupts masked, in an interrupt handler. Fails where it would
/// have to.
///
/// # Errors
/// As [`Vmalloc::vmalloc`], and [`Error::WouldBlock`]: see [`Request::nowait`].
#[track_caller]
#[cfg_attr(feature = "trace", inline(never))]
pub fn vmalloc_nowait(size: u64) -> Result<KernelArea, Error> {
    kernel_vmalloc().allocate(&Request::new(size).nowait())
}

/// The same as [`vfree`] in any context, an exception handler that interrupted the holder of a lock included. Never waits: the area goes
/// with the next call that can.
///
/// # Errors
/// As [`Vmalloc::vfree_atomic`].
///
/// # Safety
/// As [`Vmalloc::vfree`].
#[track_caller]
#[cfg_attr(feature = "trace", inline(never))]
pub unsafe fn vfree_atomic(va: VirtAddr) -> Result<(), Error> {
    // SAFETY: the caller's promise.
    unsafe { kernel_vmalloc().vfree_atomic(va) }
}

/// The frame that `va`, in the vmalloc region, is mapped to.
///
/// # Errors
/// As [`Vmalloc::vmalloc_to_pfn`].
pub fn vmalloc_to_pfn(va: VirtAddr) -> Result<Pfn, Error> {
    kernel_vmalloc().vmalloc_to_pfn(va)
}
