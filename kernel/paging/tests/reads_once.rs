use crate::support;

use paging::{
    Attributes, Config, Error, Extent, Extents, FrameArray, Granule, Granule4K, Granule16K, Granule64K,
    LeafSet, LeafSize, PageArray, Pfn, PhysSource, Piece, Run, TinyGranule, VirtAddr, VirtRange,
    vmap_pages_range_noflush_walk,
};
use std::cell::Cell;
use support::{HostTree, Rng, tree};

const DATA: Attributes = Attributes::KERNEL_DATA;

struct Counted {
    frames: Vec<Option<Pfn>>,
    reads: Vec<Cell<u32>>,
}

impl Counted {
    fn new(frames: impl IntoIterator<Item = Option<u64>>) -> Self {
        let frames: Vec<_> = frames.into_iter().map(|frame| frame.map(Pfn)).collect();
        let reads = frames.iter().map(|_| Cell::new(0)).collect();
        Self { frames, reads }
    }

    fn of_runs(runs: &[(u64, u64)]) -> Self {
        Self::new(
            runs.iter()
                .flat_map(|(first, pages)| (*first..first + pages).map(Some)),
        )
    }

    fn reads(&self) -> Vec<u32> {
        self.reads.iter().map(Cell::get).collect()
    }

    fn assert_each_once(&self, what: &str) {
        let odd = self
            .reads()
            .iter()
            .enumerate()
            .find(|(_, nr)| **nr != 1)
            .map(|(i, nr)| (i, *nr));
        assert_eq!(odd, None, "(element, reads) of {what}");
    }

    fn assert_none_twice(&self, what: &str) {
        let odd = self
            .reads()
            .iter()
            .enumerate()
            .find(|(_, nr)| **nr > 1)
            .map(|(i, nr)| (i, *nr));
        assert_eq!(odd, None, "(element, reads) of {what}");
    }
}

impl FrameArray for Counted {
    fn nr_frames(&self) -> usize {
        self.frames.len()
    }

    fn frame(&self, index: usize) -> Option<Pfn> {
        self.reads[index].set(self.reads[index].get() + 1);
        self.frames[index]
    }
}

fn map<G: Granule>(tree: &HostTree<G>, va: VirtAddr, array: &Counted, allowed: LeafSet) -> Result<(), Error> {
    vmap_pages_range_noflush_walk(tree, va, array, DATA, allowed)
        .map(|_| ())
        .map_err(|failure| failure.error)
}

fn clear<G: Granule>(tree: &HostTree<G>) {
    let mut batch = tree.batch();
    tree.unmap(tree.range(), &mut batch).expect("takes no memory");
    batch.flush();
}

fn base<G: Granule>(tree: &HostTree<G>) -> VirtAddr {
    tree.range().start.add(1 << (G::VA_BITS - 2))
}

#[test]
fn one_run_is_read_once_at_every_alignment() {
    let tree = tree::<Granule4K>(Config::default(), false);
    for va in 0..16 {
        for pa in 0..16 {
            for pages in 1..=64 {
                let array = Counted::of_runs(&[((1 << 20) + pa, pages)]);
                map(&tree, base(&tree).add(va << 12), &array, LeafSet::ALL).expect("mapped");
                array.assert_each_once(&format!("{pages} pages, va {va}, pa {pa} mod 16"));
                clear(&tree);
            }
        }
    }
}

#[test]
fn a_run_across_leaves_and_tables_is_read_once() {
    let tree = tree::<Granule4K>(Config::default(), false);
    for (va, pa, pages) in [
        (0, 0, 20 * 512 + 37),
        (1, 1, 20 * 512 + 37),
        (0, 1, 20 * 512 + 37),
        (16, 16, 3 * 512),
        (512, 512, 16 * 512 + 1),
        (512, 0, 33 * 512),
        (512 * 511, 512 * 511, 4 * 512),
        (512 * 511 + 511, 511, 600),
    ] {
        let array = Counted::of_runs(&[((1 << 21) + pa, pages)]);
        map(&tree, base(&tree).add(va << 12), &array, LeafSet::ALL).expect("mapped");
        array.assert_each_once(&format!("{pages} pages at page {va} from frame {pa}"));
        clear(&tree);
    }
}

