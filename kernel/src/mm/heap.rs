//! The heap behind `alloc`: `linked_list_allocator`, in a static region first, in regions of vmalloc as they are needed.
//!
//! # Lock order and recursion
//! The heap's lock is a leaf: it is released before a new region is asked for, and nothing that gives regions (frames, tables, the vmalloc subsystem)
//! allocates on the heap. So growing cannot come back here, and cannot wait for a lock that its caller holds, as long as nobody
//! allocates while holding a lock of the vmalloc subsystem or of the tables.
//!
//! A region is never given back: what was once needed is likely to be again.

use core::alloc::{GlobalAlloc, Layout};
use core::cell::UnsafeCell;
use core::ptr::{NonNull, null_mut};

use arrayvec::ArrayVec;
use linked_list_allocator::Heap;

use super::areas;
use super::layout::PAGE_SIZE;
use crate::sync::{IrqSpinLock, IrqSpinLockGuard};

/// Bytes of the first region, which is part of the image.
const FIRST_SIZE: usize = 256 << 10;
/// The smallest region that is added.
const MIN_GROWTH: usize = 1 << 20;
/// Regions at most. Each is at least half as large as the heap before it, so this is no limit in practice.
const MAX_REGIONS: usize = 48;

#[global_allocator]
static HEAP: KernelHeap = KernelHeap(IrqSpinLock::new("heap", ArrayVec::new_const()));

struct KernelHeap(IrqSpinLock<ArrayVec<Heap, MAX_REGIONS>>);

#[repr(align(4096))]
struct FirstRegion(UnsafeCell<[u8; FIRST_SIZE]>);
// SAFETY: only its address is taken, once, to make it a heap.
unsafe impl Sync for FirstRegion {}
static FIRST_REGION: FirstRegion = FirstRegion(UnsafeCell::new([0; FIRST_SIZE]));

/// How much the heap has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HeapStats {
    /// Bytes of all regions.
    pub size: usize,
    /// Bytes in use.
    pub used: usize,
    /// Regions.
    pub nr_regions: usize,
}

/// How much the heap has, at this moment.
#[must_use]
pub fn stats() -> HeapStats {
    let regions = HEAP.regions();
    HeapStats {
        size: regions.iter().map(Heap::size).sum(),
        used: regions.iter().map(Heap::used).sum(),
        nr_regions: regions.len(),
    }
}

impl KernelHeap {
    /// The regions: at least the first.
    fn regions(&self) -> IrqSpinLockGuard<'_, ArrayVec<Heap, MAX_REGIONS>> {
        let mut regions = self.0.lock();
        if regions.is_empty() {
            // SAFETY: the static is this heap's, and this happens once: the list is never empty again.
            regions.push(unsafe { Heap::new(FIRST_REGION.0.get().cast(), FIRST_SIZE) });
        }
        regions
    }

    fn try_alloc(&self, layout: Layout) -> Option<NonNull<u8>> {
        // The newest is the largest.
        self.regions()
            .iter_mut()
            .rev()
            .find_map(|heap| heap.allocate_first_fit(layout).ok())
    }

    /// Adds a region that `layout` fits into.
    fn grow(&self, layout: Layout) -> bool {
        let half = stats().size / 2;
        // Room for the region's own administration, and for the alignment.
        let Some(needed) = layout.size().checked_add(layout.align() + PAGE_SIZE) else {
            return false;
        };
        let Some(needed) = needed.checked_next_multiple_of(PAGE_SIZE) else {
            return false;
        };
        // If memory is short, what is needed will do.
        let wanted = needed.max(MIN_GROWTH).max(half.next_multiple_of(PAGE_SIZE));
        let Some((start, size)) = new_region(wanted).or_else(|| new_region(needed)) else {
            return false;
        };
        let mut regions = self.0.lock();
        if regions.is_full() {
            return false;
        }
        // SAFETY: a region that nobody else has, mapped for good.
        regions.push(unsafe { Heap::new(start as *mut u8, size) });
        true
    }
}

/// `size` bytes of vmalloc, for good.
fn new_region(size: usize) -> Option<(usize, usize)> {
    let area = areas::get()?.vmalloc(size as u64).ok()?;
    Some((area.into_raw().0 as usize, size))
}

// SAFETY: `linked_list_allocator` keeps the contract for each region; a block goes back to the region that its address lies in.
unsafe impl GlobalAlloc for KernelHeap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        loop {
            if let Some(block) = self.try_alloc(layout) {
                return block.as_ptr();
            }
            if !self.grow(layout) {
                return null_mut();
            }
        }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        let mut regions = self.0.lock();
        let owner = regions
            .iter_mut()
            .find(|heap| (heap.bottom()..heap.top()).contains(&block));
        match (owner, NonNull::new(block)) {
            // SAFETY: the caller's promise, and this region gave it.
            (Some(heap), Some(block)) => unsafe { heap.deallocate(block, layout) },
            _ => panic!("free of {block:p}, which is not on the heap"),
        }
    }
}
