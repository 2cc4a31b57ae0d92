use super::*;
use paging::{Extent, Extents, FrameArray, Granule4K, PageArray};
use std::vec::Vec;

fn places(pa: u64, pages: u64, align: u64) -> Vec<(u64, u64)> {
    let run = Run {
        pa: PhysAddr(pa),
        pages,
    };
    let phase = Phase::of_run::<Granule4K>(run, LeafSet::ALL);
    let places: Vec<_> = candidates::<Granule4K>(Fit::new(pages), phase, align, LeafSet::ALL).collect();
    assert_eq!(best::<Granule4K>(Fit::new(pages), phase, align), places[0]);
    places.iter().map(|fit| (fit.align, fit.phase)).collect()
}

fn place_of(extents: &[(u64, u64)], allowed: LeafSet) -> (u64, u64) {
    let extents: Vec<_> = extents
        .iter()
        .map(|(start, pages)| Extent {
            start: Pfn(*start),
            pages: *pages,
        })
        .collect();
    let new = || Extents::new(&extents);
    let phase = Phase::of_source::<Granule4K, _>(&mut new(), allowed, new);
    let pages = extents.iter().map(|extent| extent.pages).sum();
    let fit = best::<Granule4K>(Fit::new(pages), phase, 0x1000);
    (fit.align, fit.phase)
}

fn place_of_array(extents: &[(u64, u64)], allowed: LeafSet) -> ((u64, u64), usize) {
    struct Counted(Vec<Pfn>, core::cell::Cell<usize>);
    impl FrameArray for Counted {
        fn nr_frames(&self) -> usize {
            self.0.len()
        }
        fn frame(&self, index: usize) -> Option<Pfn> {
            self.1.set(self.1.get() + 1);
            self.0.get(index).copied()
        }
    }
    let frames = frames_of(extents);
    let pages = frames.len() as u64;
    let counted = Counted(frames, core::cell::Cell::new(0));
    let new = || PageArray::new(&counted);
    let phase = Phase::of_source::<Granule4K, _>(&mut new(), allowed, new);
    let fit = best::<Granule4K>(Fit::new(pages), phase, 0x1000);
    ((fit.align, fit.phase), counted.1.get())
}

fn place_of_numbers(frames: &[Pfn]) -> (u64, u64) {
    let new = || PageArray::new(frames);
    let phase = Phase::of_source::<Granule4K, _>(&mut new(), LeafSet::ALL, new);
    let fit = best::<Granule4K>(Fit::new(frames.len() as u64), phase, 0x1000);
    (fit.align, fit.phase)
}

fn frames_of(extents: &[(u64, u64)]) -> Vec<Pfn> {
    extents
        .iter()
        .flat_map(|(start, pages)| (0..*pages).map(move |page| Pfn(start + page)))
        .collect()
}

#[test]
fn a_run_without_a_leaf_goes_anywhere() {
    assert_eq!(places(0x1000, 15, 0x1000), [(1, 0)]);
    assert_eq!(
        places(0x1000, 30, 0x1000),
        [(1, 0)],
        "30 pages from page 1: no aligned 16"
    );
    assert_eq!(places(0x1000, 31, 0x1000), [(16, 1), (1, 0)]);
}

#[test]
fn a_run_is_placed_at_its_own_phase_and_then_at_less() {
    assert_eq!(
        places((2 << 20) - 0x1_0000, 512 + 16, 0x1000),
        [(512, 512 - 16), (16, 0), (1, 0)]
    );
    assert_eq!(
        places(1 << 30, 1 << 18, 0x1000),
        [(1 << 18, 0), (1 << 13, 0), (512, 0), (16, 0), (1, 0)]
    );
}

#[test]
fn what_the_caller_insists_on_is_never_given_up() {
    assert_eq!(places(2 << 20, 512, 2 << 20), [(512, 0)]);
    assert_eq!(places(2 << 20, 512, 0x1_0000), [(512, 0), (16, 0)]);
    assert_eq!(
        places(0x1000, 1024, 0x1_0000),
        [(16, 0)],
        "the memory is not so aligned"
    );
}

#[test]
fn the_run_with_the_largest_leaf_is_followed() {
    for (extents, place) in [
        (&[(3, 5), (512, 512)][..], (512, 512 - 5)),
        (&[(0x100, 16), (1024, 600), (4096, 512)], (512, 512 - 16)),
        (&[(7, 1), (512, 16), (1024, 16)], (16, 15)),
        (&[(7, 1), (512, 15)], (1, 0)),
    ] {
        assert_eq!(place_of(extents, LeafSet::ALL), place, "{extents:?}");
        assert_eq!(place_of_array(extents, LeafSet::ALL).0, place, "{extents:?}");
        assert_eq!(place_of_numbers(&frames_of(extents)), place, "{extents:?}");
    }
    let extents = [(7, 1), (9, 1), (11, 1), (512, 512)];
    assert_eq!(place_of(&extents, LeafSet::ALL), (512, 509));
    assert_eq!(place_of(&[(7, 5), (512, 512)], LeafSet::PAGES), (1, 0));
}

