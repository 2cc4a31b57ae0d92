use super::*;
use crate::va::{Fit, Space, Unclaimed, Vpn};
use std::boxed::Box;

pub fn the_space_refuses(seen: &mut Seen) {
    let page = || Box::leak(Box::new(va::NodePage::uninit()));
    let mut space = Space::<2>::new(Vpn(1 << 20), 64, page());
    let words = [0; 2];
    let mut ask = |space: &mut Space<2>, fit: Fit, expected| {
        seen.refused_by_the_space(space.reserve(&fit, &words), expected);
    };
    ask(&mut space, Fit::new(0), va::Error::Empty);
    ask(
        &mut space,
        Fit::new(1).congruent(3, 0),
        va::Error::BadAlignment { align: 3 },
    );
    let (phase, align) = (4, 4);
    ask(
        &mut space,
        Fit::new(1).congruent(align, phase),
        va::Error::BadPhase { phase, align },
    );
    let (pages, region) = (65, 64);
    ask(&mut space, Fit::new(64), va::Error::TooLarge { pages, region });
    let area = space.reserve(&Fit::new(40), &words).unwrap();
    ask(&mut space, Fit::new(23), va::Error::NoSpace { pages: 24 });
    let (pages, align, phase) = (2, 1 << 30, 0);
    ask(
        &mut space,
        Fit::new(1).congruent(align, phase),
        va::Error::NoAlignedSpace { pages, align, phase },
    );
    let mut areas = Vec::new();
    let mut wide = Space::<2>::new(Vpn(0), 1 << 20, page());
    while let Ok(area) = wide.reserve(&Fit::new(1), &words) {
        areas.push(area);
    }
    ask(&mut wide, Fit::new(1), va::Error::NoNodes);
    areas.into_iter().for_each(|area| wide.release(area));
    let start = area.start();
    let claim = |space: &mut Space<2>, page, expected| {
        assert_eq!(space.claim(page).err(), Some(expected));
    };
    claim(&mut space, Vpn(0), Unclaimed::Outside);
    claim(&mut space, Vpn(start.0 + 50), Unclaimed::Vacant);
    claim(&mut space, start, Unclaimed::Owned);
    area.entrust();
    claim(&mut space, Vpn(start.0 + 39), Unclaimed::Interior);
    claim(&mut space, Vpn(start.0 + 40), Unclaimed::Guard);
    let mut area = space.claim(start).unwrap();
    area.retire();
    claim(&mut space, start, Unclaimed::Freed);
    space.release(area);
    space.check().unwrap();
}
