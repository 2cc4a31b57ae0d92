//! What each frame is: a byte a frame, in pages set aside at boot.
//!
//! A page of them is written when the buddy allocator first needs the frames of its section, so
//! boot does not write a byte for each frame of RAM. Sections are touched from the start of a zone
//! on: one comparison tells whether a frame has a state.

use core::fmt;
use core::sync::atomic::Ordering::{Relaxed, Release};
use core::sync::atomic::{AtomicU8, AtomicU64};

use arrayvec::ArrayVec;

use crate::arch::{atomic, masked};
use crate::mm::layout::PAGE_SIZE;
use crate::mm::regions::{MAX_REGIONS, PhysRegion, Regions, TooManyRegions};
use crate::mm::zero_page;

/// Frames whose states are a page.
pub const SECTION: u64 = PAGE_SIZE as u64;
const SECTION_SIZE: u64 = SECTION * PAGE_SIZE as u64;

#[derive(Clone, Copy, PartialEq, Eq)]
pub struct State(u8);

impl State {
    /// That of each frame in a page of zeros.
    pub const INSIDE: Self = Self(0);
    pub const FOREIGN: Self = Self(0x20);
    /// Free, and without a byte yet.
    pub const UNTOUCHED: Self = Self(0x21);
    /// Not its owner's to free.
    pub const TAKEN_OVER: Self = Self(0xe0);

    pub const fn free(order: u8) -> Self {
        Self(0x80 | order)
    }

    pub const fn cached(order: u8) -> Self {
        Self(0x40 | order)
    }

    pub const fn used(order: u8) -> Self {
        Self(0xc0 | order)
    }
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let order = self.0 & 0x1f;
        match self.0 & 0xe0 {
            0x00 => f.write_str("inside of a block"),
            0x20 if *self == Self::UNTOUCHED => f.write_str("free, never in use"),
            0x20 => f.write_str("not an allocator's frame"),
            0x40 => write!(f, "free, order {order}, in a magazine"),
            0x80 => write!(f, "free, order {order}"),
            0xe0 => f.write_str("in use, taken over"),
            _ => write!(f, "in use, order {order}"),
        }
    }
}

/// Sections that follow each other.
pub struct Zone {
    start: u64,
    /// From `start` on, whole sections: stored to under the buddy allocator's lock.
    nr_touched: AtomicU64,
    /// Of all its frames.
    states: &'static [AtomicU8],
    /// Whose states are written, for that lock's holder: while a block of many sections is made,
    /// more than are touched.
    nr_written: AtomicU64,
}

impl Zone {
    // Relaxed: a frame's owner had it from this or another CPU after its section was touched, and
    // states are changed only under the lock, or by the owner.
    #[inline]
    fn byte(&self, frame: u64) -> Option<&AtomicU8> {
        let index = frame.wrapping_sub(self.start);
        if index < self.nr_touched.load(Relaxed) {
            Some(&self.states[index as usize])
        } else {
            None
        }
    }

    /// Returns whether a block of the allocator's begins here in this state: if so, all of its
    /// frames have one.
    pub fn is_block(&self, frame: u64, state: State) -> bool {
        self.byte(frame).is_some_and(|byte| byte.load(Relaxed) == state.0)
    }

    pub fn set_state(&self, frame: u64, state: State) {
        if let Some(byte) = self.byte(frame) {
            byte.store(state.0, Relaxed);
        }
    }

    fn untouched(&self) -> PhysRegion {
        region(
            self.start + self.nr_touched.load(Relaxed),
            self.start + self.states.len() as u64,
        )
    }
}

fn region(start: u64, end: u64) -> PhysRegion {
    PhysRegion {
        start: start * PAGE_SIZE as u64,
        end: end * PAGE_SIZE as u64,
    }
}

pub struct Zones {
    /// The largest first: most frames are found at once.
    zones: ArrayVec<Zone, MAX_REGIONS>,
    free: Regions,
    single: Regions,
}

