use core::sync::atomic::AtomicU8;
use std::collections::BTreeMap;

use fastrand::Rng;
use machine::regions::{PhysRegion, Regions};
use paging::Pfn;

use super::buddy::{Buddy, MAX_ORDER};
use super::zones::{SECTION, State, Zones};
use crate::mm::linked;

const PAGE: u64 = 4096;
const TIB: u64 = 1 << 40;

fn region(first: u64, end: u64) -> PhysRegion {
    PhysRegion {
        start: first * PAGE,
        end: end * PAGE,
    }
}

fn regions(list: impl IntoIterator<Item = PhysRegion>) -> Regions {
    let mut regions = Regions::new();
    list.into_iter()
        .for_each(|region| regions.add(region).expect("room for a range"));
    regions
}

fn begin(free: Regions, single: Regions, garbage: u8) -> (Zones, Buddy) {
    let size = Zones::size_of_states(&free, &single).expect("few pieces") as usize;
    // Zeroes come from the host's kernel when they are looked at.
    let states = Box::leak(vec![garbage; size].into_boxed_slice());
    // SAFETY: bytes as good as atomic ones, used as these from now on.
    let states = unsafe { core::slice::from_raw_parts(states.as_ptr().cast::<AtomicU8>(), size) };
    let zones = Zones::new(free, single, states).expect("few pieces");
    let mut buddy = Buddy::new();
    buddy.begin(&zones);
    (zones, buddy)
}

fn allocate(zones: &Zones, buddy: &mut Buddy, order: u8) -> Option<Pfn> {
    loop {
        match buddy.allocate(zones, order) {
            None if buddy.touch(zones, order) => {}
            found => return found,
        }
    }
}

/// A flag a frame, and nothing else.
struct Model {
    start: u64,
    own: Vec<bool>,
    free: Vec<bool>,
    live: BTreeMap<u64, u8>,
}

impl Model {
    fn new(start: u64, end: u64, free: &Regions, single: &Regions) -> Self {
        let is_in = |list: &Regions| -> Vec<bool> {
            let holds = |frame: u64| list.contains(&region(frame, frame + 1));
            (start..end).map(holds).collect()
        };
        let (free, single) = (is_in(free), is_in(single));
        let singles = (start..end).zip(&single).filter(|(_, is_single)| **is_single);
        Self {
            start,
            own: free
                .iter()
                .zip(&single)
                .map(|(free, single)| free | single)
                .collect(),
            live: singles.map(|(frame, _)| (frame, 0)).collect(),
            free,
        }
    }

    fn frames(&self, first: u64, order: u8) -> core::ops::Range<usize> {
        let first = (first - self.start) as usize;
        first..first + (1 << order)
    }

    fn has(&self, order: u8) -> bool {
        let step = 1_usize << order;
        let first = (self.start.next_multiple_of(1 << order) - self.start) as usize;
        (first..self.free.len().saturating_sub(step - 1))
            .step_by(step)
            .any(|at| self.free[at..at + step].iter().all(|free| *free))
    }

    fn take(&mut self, first: u64, order: u8) {
        assert!(
            first.is_multiple_of(1 << order),
            "{first:#x} is aligned to 2^{order}"
        );
        let frames = self.frames(first, order);
        assert!(
            self.free[frames.clone()].iter().all(|free| *free),
            "{first:#x}, order {order}, is free"
        );
        self.free[frames].fill(false);
        self.live.insert(first, order);
    }

    fn give(&mut self, first: u64) -> u8 {
        let order = self.live.remove(&first).expect("a live block");
        let frames = self.frames(first, order);
        self.free[frames].fill(true);
        order
    }

    fn agrees(&self, zones: &Zones, buddy: &Buddy) {
        let nr_free = self.free.iter().filter(|free| **free).count() as u64;
        assert_eq!(buddy.nr_free(), nr_free, "free frames");
        assert_eq!(
            buddy.nr_total(),
            self.own.iter().filter(|own| **own).count() as u64
        );
        let in_blocks: u64 = (0..=MAX_ORDER)
            .map(|order| buddy.nr_blocks(zones, order) << order)
            .sum();
        assert_eq!(in_blocks, nr_free, "frames in free blocks");
        let mut blocks = 0;
        for (frame, (own, free)) in (self.start..).zip(self.own.iter().zip(&self.free)) {
            let state = zones.state(frame);
            assert_eq!(state != State::FOREIGN, *own, "{frame:#x}: {state:?}");
            let is_free = (0..=MAX_ORDER).any(|order| state == State::free(order));
            blocks += u64::from(is_free);
            assert!(*free || !is_free, "{frame:#x}, in use: {state:?}");
            assert!(
                *free || state != State::UNTOUCHED,
                "{frame:#x}, in use: {state:?}"
            );
            if let Some(order) = self.live.get(&frame) {
                assert_eq!(state, State::used(*order), "{frame:#x}");
            }
        }
        let listed: u64 = (0..=MAX_ORDER).map(|order| buddy.nr_blocks(zones, order)).sum();
        assert!(
            blocks <= listed,
            "{blocks} blocks are marked, {listed} are in lists"
        );
    }
}

/// Runs of RAM with holes that are smaller and larger than a section, and used pages in them.
fn random_runs(rng: &mut Rng) -> (u64, u64, Regions, Regions) {
    let base = [
        1,
        0x4_0000,
        1 << 35,
        (1 << 35) + 12_345,
        1 << 36,
        (1 << 39) - 70_000,
    ][rng.usize(0..6)];
    let (mut free, mut single) = (Vec::new(), Vec::new());
    let mut at = base;
    for _ in 0..rng.u64(1..6) {
        at += if rng.bool() {
            rng.u64(1..100)
        } else {
            rng.u64(1..3 * SECTION)
        };
        let used = rng.u64(0..4);
        single.push(region(at, at + used));
        let size = if rng.bool() {
            rng.u64(1..64)
        } else {
            rng.u64(1..3 * SECTION)
        };
        free.push(region(at + used, at + used + size));
        at += used + size;
    }
    (base, at, regions(free), regions(single))
}

