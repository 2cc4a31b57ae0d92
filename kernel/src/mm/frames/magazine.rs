//! Each CPU's own few frames.
//!
//! A magazine is its CPU's alone: interrupts are masked while it is used, and no code here moves to another CPU. Only the count is read by others.

use core::cell::UnsafeCell;
use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use core::sync::atomic::{AtomicU64, AtomicUsize};

use paging::Pfn;

use super::buddy;
use super::buddy::{BadFree, Buddy, State, Zones};
use crate::arch::interrupts;
use crate::arch::percpu::{MAX_CPUS, cpu_index};
use crate::mm::layout::PAGE_SIZE;
use crate::mm::linear_va;

/// Frames in a magazine at most.
const CAPACITY: usize = 32;
/// The order of the block that fills it, and as many frames as leave it when it is full.
const BATCH_ORDER: u8 = 4;
const BATCH: usize = 1 << BATCH_ORDER;

/// On cache lines of its own.
#[repr(align(128))]
struct Magazine {
    frames: UnsafeCell<[u64; CAPACITY]>,
    nr: AtomicUsize,
}

// SAFETY: `frames` is only used by the magazine's own CPU, in `with_own`, with interrupts masked.
unsafe impl Sync for Magazine {}

static MAGAZINES: [Magazine; MAX_CPUS] = [const {
    Magazine {
        frames: UnsafeCell::new([0; CAPACITY]),
        nr: AtomicUsize::new(0),
    }
}; MAX_CPUS];

/// Frames that came back [without waiting](super::without_waiting) to a full magazine: the number of the last one, plus one, or 0. The first word of
/// each is the same of the next. Pushed one by one, taken all at once.
static ASIDE: AtomicU64 = AtomicU64::new(0);
static NR_ASIDE: AtomicUsize = AtomicUsize::new(0);

/// The first word of a frame in the linear map.
fn link(frame: u64) -> *mut u64 {
    linear_va(frame * PAGE_SIZE as u64) as *mut u64
}

#[cold]
fn put_aside(frame: u64) {
    NR_ASIDE.fetch_add(1, Relaxed);
    let mut last = ASIDE.load(Relaxed);
    loop {
        // SAFETY: a free frame, in the linear map, that this call alone knows of.
        unsafe { link(frame).write(last) };
        match ASIDE.compare_exchange_weak(last, frame + 1, Release, Relaxed) {
            Ok(_) => return,
            Err(found) => last = found,
        }
    }
}

/// Gives what was put aside to `buddy`.
fn take_aside(zones: &Zones, buddy: &mut Buddy) {
    if ASIDE.load(Relaxed) == 0 {
        return;
    }
    let mut last = ASIDE.swap(0, Acquire);
    while let Some(frame) = last.checked_sub(1) {
        // SAFETY: a free frame, in the linear map, that is this call's now; `put_aside` wrote the link.
        last = unsafe { link(frame).read() };
        buddy.free_cached(zones, frame);
        NR_ASIDE.fetch_sub(1, Relaxed);
    }
}

/// Frames in all magazines, and those put aside.
pub fn nr_cached() -> u64 {
    let in_magazines = MAGAZINES
        .iter()
        .map(|magazine| magazine.nr.load(Relaxed) as u64)
        .sum::<u64>();
    in_magazines + NR_ASIDE.load(Relaxed) as u64
}

/// Runs `f` with this CPU's frames and their number, which it returns anew.
#[inline(always)]
fn with_own<R>(f: impl FnOnce(&mut [u64; CAPACITY], usize) -> (usize, R)) -> R {
    let _masked = interrupts::mask();
    let magazine = &MAGAZINES[cpu_index()];
    // SAFETY: this CPU's own, and nothing can come between: `f` does not come back here.
    let frames = unsafe { &mut *magazine.frames.get() };
    let (nr, result) = f(frames, magazine.nr.load(Relaxed));
    magazine.nr.store(nr, Relaxed);
    result
}

#[inline]
pub fn allocate(zones: &Zones) -> Option<Pfn> {
    with_own(|frames, nr| {
        let nr = if nr == 0 { refill(zones, frames) } else { nr };
        let Some(last) = nr.checked_sub(1) else {
            return (0, None);
        };
        let frame = frames[last & (CAPACITY - 1)];
        zones.set_state(frame, State::used(0));
        (last, Some(Pfn(frame)))
    })
}

#[inline]
pub fn free(zones: &Zones, frame: Pfn) -> Result<(), BadFree> {
    with_own(|frames, nr| {
        let found = zones.state(frame.0);
        if found != State::used(0) {
            let bad = BadFree {
                frame,
                order: 0,
                found,
            };
            return (nr, Err(bad));
        }
        let nr = if nr == CAPACITY {
            give_back(zones, frames, nr, BATCH)
        } else {
            nr
        };
        zones.set_state(frame.0, State::CACHED);
        if nr == CAPACITY {
            put_aside(frame.0);
            return (nr, Ok(()));
        }
        frames[nr & (CAPACITY - 1)] = frame.0;
        (nr + 1, Ok(()))
    })
}

/// Gives all of this CPU's frames back.
pub fn drain(zones: &Zones) {
    with_own(|frames, nr| (give_back(zones, frames, nr, nr), ()));
}

/// Fills an empty magazine, the lowest frame on top.
#[cold]
fn refill(zones: &Zones, frames: &mut [u64; CAPACITY]) -> usize {
    let Some(mut buddy) = buddy() else {
        return 0;
    };
    take_aside(zones, &mut buddy);
    let (first, nr) = match buddy.allocate(zones, BATCH_ORDER) {
        Some(first) => (first, BATCH),
        // Memory is short or in pieces: one will do.
        None => match buddy.allocate(zones, 0) {
            Some(first) => (first, 1),
            None => return 0,
        },
    };
    for (i, frame) in frames[..nr].iter_mut().rev().enumerate() {
        *frame = first.0 + i as u64;
        zones.set_state(*frame, State::CACHED);
    }
    nr
}

/// Of `had` frames gives the `nr` that have been here longest back, and returns how many are left.
#[cold]
fn give_back(zones: &Zones, frames: &mut [u64; CAPACITY], had: usize, nr: usize) -> usize {
    let Some(mut buddy) = buddy() else {
        return had;
    };
    take_aside(zones, &mut buddy);
    for frame in &frames[..nr] {
        buddy.free_cached(zones, *frame);
    }
    frames.copy_within(nr..had, 0);
    had - nr
}
