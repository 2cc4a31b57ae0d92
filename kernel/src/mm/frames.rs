//! Frames: free RAM, in blocks of 2^order pages. Common orders come from per-CPU magazines without
//! a lock, others from a buddy allocator. Runs of 64 frames come in ascending order, so that
//! neighbours map as 64 KiB groups. A bad free panics.

mod buddy;
pub mod fail_page_alloc;
mod magazine;
mod ring;
mod zones;

use core::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};

use paging::Pfn;
use spin::Once;

use super::layout::PAGE_SIZE;
use super::regions::{PhysRegion, Regions, TooManyRegions};
use super::{linear_va, zero_page};
use crate::arch::interrupts;
use crate::per_cpu;
use crate::sync::{HotWord, IrqSpinLock, IrqSpinLockGuard, Padded};
use buddy::Buddy;
use zones::Zones;

pub use buddy::{BadFree, MAX_ORDER};
pub use zones::State;

static ZONES: Once<Zones> = Once::new();
static BUDDY: Padded<IrqSpinLock<Buddy>> = Padded(IrqSpinLock::new("frames", Buddy::new()));

/// Read without the lock, written under it.
static NR_FREE: Padded<AtomicU64> = Padded(AtomicU64::new(0));
static NR_TOUCHED_AT_BOOT: AtomicU64 = AtomicU64::new(0);

per_cpu! {
    static NOWAIT: AtomicBool = AtomicBool::new(false);
}

#[must_use]
pub fn hot_words() -> [HotWord; 3] {
    [
        HotWord::of("the buddy allocator", &BUDDY),
        HotWord::of("the count of free frames", &NR_FREE),
        magazine::hot_word(),
    ]
}

/// Runs `f` with interrupts masked, without waiting for the buddy allocator: while that is locked,
/// only this CPU's magazine allocates, and only single frames are freed.
pub fn without_waiting<R>(f: impl FnOnce() -> R) -> R {
    let _masked = interrupts::mask();
    let flag = NOWAIT.this();
    let before = flag.swap(true, Ordering::Relaxed);
    let result = f();
    flag.store(before, Ordering::Relaxed);
    result
}

fn buddy() -> Option<IrqSpinLockGuard<'static, Buddy>> {
    if NOWAIT.this().load(Ordering::Relaxed) {
        BUDDY.try_lock()
    } else {
        Some(BUDDY.lock())
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FrameStats {
    pub total: u64,
    pub free: u64,
    pub cached: u64,
}

impl FrameStats {
    #[must_use]
    pub const fn used(&self) -> u64 {
        self.total - self.free
    }
}

/// No room for RAM's ranges, or its frames' states.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NoRoom;

impl From<TooManyRegions> for NoRoom {
    fn from(_: TooManyRegions) -> Self {
        Self
    }
}

/// Gives the allocator `free`, and `single` as single used frames: whole pages in the linear map,
/// without overlap.
///
/// # Errors
/// `free` has no room for the states of frames.
///
/// # Panics
/// When called twice.
pub fn init(mut free: Regions, single: Regions) -> Result<(), NoRoom> {
    assert!(!ZONES.is_completed(), "frames were set up twice");
    let size = Zones::size_of_states(&free, &single)?;
    let pa = free.take(size).ok_or(NoRoom)?;
    // SAFETY: in the linear map, just taken, and never given out.
    let states = unsafe { core::slice::from_raw_parts(linear_va(pa) as *const AtomicU8, size as usize) };
    let zones = Zones::new(free, single, states)?;
    let zones = ZONES.call_once(|| zones);
    BUDDY.lock().begin(zones);
    NR_TOUCHED_AT_BOOT.store(zones.nr_touched(), Ordering::Relaxed);
    Ok(())
}

fn zones() -> Option<&'static Zones> {
    ZONES.get()
}

static SHRINK: Once<fn()> = Once::new();

/// Sets what [`allocate`] calls before it fails.
pub fn set_shrink(shrink: fn()) {
    SHRINK.call_once(|| shrink);
}

/// Returns 2^`order` frames, aligned, with arbitrary contents. May flush lazy areas, which waits
/// for other CPUs: hold no lock.
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

/// Allocates without a flush: vmalloc has its own, and may be in a gate that `shrink` enters.
#[inline]
#[must_use]
pub fn allocate_no_reclaim(order: u8) -> Option<Pfn> {
    if fail_page_alloc::fails() {
        return None;
    }
    let zones = zones()?;
    once(zones, order).or_else(|| allocate_slowly(zones, order))
}

