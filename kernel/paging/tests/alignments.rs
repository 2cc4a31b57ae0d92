//! Every alignment of head and tail, every length, every source.

use crate::support;

use paging::{
    Attributes, Config, Extent, Extents, FrameArray, Granule, Granule4K, Granule16K, Granule64K, LeafSet,
    LeafSize, PageArray, Pfn, PhysAddr, PhysRange, PhysSource, TinyGranule, VirtAddr, VirtRange,
};
use support::{HostTree, audit, expected_of_runs, leaves_in, tree};

const DATA: Attributes = Attributes::KERNEL_DATA;

/// `(first frame, pages)`.
struct Runs<'a>(&'a [(u64, u64)]);

impl FrameArray for Runs<'_> {
    fn nr_frames(&self) -> usize {
        self.0.iter().map(|(_, pages)| *pages as usize).sum()
    }

    fn frame(&self, index: usize) -> Option<Pfn> {
        let mut index = index as u64;
        for (first, pages) in self.0 {
            if index < *pages {
                return Some(Pfn(first + index));
            }
            index -= pages;
        }
        None
    }
}

fn map_and_compare<G: Granule>(
    tree: &HostTree<G>,
    va: VirtAddr,
    runs: &[(u64, u64)],
    source: &mut impl PhysSource<G>,
    every_page: bool,
) {
    let expected = expected_of_runs::<G>(va, runs, LeafSet::ALL);
    let pages: u64 = runs.iter().map(|(_, pages)| pages).sum();
    let range = VirtRange::new(va, pages << G::PAGE_SHIFT);
    let outcome = tree
        .map(range, source, DATA, LeafSet::ALL)
        .expect("vacant, and memory suffices");
    let got: Vec<_> = leaves_in(tree, range)
        .iter()
        .map(|leaf| (leaf.va.0, leaf.pa.0, leaf.size))
        .collect();
    assert_eq!(got, expected, "{va:?} {runs:x?}");
    for size in LeafSize::ALL {
        let nr = expected.iter().filter(|(_, _, s)| *s == size).count();
        assert_eq!(
            outcome.leaves.get(size) as usize,
            nr,
            "{size:?} of {runs:x?} at {va:?}"
        );
    }
    let mut page = 0;
    for (first, nr) in runs {
        let within: Vec<u64> = if every_page {
            (0..*nr).collect()
        } else {
            [0, nr / 3, nr - 1].into()
        };
        for i in within {
            let at = va.add((page + i) << G::PAGE_SHIFT).add(0x7a8);
            let leaf = tree
                .translate(at)
                .unwrap_or_else(|| panic!("{at:?} is not mapped"));
            assert_eq!(
                leaf.translate(at).0,
                ((first + i) << G::PAGE_SHIFT) + 0x7a8,
                "{at:?}"
            );
        }
        page += nr;
    }
    for outside in [va.0.wrapping_sub(1), range.end().0] {
        assert_eq!(
            tree.translate(VirtAddr(outside)),
            None,
            "{outside:#x} is outside {range:?}"
        );
    }
    let mut batch = tree.batch();
    let gone = tree.unmap(range, &mut batch).expect("takes no memory");
    batch.flush();
    assert_eq!(gone.leaves, outcome.leaves, "what was mapped is what is unmapped");
    support::prune(tree);
    assert_eq!(tree.tables().live(), 1, "only the root is left");
}

fn from_every_source<G: Granule>(tree: &HostTree<G>, va: VirtAddr, first: u64, pages: u64, every_page: bool) {
    let run = [(first, pages)];
    let mut source = PhysRange::new(PhysAddr(first << G::PAGE_SHIFT), pages);
    map_and_compare(tree, va, &run, &mut source, every_page);
    let array = Runs(&run);
    map_and_compare(tree, va, &run, &mut PageArray::new(&array), every_page);
    let cut = pages / 2;
    let extents = [(first, cut), (7, 0), (first + cut, pages - cut)].map(|(start, pages)| Extent {
        start: Pfn(start),
        pages,
    });
    map_and_compare(tree, va, &run, &mut Extents::new(&extents), every_page);
}

fn base<G: Granule>(tree: &HostTree<G>) -> VirtAddr {
    tree.range().start.add(1 << (G::VA_BITS - 2))
}

#[test]
fn pages_at_every_alignment_and_length_get_the_largest_leaves() {
    let tree = tree::<Granule4K>(Config::default(), false);
    for va in 0..16 {
        for pa in 0..16 {
            for pages in 1..=64 {
                from_every_source(&tree, base(&tree).add(va << 12), (1 << 20) + pa, pages, true);
            }
        }
    }
}

