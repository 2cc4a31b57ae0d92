//! The buddy allocator: blocks of 2^order frames, aligned to their size.
//!
//! The crate `buddy_system_allocator` walks the free list for a buddy, n² for n frames in shuffled
//! order, and cannot tell a double free.
//!
//! A block's first byte of state says what it is; the others are [`State::INSIDE`]. Free blocks of
//! an order are a list through their first 16 bytes. Sections of a [zone](super::zones) that are
//! not touched are free, and in no list.

use core::fmt;
use core::sync::atomic::Ordering::Relaxed;

use paging::Pfn;

use super::zones::{State, Zone, Zones};
use crate::arch::masked;
use crate::mm::layout::PAGE_SIZE;
use crate::mm::linear_va;
use crate::mm::regions::PhysRegion;

/// 16 GiB: the largest leaf.
pub const MAX_ORDER: u8 = 22;
/// Frames: 256 MiB with pages of 4 KiB, and less than a microsecond.
const TOUCHED_AT_BOOT: u64 = 1 << 16;
const NR_ORDERS: usize = MAX_ORDER as usize + 1;

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

/// Returns the largest aligned blocks that a region is made of, in ascending order.
fn blocks(region: &PhysRegion) -> impl Iterator<Item = (u64, u8)> + use<> {
    let mut at = region.start / PAGE_SIZE as u64;
    let end = region.end / PAGE_SIZE as u64;
    core::iter::from_fn(move || {
        let room = (end - at).checked_ilog2()?;
        let order = at.trailing_zeros().min(room).min(u32::from(MAX_ORDER)) as u8;
        let block = at;
        at += 1 << order;
        Some((block, order))
    })
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

    /// Returns how many blocks of an order are free; in sections that are not touched, those that
    /// [`touch`](Self::touch) would make at most.
    pub fn nr_blocks(&self, zones: &Zones, order: u8) -> u64 {
        let mut nr = 0;
        let mut at = self.heads[order as usize];
        while at != NONE {
            nr += 1;
            at = read_links(at).next;
        }
        let untouched = zones.untouched().flat_map(|region| blocks(&region));
        nr + untouched.filter(|block| block.1 == order).count() as u64
    }

    /// Counts all frames, and touches sections: those with frames that are in use, and the first
    /// ones, where what boot has left between the image and the device tree is used up first.
    pub fn begin(&mut self, zones: &Zones) {
        let nr_free = zones.nr_free_at_first();
        self.nr_total = nr_free + zones.nr_single();
        self.set_free(nr_free);
        while let Some(zone) = zones.next_single() {
            self.touch_in(zones, zone, 0);
        }
        while zones.nr_touched() < TOUCHED_AT_BOOT && self.touch(zones, 0) {}
    }

    /// Takes in the frames of one more section, for a block of `order`: of a larger block, when the
    /// last of its sections is written, as one. Returns `false` when all are taken in.
    pub fn touch(&mut self, zones: &Zones, order: u8) -> bool {
        zones.next().is_some_and(|zone| self.touch_in(zones, zone, order))
    }

    fn touch_in(&mut self, zones: &Zones, zone: &Zone, order: u8) -> bool {
        let Some(touched) = zones.touch(zone, order) else {
            return false;
        };
        for region in zones.free_in(&touched) {
            blocks(&region).for_each(|(frame, order)| self.take_in(zone, frame, order));
        }
        true
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
        let zone = zones.zone(frame)?;
        while have > order {
            have -= 1;
            self.link(zone, frame + (1 << have), have);
        }
        zone.set_state(frame, State::used(order));
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
        self.set_free(self.nr_free + (1 << order));
        if let Some(zone) = zones.zone(frame) {
            self.take_in(zone, frame, order);
        }
    }

    fn take_in(&mut self, zone: &Zone, mut frame: u64, mut order: u8) {
        masked::moves_block();
        while order < MAX_ORDER {
            let buddy = frame ^ 1 << order;
            if !zone.is_block(buddy, State::free(order)) {
                break;
            }
            self.unlink(buddy, order);
            zone.set_state(frame.max(buddy), State::INSIDE);
            frame = frame.min(buddy);
            order += 1;
        }
        self.link(zone, frame, order);
    }

    fn link(&mut self, zone: &Zone, frame: u64, order: u8) {
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
        zone.set_state(frame, State::free(order));
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
