mod against_model;
mod cost;
mod ranges;

use super::space::TIGHT_TRIES;
use super::*;
use core::cell::Cell;
use std::boxed::Box;
use std::vec::Vec;

pub(super) const BASE: u64 = 0xf_fff8_0000_0025;

#[derive(Default)]
pub(super) struct HostPages {
    given: Cell<usize>,
}

impl NodePages for HostPages {
    fn node_page(&self) -> Option<&'static mut NodePage> {
        self.given.set(self.given.get() + 1);
        Some(Box::leak(Box::new(NodePage::uninit())))
    }
}

pub(super) fn node_page() -> &'static mut NodePage {
    HostPages::default().node_page().expect("host memory")
}

impl<const W: usize> Space<W> {
    pub fn new(start: Vpn, pages: u64, page: &'static mut NodePage) -> Self {
        let owner = core::ptr::from_ref::<NodePage>(page).addr() / size_of::<NodePage>();
        let mut space = Self::empty(owner as u16, pages, page);
        space.add(start, pages).expect("a page holds three nodes");
        space
    }

    pub fn nr_gaps(&self) -> usize {
        self.nr_gaps
    }
}

pub(super) fn space(pages: u64) -> Space<2> {
    Space::new(Vpn(BASE), pages, node_page())
}

pub(super) fn reserve(space: &mut Space<2>, fit: &Fit) -> Result<Area<2>, Error> {
    match space.reserve(fit, &[1, 2]) {
        Err(Error::NoNodes) => {
            space.feed(node_page());
            space.reserve(fit, &[1, 2])
        }
        done => done,
    }
}

pub(super) fn bare(pages: u64) -> Fit {
    Fit::new(pages).guarded(0, 0)
}

#[test]
fn thirty_six_areas_go_into_a_page() {
    assert_eq!(size_of::<node::Node<{ crate::record::WORDS }>>(), 112);
    assert_eq!(node::Pool::<{ crate::record::WORDS }>::NODES_PER_PAGE, 36);
}

#[test]
fn a_new_space_is_one_gap() {
    let space = space(100);
    let census = space.check().unwrap();
    assert_eq!((census.gaps, census.vacant, census.live), (1, 100, 0));
    let all: Vec<_> = space.segments_from(Vpn(0)).collect();
    assert_eq!(all.len(), 1);
    assert_eq!((all[0].first(), all[0].reserved()), (Vpn(BASE), 100));
}

#[test]
fn areas_follow_each_other_with_a_guard_page_between() {
    let mut space = space(100);
    let a = reserve(&mut space, &Fit::new(3)).unwrap();
    let b = reserve(&mut space, &Fit::new(1)).unwrap();
    assert_eq!((a.start(), a.pages(), a.reserved()), (Vpn(BASE), 3, 4));
    assert_eq!((b.start(), b.pages(), b.reserved()), (Vpn(BASE + 4), 1, 2));
    space.check().unwrap();
    space.release(a);
    space.release(b);
    assert_eq!(space.check().unwrap().gaps, 1);
}

#[test]
fn guards_belong_to_the_reservation() {
    let mut space = space(8);
    let a = reserve(&mut space, &Fit::new(3).guarded(2, 3)).unwrap();
    assert_eq!((a.start(), a.pages(), a.reserved()), (Vpn(BASE + 2), 3, 8));
    assert_eq!(
        reserve(&mut space, &bare(1)).err(),
        Some(Error::NoSpace { pages: 1 })
    );
}

#[test]
fn the_body_is_congruent_not_the_guard_before_it() {
    let mut space = space(1 << 12);
    let fit = Fit::new(5).congruent(64, 7).guarded(1, 1);
    let a = reserve(&mut space, &fit).unwrap();
    assert_eq!(a.start().0 % 64, 7);
    let b = reserve(&mut space, &Fit::new(5).congruent(64, 0).guarded(1, 1)).unwrap();
    assert_eq!(b.start().0 % 64, 0);
    space.check().unwrap();
}

#[test]
fn a_range_inside_a_gap_leaves_a_gap_on_either_side() {
    let mut space = space(1 << 12);
    let a = reserve(&mut space, &bare(16).congruent(1024, 5)).unwrap();
    let census = space.check().unwrap();
    assert_eq!((census.gaps, census.live), (2, 1));
    space.release(a);
    assert_eq!(space.check().unwrap().gaps, 1);
}

