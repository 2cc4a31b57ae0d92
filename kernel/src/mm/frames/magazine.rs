//! A per-CPU cache of blocks, a ring for each order up to a level 2 block.
//!
//! Its own CPU, with interrupts masked, puts blocks in and keeps the count. Taking out is an
//! exchange of the slot ([`ring`]), by that CPU or a [`drain`]: a block comes out once, the hot
//! path writes no shared line, and the count may be too high after a drain.
//!
//! Of two frees of a block, one wins the exchange of its state.

use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use core::sync::atomic::{AtomicU64, AtomicUsize};

use paging::Pfn;

use super::buddy;
use super::buddy::{BadFree, Buddy};
use super::ring::{self, Ring};
use super::zones::{State, Zones};
use crate::arch::{interrupts, masked};
use crate::mm::layout::PAGE_SIZE;
use crate::mm::linear_va;
use crate::per_cpu;
use crate::sync::{HotWord, Padded};

/// Their states are a cache line.
const RUN_ORDER: u8 = 6;

/// Under one hold of the buddy's lock (DESIGN rule 14).
const MOST_BLOCKS: usize = match masked::Count::Blocks.bound() {
    Some(most) => most as usize,
    None => unreachable!(),
};

/// Room for what a lazy purge frees at once.
#[repr(align(128))]
struct Magazine {
    order_0: Ring<512>,
    order_1: Ring<64>,
    order_2: Ring<64>,
    order_3: Ring<32>,
    order_4: Ring<32>,
    order_5: Ring<8>,
    order_6: Ring<4>,
    order_7: Ring<4>,
    order_8: Ring<4>,
    order_9: Ring<4>,
}

per_cpu! {
    static MAGAZINE: Magazine = Magazine {
        order_0: Ring::new(),
        order_1: Ring::new(),
        order_2: Ring::new(),
        order_3: Ring::new(),
        order_4: Ring::new(),
        order_5: Ring::new(),
        order_6: Ring::new(),
        order_7: Ring::new(),
        order_8: Ring::new(),
        order_9: Ring::new(),
    };
}

const LARGEST: u8 = 9;

#[inline(always)]
pub const fn has(order: u8) -> bool {
    order <= LARGEST
}

macro_rules! with_ring {
    ($magazine:expr, $order:expr, $ring:ident => $f:expr) => {
        match $order {
            0 => {
                let $ring = &$magazine.order_0;
                $f
            }
            1 => {
                let $ring = &$magazine.order_1;
                $f
            }
            2 => {
                let $ring = &$magazine.order_2;
                $f
            }
            3 => {
                let $ring = &$magazine.order_3;
                $f
            }
            4 => {
                let $ring = &$magazine.order_4;
                $f
            }
            5 => {
                let $ring = &$magazine.order_5;
                $f
            }
            6 => {
                let $ring = &$magazine.order_6;
                $f
            }
            7 => {
                let $ring = &$magazine.order_7;
                $f
            }
            8 => {
                let $ring = &$magazine.order_8;
                $f
            }
            _ => {
                let $ring = &$magazine.order_9;
                $f
            }
        }
    };
}

/// Frames freed [without waiting](super::without_waiting) to a full magazine: a list through their
/// first words, number plus one. Taken all at once.
static ASIDE: Padded<Aside> = Padded(Aside {
    last: AtomicU64::new(0),
    nr: AtomicUsize::new(0),
});

struct Aside {
    last: AtomicU64,
    nr: AtomicUsize,
}

pub fn hot_word() -> HotWord {
    HotWord::of("the frames that were deferred", &ASIDE)
}

fn link(frame: u64) -> *mut u64 {
    linear_va(frame * PAGE_SIZE as u64) as *mut u64
}

#[cold]
fn defer(zones: &Zones, first: u64, order: u8) {
    for frame in first..first + (1 << order) {
        zones.set_state(frame, State::cached(0));
        put_frame_aside(frame);
    }
}

fn put_frame_aside(frame: u64) {
    ASIDE.nr.fetch_add(1, Relaxed);
    let mut last = ASIDE.last.load(Relaxed);
    loop {
        // SAFETY: a free frame, known to this call only.
        unsafe { link(frame).write(last) };
        match ASIDE
            .last
            .compare_exchange_weak(last, frame + 1, Release, Relaxed)
        {
            Ok(_) => return,
            Err(found) => last = found,
        }
    }
}

fn take_aside(zones: &Zones) {
    if ASIDE.last.load(Relaxed) == 0 {
        return;
    }
    let mut last = ASIDE.last.swap(0, Acquire);
    while last != 0 {
        let Some(mut buddy) = buddy() else {
            return put_back_aside(last);
        };
        for _ in 0..MOST_BLOCKS {
            let Some(frame) = last.checked_sub(1) else { break };
            // SAFETY: a free frame of this call; `defer` wrote the link.
            last = unsafe { link(frame).read() };
            buddy.free_cached(zones, frame, 0);
            ASIDE.nr.fetch_sub(1, Relaxed);
        }
    }
}

