//! Frames: all free RAM, in blocks of 2^order pages.
//!
//! Blocks of common orders come from a per-CPU magazine, without a lock. Others, and the refill of
//! a magazine, come from one buddy allocator. A magazine is filled from a run of 64 frames and
//! handed out in ascending order, so that single frames tend to be neighbours, which the walker
//! maps as 64 KiB groups. Before an allocation fails, the magazines of all CPUs are drained.
//!
//! A double free, or a free with another order, panics with the frame's real state.

mod buddy;
pub mod fail_page_alloc;
mod magazine;

use core::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};

use paging::Pfn;
use spin::Once;

use super::layout::PAGE_SIZE;
use super::regions::{PhysRegion, Regions};
use super::{linear_va, zero_page};
use crate::arch::interrupts;
use crate::per_cpu;
use crate::sync::{HotWord, IrqSpinLock, IrqSpinLockGuard, Padded};
use buddy::{Buddy, Zones};

pub use buddy::{BadFree, MAX_ORDER, State};

static ZONES: Once<Zones> = Once::new();
static BUDDY: Padded<IrqSpinLock<Buddy>> = Padded(IrqSpinLock::new("frames", Buddy::new()));

/// Free frames of the buddy allocator, readable without its lock and written under it.
static NR_FREE: Padded<AtomicU64> = Padded(AtomicU64::new(0));

per_cpu! {
    /// Whether a CPU is in [`without_waiting`].
    static NOWAIT: AtomicBool = AtomicBool::new(false);
}

/// Returns what all CPUs write here.
#[must_use]
pub fn hot_words() -> [HotWord; 3] {
    [
        HotWord::of("the buddy allocator", &BUDDY),
        HotWord::of("the count of free frames", &NR_FREE),
        magazine::hot_word(),
    ]
}

/// Runs `f` with interrupts masked, and never waits for the buddy allocator in it: while its lock
/// is held, an allocation finds what this CPU's magazine has, and only single frames can be freed.
///
/// Not for an exception that interrupted this module: the magazine may be half changed.
pub fn without_waiting<R>(f: impl FnOnce() -> R) -> R {
    let _masked = interrupts::mask();
    let flag = NOWAIT.this();
    // Only this CPU reads it.
    let before = flag.swap(true, Ordering::Relaxed);
    let result = f();
    flag.store(before, Ordering::Relaxed);
    result
}

/// Returns the buddy allocator. `None` if that means waiting, and this CPU may not.
fn buddy() -> Option<IrqSpinLockGuard<'static, Buddy>> {
    if NOWAIT.this().load(Ordering::Relaxed) {
        BUDDY.try_lock()
    } else {
        Some(BUDDY.lock())
    }
}

/// How many frames there are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FrameStats {
    /// Frames of the allocator.
    pub total: u64,
    /// Of those, free: in the buddy allocator or in a magazine.
    pub free: u64,
    /// Of the free, in the magazines.
    pub cached: u64,
}

impl FrameStats {
    /// Frames in use.
    #[must_use]
    pub const fn used(&self) -> u64 {
        self.total - self.free
    }
}

/// RAM has more ranges than fit, or is too small for the states of its frames.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NoRoom;

/// Gives `free` to the allocator, and notes `single` as single frames in use. `ram` is what the
/// linear map maps; it contains both, which do not overlap. The states of frames are kept in memory
/// taken from `free`.
///
/// # Errors
/// There is no room for the states.
///
/// # Panics
/// When it is called a second time.
pub fn init(ram: &Regions, mut free: Regions, single: &Regions) -> Result<(), NoRoom> {
    let mut zones = Zones::new();
    for region in ram.iter() {
        let region = region.shrink_to_pages();
        let frames = region.size() / PAGE_SIZE as u64;
        if frames == 0 {
            continue;
        }
        let size = frames.next_multiple_of(PAGE_SIZE as u64);
        let pa = free.take(size).ok_or(NoRoom)?;
        let va = linear_va(pa);
        for word in (va..va + size as usize).step_by(size_of::<u64>()) {
            // SAFETY: in the linear map, aligned, and just taken from free memory.
            unsafe { (word as *mut u64).write(State::INSIDE.times_eight()) };
        }
        // SAFETY: as above, initialised, and never given out.
        let states = unsafe { core::slice::from_raw_parts(va as *const AtomicU8, frames as usize) };
        zones.add(&region, states);
    }
    let mut foreign = ram.clone();
    for region in free.iter() {
        foreign.remove(*region).map_err(|_| NoRoom)?;
    }
    for region in foreign.iter() {
        let region = region.shrink_to_pages();
        let frames = region.start / PAGE_SIZE as u64..region.end / PAGE_SIZE as u64;
        frames.for_each(|frame| zones.set_state(frame, State::FOREIGN));
    }
    assert!(!ZONES.is_completed(), "frames were set up twice");
    let zones = ZONES.call_once(|| zones);
    let mut buddy = BUDDY.lock();
    for region in free.iter() {
        // A free range lies in one range of RAM.
        buddy.give(zones, &region.shrink_to_pages());
    }
    single.iter().for_each(|region| buddy.adopt(zones, region));
    Ok(())
}

fn zones() -> Option<&'static Zones> {
    ZONES.get()
}

/// Frees what waits for a flush, or is kept for later, elsewhere.
static SHRINK: Once<fn()> = Once::new();