impl Zones {
    /// Returns the bytes of states for these pages, whole pages.
    ///
    /// # Errors
    /// They are in too many pieces.
    pub fn size_of_states(free: &Regions, single: &Regions) -> Result<u64, TooManyRegions> {
        Ok(sections(free, single)?.size() / PAGE_SIZE as u64)
    }

    /// Makes zones of pages that are `free` and `single` used ones, without overlap. `states` has
    /// the [size](Self::size_of_states) for these or more pages, and arbitrary contents.
    ///
    /// # Errors
    /// They are in too many pieces.
    pub fn new(
        free: Regions,
        single: Regions,
        mut states: &'static [AtomicU8],
    ) -> Result<Self, TooManyRegions> {
        let mut zones = ArrayVec::<Zone, MAX_REGIONS>::new();
        for span in sections(&free, &single)?.iter() {
            let (own, rest) = states.split_at((span.size() / PAGE_SIZE as u64) as usize);
            states = rest;
            zones.push(Zone {
                start: span.start / PAGE_SIZE as u64,
                nr_touched: AtomicU64::new(0),
                states: own,
                nr_written: AtomicU64::new(0),
            });
        }
        zones.sort_unstable_by_key(|zone| core::cmp::Reverse(zone.states.len()));
        Ok(Self { zones, free, single })
    }

    #[inline]
    fn byte(&self, frame: u64) -> Option<&AtomicU8> {
        self.zones.iter().find_map(|zone| zone.byte(frame))
    }

    /// Returns the zone of a frame that has a state.
    #[inline]
    pub fn zone(&self, frame: u64) -> Option<&Zone> {
        self.zones.iter().find(|zone| zone.byte(frame).is_some())
    }

    #[inline]
    pub fn state(&self, frame: u64) -> State {
        match self.byte(frame) {
            Some(byte) => State(byte.load(Relaxed)),
            None => self.state_without_byte(frame),
        }
    }

    #[cold]
    fn state_without_byte(&self, frame: u64) -> State {
        let is_in =
            |free: &PhysRegion| (free.start / PAGE_SIZE as u64..free.end / PAGE_SIZE as u64).contains(&frame);
        if self.free.iter().any(is_in) {
            State::UNTOUCHED
        } else {
            State::FOREIGN
        }
    }

    #[inline]
    pub fn exchange(&self, frame: u64, from: State, to: State) -> bool {
        self.byte(frame)
            .is_some_and(|byte| atomic::exchange_relaxed(byte, from.0, to.0))
    }

    #[inline]
    pub fn set_state(&self, frame: u64, state: State) {
        if let Some(byte) = self.byte(frame) {
            byte.store(state.0, Relaxed);
        }
    }

    /// Sets that of `nr` blocks that follow each other.
    pub fn set_states(&self, first: u64, nr: u64, order: u8, state: State) {
        if let Some(zone) = self.zone(first) {
            let states = &zone.states[(first - zone.start) as usize..][..(nr << order) as usize];
            let firsts = states.iter().step_by(1 << order);
            firsts.for_each(|block| block.store(state.0, Relaxed));
        }
    }

    /// Returns the lowest zone with a section that is not touched.
    pub fn next(&self) -> Option<&Zone> {
        let untouched = self.zones.iter().filter(|zone| !zone.untouched().is_empty());
        untouched.min_by_key(|zone| zone.start)
    }

    /// Returns a zone with a single used frame in a section that is not touched.
    pub fn next_single(&self) -> Option<&Zone> {
        self.zones
            .iter()
            .find(|zone| parts(&self.single, &zone.untouched()).next().is_some())
    }

