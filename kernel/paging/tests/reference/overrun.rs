//! The defect of the series as of July.

use super::memory::Memory;
use super::{Counter, DATA, K, VA, chunks, on_tree, wrong_pages};
use paging::reference::{Series, Walker};
use paging::{Granule4K, VirtAddr, VirtRange};

/// Wrong pages, and all pages.
pub fn wrong_after_map<W>(walker: &W, orders: &[u32], va: VirtAddr) -> (usize, usize)
where
    W: for<'a> Walker<Granule4K, Memory, Counter>,
{
    let frames = chunks(orders);
    let mut wrong = 0;
    on_tree::<Granule4K>(|ctx| {
        walker.map_pages(ctx, va, &frames[..], DATA).expect("maps");
        wrong = wrong_pages(ctx, va, &frames);
        let size = (frames.len() as u64) << 12;
        walker.unmap(ctx, va, size).expect("unmaps");
        assert!(ctx.leaf_counts(VirtRange::new(va, size)).is_empty());
    });
    (wrong, frames.len())
}

/// Chunk orders, VA beyond a 2M boundary, (wrong pages, pages) with the overrun.
pub type Overrun = (&'static [u32], u64, (usize, usize));

pub const OVERRUNS: [Overrun; 8] = [
    (&[8, 8, 8, 8], 0, (0, 1024)),
    (&[8, 8, 8, 8], 64 * K, (480, 1024)),
    (&[4, 8, 8, 8], 0, (240, 784)),
    (&[8, 4, 8, 8], 0, (240, 784)),
    (&[4, 9, 9], 0, (240, 1040)),
    (
        &[5, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7],
        0,
        (1152, 2080),
    ),
    (&[8, 8, 4, 4, 0], 0, (0, 545)),
    (&[9, 8, 4], 0, (0, 784)),
];

#[test]
fn the_series_as_of_july_maps_wrong_pages_where_a_chunk_is_entered_at_an_offset() {
    for (orders, offset, wrong_of) in OVERRUNS {
        let got = wrong_after_map(&Series { overrun: true }, orders, VA.add(offset));
        assert_eq!(got, wrong_of, "{orders:?} at +{offset:#x}");
    }
}

#[test]
fn uniform_chunks_are_wrong_where_a_2m_boundary_falls_within_a_chunk_but_the_last() {
    for (orders, wrong_places) in [(&[7, 7][..], 7), (&[7, 7, 7, 7, 7, 7], 28)] {
        let mut places = 0;
        for offset in (0..32).map(|i| i * 64 * K) {
            let (wrong, _) = wrong_after_map(&Series { overrun: true }, orders, VA.add(offset));
            places += usize::from(wrong != 0);
            let (wrong, _) = wrong_after_map(&Series::default(), orders, VA.add(offset));
            assert_eq!(wrong, 0, "{orders:?} at +{offset:#x}");
        }
        assert_eq!(places, wrong_places, "{orders:?}");
    }
}