/// Sets what [`allocate`] calls before it fails.
pub fn set_shrink(shrink: fn()) {
    SHRINK.call_once(|| shrink);
}

/// Returns a block of 2^`order` frames, aligned to its size, with arbitrary contents. Where there
/// is none, what is freed lazily is flushed first, which waits for other CPUs: called with
/// no lock held.
#[inline]
#[must_use]
pub fn allocate(order: u8) -> Option<Pfn> {
    allocate_no_reclaim(order).or_else(|| {
        let may_wait = !NOWAIT.this().load(Ordering::Relaxed);
        let shrink = SHRINK.get().filter(|_| may_wait)?;
        shrink();
        allocate_no_reclaim(order)
    })
}

/// Returns one of the blocks that are free now: for the vmalloc subsystem and for tables. The
/// subsystem is what frees lazily, makes its own retries, and may be inside a gate that `shrink`
/// enters.
#[inline]
#[must_use]
pub fn allocate_no_reclaim(order: u8) -> Option<Pfn> {
    if fail_page_alloc::fails() {
        return None;
    }
    let zones = zones()?;
    let once = || {
        if magazine::has(order) {
            magazine::allocate(zones, order)
        } else {
            buddy()?.allocate(zones, order)
        }
    };
    once().or_else(|| {
        // Frames may be in the magazines of this CPU or of others.
        magazine::drain(zones);
        once()
    })
}

/// Returns a zeroed frame, of those that are free now: for tables.
#[inline]
#[must_use]
pub fn allocate_zeroed() -> Option<Pfn> {
    let frame = allocate_no_reclaim(0)?;
    // SAFETY: in the linear map, page-aligned, and ours.
    unsafe { zero_page(linear_va(frame.0 * PAGE_SIZE as u64)) };
    Some(frame)
}

/// Takes back a block that [`allocate`] gave with the same `order`.
///
/// # Panics
/// If it was not allocated so: it was freed before, or is another block.
#[inline]
pub fn free(frame: Pfn, order: u8) {
    if let Err(bad) = try_free(frame, order) {
        panic!("{bad}");
    }
}

/// [`free`], without the panic.
///
/// # Errors
/// It was not allocated so. Nothing has changed.
#[inline]
pub fn try_free(frame: Pfn, order: u8) -> Result<(), BadFree> {
    let Some(zones) = zones() else {
        return Err(BadFree {
            frame,
            order,
            found: State::FOREIGN,
        });
    };
    if magazine::has(order) {
        return magazine::free(zones, frame, order);
    }
    BUDDY.lock().free(zones, frame, order)
}

/// Makes an allocated block of 2^`order` frames 2^`order` blocks of one frame, each to be freed by
/// itself.
///
/// # Panics
/// If it is no allocated block of this order.
pub fn split(frame: Pfn, order: u8) {
    let Some(zones) = zones() else { return };
    // No lock: the states of a block in use are its owner's.
    let found = zones.state(frame.0);
    assert!(
        found == State::used(order),
        "split of frame {:#x} with order {order}: it is {found:?}",
        frame.0
    );
    (frame.0..frame.0 + (1 << order)).for_each(|frame| zones.set_state(frame, State::used(0)));
}

/// Makes `frame`, a single one in use, the property of a call that frees it in place of its owner:
/// it cannot be freed before it is [handed back](hand_back). False if it is not in use as a single
/// frame, or was taken over already.
#[must_use]
pub fn take_over(frame: Pfn) -> bool {
    zones().is_some_and(|zones| zones.exchange(frame.0, State::used(0), State::TAKEN_OVER))
}

/// Makes a frame that was [taken over](take_over) one like others.
///
/// # Panics
/// If it is none.
pub fn hand_back(frame: Pfn) {
    let handed = zones().is_some_and(|zones| zones.exchange(frame.0, State::TAKEN_OVER, State::used(0)));
    assert!(
        handed,
        "frame {:#x} is handed back: it is {:?}",
        frame.0,
        state(frame)
    );
}

/// Frames of the allocator, free or not.
#[must_use]
pub fn nr_total() -> u64 {
    BUDDY.lock().nr_total()
}

/// Returns how many frames are free, at this moment. Exact when no other CPU allocates or frees.
#[must_use]
pub fn stats() -> FrameStats {
    let buddy = BUDDY.lock();
    let cached = magazine::nr_cached();
    FrameStats {
        total: buddy.nr_total(),
        free: buddy.nr_free() + cached,
        cached,
    }
}

/// Returns whether `nr` frames are free, at this moment. Mostly one load.
#[must_use]
pub fn has_free(nr: u64) -> bool {
    NR_FREE.load(Ordering::Relaxed) >= nr || stats().free >= nr
}

/// Free blocks of each order, for the boot log. Walks the lists.
#[must_use]
pub fn free_blocks() -> [u64; MAX_ORDER as usize + 1] {
    let buddy = BUDDY.lock();
    core::array::from_fn(|order| buddy.nr_blocks(order as u8))
}

/// Returns what `frame` is to the allocator.
#[must_use]
pub fn state(frame: Pfn) -> State {
    zones().map_or(State::FOREIGN, |zones| zones.state(frame.0))
}

/// Returns the range of physical memory of a block.
#[must_use]
pub fn region(frame: Pfn, order: u8) -> PhysRegion {
    let start = frame.0 * PAGE_SIZE as u64;
    PhysRegion {
        start,
        end: start + ((PAGE_SIZE as u64) << order),
    }
}