#[cold]
fn put_back_aside(mut last: u64) {
    while let Some(frame) = last.checked_sub(1) {
        // SAFETY: as in `take_aside`.
        last = unsafe { link(frame).read() };
        ASIDE.nr.fetch_sub(1, Relaxed);
        put_frame_aside(frame);
    }
}

pub fn nr_cached() -> u64 {
    let in_magazines: u64 = MAGAZINE.iter().map(Magazine::nr_frames).sum();
    in_magazines + ASIDE.nr.load(Relaxed) as u64
}

impl Magazine {
    fn nr_frames(&self) -> u64 {
        (0..=LARGEST)
            .map(|order| with_ring!(self, order, ring => ring.nr_blocks()) << order)
            .sum()
    }
}

impl<const CAPACITY: usize> Ring<CAPACITY> {
    #[inline(always)]
    fn allocate(&self, zones: &Zones, order: u8) -> Option<Pfn> {
        let frame = self.pop().or_else(|| self.refill(zones, order))?;
        zones.set_state(frame, State::used(order));
        Some(Pfn(frame))
    }

    #[inline(always)]
    fn take_in(&self, zones: &Zones, frame: u64, order: u8) -> bool {
        let has_room = self.nr.load(Relaxed) < CAPACITY || self.drain_half(zones, order);
        if has_room {
            self.push(frame);
        }
        has_room
    }

    /// Returns the first block of a new run. `None` while a section that is not touched may have
    /// one.
    #[cold]
    fn refill(&self, zones: &Zones, order: u8) -> Option<u64> {
        take_aside(zones);
        let mut buddy = buddy()?;
        let run = if order < RUN_ORDER {
            buddy.allocate(zones, RUN_ORDER)
        } else {
            None
        };
        let (first, nr) = match run {
            Some(first) => (first.0, 1 << (RUN_ORDER - order)),
            // Runs come before what is left of them.
            None if order < RUN_ORDER && zones.next().is_some() => return None,
            None => (buddy.allocate(zones, order)?.0, 1),
        };
        zones.set_states(first, nr, order, State::cached(order));
        let others = (1..nr).rev().map(|i: u64| first + (i << order));
        for (n, frame) in others.enumerate() {
            ring::fill(self.slot(n), frame);
        }
        self.nr.store(nr as usize - 1, Relaxed);
        Some(first)
    }

    /// The oldest half, or what one hold may; `false` without the lock.
    #[cold]
    fn drain_half(&self, zones: &Zones, order: u8) -> bool {
        let Some(mut buddy) = buddy() else {
            return false;
        };
        let nr = (CAPACITY / 2).min(MOST_BLOCKS);
        (0..nr).for_each(|n| take(zones, &mut buddy, self.slot(n), order));
        self.first
            .store((self.first.load(Relaxed) + nr) % CAPACITY, Relaxed);
        self.nr.store(CAPACITY - nr, Relaxed);
        true
    }

    /// Returns `false` without the lock.
    fn drain(&self, zones: &Zones, order: u8) -> bool {
        self.slots.chunks(MOST_BLOCKS).all(|slots| {
            // Loads keep empty magazines' lines shared, and avoid the lock.
            if slots.iter().all(ring::is_empty) {
                return true;
            }
            let Some(mut buddy) = buddy() else { return false };
            slots.iter().for_each(|slot| take(zones, &mut buddy, slot, order));
            true
        })
    }
}

/// All but an exchange holds the buddy's lock, for [`MOST_BLOCKS`].
#[inline(always)]
fn with_own<R>(f: impl FnOnce(&Magazine) -> R) -> R {
    let _masked = interrupts::mask_briefly();
    f(MAGAZINE.this())
}

#[inline]
pub fn allocate(zones: &Zones, order: u8) -> Option<Pfn> {
    with_own(|own| with_ring!(own, order, ring => ring.allocate(zones, order)))
}

#[inline]
pub fn free(zones: &Zones, frame: Pfn, order: u8) -> Result<(), BadFree> {
    with_own(|own| {
        if !zones.exchange(frame.0, State::used(order), State::cached(order)) {
            return Err(BadFree {
                frame,
                order,
                found: zones.state(frame.0),
            });
        }
        if !with_ring!(own, order, ring => ring.take_in(zones, frame.0, order)) {
            defer(zones, frame.0, order);
        }
        Ok(())
    })
}

/// Empties all magazines, [`MOST_BLOCKS`] a hold. Stops where this CPU may not wait.
#[cold]
pub fn drain(zones: &Zones) {
    take_aside(zones);
    for magazine in MAGAZINE.iter() {
        for order in 0..=LARGEST {
            if !with_ring!(magazine, order, ring => ring.drain(zones, order)) {
                return;
            }
        }
    }
}

fn take(zones: &Zones, buddy: &mut Buddy, slot: &AtomicU64, order: u8) {
    if let Some(frame) = ring::take_out(slot) {
        buddy.free_cached(zones, frame, order);
    }
}
