//! The kernel's [`vmalloc`](mod@vmalloc) subsystem, and its calls by Linux's names. They return
//! handles; [`into_raw`](VmArea::into_raw) makes one an address for `vfree`.

use core::panic::Location;
use core::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use paging::{Failure, FrameArray, LeafSet, Mmu, Outcome, Pfn, PhysAddr, Tables, Tree, VirtAddr, VirtRange};
use spin::Once;
use vmalloc::{
    Backend, Config, Error, FlushPolicy, LinearEdit, Lock, LockClass, NodePage, NodePages, Request, VmArea,
    Vmalloc,
};

use super::layout::{self, PAGE_SIZE, VMALLOC_BASE, VMALLOC_END};
use super::regions::PhysRegion;
use super::tables::KernelTables;
use super::{
    KernelTree, LINEAR_MAP, frames, kernel_tree, linear_map_leaves, linear_map_tree, linear_va, memory_plan,
    zero_page,
};
use crate::arch::cache;
use crate::arch::mmu::KernelMmu;
use crate::arch::percpu::{cpu_index, nr_cpus};
use crate::arch::probe::probe_read;
use crate::arch::time;
use crate::sync::{HotWord, IrqSpinLock, IrqSpinLockGuard, Padded};

#[derive(Clone, Copy, Debug)]
pub struct KernelBackend;

pub type KernelVmalloc = Vmalloc<KernelBackend>;
pub type KernelArea = VmArea<'static, KernelBackend>;

static VMALLOC: Once<KernelVmalloc> = Once::new();
static NR_NODE_FRAMES: Padded<AtomicU64> = Padded(AtomicU64::new(0));

/// The rest of the newest; 0 for none. Only increases within a frame, so no page comes twice.
static NODE_FRAME: Padded<AtomicUsize> = Padded(AtomicUsize::new(0));

static DEFERRED_WORK: Padded<AtomicBool> = Padded(AtomicBool::new(false));

/// Of one CPU; [`FlushPolicy::lazy_for`] scales it.
const LAZY_AREAS: usize = 256;
const LAZY_PAGES: u64 = (32 << 20) / PAGE_SIZE as u64;

/// # Errors
/// There is no frame for it.
pub fn init() -> Result<(), Error> {
    let range = VirtRange::new(VirtAddr(VMALLOC_BASE as u64), (VMALLOC_END - VMALLOC_BASE) as u64);
    let config = Config {
        flush: FlushPolicy::lazy_for(nr_cpus(), frames::nr_total(), LAZY_AREAS, LAZY_PAGES),
        ..Config::default()
    };
    let vmalloc = Vmalloc::new(range, KernelBackend, config)?;
    VMALLOC.call_once(|| vmalloc);
    frames::set_shrink(|| kernel_vmalloc().shrink());
    Ok(())
}

#[must_use]
pub fn hot_words() -> [HotWord; 2] {
    [
        HotWord::of("the count of node frames", &NR_NODE_FRAMES),
        HotWord::of("whether work was put off", &DEFERRED_WORK),
    ]
}

#[inline]
pub fn has_deferred_work() -> bool {
    DEFERRED_WORK.load(Ordering::Relaxed)
}

/// Returns `false` if some is left: another CPU is flushing what it belongs to.
pub fn do_deferred_work() -> bool {
    // First: what is deferred meanwhile sets it again.
    let is_done = !DEFERRED_WORK.swap(false, Ordering::AcqRel) || kernel_vmalloc().deal_with_deferred();
    if !is_done {
        DEFERRED_WORK.store(true, Ordering::Relaxed);
    }
    is_done
}

/// Returns `None` before it is set up.
pub fn get() -> Option<&'static KernelVmalloc> {
    VMALLOC.get()
}

/// # Panics
/// Before it is set up.
#[must_use]
pub fn kernel_vmalloc() -> &'static KernelVmalloc {
    match get() {
        Some(vmalloc) => vmalloc,
        None => panic!("vmalloc is used before it is set up"),
    }
}

#[must_use]
pub fn nr_node_frames() -> u64 {
    NR_NODE_FRAMES.load(Ordering::Relaxed)
}

// SAFETY: acquires and releases.
unsafe impl<T: Send> Lock<T> for IrqSpinLock<T> {
    type Guard<'a>
        = IrqSpinLockGuard<'a, T>
    where
        Self: 'a;
    fn new(class: LockClass, value: T) -> Self {
        let class = match class {
            LockClass::Gate => "vmalloc gate",
            LockClass::Shard => "vmalloc shard",
            LockClass::CommonShard => "vmalloc common shard",
        };
        IrqSpinLock::new(class, value)
    }
    #[inline(always)]
    fn lock(&self) -> IrqSpinLockGuard<'_, T> {
        IrqSpinLock::lock(self)
    }
    fn try_lock(&self) -> Option<IrqSpinLockGuard<'_, T>> {
        IrqSpinLock::try_lock(self)
    }
}

