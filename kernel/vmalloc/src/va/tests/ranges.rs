use super::*;
use proptest::prelude::*;
use std::collections::BTreeSet;

const PIECE: u64 = 8;

fn empty() -> Space<2> {
    Space::empty(7, 1 << 20, node_page())
}

fn add(space: &mut Space<2>, start: u64, pages: u64) {
    while space.add(Vpn(start), pages) == Err(Error::NoNodes) {
        space.feed(node_page());
    }
    space.check().unwrap();
}

#[test]
fn an_empty_space_has_nothing_to_give() {
    let mut space = empty();
    assert_eq!(
        reserve(&mut space, &bare(1)).err(),
        Some(Error::NoSpace { pages: 1 })
    );
    assert!(space.find(Vpn(0)).is_none());
    assert_eq!(space.segments_from(Vpn(0)).count(), 0);
    assert_eq!(space.remove(Vpn(0), 1), Ok(false));
    assert_eq!(space.lowest(&bare(1)), Err(Error::NoSpace { pages: 1 }));
    space.check().unwrap();
}

#[test]
fn no_area_lies_across_a_hole_between_two_ranges() {
    let mut space = empty();
    add(&mut space, 100, 8);
    add(&mut space, 116, 8);
    assert_eq!(space.pages, 16);
    assert_eq!(
        reserve(&mut space, &bare(9)).err(),
        Some(Error::NoSpace { pages: 9 })
    );
    let low = reserve(&mut space, &bare(5)).unwrap();
    let high = reserve(&mut space, &bare(5)).unwrap();
    assert_eq!((low.start(), high.start(), low.owner()), (Vpn(100), Vpn(116), 7));
    assert!(space.find(Vpn(108)).is_none(), "not of this space");
    assert_eq!(space.claim(Vpn(110)).err(), Some(Unclaimed::Outside));
    let from: Vec<_> = space
        .segments_from(Vpn(110))
        .map(|segment| segment.first())
        .collect();
    assert_eq!(from, [Vpn(116), Vpn(121)], "from the hole on");
    add(&mut space, 108, 8);
    space.release(high);
    let census = space.check().unwrap();
    assert_eq!((census.gaps, census.largest_gap), (1, 19));
    space.release(low);
}

#[test]
fn only_what_is_free_whole_is_removed() {
    let mut space = empty();
    add(&mut space, 0, 32);
    let area = reserve(&mut space, &bare(1).congruent(16, 8)).unwrap();
    assert_eq!(space.remove(Vpn(8), 8), Ok(false), "the area is in it");
    assert_eq!(
        space.remove(Vpn(24), 16),
        Ok(false),
        "not all of it is the space's"
    );
    assert_eq!(space.remove(Vpn(16), 8), Ok(true), "out of the middle");
    space.check().unwrap();
    assert_eq!((space.pages, space.remove(Vpn(16), 8)), (24, Ok(false)));
    space.release(area);
    assert_eq!(space.check().unwrap().gaps, 2);
}

#[test]
fn a_range_that_is_too_small_for_an_area_does_not_come() {
    let mut space = empty();
    space.feed(node_page());
    for (fit, error) in [
        (bare(9), Error::TooLarge { pages: 9, region: 8 }),
        (bare(3).congruent(8, 6), Error::NoSpace { pages: 3 }),
        (bare(0), Error::Empty),
    ] {
        assert_eq!(space.add_reserved(Vpn(96), 8, &fit, &[0; 2]).err(), Some(error));
    }
    let mut hungry = Space::<2>::empty(7, 1 << 20, node_page());
    while hungry.nr_spare_nodes() > 2 {
        let at = (hungry.nr_areas as u64) * 2;
        let _ = hungry.add_reserved(Vpn(at), 1, &bare(1), &[0; 2]).unwrap();
    }
    let amid = bare(2).congruent(4, 2);
    let refused = hungry.add_reserved(Vpn(1000), 8, &amid, &[0; 2]);
    assert_eq!(refused.err(), Some(Error::NoNodes));
    assert!(hungry.find(Vpn(1000)).is_none());
    assert_eq!((space.pages, space.nr_areas), (0, 0));
    space.check().unwrap();
    hungry.check().unwrap();
}