fn random_arrays<G: Granule>(seed: u64, rounds: u64, max: u64) {
    let mut rng = Rng(seed);
    let tree = tree::<G>(Config::default(), false);
    for round in 0..rounds {
        let start = rng.below(max);
        let mut runs = Vec::new();
        let mut total = 0;
        while total < max - start {
            let align = 1 << rng.below(12);
            let pages = (1 + if rng.below(2) == 0 {
                rng.below(max)
            } else {
                rng.below(5)
            })
            .min(max - start - total);
            let first = 0x10_0000
                + match rng.below(3) {
                    0 => start + total,
                    1 => rng.below(64) * align,
                    _ => rng.below(0x1000),
                };
            runs.push((first, pages));
            total += pages;
        }
        let allowed = match rng.below(4) {
            0 => LeafSet::PAGES,
            1 => LeafSet::ALL.without_groups(),
            2 => LeafSet::ALL.at_most(LeafSize::PAGE_GROUP),
            _ => LeafSet::ALL,
        };
        let array = Counted::of_runs(&runs);
        let va = if G::VA_BITS > 20 {
            base(&tree)
        } else {
            tree.range().start
        };
        map(&tree, va.add(start << G::PAGE_SHIFT), &array, allowed).expect("mapped");
        array.assert_each_once(&format!("{} round {round}: {runs:x?} at page {start}", G::NAME));
        clear(&tree);
    }
}

#[test]
fn arrays_of_any_runs_are_read_once_on_every_granule() {
    random_arrays::<Granule4K>(0x1234_5678, 250, 4000);
    random_arrays::<Granule16K>(0x2345_6789, 40, 9000);
    random_arrays::<Granule64K>(0x3456_789a, 25, 18000);
    random_arrays::<TinyGranule>(0x4567_89ab, 20_000, 64);
}

#[test]
fn an_array_with_a_hole_is_read_once_up_to_the_hole() {
    let tree = tree::<Granule4K>(Config::default(), false);
    for va in [0, 1, 15, 496] {
        for hole in 0..600u64 {
            let array = Counted::new((0..600).map(|i| (i != hole).then_some((1 << 20) + va + i)));
            let error = map(&tree, base(&tree).add(va << 12), &array, LeafSet::ALL);
            assert_eq!(error, Err(Error::NoFrame { page: hole }));
            array.assert_none_twice(&format!("an array with a hole at {hole}"));
            let read = array.reads();
            assert!(
                read[..=hole as usize].iter().all(|nr| *nr == 1),
                "up to the hole at {hole}"
            );
            tree.prune(tree.range()).expect("the tree's own range");
            assert_eq!(tree.tables().live(), 1);
        }
    }
}

#[test]
fn a_frame_beyond_the_implemented_addresses_ends_the_reading() {
    let config = Config {
        pa_bits: 40,
        ..Config::default()
    };
    let tree = tree::<Granule4K>(config, false);
    for bad in 0..600u64 {
        let array = Counted::new((0..600).map(|i| Some(if i == bad { 1 << 28 } else { (1 << 20) + i })));
        let error = map(&tree, base(&tree), &array, LeafSet::ALL);
        assert_eq!(
            error,
            Err(Error::PhysicalRange(paging::PhysAddr(1 << 40))),
            "frame {bad}"
        );
        array.assert_none_twice(&format!("an array with a bad frame at {bad}"));
        assert!(
            array.reads()[..=bad as usize].iter().all(|nr| *nr == 1),
            "up to frame {bad}"
        );
        support::prune(&tree);
    }
}

#[test]
fn an_array_that_finds_its_place_taken_is_not_read_at_all() {
    let tree = tree::<Granule4K>(Config::default(), false);
    let taken = Counted::of_runs(&[(77, 1)]);
    map(&tree, base(&tree).add(700 << 12), &taken, LeafSet::ALL).expect("mapped");
    let array = Counted::of_runs(&[(1 << 20, 1024)]);
    let error = map(&tree, base(&tree), &array, LeafSet::ALL);
    assert!(
        matches!(error, Err(Error::Occupied { va, .. }) if va == base(&tree).add(700 << 12)),
        "{error:?}"
    );
    assert_eq!(
        array.reads(),
        vec![0; 1024],
        "nothing is read before the range is known to be vacant"
    );
}

#[test]
fn an_array_is_read_at_most_once_when_any_table_is_missing() {
    let tree = tree::<Granule4K>(Config::default(), false);
    for budget in 0..6 {
        tree.tables().budget.set(budget);
        let array = Counted::of_runs(&[((1 << 20) + 3, 1100)]);
        let va = base(&tree).add((1 << 30) - (600 << 12));
        let error = map(&tree, va, &array, LeafSet::ALL);
        assert!(
            matches!(error, Err(Error::OutOfTables(_))),
            "budget {budget}: {error:?}"
        );
        array.assert_none_twice(&format!("an array with {budget} tables"));
        support::prune(&tree);
    }
}

