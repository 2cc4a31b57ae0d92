//! The heap behind `alloc`: `linked_list_allocator` in a static region, then in regions of vmalloc.
//! An empty one goes back; the smallest stays until [`trim`], against a map each time.
//!
//! Its lock is released before a region is mapped or freed. Frames, tables and vmalloc do not use
//! the heap, nor may holders of their locks.

use core::alloc::{GlobalAlloc, Layout};
use core::cell::UnsafeCell;
use core::ptr::{NonNull, null_mut};

use arrayvec::ArrayVec;
use linked_list_allocator::Heap;

use super::areas::{self, KernelArea};
use super::layout::PAGE_SIZE;
use crate::sync::{HotWord, IrqSpinLock, IrqSpinLockGuard, Padded};

const FIRST_SIZE: usize = 256 << 10;
const MIN_GROWTH: usize = 1 << 20;
/// No limit in practice: each region is at least half the heap before it.
const MAX_REGIONS: usize = 48;

struct Region {
    heap: Heap,
    /// `None` for the first.
    area: Option<KernelArea>,
}

impl Region {
    fn is_spare(&self) -> bool {
        self.area.is_some() && self.heap.used() == 0
    }
}

type Regions = ArrayVec<Region, MAX_REGIONS>;

#[global_allocator]
static HEAP: KernelHeap = KernelHeap(Padded(IrqSpinLock::new("heap", ArrayVec::new_const())));

struct KernelHeap(Padded<IrqSpinLock<Regions>>);

#[must_use]
pub fn hot_words() -> [HotWord; 1] {
    [HotWord::of("the heap", &HEAP)]
}

#[repr(align(4096))]
struct FirstRegion(UnsafeCell<[u8; FIRST_SIZE]>);
// SAFETY: only its address is taken, once.
unsafe impl Sync for FirstRegion {}
static FIRST_REGION: FirstRegion = FirstRegion(UnsafeCell::new([0; FIRST_SIZE]));

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HeapStats {
    pub size: usize,
    pub used: usize,
    pub nr_regions: usize,
}

#[must_use]
pub fn stats() -> HeapStats {
    let regions = HEAP.regions();
    HeapStats {
        size: regions.iter().map(|region| region.heap.size()).sum(),
        used: regions.iter().map(|region| region.heap.used()).sum(),
        nr_regions: regions.len(),
    }
}

pub fn trim() {
    let spare = {
        let mut regions = HEAP.regions();
        let spare = regions.iter().position(Region::is_spare);
        spare.map(|index| regions.remove(index))
    };
    drop(spare);
}

fn take_surplus(regions: &mut Regions) -> Option<Region> {
    let mut spare = (0..regions.len()).filter(|&index| regions[index].is_spare());
    let (one, other) = (spare.next()?, spare.next()?);
    let is_larger = regions[one].heap.size() > regions[other].heap.size();
    Some(regions.remove(if is_larger { one } else { other }))
}

impl KernelHeap {
    fn regions(&self) -> IrqSpinLockGuard<'_, Regions> {
        let mut regions = self.0.lock();
        if regions.is_empty() {
            regions.push(Region {
                // SAFETY: the heap's static, once: the list is never empty again.
                heap: unsafe { Heap::new(FIRST_REGION.0.get().cast(), FIRST_SIZE) },
                area: None,
            });
        }
        regions
    }

    fn try_alloc(&self, layout: Layout) -> Option<NonNull<u8>> {
        self.regions()
            .iter_mut()
            .rev()
            .find_map(|region| region.heap.allocate_first_fit(layout).ok())
    }

    fn grow(&self, layout: Layout) -> Option<NonNull<u8>> {
        let half = stats().size / 2;
        // For administration and alignment.
        let needed = layout.size().checked_add(layout.align() + PAGE_SIZE)?;
        let needed = needed.checked_next_multiple_of(PAGE_SIZE)?;
        // When memory is short.
        let wanted = needed.max(MIN_GROWTH).max(half.next_multiple_of(PAGE_SIZE));
        let mut region = new_region(wanted).or_else(|| new_region(needed))?;
        // Before other CPUs can free it as empty.
        let block = region.heap.allocate_first_fit(layout).ok()?;
        let pushed = self.0.lock().try_push(region);
        // If not, unmapped outside the lock.
        pushed.ok().map(|()| block)
    }
}

fn new_region(size: usize) -> Option<Region> {
    let area = areas::get()?.vmalloc(size as u64).ok()?;
    // SAFETY: the heap's own, mapped while the region has its area.
    let heap = unsafe { Heap::new(area.va().0 as usize as *mut u8, size) };
    Some(Region {
        heap,
        area: Some(area),
    })
}

// SAFETY: `linked_list_allocator` keeps the contract in a region. Blocks go back to the region of
// their address; only regions without any are unmapped.
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
        // Unmapped outside the lock.
        drop(surplus);
    }
}
