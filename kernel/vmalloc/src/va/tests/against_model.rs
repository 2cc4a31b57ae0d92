use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;

struct Model {
    start: u64,
    pages: u64,
    areas: BTreeMap<u64, u64>,
}

impl Model {
    fn gaps(&self) -> Vec<(u64, u64)> {
        let mut at = self.start;
        let mut gaps = Vec::new();
        for (first, pages) in &self.areas {
            if *first != at {
                gaps.push((at, first - at));
            }
            at = first + pages;
        }
        let end = self.start + self.pages;
        if at != end {
            gaps.push((at, end - at));
        }
        gaps
    }

    /// As `Space::reserve`, from every page of every gap.
    fn place(&self, fit: &Fit) -> Result<u64, Error> {
        let total = fit.pages + u64::from(fit.lead) + u64::from(fit.trail);
        let large: Vec<_> = self
            .gaps()
            .into_iter()
            .filter(|(_, pages)| *pages >= total)
            .collect();
        if large.is_empty() {
            return Err(Error::NoSpace { pages: total });
        }
        let lowest_in = |(first, pages): &(u64, u64)| {
            (*first..=first + pages - total).find(|at| (at + u64::from(fit.lead)) % fit.align == fit.phase)
        };
        large
            .iter()
            .take(TIGHT_TRIES)
            .find_map(lowest_in)
            .or_else(|| {
                let sure = large.iter().find(|(_, pages)| *pages >= total + fit.align - 1)?;
                let at = lowest_in(sure);
                assert!(at.is_some(), "a sure gap holds it");
                at
            })
            .ok_or(Error::NoAlignedSpace {
                pages: total,
                align: fit.align,
                phase: fit.phase,
            })
    }

    fn insert(&mut self, first: u64, pages: u64) {
        let before = self.areas.range(..first + pages).next_back();
        assert!(
            before.is_none_or(|(start, size)| start + size <= first),
            "{first:#x}+{pages} overlaps {before:?}"
        );
        assert!(first >= self.start && first + pages <= self.start + self.pages);
        self.areas.insert(first, pages);
    }
}

#[derive(Clone, Debug)]
enum Step {
    Reserve(Fit),
    Release(prop::sample::Index),
    Free(prop::sample::Index),
    Find(u64),
}

fn fits() -> impl Strategy<Value = Fit> {
    let pages = prop_oneof![8 => 1..6u64, 3 => 1..70u64, 1 => 1..700u64];
    (pages, 0..9u32, any::<u64>(), 0..2u16, 0..2u16, any::<bool>()).prop_map(
        |(pages, shift, phase, lead, trail, aligned)| {
            let shift = if aligned { shift } else { 0 };
            Fit::new(pages)
                .congruent(1 << shift, phase & ((1 << shift) - 1))
                .guarded(lead, trail)
        },
    )
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => fits().prop_map(Step::Reserve),
        3 => any::<prop::sample::Index>().prop_map(Step::Release),
        1 => any::<prop::sample::Index>().prop_map(Step::Free),
        1 => any::<u64>().prop_map(Step::Find),
    ];
    prop::collection::vec(step, 1..300)
}

fn run(region: u64, steps: &[Step]) {
    let mut space = space(region);
    let mut model = Model {
        start: BASE,
        pages: region,
        areas: BTreeMap::new(),
    };
    let mut areas: Vec<Area<2>> = Vec::new();
    for step in steps {
        match step {
            Step::Reserve(fit) if fit.pages + fit.guards() > region => {
                let error = reserve(&mut space, fit).err();
                assert_eq!(
                    error,
                    Some(Error::TooLarge {
                        pages: fit.pages + fit.guards(),
                        region
                    })
                );
            }
            Step::Reserve(fit) => match (reserve(&mut space, fit), model.place(fit)) {
                (Ok(area), Ok(first)) => {
                    assert_eq!(area.start().0, first + u64::from(fit.lead));
                    assert_eq!(area.pages(), fit.pages);
                    assert_eq!(area.start().0 % fit.align, fit.phase);
                    model.insert(first, area.reserved());
                    areas.push(area);
                }
                (Err(error), Err(expected)) => assert_eq!(error, expected),
                (area, place) => panic!("{fit:?}: {area:?}, the model says {place:x?}"),
            },
            Step::Release(index) if !areas.is_empty() => {
                let area = areas.swap_remove(index.index(areas.len()));
                let first = space.find(area.start()).unwrap().first().0;
                assert_eq!(model.areas.remove(&first), Some(area.reserved()));
                space.release(area);
            }
            Step::Free(index) if !areas.is_empty() => {
                let area = areas.swap_remove(index.index(areas.len()));
                let start = area.start();
                let first = space.find(start).unwrap().first().0;
                area.entrust();
                let mut area = space.claim(start).unwrap();
                area.retire();
                assert!(matches!(space.claim(start), Err(Unclaimed::Freed)));
                assert_eq!(model.areas.remove(&first), Some(area.reserved()));
                space.release(area);
            }
            Step::Find(at) => {
                let page = BASE + at % region;
                let found = space.find(Vpn(page)).unwrap();
                let expected = model
                    .areas
                    .range(..=page)
                    .next_back()
                    .filter(|(first, pages)| page - **first < **pages);
                match expected {
                    None => assert_eq!(found.state(), State::Gap),
                    Some((first, pages)) => {
                        assert_eq!((found.first().0, found.reserved()), (*first, *pages));
                        assert!(found.state().is_live());
                    }
                }
            }
            Step::Release(_) | Step::Free(_) => {}
        }
        let census = space.check().unwrap_or_else(|v| panic!("{v} after {step:?}"));
        assert_eq!(census.live, model.areas.len());
        assert_eq!(census.gaps, model.gaps().len());
        assert_eq!(census.reserved, model.areas.values().sum::<u64>());
    }
    let listed: Vec<_> = space
        .segments_from(Vpn(0))
        .filter(|segment| segment.state() != State::Gap)
        .map(|segment| (segment.first().0, segment.reserved()))
        .collect();
    assert!(
        listed
            .iter()
            .copied()
            .eq(model.areas.iter().map(|(a, b)| (*a, *b)))
    );
    for area in areas {
        space.release(area);
        space.check().unwrap();
    }
    assert_eq!(space.check().unwrap().largest_gap, region);
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 400,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn reserve_goes_where_the_model_says_in_a_region_that_runs_out(region in 1..3000u64, steps in steps()) {
        run(region, &steps);
    }

    #[test]
    fn reserve_goes_where_the_model_says_in_a_roomy_region(steps in steps()) {
        run(1 << 20, &steps);
    }
}
