//! Leaves as Linux 7.3 and the series were seen to choose them.

use super::memory::Memory;
use super::{Counter, DATA, G, K, M, VA, chunks, on_tree, wrong_pages};
use paging::reference::{Rewalk, Series, Walker};
use paging::{Granule4K, LeafCounts, LeafSize, PhysAddr, VirtRange};

/// In descriptors: 1G blocks, 2M blocks, pages in groups, pages.
pub type Census = [u32; 4];

pub fn census(counts: &LeafCounts) -> Census {
    assert_eq!(counts.get(LeafSize::BLOCK1_GROUP), 0);
    assert_eq!(counts.get(LeafSize::BLOCK2_GROUP), 0);
    [
        counts.get(LeafSize::BLOCK1),
        counts.get(LeafSize::BLOCK2),
        counts.get(LeafSize::PAGE_GROUP) * 16,
        counts.get(LeafSize::PAGE),
    ]
}

fn range_leaves<W>(walker: &W, size: u64, pa: u64) -> Census
where
    W: Walker<Granule4K, Memory, Counter>,
{
    let mut got = [0; 4];
    on_tree::<Granule4K>(|ctx| {
        walker.map_range(ctx, VA, PhysAddr(pa), size, DATA).expect("maps");
        for offset in (0..size).step_by(4096) {
            let (to, _) = ctx.translate(VA.add(offset)).expect("mapped");
            assert_eq!(to.0, pa + offset);
        }
        got = census(&ctx.leaf_counts(VirtRange::new(VA, size)));
        walker.unmap(ctx, VA, size).expect("unmaps");
        assert!(ctx.leaf_counts(VirtRange::new(VA, size)).is_empty());
    });
    got
}

#[test]
fn a_contiguous_range_takes_the_leaves_that_linux_takes() {
    let (pa_4k, pa_64k, pa_2m, pa_1g) = (6 * G + 4 * K, 6 * G + 64 * K, 6 * G + 2 * M, 6 * G);
    let cases: [(u64, u64, Census); 13] = [
        (4 * K, pa_4k, [0, 0, 0, 1]),
        (64 * K, pa_64k, [0, 0, 16, 0]),
        (M, pa_4k, [0, 0, 0, 256]),
        (M, pa_64k, [0, 0, 256, 0]),
        (M, pa_2m, [0, 0, 256, 0]),
        (2 * M, pa_4k, [0, 0, 0, 512]),
        (2 * M, pa_64k, [0, 0, 512, 0]),
        (2 * M, pa_2m, [0, 1, 0, 0]),
        (32 * M, pa_4k, [0, 0, 0, 8192]),
        (32 * M, pa_64k, [0, 0, 8192, 0]),
        (32 * M, pa_2m, [0, 16, 0, 0]),
        (G, pa_2m, [0, 512, 0, 0]),
        (G, pa_1g, [1, 0, 0, 0]),
    ];
    for (size, pa, expected) in cases {
        assert_eq!(
            range_leaves(&Rewalk, size, pa),
            expected,
            "rewalk {size:#x} {pa:#x}"
        );
        assert_eq!(
            range_leaves(&Series::default(), size, pa),
            expected,
            "series {size:#x} {pa:#x}"
        );
    }
}

/// Chunks of `1 << order` pages; `shift` is passed to the walker.
fn array_leaves<W>(walker: &W, pages: usize, order: u32, shift: Option<u32>) -> Census
where
    W: Walker<Granule4K, Memory, Counter>,
{
    let frames = chunks(&vec![order; pages >> order]);
    let size = (pages as u64) << 12;
    let mut got = [0; 4];
    on_tree::<Granule4K>(|ctx| {
        match shift {
            None => walker.map_pages(ctx, VA, &frames[..], DATA),
            Some(shift) => walker.map_chunks(ctx, VA, &frames[..], shift, DATA),
        }
        .expect("maps");
        assert_eq!(wrong_pages(ctx, VA, &frames), 0);
        got = census(&ctx.leaf_counts(VirtRange::new(VA, size)));
    });
    got
}

#[test]
fn vmap_takes_pages_only_up_to_7_3_and_the_largest_of_64k_and_2m_with_the_series() {
    let cases: [(usize, u32, Census); 10] = [
        (1, 0, [0, 0, 0, 1]),
        (16, 0, [0, 0, 0, 16]),
        (16, 4, [0, 0, 16, 0]),
        (256, 0, [0, 0, 0, 256]),
        (256, 4, [0, 0, 256, 0]),
        (256, 8, [0, 0, 256, 0]),
        (512, 9, [0, 1, 0, 0]),
        (25600, 0, [0, 0, 0, 25600]),
        (25600, 4, [0, 0, 25600, 0]),
        (25600, 8, [0, 0, 25600, 0]),
    ];
    for (pages, order, expected) in cases {
        let singles = [0, 0, 0, pages as u32];
        assert_eq!(array_leaves(&Rewalk, pages, order, None), singles);
        assert_eq!(array_leaves(&Series::default(), pages, order, None), expected);
        assert_eq!(
            array_leaves(&Series { overrun: true }, pages, order, None),
            expected
        );
        // Told 4K, the array walk finds nothing larger.
        assert_eq!(array_leaves(&Series::default(), pages, order, Some(12)), singles);
    }
    assert_eq!(array_leaves(&Rewalk, 25600, 9, None), [0, 0, 0, 25600]);
    assert_eq!(array_leaves(&Series::default(), 25600, 9, None), [0, 50, 0, 0]);
}

#[test]
fn an_array_in_known_chunks_takes_the_leaves_that_linux_takes() {
    let cases: [(usize, u32, u32, Census); 6] = [
        (256, 0, 12, [0, 0, 0, 256]),
        (256, 4, 16, [0, 0, 256, 0]),
        (1024, 0, 12, [0, 0, 0, 1024]),
        (1024, 9, 21, [0, 2, 0, 0]),
        (25600, 4, 16, [0, 0, 25600, 0]),
        (25600, 9, 21, [0, 50, 0, 0]),
    ];
    for (pages, order, shift, expected) in cases {
        assert_eq!(array_leaves(&Rewalk, pages, order, Some(shift)), expected);
        assert_eq!(
            array_leaves(&Series::default(), pages, order, Some(shift)),
            expected
        );
    }
}

#[test]
fn only_the_walk_for_ranges_tries_1g() {
    assert_eq!(array_leaves(&Rewalk, 1 << 18, 18, Some(30)), [1, 0, 0, 0]);
    assert_eq!(
        array_leaves(&Series::default(), 1 << 18, 18, Some(30)),
        [0, 512, 0, 0]
    );
}

#[test]
fn the_series_stops_scanning_at_the_first_single_page() {
    let frames = chunks(&[4, 0, 4, 8]);
    on_tree::<Granule4K>(|ctx| {
        Series::default()
            .map_pages(ctx, VA, &frames[..], DATA)
            .expect("maps");
        assert_eq!(wrong_pages(ctx, VA, &frames), 0);
        let counts = ctx.leaf_counts(VirtRange::new(VA, (frames.len() as u64) << 12));
        assert_eq!(census(&counts), [0, 0, 16, 1 + 16 + 256]);
    });
}
