//! Node visits are O(log n), from 100 to 100,000 areas.

use super::*;

/// In a weak AVL tree.
fn max_height(n: usize) -> u64 {
    (2.0 * ((n + 1) as f64).log2()) as u64
}

/// A descent is a path, the next candidate two, a node that comes or goes a path and two rotations,
/// a gap's new size a path.
struct Bounds {
    height: u64,
}

impl Bounds {
    fn of(space: &Space<2>) -> Self {
        Self {
            height: max_height(space.nr_areas + space.nr_gaps() + 2),
        }
    }
    fn find(&self) -> u64 {
        self.height
    }
    fn reserve(&self, aligned: bool) -> u64 {
        let search = if aligned {
            (1 + 2 * TIGHT_TRIES as u64 + 1) * self.height
        } else {
            self.height
        };
        // At most two nodes come, and two gaps change.
        search + 2 * (self.height + 2) + 2 * self.height
    }
    fn release(&self) -> u64 {
        // At most two nodes go, both gaps before, and one gap changes.
        2 * (self.height + 2) + 3 * self.height
    }
}

fn visits<R>(space: &mut Space<2>, f: impl FnOnce(&mut Space<2>) -> R) -> (R, u64) {
    let before = space.tree.visits.get();
    let result = f(space);
    (result, space.tree.visits.get() - before)
}

struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

/// With a hole of one page behind each.
fn populate(n: u64, odd_holes: bool) -> (Space<2>, Vec<Area<2>>) {
    let mut space = Space::new(Vpn(1 << 40), 1 << 34, node_page());
    let mut numbers = Numbers(n + 1);
    let mut areas = Vec::new();
    let mut holes = Vec::new();
    for _ in 0..n {
        let mut pages = 1 + numbers.next() % 4;
        let at = areas
            .last()
            .map_or(1 << 40, |area: &Area<2>| area.start().0 + area.reserved() + 1);
        if odd_holes && (at + pages).is_multiple_of(2) {
            pages += 1;
        }
        areas.push(reserve(&mut space, &bare(pages)).unwrap());
        holes.push(reserve(&mut space, &bare(1)).unwrap());
    }
    for hole in holes {
        assert!(!odd_holes || hole.start().0 % 2 == 1);
        space.release(hole);
    }
    (space, areas)
}

fn measure(space: &mut Space<2>, fit: &Fit) -> (u64, u64, u64) {
    let aligned = fit.align != 1;
    let bounds = Bounds::of(space);
    while space.nr_spare_nodes() < 2 {
        space.feed(node_page());
    }
    let (area, reserve) = visits(space, |space| space.reserve(fit, &[0, 0]));
    assert!(reserve <= bounds.reserve(aligned), "reserve {fit:?}: {reserve}");
    let Ok(area) = area else {
        return (reserve, 0, 0);
    };
    let page = Vpn(area.start().0 + area.pages() - 1);
    let (found, find) = visits(space, |space| space.find(page).map(|found| found.start()));
    assert_eq!(found, Some(area.start()));
    assert!(find <= bounds.find(), "find: {find}");
    let ((), release) = visits(space, |space| space.release(area));
    assert!(release <= bounds.release(), "release {fit:?}: {release}");
    (reserve, find, release)
}

#[test]
fn visits_grow_with_the_logarithm_of_the_number_of_areas() {
    for n in [100, 1_000, 10_000, 100_000] {
        let (mut space, mut areas) = populate(n, false);
        assert_eq!(
            space.nr_gaps() as u64,
            n,
            "every hole is a gap, and the last one joins the rest"
        );
        let mut numbers = Numbers(7);
        for round in 0..2_000 {
            if !areas.is_empty() && round % 2 == 0 {
                let area = areas.swap_remove(numbers.next() as usize % areas.len());
                let bounds = Bounds::of(&space);
                let ((), release) = visits(&mut space, |space| space.release(area));
                assert!(release <= bounds.release());
            }
            let shift = numbers.next() % 19;
            let align = 1 << shift;
            let fit = Fit::new(1 + numbers.next() % 600).congruent(align, numbers.next() % align);
            measure(&mut space, &fit);
            measure(&mut space, &Fit::new(1));
            measure(&mut space, &bare(1));
        }
        space.check().unwrap();
    }
}

#[test]
fn a_phase_that_no_hole_has_costs_no_more_with_more_holes() {
    let mut worst = Vec::new();
    for n in [100, 1_000, 10_000, 100_000] {
        let (mut space, _areas) = populate(n, true);
        let fit = bare(1).congruent(2, 0);
        let (reserve, _, _) = measure(&mut space, &fit);
        worst.push(reserve);
    }
    // A path grows by log2(10) * 1.44 levels per factor of ten.
    assert!(
        worst[3] <= worst[0] + 3 * 5 * (2 * TIGHT_TRIES as u64 + 5),
        "{worst:?}"
    );
}

#[test]
fn a_range_that_comes_and_goes_does_not_walk_to_the_root_each_time() {
    for n in 1000..1100 {
        let mut space = Space::<2>::new(Vpn(1 << 40), 1 << 34, node_page());
        let areas: Vec<_> = (0..n)
            .map(|_| reserve(&mut space, &Fit::new(1)).unwrap())
            .collect();
        let (_, steady) = visits(&mut space, |space| {
            for _ in 0..100 {
                let large = reserve(space, &Fit::new(100)).unwrap();
                let small = reserve(space, &Fit::new(1)).unwrap();
                space.release(large);
                space.release(small);
            }
        });
        let descents = 2 * max_height(space.nr_areas + 2);
        assert!(
            steady <= 100 * (descents + 8 * 4),
            "{n} areas: {steady} in 100 rounds"
        );
        assert_eq!(areas.len(), space.nr_areas);
    }
}

#[test]
fn a_gap_that_is_not_there_is_known_at_the_root() {
    let mut space = Space::<2>::new(Vpn(BASE), 200_000, node_page());
    let areas: Vec<_> = (0..100_000)
        .map(|_| reserve(&mut space, &bare(2)).unwrap())
        .collect();
    let mut kept = Vec::new();
    for (i, area) in areas.into_iter().enumerate() {
        if i % 2 == 0 {
            space.release(area);
        } else {
            kept.push(area);
        }
    }
    assert_eq!(space.check().unwrap().gaps, 50_000);
    let (result, visits) = visits(&mut space, |space| space.reserve(&bare(3), &[0, 0]));
    assert_eq!((result.err(), visits), (Some(Error::NoSpace { pages: 3 }), 0));
}

#[test]
fn ascending_descending_and_alternating_frees_keep_the_tree_balanced() {
    for order in 0..3 {
        let (mut space, areas) = populate(5_000, false);
        let mut areas: Vec<_> = areas.into_iter().map(Some).collect();
        let n = areas.len();
        for i in 0..n {
            let at = match order {
                0 => i,
                1 => n - 1 - i,
                _ if i % 2 == 0 => i / 2,
                _ => n - 1 - i / 2,
            };
            space.release(areas[at].take().unwrap());
            if i % 97 == 0 {
                space.check().unwrap();
            }
        }
        let census = space.check().unwrap();
        assert_eq!((census.gaps, census.height), (1, 1));
    }
}