#[test]
fn a_source_longer_than_the_range_is_read_no_further_than_it() {
    let tree = tree::<Granule4K>(Config::default(), false);
    for pages in [1, 15, 16, 17, 511, 512, 513] {
        let array = Counted::of_runs(&[(1 << 20, 2048)]);
        let range = VirtRange::new(base(&tree), pages << 12);
        tree.map(range, &mut PageArray::new(&array), DATA, LeafSet::ALL)
            .expect("mapped");
        let read = array.reads();
        assert!(read[..pages as usize].iter().all(|nr| *nr == 1), "{pages} pages");
        assert!(
            read[pages as usize..].iter().all(|nr| *nr == 0),
            "beyond {pages} pages"
        );
        clear(&tree);
    }
}

fn read_all(source: &mut dyn Source, pages: u64) -> Vec<u64> {
    (0..pages).map(|page| source.pa(page)).collect()
}

trait Source {
    fn pa(&mut self, page: u64) -> u64;
    fn output(&mut self, page: u64) -> u64;
    fn rewind(&mut self);
}

impl<S: PhysSource<Granule4K>> Source for S {
    fn pa(&mut self, page: u64) -> u64 {
        let run: Option<Run> = self.run_at(page, 3);
        run.map_or(u64::MAX, |run| run.pa.0)
    }
    fn output(&mut self, page: u64) -> u64 {
        match self.piece_at(page, 3, VirtAddr(page << 12)) {
            Some(Piece::Run(run)) => run.pa.0,
            Some(Piece::Frames(frames) | Piece::Singles(frames)) => frames[0].0 << 12,
            None => u64::MAX,
        }
    }
    fn rewind(&mut self) {
        PhysSource::<Granule4K>::rewind(self);
    }
}

#[test]
fn a_source_that_is_rewound_gives_the_same_pages_again() {
    let runs = [(100, 5), (7, 1), (500, 20), (300, 2)];
    let extents = runs.map(|(first, pages)| Extent {
        start: Pfn(first),
        pages,
    });
    let frames: Vec<Pfn> = runs
        .iter()
        .flat_map(|(first, pages)| (*first..first + pages).map(Pfn))
        .collect();
    let expected: Vec<u64> = frames.iter().map(|frame| frame.0 << 12).collect();
    let mut array = PageArray::new(&frames[..]);
    let mut list = Extents::new(&extents);
    for source in [&mut array as &mut dyn Source, &mut list] {
        for stop in [1, 5, 6, 20, expected.len()] {
            let part = read_all(source, stop as u64);
            assert_eq!(part, expected[..stop], "up to page {stop}");
            source.rewind();
            assert_eq!(source.output(0), expected[0], "the first page after {stop}");
            source.rewind();
        }
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
            page >= self.asked && limit != 0,
            "page {page} is asked for after page {}",
            self.asked
        );
        self.asked = page;
        PhysSource::<Granule4K>::run_at(&mut self.pages, page, limit)
    }
}

#[test]
fn pages_are_asked_for_in_order_wherever_one_is_missing() {
    let tree = tree::<Granule4K>(Config::default(), false);
    for (va, runs) in [
        (0, &[(1 << 20, 600)][..]),
        (3, &[((1 << 20) + 3, 600)]),
        (16, &[(5, 17), (1 << 20, 48), (9, 1), (1 << 21, 530)]),
        (0, &[(1, 1), (3, 1), (5, 1), (7, 40)]),
    ] {
        let pages = runs.iter().flat_map(|(first, pages)| *first..first + pages);
        let pages: Vec<_> = pages.map(Pfn).collect();
        for hole in 0..=pages.len() {
            let with_hole = |(i, pfn): (usize, &Pfn)| (i != hole).then_some(*pfn);
            let frames: Vec<_> = pages.iter().enumerate().map(with_hole).collect();
            let mut source = Strict {
                pages: PageArray::new(&frames[..]),
                asked: 0,
            };
            let range = VirtRange::new(base(&tree).add(va << 12), (frames.len() as u64) << 12);
            let mapped = tree.map(range, &mut source, DATA, LeafSet::ALL);
            let error = mapped.err().map(|failure| failure.error);
            let page = hole as u64;
            let expected = (hole < frames.len()).then_some(Error::NoFrame { page });
            assert_eq!(error, expected, "{runs:?} at page {va} of a block");
            clear(&tree);
        }
    }
}