    /// Touches the next section of `zone`, or those of a block of `order` that is all free, and
    /// returns it. With the states of one section written and more to write, it is empty. The
    /// caller has the buddy allocator's lock, and takes in what is [free](Self::free_in) there.
    pub fn touch(&self, zone: &Zone, order: u8) -> Option<PhysRegion> {
        let untouched = zone.untouched();
        if untouched.is_empty() {
            return None;
        }
        let block = self.block_at(untouched.start / PAGE_SIZE as u64, order);
        let touched = zone.nr_touched.load(Relaxed);
        if zone.nr_written.load(Relaxed) < touched + block {
            self.write_section(zone);
        }
        let is_written = zone.nr_written.load(Relaxed) >= touched + block;
        let nr = if is_written { block } else { 0 };
        // Release: after the states.
        zone.nr_touched.store(touched + nr, Release);
        let first = zone.start + touched;
        Some(region(first, first + nr))
    }

    /// Returns the frames of the largest free block up to `order` that begins here, with a section;
    /// those of a section if there is none.
    fn block_at(&self, first: u64, order: u8) -> u64 {
        let here = region(first, first + 1);
        let run = self.free.iter().find(|free| !free.intersection(&here).is_empty());
        let room = run.map_or(0, |run| run.end / PAGE_SIZE as u64 - first);
        let fits = room.checked_ilog2().unwrap_or(0).min(first.trailing_zeros());
        SECTION.max(1 << fits.min(u32::from(order)))
    }

    /// Writes the states of the first section that has none.
    fn write_section(&self, zone: &Zone) {
        masked::writes_states();
        let at = zone.nr_written.load(Relaxed);
        let states = &zone.states[at as usize..(at + SECTION) as usize];
        let section = region(zone.start + at, zone.start + at + SECTION);
        let fill = |start: u64, end: u64, state: State| {
            let index = |pa: u64| ((pa - section.start) / PAGE_SIZE as u64) as usize;
            let states = &states[index(start)..index(end)];
            states.iter().for_each(|byte| byte.store(state.0, Relaxed));
        };
        // SAFETY: a page of the states, which are not read before they are counted as touched.
        unsafe { zero_page(states.as_ptr() as usize) };
        let mut done = section.start;
        for free in self.free_in(&section) {
            fill(done, free.start, State::FOREIGN);
            done = free.end;
        }
        fill(done, section.end, State::FOREIGN);
        for single in parts(&self.single, &section) {
            fill(single.start, single.end, State::used(0));
        }
        zone.nr_written.store(at + SECTION, Relaxed);
    }

    /// Returns what was free in a region before any of it was touched.
    pub fn free_in(&self, region: &PhysRegion) -> impl Iterator<Item = PhysRegion> {
        parts(&self.free, region)
    }

    /// Returns what is free and not touched.
    pub fn untouched(&self) -> impl Iterator<Item = PhysRegion> {
        self.zones.iter().flat_map(|zone| {
            self.free_in(&zone.untouched())
                .collect::<ArrayVec<_, MAX_REGIONS>>()
        })
    }

    pub fn nr_free_at_first(&self) -> u64 {
        self.free.size() / PAGE_SIZE as u64
    }

    pub fn nr_single(&self) -> u64 {
        self.single.size() / PAGE_SIZE as u64
    }

    /// Returns how many frames have a state.
    pub fn nr_touched(&self) -> u64 {
        self.zones.iter().map(|zone| zone.nr_touched.load(Relaxed)).sum()
    }

    /// Returns how many may have one.
    pub fn nr_frames(&self) -> u64 {
        self.zones.iter().map(|zone| zone.states.len() as u64).sum()
    }
}

fn parts(list: &Regions, region: &PhysRegion) -> impl Iterator<Item = PhysRegion> {
    list.iter()
        .map(|here| here.intersection(region))
        .filter(|part| !part.is_empty())
}

/// Whole sections with any of these pages.
fn sections(free: &Regions, single: &Regions) -> Result<Regions, TooManyRegions> {
    let mut sections = Regions::new();
    for region in free.iter().chain(single.iter()) {
        sections.add(region.grow_to_pages(SECTION_SIZE))?;
    }
    Ok(sections)
}