#[test]
fn an_exact_hole_is_filled_without_a_node() {
    let mut space = space(64);
    let a = reserve(&mut space, &bare(4)).unwrap();
    let b = reserve(&mut space, &bare(4)).unwrap();
    let start = a.start();
    space.release(a);
    let spare = space.nr_spare_nodes();
    let c = reserve(&mut space, &bare(4)).unwrap();
    assert_eq!((c.start(), space.nr_spare_nodes()), (start, spare));
    space.release(b);
    space.release(c);
    space.check().unwrap();
}

#[test]
fn freeing_never_takes_a_node() {
    let mut space = space(1 << 16);
    let mut areas: Vec<_> = (0..500)
        .map(|i| reserve(&mut space, &Fit::new(1 + i % 5)).unwrap())
        .collect();
    let mut keep = Vec::new();
    for (i, area) in areas.drain(..).enumerate() {
        if i % 2 == 0 {
            let spare = space.nr_spare_nodes();
            space.release(area);
            assert!(space.nr_spare_nodes() >= spare);
        } else {
            keep.push(area);
        }
    }
    space.check().unwrap();
    for area in keep {
        let spare = space.nr_spare_nodes();
        space.release(area);
        assert!(
            space.nr_spare_nodes() > spare,
            "an area between gaps frees its node and one gap's"
        );
    }
    assert_eq!(space.check().unwrap().gaps, 1);
}

#[test]
fn without_nodes_nothing_happens_and_the_error_says_so() {
    let mut space = space(1 << 16);
    let mut areas = Vec::new();
    let before = loop {
        let before = space.segments_from(Vpn(0)).count();
        match space.reserve(&Fit::new(1), &[0, 0]) {
            Ok(area) => areas.push(area),
            Err(error) => {
                assert_eq!(error, Error::NoNodes);
                break before;
            }
        }
    };
    assert_eq!(space.segments_from(Vpn(0)).count(), before);
    space.check().unwrap();
    space.feed(node_page());
    areas.push(space.reserve(&Fit::new(1), &[0, 0]).unwrap());
    space.check().unwrap();
}

#[test]
fn nonsense_is_refused_with_its_own_error() {
    let mut space = space(100);
    let mut error = |fit: Fit| reserve(&mut space, &fit).err();
    assert_eq!(error(Fit::new(0)), Some(Error::Empty));
    assert_eq!(
        error(Fit::new(1).congruent(0, 0)),
        Some(Error::BadAlignment { align: 0 })
    );
    assert_eq!(
        error(Fit::new(1).congruent(12, 0)),
        Some(Error::BadAlignment { align: 12 })
    );
    assert_eq!(
        error(Fit::new(1).congruent(8, 8)),
        Some(Error::BadPhase { phase: 8, align: 8 })
    );
    for pages in [100, 101, u64::MAX, u64::MAX - 1, 1 << 63] {
        assert_eq!(
            error(Fit::new(pages)),
            Some(Error::TooLarge {
                pages: pages.saturating_add(1),
                region: 100
            }),
            "{pages} pages and a guard"
        );
    }
    assert!(error(Fit::new(99)).is_none());
    assert_eq!(error(bare(1)), Some(Error::NoSpace { pages: 1 }));
    space.check().unwrap();
}

#[test]
fn an_alignment_that_no_address_has_is_refused() {
    let mut space = space(100);
    for shift in 10..64 {
        let fit = bare(1).congruent(1 << shift, 0);
        assert_eq!(
            reserve(&mut space, &fit).err(),
            Some(Error::NoAlignedSpace {
                pages: 1,
                align: 1 << shift,
                phase: 0
            }),
            "1 << {shift}"
        );
    }
    space.check().unwrap();
}

#[test]
fn sizes_and_alignments_beyond_32_bits_work_in_a_region_of_64_tib() {
    let pages = 1 << 34;
    let mut space = Space::<2>::new(Vpn(0xf_fff8_0000_0000), pages, node_page());
    let small = reserve(&mut space, &bare(1)).unwrap();
    // The first page is gone: three of four fit.
    let fit = bare(1 << 32).congruent(1 << 32, 0);
    let large: Vec<_> = (0..3).map(|_| reserve(&mut space, &fit).unwrap()).collect();
    for (i, area) in large.iter().enumerate() {
        assert_eq!(area.start().0, 0xf_fff8_0000_0000 + ((i as u64 + 1) << 32));
    }
    assert_eq!(
        reserve(&mut space, &fit).err(),
        Some(Error::NoSpace { pages: 1 << 32 }),
        "a gap of 2^32 - 1 pages counts as 2^32, and is no gap of that size"
    );
    let rest = reserve(&mut space, &bare((1 << 32) - 1)).unwrap();
    assert_eq!(space.check().unwrap().vacant, 0);
    for area in large.into_iter().chain([small, rest]) {
        space.release(area);
    }
    assert_eq!(space.check().unwrap().largest_gap, pages);
}