#[test]
fn blocks_at_every_alignment_and_length_get_the_largest_leaves() {
    let tree = tree::<Granule4K>(Config::default(), false);
    for va in 0..16 {
        for pa in 0..16 {
            for blocks in 1..=64 {
                let first = ((1 << 12) + pa) << 9;
                from_every_source(&tree, base(&tree).add(va << 21), first, blocks << 9, false);
            }
        }
    }
}

#[test]
fn blocks_with_odd_pages_at_both_ends_get_the_largest_leaves() {
    let tree = tree::<Granule4K>(Config::default(), false);
    for head in [0, 1, 15, 16, 17, 255, 496, 511] {
        for skew in [0, 1, 16, 512 * 15] {
            for tail in [0, 1, 16, 511] {
                for blocks in [0, 1, 2, 15, 16, 17, 33] {
                    let pages = head + (blocks << 9) + tail;
                    if pages != 0 {
                        let va = base(&tree).add(((16 << 9) - head) << 12);
                        let first = (1 << 24) + skew + (16 << 9) - head;
                        from_every_source(&tree, va, first, pages, false);
                    }
                }
            }
        }
    }
}

#[test]
fn level_1_blocks_at_every_alignment_get_the_largest_leaves() {
    let tree = tree::<Granule4K>(Config::default(), false);
    for va in 0..16 {
        for pa in 0..16 {
            for blocks in [1, 2, 15, 16, 17, 31, 32, 33] {
                let mut source = PhysRange::new(PhysAddr((16 + pa) << 30), blocks << 18);
                let runs = [((16 + pa) << 18, blocks << 18)];
                map_and_compare(&tree, base(&tree).add(va << 30), &runs, &mut source, false);
            }
        }
    }
}

#[test]
fn an_array_that_breaks_at_any_page_gets_the_largest_leaves_on_both_sides() {
    let tree = tree::<Granule4K>(Config::default(), false);
    for va in 0..16 {
        for pa in 0..16 {
            for at in 1..64 {
                for second in [(1 << 21) + va + at, (1 << 21) + pa] {
                    let runs = [((1 << 20) + pa, at), (second, 64 - at)];
                    let va = base(&tree).add(va << 12);
                    map_and_compare(&tree, va, &runs, &mut PageArray::new(&Runs(&runs)), true);
                    let extents = runs.map(|(start, pages)| Extent {
                        start: Pfn(start),
                        pages,
                    });
                    map_and_compare(&tree, va, &runs, &mut Extents::new(&extents), true);
                }
            }
        }
    }
}

#[test]
fn a_run_that_crosses_tables_keeps_its_leaves_on_both_sides() {
    let tree = tree::<Granule4K>(Config::default(), false);
    for level in [1, 2] {
        let border = base(&tree).add(<Granule4K as Granule>::size(level));
        for before in 0..40 {
            for after in [1, 15, 16, 17, 32, 40] {
                let va = VirtAddr(border.0 - (before << 12));
                from_every_source(&tree, va, (1 << 20) + 512 - before, before + after, true);
            }
        }
    }
}

fn corner_alignments<G: Granule>() {
    let tree = tree::<G>(Config::default(), false);
    let group = G::cont_entries(3) as u64;
    let corners = [0, 1, 2, group / 2, group - 2, group - 1];
    for va in corners {
        for pa in corners {
            for pages in (1..=2 * group + 2).step_by(if group > 64 { 3 } else { 1 }) {
                let va = base(&tree).add(va << G::PAGE_SHIFT);
                from_every_source(&tree, va, (1 << 20) + pa, pages, true);
            }
        }
    }
    audit(&tree);
}

#[test]
fn groups_of_128_and_of_32_pages_follow_the_same_rule() {
    corner_alignments::<Granule16K>();
    corner_alignments::<Granule64K>();
}

#[test]
fn every_range_of_the_tiny_granule_gets_the_largest_leaves_for_every_offset() {
    let tree = tree::<TinyGranule>(Config::default(), false);
    for start in 0..64 {
        for pages in 1..=64 - start {
            for skew in 0..32 {
                let va = tree.range().start.add(start << 12);
                let run = [(0x1000 + skew, pages)];
                let mut source = PhysRange::new(PhysAddr((0x1000 + skew) << 12), pages);
                // `translate` refuses pages outside so small a space.
                map_and_compare(&tree, va, &run, &mut source, true);
                map_and_compare(&tree, va, &run, &mut PageArray::new(&Runs(&run)), true);
            }
        }
    }
}
