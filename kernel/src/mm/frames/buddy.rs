//! The buddy allocator: blocks of 2^order frames, aligned to their size.
//!
//! The crate `buddy_system_allocator` walks the free list for a buddy, n² for n frames in shuffled
//! order, and cannot tell a double free.
//!
//! A block's first byte of state says what it is; the others are [`State::INSIDE`]. Free blocks of
//! an order are a list through their first 16 bytes.

use core::fmt;
use core::sync::atomic::{AtomicU8, Ordering::Relaxed};

use arrayvec::ArrayVec;
use paging::Pfn;

use crate::arch::atomic;
use crate::arch::masked;
use crate::mm::layout::PAGE_SIZE;
use crate::mm::linear_va;
use crate::mm::regions::{MAX_REGIONS, PhysRegion};

/// 16 GiB: the largest leaf.
pub const MAX_ORDER: u8 = 22;
const NR_ORDERS: usize = MAX_ORDER as usize + 1;

#[derive(Clone, Copy, PartialEq, Eq)]
pub struct State(u8);

impl State {
    pub const FOREIGN: Self = Self(0);
    pub const INSIDE: Self = Self(0x20);
    /// Not its owner's to free.
    pub const TAKEN_OVER: Self = Self(0xe0);

    const fn free(order: u8) -> Self {
        Self(0x80 | order)
    }

    pub const fn cached(order: u8) -> Self {
        Self(0x40 | order)
    }

    pub const fn times_eight(self) -> u64 {
        u64::from_ne_bytes([self.0; 8])
    }

    pub const fn used(order: u8) -> Self {
        Self(0xc0 | order)
    }
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let order = self.0 & 0x1f;
        match self.0 & 0xe0 {
            0x00 => f.write_str("not an allocator's frame"),
            0x20 => f.write_str("inside of a block"),
            0x40 => write!(f, "free, order {order}, in a magazine"),
            0x80 => write!(f, "free, order {order}"),
            0xe0 => f.write_str("in use, taken over"),
            _ => write!(f, "in use, order {order}"),
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BadFree {
    pub frame: Pfn,
    pub order: u8,
    pub found: State,
}

impl fmt::Display for BadFree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "free of frame {:#x} with order {}: it is {:?}",
            self.frame.0, self.order, self.found
        )
    }
}

struct Zone {
    start: u64,
    end: u64,
    states: &'static [AtomicU8],
}

pub struct Zones(ArrayVec<Zone, MAX_REGIONS>);

impl Zones {
    pub const fn new() -> Self {
        Self(ArrayVec::new_const())
    }

    pub fn add(&mut self, region: &PhysRegion, states: &'static [AtomicU8]) {
        self.0.push(Zone {
            start: region.start / PAGE_SIZE as u64,
            end: region.end / PAGE_SIZE as u64,
            states,
        });
    }

    #[inline]
    fn zone(&self, frame: u64) -> Option<&Zone> {
        self.0.iter().find(|zone| (zone.start..zone.end).contains(&frame))
    }

    #[inline]
    pub fn state(&self, frame: u64) -> State {
        self.zone(frame).map_or(State::FOREIGN, |zone| zone.state(frame))
    }

    pub fn exchange(&self, frame: u64, from: State, to: State) -> bool {
        self.zone(frame).is_some_and(|zone| {
            let state = &zone.states[(frame - zone.start) as usize];
            atomic::exchange_relaxed(state, from.0, to.0)
        })
    }

    #[inline]
    pub fn set_state(&self, frame: u64, state: State) {
        if let Some(zone) = self.zone(frame) {
            zone.set_state(frame, state);
        }
    }

    pub fn set_states(&self, first: u64, nr: u64, order: u8, state: State) {
        if let Some(zone) = self.zone(first) {
            let states = &zone.states[(first - zone.start) as usize..][..(nr << order) as usize];
            let firsts = states.iter().step_by(1 << order);
            firsts.for_each(|block| block.store(state.0, Relaxed));
        }
    }
}

impl Zone {
    // Relaxed: changed only under the lock, or by the frame's owner.
    #[inline]
    fn state(&self, frame: u64) -> State {
        State(self.states[(frame - self.start) as usize].load(Relaxed))
    }

    #[inline]
    fn set_state(&self, frame: u64, state: State) {
        self.states[(frame - self.start) as usize].store(state.0, Relaxed);
    }
}

const NONE: u64 = u64::MAX;

#[repr(C)]
#[derive(Clone, Copy)]
struct Links {
    next: u64,
    previous: u64,
}

fn links(frame: u64) -> *mut Links {
    linear_va(frame * PAGE_SIZE as u64) as *mut Links
}

fn read_links(frame: u64) -> Links {
    // SAFETY: a free block begins with its links.
    unsafe { links(frame).read() }
}