#[test]
fn what_is_entrusted_is_claimed_once_and_by_its_first_page_only() {
    let mut space = space(100);
    let area = reserve(&mut space, &Fit::new(4).guarded(1, 1)).unwrap();
    let start = area.start();
    let at = |offset: i64| Vpn(start.0.wrapping_add_signed(offset));
    assert_eq!(space.claim(start).err(), Some(Unclaimed::Owned));
    area.entrust();
    assert_eq!(space.claim(at(1)).err(), Some(Unclaimed::Interior));
    assert_eq!(space.claim(at(3)).err(), Some(Unclaimed::Interior));
    assert_eq!(space.claim(at(-1)).err(), Some(Unclaimed::Guard));
    assert_eq!(space.claim(at(4)).err(), Some(Unclaimed::Guard));
    assert_eq!(space.claim(at(5)).err(), Some(Unclaimed::Vacant));
    assert_eq!(space.claim(Vpn(BASE - 1)).err(), Some(Unclaimed::Outside));
    assert_eq!(space.claim(Vpn(BASE + 100)).err(), Some(Unclaimed::Outside));
    let mut area = space.claim(start).unwrap();
    assert_eq!(space.claim(start).err(), Some(Unclaimed::Owned));
    area.retire();
    assert_eq!(space.claim(start).err(), Some(Unclaimed::Freed));
    assert_eq!(space.check().unwrap().retired, 1);
    space.release(area);
    assert_eq!(space.claim(start).err(), Some(Unclaimed::Vacant));
}

#[test]
fn find_tells_the_area_of_an_interior_page_and_of_a_guard() {
    let mut space = space(100);
    let area = reserve(&mut space, &Fit::new(4)).unwrap();
    area.set_word(1, 77);
    for offset in 0..5 {
        let found = space.find(Vpn(BASE + offset)).unwrap();
        assert_eq!(
            (found.state(), found.start(), found.pages()),
            (State::Owned, area.start(), 4)
        );
        assert_eq!(found.contains(Vpn(BASE + offset)), offset < 4);
        assert_eq!([found.word(0), found.word(1)], [1, 77]);
    }
    assert_eq!(space.find(Vpn(BASE + 5)).unwrap().state(), State::Gap);
    assert!(space.find(Vpn(BASE + 100)).is_none());
    space.release(area);
}

#[test]
#[should_panic(expected = "an area of another space")]
fn an_area_of_another_space_is_a_broken_caller() {
    let (mut a, mut b) = (space(10), space(10));
    let area = reserve(&mut a, &bare(1)).unwrap();
    b.release(area);
}

#[test]
fn areas_that_wait_are_a_list() {
    let mut space = space(100);
    let mut list = List::new();
    for _ in 0..3 {
        let mut area = reserve(&mut space, &bare(1)).unwrap();
        area.retire();
        list.push(area);
    }
    let mut pages = Vec::new();
    for area in list {
        pages.push(area.start().0 - BASE);
        space.release(area);
    }
    assert_eq!(pages, [2, 1, 0]);
    assert_eq!(space.check().unwrap().gaps, 1);
}

#[test]
fn a_cache_gives_the_last_of_the_same_size_and_phase() {
    let mut space = space(1000);
    let mut cache = Cache::new(2, 0);
    let areas: Vec<_> = (0..3)
        .map(|_| reserve(&mut space, &Fit::new(1)).unwrap())
        .collect();
    let starts: Vec<_> = areas.iter().map(Area::start).collect();
    let mut given_up = Vec::new();
    for mut area in areas {
        area.retire();
        given_up.extend(cache.put(area));
    }
    assert_eq!(given_up.len(), 1, "its limit is 2");
    assert_eq!(given_up[0].start(), starts[1], "the one put last before");
    space.release(given_up.remove(0));
    assert_eq!((cache.nr_areas, cache.pages()), (2, 4));
    cache.check().unwrap();
    assert_eq!(space.check().unwrap().parked, 2);
    assert_eq!(
        space.find(starts[2]).unwrap().state(),
        State::Parked,
        "still reserved, and known"
    );
    assert!(cache.take(&Fit::new(2), &[0, 0]).is_none());
    assert!(cache.take(&bare(1), &[0, 0]).is_none());
    let wrong = Fit::new(1).congruent(2, (starts[2].0 + 1) % 2);
    assert!(cache.take(&wrong, &[0, 0]).is_none());
    let area = cache.take(&bare(2), &[8, 9]).unwrap();
    assert_eq!(
        (area.start(), area.pages(), [area.word(0), area.word(1)]),
        (starts[2], 2, [8, 9])
    );
    assert_eq!(space.find(starts[2]).unwrap().state(), State::Owned);
    space.release(area);
    let last = cache.give_up().unwrap();
    assert_eq!(last.start(), starts[0]);
    space.release(last);
    assert!(cache.give_up().is_none());
    cache.check().unwrap();
    assert_eq!(space.check().unwrap().gaps, 1);
}