#[test]
fn a_block_in_the_middle_of_an_array_is_found() {
    let extents = [(7, 3), (9, 200), (1024, 2048), (99, 17)];
    assert_eq!(place_of_array(&extents, LeafSet::ALL).0, (512, 512 - 203));
}

#[test]
fn a_long_run_of_an_array_is_known_by_its_ends() {
    let (place, looks) = place_of_array(&[(512, 512)], LeafSet::ALL);
    assert_eq!((place, looks <= 40), ((512, 0), true), "one block, {looks} looks");
    let (place, looks) = place_of_array(&[(512 - 16, 512 + 16)], LeafSet::ALL);
    assert_eq!(
        (place, looks <= 40),
        ((512, 512 - 16), true),
        "a block behind 16 pages, {looks} looks"
    );
    let (place, _) = place_of_array(&[(1 << 13, 1 << 13)], LeafSet::ALL);
    assert_eq!(place, (1 << 13, 0), "a group of blocks");
    let (place, _) = place_of_array(&[(1 << 13, (1 << 13) - 1), (3, 1)], LeafSet::ALL);
    assert_eq!(place, (512, 0), "a page less than a group of blocks");
    let (place, _) = place_of_array(&[(512, 511), (3, 1)], LeafSet::ALL);
    assert_eq!(place, (16, 0), "a page less than a block");
}

#[test]
fn frame_numbers_in_memory_have_the_place_of_those_that_are_asked_for() {
    for first in 0..20 {
        for pages in [2, 15, 16, 17, 30, 31, 32, 47, 512, 1023, 1024] {
            for extents in [
                &[(1024 + first, pages)][..],
                &[(7, first + 1), (1024, pages)],
                &[(1024 + first, pages), (9, 20)],
            ] {
                let place = place_of_array(extents, LeafSet::ALL).0;
                assert_eq!(place_of_numbers(&frames_of(extents)), place, "{extents:?}");
            }
        }
    }
    // By its ends it looks like one run.
    let mut frames = frames_of(&[(512, 31)]);
    frames.swap(3, 4);
    assert_eq!(place_of_numbers(&frames), (16, 0));
}

#[test]
fn no_more_is_looked_at_in_more_pages() {
    let mut runs: Vec<_> = (0..=MAX_RUNS as u64).map(|i| (100 + 2 * i, 1)).collect();
    runs.push((512, 512));
    assert_eq!(place_of(&runs, LeafSet::ALL), (1, 0));
    for pages in [2000, 100_000] {
        let singles: Vec<_> = (0..pages).map(|i| (2 * i, 1)).collect();
        let (place, looked_at) = place_of_array(&singles, LeafSet::ALL);
        assert_eq!(
            (place, looked_at),
            ((1, 0), 2 + 2 + 3 + 3),
            "of {pages} pages: of each run its end, and of the last two the start of a block"
        );
    }
}

struct Strict<'a> {
    pages: PageArray<'a, [Option<Pfn>]>,
    asked: u64,
}

impl PhysSource<Granule4K> for Strict<'_> {
    const RUNS_ARE_FREE: bool = false;

    paging::passed_by_reference!();
    fn pages(&self) -> u64 {
        PhysSource::<Granule4K>::pages(&self.pages)
    }
    fn run_at(&mut self, page: u64, limit: u64) -> Option<Run> {
        assert!(
            page >= self.asked,
            "page {page} is asked for after page {}",
            self.asked
        );
        assert!(limit >= 1 && page < PhysSource::<Granule4K>::pages(self));
        self.asked = page;
        PhysSource::<Granule4K>::run_at(&mut self.pages, page, limit)
    }
}

#[test]
fn pages_are_looked_at_in_order_wherever_one_is_missing() {
    for extents in [
        &[(512, 512)][..],
        &[(512 - 16, 512 + 16)],
        &[(1 << 13, 1500)],
        &[(7, 1), (1024, 600)],
        &[(7, 40), (0x30, 40), (1024, 700)],
        &[(3, 20), (9, 11)],
    ] {
        let frames = frames_of(extents);
        for hole in 0..=frames.len() {
            let with_hole = |(i, frame): (usize, &Pfn)| (i != hole).then_some(*frame);
            let frames: Vec<_> = frames.iter().enumerate().map(with_hole).collect();
            let new = || Strict {
                pages: PageArray::new(&frames[..]),
                asked: 0,
            };
            let mut source = new();
            let phase = Phase::of_source::<Granule4K, _>(&mut source, LeafSet::ALL, new);
            assert!(
                source.run_at(0, 1).is_some() || hole == 0,
                "{extents:?} but for {hole}: {phase:?}"
            );
        }
    }
}