fn write_links(frame: u64, value: Links) {
    // SAFETY: the block is free or being freed, so unused.
    unsafe { links(frame).write(value) };
}

pub struct Buddy {
    heads: [u64; NR_ORDERS],
    /// Bit n: list n is not empty.
    occupied: u32,
    nr_free: u64,
    nr_total: u64,
}

impl Buddy {
    pub const fn new() -> Self {
        Self {
            heads: [NONE; NR_ORDERS],
            occupied: 0,
            nr_free: 0,
            nr_total: 0,
        }
    }

    pub fn nr_free(&self) -> u64 {
        self.nr_free
    }

    fn set_free(&mut self, nr: u64) {
        self.nr_free = nr;
        super::NR_FREE.store(nr, Relaxed);
    }

    pub fn nr_total(&self) -> u64 {
        self.nr_total
    }

    pub fn nr_blocks(&self, order: u8) -> u64 {
        let mut nr = 0;
        let mut at = self.heads[order as usize];
        while at != NONE {
            nr += 1;
            at = read_links(at).next;
        }
        nr
    }

    pub fn give(&mut self, zones: &Zones, region: &PhysRegion) {
        let mut at = region.start / PAGE_SIZE as u64;
        let end = region.end / PAGE_SIZE as u64;
        self.nr_total += end - at;
        while at < end {
            let alignment = at.trailing_zeros().min(u32::from(MAX_ORDER));
            let room = (end - at).ilog2();
            let order = alignment.min(room) as u8;
            self.release(zones, at, order);
            at += 1 << order;
        }
    }

    pub fn adopt(&mut self, zones: &Zones, region: &PhysRegion) {
        let frames = region.start / PAGE_SIZE as u64..region.end / PAGE_SIZE as u64;
        self.nr_total += frames.end - frames.start;
        frames.for_each(|frame| zones.set_state(frame, State::used(0)));
    }

    pub fn allocate(&mut self, zones: &Zones, order: u8) -> Option<Pfn> {
        if order > MAX_ORDER {
            return None;
        }
        masked::moves_block();
        let enough = self.occupied >> order;
        if enough == 0 {
            return None;
        }
        let mut have = order + enough.trailing_zeros() as u8;
        let frame = self.heads[have as usize];
        self.unlink(frame, have);
        while have > order {
            have -= 1;
            self.link(zones, frame + (1 << have), have);
        }
        zones.set_state(frame, State::used(order));
        self.set_free(self.nr_free - (1 << order));
        Some(Pfn(frame))
    }

    /// # Errors
    /// Not an allocated block of this order. Nothing has changed.
    pub fn free(&mut self, zones: &Zones, frame: Pfn, order: u8) -> Result<(), BadFree> {
        let found = zones.state(frame.0);
        if order > MAX_ORDER || found != State::used(order) {
            return Err(BadFree { frame, order, found });
        }
        self.release(zones, frame.0, order);
        Ok(())
    }

    pub fn free_cached(&mut self, zones: &Zones, frame: u64, order: u8) {
        self.release(zones, frame, order);
    }

    fn release(&mut self, zones: &Zones, frame: u64, order: u8) {
        masked::moves_block();
        self.set_free(self.nr_free + (1 << order));
        let Some(zone) = zones.zone(frame) else {
            return;
        };
        let (mut frame, mut order) = (frame, order);
        while order < MAX_ORDER {
            let buddy = frame ^ 1 << order;
            let in_zone = buddy >= zone.start && buddy + (1 << order) <= zone.end;
            if !in_zone || zone.state(buddy) != State::free(order) {
                break;
            }
            self.unlink(buddy, order);
            zone.set_state(frame.max(buddy), State::INSIDE);
            frame = frame.min(buddy);
            order += 1;
        }
        self.link(zones, frame, order);
    }

    fn link(&mut self, zones: &Zones, frame: u64, order: u8) {
        let next = self.heads[order as usize];
        write_links(frame, Links { next, previous: NONE });
        if next != NONE {
            let old = read_links(next);
            write_links(
                next,
                Links {
                    previous: frame,
                    ..old
                },
            );
        }
        self.heads[order as usize] = frame;
        self.occupied |= 1 << order;
        zones.set_state(frame, State::free(order));
    }

    fn unlink(&mut self, frame: u64, order: u8) {
        let Links { next, previous } = read_links(frame);
        if previous == NONE {
            self.heads[order as usize] = next;
            if next == NONE {
                self.occupied &= !(1 << order);
            }
        } else {
            let old = read_links(previous);
            write_links(previous, Links { next, ..old });
        }
        if next != NONE {
            let old = read_links(next);
            write_links(next, Links { previous, ..old });
        }
    }
}