#[test]
fn a_cache_refuses_large_areas_and_nonsense() {
    let mut space = space(1000);
    let mut cache = Cache::new(8, 0);
    let large = reserve(&mut space, &bare(MAX_CACHED_PAGES as u64 + 1)).unwrap();
    space.release(cache.put(large).unwrap());
    let largest = reserve(&mut space, &bare(MAX_CACHED_PAGES as u64)).unwrap();
    assert!(cache.put(largest).is_none());
    for pages in [0, MAX_CACHED_PAGES as u64 + 1, u64::MAX] {
        assert!(cache.take(&bare(pages), &[0, 0]).is_none());
        assert!(cache.take(&Fit::new(pages), &[0, 0]).is_none());
    }
    assert!(cache.take(&Fit::new(0).guarded(250, 7), &[0, 0]).is_none());
    assert!(
        cache
            .take(&bare(MAX_CACHED_PAGES as u64).congruent(3, 0), &[0, 0])
            .is_none()
    );
    let taken = cache.take(&bare(MAX_CACHED_PAGES as u64), &[0, 0]).unwrap();
    let mut nothing = Cache::new(0, 0);
    space.release(nothing.put(taken).unwrap());
}

#[test]
fn a_full_cache_gives_up_the_size_that_it_has_most_of() {
    let mut space = space(10_000);
    let mut cache = Cache::new(8, 0);
    let areas: Vec<_> = (0..8).map(|_| reserve(&mut space, &bare(3)).unwrap()).collect();
    for area in areas {
        assert!(cache.put(area).is_none());
    }
    for round in 0..20 {
        let area = cache.take(&bare(1), &[0, 0]);
        assert_eq!(area.is_some(), round != 0, "round {round}");
        let area = area.unwrap_or_else(|| reserve(&mut space, &bare(1)).unwrap());
        if let Some(given_up) = cache.put(area) {
            assert_eq!((given_up.pages(), round), (3, 0));
            space.release(given_up);
        }
        cache.check().unwrap();
    }
}

#[test]
fn what_is_not_touched_goes_by_quarters_and_what_is_in_use_stays() {
    let mut space = space(10_000);
    let mut cache = Cache::new(100, 0);
    let areas: Vec<_> = (0..32)
        .map(|i| reserve(&mut space, &bare(1 + i % 2)).unwrap())
        .collect();
    for area in areas {
        assert!(cache.put(area).is_none());
    }
    assert_eq!(
        cache.age(MAX_CACHED_PAGES, usize::MAX, |_| panic!("all of it is new")),
        0
    );
    let mut idle = 16;
    for _ in 0..12 {
        let used: Vec<_> = (0..16).map(|_| cache.take(&bare(1), &[0, 0]).unwrap()).collect();
        for area in used {
            assert!(cache.put(area).is_none());
        }
        let mut gone = Vec::new();
        let mut sizes = MAX_CACHED_PAGES;
        while sizes != 0 {
            let before = gone.len();
            sizes = cache.age(sizes, 3, |area| gone.push(area));
            assert!(gone.len() - before <= 3, "no more at once than asked for");
        }
        assert!(gone.iter().all(|area| area.pages() == 2));
        let expected = idle / 4 + usize::from(idle % 4 != 0);
        assert!(gone.len() >= expected, "{} of {idle}", gone.len());
        idle -= gone.len();
        gone.into_iter().for_each(|area| space.release(area));
        cache.check().unwrap();
    }
    assert_eq!((idle, cache.nr_areas), (0, 16));
}

#[test]
fn each_size_has_its_turn_however_few_are_aged_at_once() {
    let mut space = space(10_000);
    let mut cache = Cache::new(100, 0);
    for pages in 1..=10 {
        assert!(cache.put(reserve(&mut space, &bare(pages)).unwrap()).is_none());
    }
    assert_eq!(
        cache.age(MAX_CACHED_PAGES, usize::MAX, |_| panic!("all of it is new")),
        0
    );
    let mut gone = Vec::new();
    for round in 1..=3 {
        assert_eq!(cache.age(4, usize::MAX, |area| gone.push(area.pages())), 0);
        assert_eq!(gone, (1..=10).take(4 * round).collect::<Vec<_>>());
    }
    cache.check().unwrap();
}