#[test]
fn random_calls_on_random_runs_are_what_a_list_of_flags_says() {
    for seed in 0..400 {
        let mut rng = Rng::with_seed(seed);
        let (start, end, free, single) = random_runs(&mut rng);
        let mut model = Model::new(start, end, &free, &single);
        // What frees of frames that were never given out must not be taken for.
        let (zones, mut buddy) = begin(free.clone(), single, 0xc0);
        model.agrees(&zones, &buddy);
        for call in 0..300 {
            let order = if rng.bool() { 0 } else { rng.u8(0..14) };
            let victim = model
                .live
                .keys()
                .nth(rng.usize(0..model.live.len().max(1)))
                .copied();
            match victim {
                Some(first) if rng.u8(0..5) < 2 => {
                    let order = model.give(first);
                    let wrong = buddy.free(&zones, Pfn(first), order + 1);
                    assert!(wrong.is_err(), "{first:#x} with a larger order");
                    buddy.free(&zones, Pfn(first), order).expect("a live block");
                    assert!(buddy.free(&zones, Pfn(first), order).is_err(), "{first:#x} twice");
                }
                _ => match allocate(&zones, &mut buddy, order) {
                    Some(first) => model.take(first.0, order),
                    None => assert!(!model.has(order), "seed {seed}: a block of order {order} is free"),
                },
            }
            let frame = rng.u64(start..end);
            if !model.live.contains_key(&frame) {
                assert!(
                    buddy.free(&zones, Pfn(frame), 0).is_err(),
                    "{frame:#x} is no block"
                );
            }
            if call % 60 == 0 {
                model.agrees(&zones, &buddy);
            }
        }
        let live: Vec<u64> = model.live.keys().copied().collect();
        for first in live {
            let order = model.give(first);
            buddy.free(&zones, Pfn(first), order).expect("a live block");
        }
        while buddy.touch(&zones, rng.u8(0..14)) {}
        model.agrees(&zones, &buddy);
        assert_eq!(buddy.nr_free(), buddy.nr_total());
        assert_eq!(zones.nr_touched(), zones.nr_frames());
        let largest = (0..=MAX_ORDER).rev().find(|order| model.has(*order));
        let found = (0..=MAX_ORDER)
            .rev()
            .find(|order| buddy.nr_blocks(&zones, *order) != 0);
        assert_eq!(found, largest, "seed {seed}: all that was cut is joined again");
    }
}

#[test]
fn boot_makes_as_many_states_for_2_tib_as_for_a_gib() {
    let touched = |size: u64, at: u64| {
        let single = regions([region(at, at + 20)]);
        let (zones, buddy) = begin(regions([region(at + 20, at + size / PAGE)]), single, 0);
        assert_eq!(buddy.nr_total(), size / PAGE);
        assert_eq!(buddy.nr_free(), size / PAGE - 20);
        zones.nr_touched()
    };
    assert_eq!(touched(1 << 30, 0x4_0000), 16 * SECTION);
    assert_eq!(touched(2 * TIB, 0x4_0000), 16 * SECTION);
    assert_eq!(touched(2 * TIB, 1 << 36), 16 * SECTION, "at 2^48");
    assert_eq!(touched(64 << 20, 0x4_0000), 4 * SECTION, "no more than there are");
}

#[test]
fn a_block_touches_its_sections_and_no_others() {
    let (zones, mut buddy) = begin(
        regions([region(0x4_0000, 0x4_0000 + 2 * TIB / PAGE)]),
        Regions::new(),
        0,
    );
    let at_boot = zones.nr_touched();
    let single = allocate(&zones, &mut buddy, 0).expect("a frame");
    assert_eq!(zones.nr_touched(), at_boot, "a frame was there");
    let before = buddy.nr_blocks(&zones, MAX_ORDER);
    let large = allocate(&zones, &mut buddy, MAX_ORDER).expect("16 GiB");
    let end = large.0 + (1 << MAX_ORDER);
    assert_eq!(zones.nr_touched(), end - 0x4_0000, "all below its end");
    // Not a frame in each section: on an emulator, memory that is never used is not there.
    assert!(linked() < 40, "links are in {} frames", linked());
    assert_eq!(buddy.nr_blocks(&zones, MAX_ORDER), before - 1);
    assert_eq!(zones.state(end), State::UNTOUCHED);
    assert!(
        buddy.free(&zones, Pfn(end), 0).is_err(),
        "what was never given out"
    );
    buddy.free(&zones, large, MAX_ORDER).expect("a block");
    buddy.free(&zones, single, 0).expect("a frame");
    assert_eq!(buddy.nr_free(), buddy.nr_total());
}

#[test]
fn frames_in_use_have_a_state_wherever_they_are() {
    let far = 0x4_0000 + TIB / PAGE;
    let free = regions([region(0x4_0000, 0x8_0000), region(far, far + 8 * SECTION)]);
    let single = regions([region(far + 8 * SECTION, far + 8 * SECTION + 3)]);
    let (zones, mut buddy) = begin(free, single, 0xff);
    for frame in far + 8 * SECTION..far + 8 * SECTION + 3 {
        buddy.free(&zones, Pfn(frame), 0).expect("a table of boot's");
    }
    assert_eq!(buddy.nr_free(), buddy.nr_total());
    assert_eq!(
        zones.nr_touched(),
        16 * SECTION,
        "9 for their sake, and 7 of the other run"
    );
}