#[inline]
fn once(zones: &Zones, order: u8) -> Option<Pfn> {
    if magazine::has(order) {
        magazine::allocate(zones, order)
    } else {
        buddy()?.allocate(zones, order)
    }
}

#[cold]
#[inline(never)]
fn allocate_slowly(zones: &Zones, order: u8) -> Option<Pfn> {
    while touch(zones, order) {
        if let Some(frame) = once(zones, order) {
            return Some(frame);
        }
    }
    magazine::drain(zones);
    once(zones, order)
}

/// Goes on by a section under one hold of the lock. Returns `false` when all are taken in, and
/// where this CPU may not wait.
fn touch(zones: &Zones, order: u8) -> bool {
    buddy().is_some_and(|mut buddy| buddy.touch(zones, order))
}

/// Allocates a zeroed frame, without a flush.
#[inline]
#[must_use]
pub fn allocate_zeroed() -> Option<Pfn> {
    let frame = allocate_no_reclaim(0)?;
    // SAFETY: in the linear map, page-aligned, ours.
    unsafe { zero_page(linear_va(frame.0 * PAGE_SIZE as u64)) };
    Some(frame)
}

/// Frees a block of [`allocate`].
///
/// # Panics
/// Where [`try_free`] fails.
#[inline]
pub fn free(frame: Pfn, order: u8) {
    if let Err(bad) = try_free(frame, order) {
        panic!("{bad}");
    }
}

/// # Errors
/// Not a block, or freed before; nothing has changed.
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

/// Makes a block single frames.
///
/// # Panics
/// If it is not one.
pub fn split(frame: Pfn, order: u8) {
    let Some(zones) = zones() else { return };
    // No lock: its owner's states.
    let found = zones.state(frame.0);
    assert!(
        found == State::used(order),
        "split of frame {:#x} with order {order}: it is {found:?}",
        frame.0
    );
    (frame.0..frame.0 + (1 << order)).for_each(|frame| zones.set_state(frame, State::used(0)));
}

/// Takes a used single frame, which its owner cannot free until it is [handed back](hand_back).
/// `false` if it is not one.
#[must_use]
pub fn take_over(frame: Pfn) -> bool {
    zones().is_some_and(|zones| zones.exchange(frame.0, State::used(0), State::TAKEN_OVER))
}

/// # Panics
/// If it was not [taken over](take_over).
pub fn hand_back(frame: Pfn) {
    let handed = zones().is_some_and(|zones| zones.exchange(frame.0, State::TAKEN_OVER, State::used(0)));
    assert!(
        handed,
        "frame {:#x} is handed back: it is {:?}",
        frame.0,
        state(frame)
    );
}

#[must_use]
pub fn nr_total() -> u64 {
    BUDDY.lock().nr_total()
}

/// Returns numbers, exact while no other CPU allocates or frees.
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

/// Frames that have a state, in whole sections: the allocator's, and what is between
/// them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Touched {
    /// When [`init`] was done.
    pub at_boot: u64,
    pub now: u64,
    /// At most.
    pub all: u64,
}

#[must_use]
pub fn touched() -> Touched {
    Touched {
        at_boot: NR_TOUCHED_AT_BOOT.load(Ordering::Relaxed),
        now: zones().map_or(0, Zones::nr_touched),
        all: zones().map_or(0, Zones::nr_frames),
    }
}

#[must_use]
pub fn has_free(nr: u64) -> bool {
    NR_FREE.load(Ordering::Relaxed) >= nr || stats().free >= nr
}

#[must_use]
pub fn free_blocks() -> [u64; MAX_ORDER as usize + 1] {
    let buddy = BUDDY.lock();
    core::array::from_fn(|order| zones().map_or(0, |zones| buddy.nr_blocks(zones, order as u8)))
}

#[must_use]
pub fn state(frame: Pfn) -> State {
    zones().map_or(State::FOREIGN, |zones| zones.state(frame.0))
}

#[must_use]
pub fn region(frame: Pfn, order: u8) -> PhysRegion {
    let start = frame.0 * PAGE_SIZE as u64;
    PhysRegion {
        start,
        end: start + ((PAGE_SIZE as u64) << order),
    }
}