#[test]
#[should_panic(expected = "are in the space already")]
fn a_range_that_is_there_already_is_a_broken_caller() {
    let mut space = empty();
    add(&mut space, 0, 32);
    let _ = space.add(Vpn(31), 2);
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 200,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn pieces_come_and_go_beside_areas(steps in prop::collection::vec((0..4u8, 0..40u64, 1..9u64), 1..250)) {
        let mut space = empty();
        let mut pieces = BTreeSet::new();
        let mut areas: Vec<Area<2>> = Vec::new();
        for (what, piece, pages) in steps {
            match what {
                0 => if pieces.insert(piece) {
                    add(&mut space, piece * PIECE, PIECE);
                },
                1 => {
                    let free = pieces.contains(&piece) && areas.iter().all(|area| {
                        area.first().0 + area.reserved() <= piece * PIECE || (piece + 1) * PIECE <= area.first().0
                    });
                    if space.nr_spare_nodes() == 0 {
                        space.feed(node_page());
                    }
                    prop_assert_eq!(space.remove(Vpn(piece * PIECE), PIECE), Ok(free));
                    if free {
                        pieces.remove(&piece);
                    }
                }
                2 => if let Ok(area) = reserve(&mut space, &bare(pages)) {
                    for page in area.first().0..area.first().0 + area.reserved() {
                        prop_assert!(pieces.contains(&(page / PIECE)), "page {} of no piece", page);
                    }
                    areas.push(area);
                },
                _ => if !areas.is_empty() {
                    let index = piece as usize % areas.len();
                    space.release(areas.swap_remove(index));
                },
            }
            let census = space.check().unwrap_or_else(|violation| panic!("{violation}"));
            prop_assert_eq!(census.live, areas.len());
            prop_assert_eq!(space.pages, pieces.len() as u64 * PIECE);
        }
    }

    #[test]
    fn a_range_can_come_with_an_area_in_it(steps in prop::collection::vec((0..20u64, 1..9u64, 0..4u32, 0..8u64, any::<bool>()), 1..120)) {
        let (mut one, mut other) = (empty(), empty());
        let mut areas: Vec<(Area<2>, Area<2>)> = Vec::new();
        for (piece, pages, align, phase, ends) in steps {
            let fit = bare(pages).congruent(1 << align, phase & ((1 << align) - 1)).guarded((phase % 2) as u16, 0);
            let is_there = other.find(Vpn(piece * PIECE)).is_some();
            match (reserve(&mut one, &fit), reserve(&mut other, &fit)) {
                (Ok(area), Ok(same)) => areas.push((area, same)),
                (Err(_), Err(_)) if !is_there => {
                    one.feed(node_page());
                    let Ok(area) = one.add_reserved(Vpn(piece * PIECE), PIECE, &fit, &[1, 2]) else {
                        prop_assert!(one.find(Vpn(piece * PIECE)).is_none(), "it came, and no area with it");
                        continue;
                    };
                    add(&mut other, piece * PIECE, PIECE);
                    let same = match reserve(&mut other, &fit) {
                        Ok(same) => same,
                        // It tries a few gaps only, and this one may be behind them.
                        Err(error) => {
                            let given_up = matches!(error, Error::NoAlignedSpace { .. });
                            prop_assert!(given_up, "{:?}", error);
                            return Ok(());
                        }
                    };
                    areas.push((area, same));
                }
                (one, other) => prop_assert_eq!(one.err(), other.err()),
            }
            if ends && !areas.is_empty() {
                let (area, same) = areas.swap_remove(piece as usize % areas.len());
                one.release(area);
                other.release(same);
            }
            one.check().unwrap_or_else(|violation| panic!("{violation}"));
            let bounds = |space: &Space<2>| -> Vec<_> {
                space.segments_from(Vpn(0)).map(|segment| (segment.state(), segment.first(), segment.reserved(), segment.start())).collect()
            };
            prop_assert_eq!(bounds(&one), bounds(&other));
            prop_assert_eq!((one.pages, one.nr_areas, one.nr_gaps(), one.reserved), (other.pages, other.nr_areas, other.nr_gaps(), other.reserved));
        }
    }
}