fn take_of_node_frame() -> Option<usize> {
    if PAGE_SIZE == size_of::<NodePage>() {
        return None;
    }
    let after = |page: usize| {
        let next = page + size_of::<NodePage>();
        (page != 0).then_some(if next.is_multiple_of(PAGE_SIZE) { 0 } else { next })
    };
    NODE_FRAME
        .fetch_update(Ordering::Relaxed, Ordering::Relaxed, after)
        .ok()
}

impl NodePages for KernelBackend {
    fn node_page(&self) -> Option<&'static mut NodePage> {
        let page = take_of_node_frame().or_else(|| {
            let frame = frames::allocate_no_reclaim(0)?;
            NR_NODE_FRAMES.fetch_add(1, Ordering::Relaxed);
            let page = linear_va(frame.0 * PAGE_SIZE as u64);
            if PAGE_SIZE > size_of::<NodePage>() {
                NODE_FRAME.store(page + size_of::<NodePage>(), Ordering::Relaxed);
            }
            Some(page)
        })?;
        // SAFETY: our own frame, never freed, given out once; any contents are valid.
        Some(unsafe { &mut *(page as *mut NodePage) })
    }
}

/// Makes the edit of [`Backend::edit_linear_map`] in `tree`.
///
/// # Errors
/// There is no page for a table.
pub fn edit_linear_map<T: Tables, M: Mmu>(
    tree: &Tree<layout::Granule, T, M>,
    pa: PhysAddr,
    size: u64,
    edit: LinearEdit,
) -> Result<Outcome, Failure> {
    // `linear=4k` keeps pages.
    if matches!(edit, LinearEdit::Coalesce | LinearEdit::Fold(_)) && linear_map_leaves() == LeafSet::PAGES {
        return Ok(Outcome::default());
    }
    edit.apply(tree, VirtRange::new(VirtAddr(linear_va(pa.0) as u64), size))
}

fn word(frame: Pfn, index: usize) -> *mut u64 {
    assert!(index < PAGE_SIZE / size_of::<u64>(), "word {index} of a frame");
    (linear_va(frame.0 * PAGE_SIZE as u64) as *mut u64).wrapping_add(index)
}

// SAFETY: 1. `frames` gives an aligned block to one caller until it is freed; 2. the tree
// translates all of TTBR1, and nothing else maps in the vmalloc region; 3. `KernelTables` frees no
// table during walks of the whole; 4. `arch::cache` and `smp` keep it.
unsafe impl Backend for KernelBackend {
    type Granule = layout::Granule;
    type Tables = KernelTables;
    type Mmu = KernelMmu;
    type Lock<T: Send> = IrqSpinLock<T>;

