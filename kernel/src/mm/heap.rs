//! The heap behind `alloc`: `linked_list_allocator`, in a static region first, in regions of
//! vmalloc as they are needed.
//!
//! A region that becomes empty goes back to vmalloc. One stays, the smallest, so that a caller that
//! allocates and frees at the edge does not map a region each time; [`trim`] gives that one back
//! too.
//!
//! # Lock order and recursion
//! The heap's lock is a leaf: it is released before a region is asked for or freed, and
//! nothing that does either (frames, tables, the vmalloc subsystem) uses the heap. So neither can
//! come back here, and neither waits for a lock that its caller holds, as long as the heap is not
//! used under a lock of the vmalloc subsystem or of the tables.

use core::alloc::{GlobalAlloc, Layout};
use core::cell::UnsafeCell;
use core::ptr::{NonNull, null_mut};

use arrayvec::ArrayVec;
use linked_list_allocator::Heap;

use super::areas::{self, KernelArea};
use super::layout::PAGE_SIZE;
use crate::sync::{HotWord, IrqSpinLock, IrqSpinLockGuard, Padded};

/// Bytes of the first region, which is part of the image.
const FIRST_SIZE: usize = 256 << 10;
/// The smallest region that is added.
const MIN_GROWTH: usize = 1 << 20;
/// Regions at most. Each is at least half as large as the heap before it, so this is no limit in
/// practice.
const MAX_REGIONS: usize = 48;

/// Memory of the heap.
struct Region {
    heap: Heap,
    /// What it lies in. `None` for the first, which is part of the image.
    area: Option<KernelArea>,
}

impl Region {
    /// Returns whether it can be freed.
    fn is_spare(&self) -> bool {
        self.area.is_some() && self.heap.used() == 0
    }
}

type Regions = ArrayVec<Region, MAX_REGIONS>;

#[global_allocator]
static HEAP: KernelHeap = KernelHeap(Padded(IrqSpinLock::new("heap", ArrayVec::new_const())));

struct KernelHeap(Padded<IrqSpinLock<Regions>>);

/// Returns what all CPUs write here.
#[must_use]
pub fn hot_words() -> [HotWord; 1] {
    [HotWord::of("the heap", &HEAP)]
}

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

/// Returns how much the heap has, at this moment.
#[must_use]
pub fn stats() -> HeapStats {
    let regions = HEAP.regions();
    HeapStats {
        size: regions.iter().map(|region| region.heap.size()).sum(),
        used: regions.iter().map(|region| region.heap.used()).sum(),
        nr_regions: regions.len(),
    }
}

/// Frees the empty region that was kept, if there is one.
pub fn trim() {
    let spare = {
        let mut regions = HEAP.regions();
        let spare = regions.iter().position(Region::is_spare);
        spare.map(|index| regions.remove(index))
    };
    drop(spare);
}

/// Takes out the larger of two empty regions.
fn take_surplus(regions: &mut Regions) -> Option<Region> {
    let mut spare = (0..regions.len()).filter(|&index| regions[index].is_spare());
    let (one, other) = (spare.next()?, spare.next()?);
    let is_larger = regions[one].heap.size() > regions[other].heap.size();
    Some(regions.remove(if is_larger { one } else { other }))
}

impl KernelHeap {
    /// Returns the regions: at least the first.
    fn regions(&self) -> IrqSpinLockGuard<'_, Regions> {
        let mut regions = self.0.lock();
        if regions.is_empty() {
            regions.push(Region {
                // SAFETY: the static is this heap's, and this happens once: the list is never empty
                // again.
                heap: unsafe { Heap::new(FIRST_REGION.0.get().cast(), FIRST_SIZE) },
                area: None,
            });
        }
        regions
    }

    fn try_alloc(&self, layout: Layout) -> Option<NonNull<u8>> {
        // The newest is the largest, more often than not.
        self.regions()
            .iter_mut()
            .rev()
            .find_map(|region| region.heap.allocate_first_fit(layout).ok())
    }

    /// A block of a new region that it fits into.
    fn grow(&self, layout: Layout) -> Option<NonNull<u8>> {
        let half = stats().size / 2;
        // Room for the region's own administration, and for the alignment.
        let needed = layout.size().checked_add(layout.align() + PAGE_SIZE)?;
        let needed = needed.checked_next_multiple_of(PAGE_SIZE)?;
        // If memory is short, what is needed will do.
        let wanted = needed.max(MIN_GROWTH).max(half.next_multiple_of(PAGE_SIZE));
        let mut region = new_region(wanted).or_else(|| new_region(needed))?;
        // Before other CPUs see the region: they may give an empty one back.
        let block = region.heap.allocate_first_fit(layout).ok()?;
        let pushed = self.0.lock().try_push(region);
        // If there is no room, the region is unmapped here, with the lock released.
        pushed.ok().map(|()| block)
    }
}

/// `size` bytes of vmalloc.
fn new_region(size: usize) -> Option<Region> {
    let area = areas::get()?.vmalloc(size as u64).ok()?;
    // SAFETY: memory of the heap's own, which stays mapped as long as the region has its area.
    let heap = unsafe { Heap::new(area.va().0 as usize as *mut u8, size) };
    Some(Region {
        heap,
        area: Some(area),
    })
}

// SAFETY: `linked_list_allocator` keeps the contract for each region. A block goes back to the
// region that its address lies in, and only a region without a block in use is unmapped.
unsafe impl GlobalAlloc for KernelHeap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        self.try_alloc(layout)
            .or_else(|| self.grow(layout))
            .map_or(null_mut(), NonNull::as_ptr)
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        let surplus = {
            let mut regions = self.0.lock();
            let owner = regions
                .iter_mut()
                .find(|region| (region.heap.bottom()..region.heap.top()).contains(&block));
            match (owner, NonNull::new(block)) {
                (Some(region), Some(block)) => {
                    // SAFETY: the caller's promise, and this region gave it.
                    unsafe { region.heap.deallocate(block, layout) };
                    if region.is_spare() {
                        take_surplus(&mut regions)
                    } else {
                        None
                    }
                }
                _ => panic!("free of {block:p}, which is not on the heap"),
            }
        };
        // Unmapped here, with the lock released.
        drop(surplus);
    }
}