    #[inline]
    fn tree(&self) -> &KernelTree {
        kernel_tree()
    }
    #[inline]
    fn alloc_frames(&self, order: u32) -> Option<Pfn> {
        frames::allocate_no_reclaim(u8::try_from(order).ok()?)
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
    fn nr_free_frames(&self) -> u64 {
        frames::stats().free
    }
    fn has_free_frames(&self, nr: u64) -> bool {
        frames::has_free(nr)
    }
    fn nr_cpus(&self) -> usize {
        nr_cpus()
    }
    fn relax(&self) {
        time::relax();
    }
    fn alone_in_linear_map<R>(&self, f: impl FnOnce() -> R) -> R {
        let _alone = LINEAR_MAP.lock();
        f()
    }
    fn zero_frames(&self, first: Pfn, order: u32) {
        let start = linear_va(first.0 * PAGE_SIZE as u64);
        (start..start + (PAGE_SIZE << order))
            .step_by(PAGE_SIZE)
            .for_each(|page| {
                // SAFETY: pages of a new block, in the linear map.
                unsafe { zero_page(page) };
            });
    }
    fn read_word(&self, frame: Pfn, index: usize) -> u64 {
        // SAFETY: in a frame that is the caller's alone, by its promise.
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
    fn deferred_work(&self) {
        // No event: idle CPUs poll.
        DEFERRED_WORK.store(true, Ordering::Release);
    }
    #[inline]
    fn cpu(&self) -> usize {
        cpu_index()
    }
    fn edit_linear_map(&self, pa: PhysAddr, size: u64, edit: LinearEdit) -> Result<Outcome, Failure> {
        edit_linear_map(linear_map_tree(), pa, size, edit)
    }
    fn publish_instructions(&self, range: VirtRange) {
        // Other CPUs: `smp`, "Code".
        cache::publish_instructions(range.start.0 as usize, range.size as usize);
    }
    fn read_memory(&self, pa: PhysAddr, out: &mut [u8]) -> bool {
        // Probed: `set_memory_invalid` of another area may have made the alias invalid.
        let mut at = pa.0;
        let mut out = out;
        while !out.is_empty() {
            let Ok(word) = probe_read(linear_va(at & !7)) else {
                return false;
            };
            let from = (at & 7) as usize;
            let nr = (8 - from).min(out.len());
            let (part, rest) = out.split_at_mut(nr);
            part.copy_from_slice(&word.to_le_bytes()[from..from + nr]);
            at += nr as u64;
            out = rest;
        }
        true
    }
}

#[track_caller]
#[cfg_attr(feature = "trace", inline(never))]
pub fn ioremap(pa: PhysAddr, size: u64) -> Result<KernelArea, Error> {
    kernel_vmalloc().ioremap(pa, size)
}

#[track_caller]
#[cfg_attr(feature = "trace", inline(never))]
pub fn ioremap_wc(pa: PhysAddr, size: u64) -> Result<KernelArea, Error> {
    kernel_vmalloc().ioremap_wc(pa, size)
}

#[track_caller]
#[cfg_attr(feature = "trace", inline(never))]
pub fn ioremap_np(pa: PhysAddr, size: u64) -> Result<KernelArea, Error> {
    kernel_vmalloc().ioremap_np(pa, size)
}

/// # Safety
/// As [`Vmalloc::vfree`].
#[track_caller]
#[cfg_attr(feature = "trace", inline(never))]
pub unsafe fn iounmap(va: VirtAddr) -> Result<(), Error> {
    // SAFETY: the caller's promise.
    unsafe { kernel_vmalloc().iounmap(va) }
}

#[track_caller]
#[cfg_attr(feature = "trace", inline(never))]
pub fn vmap<A: FrameArray + ?Sized>(frames: &A) -> Result<KernelArea, Error> {
    kernel_vmalloc().vmap(frames)
}

/// # Safety
/// As [`Vmalloc::vfree`].
#[track_caller]
#[cfg_attr(feature = "trace", inline(never))]
pub unsafe fn vunmap(va: VirtAddr) -> Result<(), Error> {
    // SAFETY: the caller's promise.
    unsafe { kernel_vmalloc().vunmap(va) }
}

#[track_caller]
#[cfg_attr(feature = "trace", inline(never))]
pub fn vmalloc(size: u64) -> Result<KernelArea, Error> {
    kernel_vmalloc().vmalloc(size)
}

#[track_caller]
#[cfg_attr(feature = "trace", inline(never))]
pub fn vzalloc(size: u64) -> Result<KernelArea, Error> {
    kernel_vmalloc().vzalloc(size)
}

#[track_caller]
#[cfg_attr(feature = "trace", inline(never))]
pub fn alloc_stack(size: u64) -> Result<KernelArea, Error> {
    kernel_vmalloc().alloc_stack(size)
}

/// # Safety
/// As [`Vmalloc::vfree`].
#[track_caller]
#[cfg_attr(feature = "trace", inline(never))]
pub unsafe fn vfree(va: VirtAddr) -> Result<(), Error> {
    // SAFETY: the caller's promise.
    unsafe { kernel_vmalloc().vfree(va) }
}

/// Allocates as [`Request::nowait`].
#[track_caller]
#[cfg_attr(feature = "trace", inline(never))]
pub fn vmalloc_nowait(size: u64) -> Result<KernelArea, Error> {
    kernel_vmalloc().allocate(&Request::new(size).nowait())
}

/// Allocates as [`Request::nolock`].
#[track_caller]
#[cfg_attr(feature = "trace", inline(never))]
pub fn vmalloc_nolock(size: u64) -> Result<KernelArea, Error> {
    kernel_vmalloc().allocate(&Request::new(size).nolock())
}

/// # Safety
/// As [`Vmalloc::vfree`].
#[track_caller]
#[cfg_attr(feature = "trace", inline(never))]
pub unsafe fn vfree_atomic(va: VirtAddr) -> Result<(), Error> {
    // SAFETY: the caller's promise.
    unsafe { kernel_vmalloc().vfree_atomic(va) }
}

pub fn vmalloc_to_pfn(va: VirtAddr) -> Result<Pfn, Error> {
    kernel_vmalloc().vmalloc_to_pfn(va)
}
