use super::memory::Memory;
use super::{Counted, Counter, DATA, G, K, M, VA, chunks, for_both, on_tree};
use paging::mmu::MmuCounts;
use paging::reference::{Error, Rewalk, Series, Walker};
use paging::{Granule4K, LAST_LEVEL, LevelMask, PhysAddr};

/// Where the tables exist.
pub fn warm_counts<W, F>(walker: &W, size: u64, map: F) -> (MmuCounts, MmuCounts)
where
    W: Walker<Granule4K, Memory, Counter>,
    F: Fn(&Counted<'_, Granule4K>) -> Result<LevelMask, Error>,
{
    let mut counts = (MmuCounts::default(), MmuCounts::default());
    on_tree::<Granule4K>(|ctx| {
        map(ctx).expect("maps");
        walker.unmap(ctx, VA, size).expect("unmaps");
        ctx.mmu.take();
        map(ctx).expect("maps again");
        let mapped = ctx.mmu.take();
        walker.unmap(ctx, VA, size).expect("unmaps again");
        counts = (mapped, ctx.mmu.take());
    });
    counts
}

pub fn published(pairs: u64) -> MmuCounts {
    MmuCounts {
        dsb: pairs,
        dsb_ishst: pairs,
        isb: pairs,
        ..MmuCounts::default()
    }
}

pub fn flushed(tlbi: u64, tlbi_range: u64) -> MmuCounts {
    MmuCounts {
        dsb: 2,
        dsb_ishst: 1,
        isb: 1,
        tlbi,
        tlbi_range,
        tlbi_all: 0,
    }
}

#[test]
fn a_range_costs_one_pair_of_barriers_per_last_level_table_and_per_block() {
    let pa = |pa| PhysAddr(pa);
    let cases = [
        (4 * K, pa(6 * G + 4 * K), 1),
        (M, pa(6 * G + 4 * K), 1),
        (M, pa(6 * G + 64 * K), 1),
        (2 * M, pa(6 * G + 64 * K), 1),
        (2 * M, pa(6 * G), 1),
        (32 * M, pa(6 * G + 64 * K), 16),
        (32 * M, pa(6 * G), 16),
        (G, pa(6 * G + 2 * M), 512),
        (G, pa(6 * G), 1),
    ];
    for (size, pa, pairs) in cases {
        for_both!(|walker| {
            let (mapped, _) = warm_counts(&walker, size, |ctx| walker.map_range(ctx, VA, pa, size, DATA));
            assert_eq!(mapped, published(pairs), "{size:#x} at {pa:?}");
        });
    }
}

#[test]
fn links_to_new_tables_cost_a_pair_of_barriers_each() {
    for_both!(|walker| {
        on_tree::<Granule4K>(|ctx| {
            let levels = walker
                .map_range(ctx, VA, PhysAddr(4 * K), 4 * K, DATA)
                .expect("maps");
            assert_eq!(ctx.mmu.take(), published(3 + 1));
            assert_eq!(levels.bits(), 0b1111);
            let levels = walker.map_range(ctx, VA.add(4 * K), PhysAddr(4 * K), 4 * K, DATA);
            assert_eq!(levels, Ok(LevelMask::of(LAST_LEVEL)));
            assert_eq!(ctx.mmu.take(), published(1));
            let levels = walker.map_range(ctx, VA.add(2 * M), PhysAddr(2 * M), 2 * M, DATA);
            assert_eq!(levels, Ok(LevelMask::of(2)));
            assert_eq!(ctx.mmu.take(), published(1));
        });
    });
}

#[test]
fn an_array_in_chunks_is_walked_again_for_each_up_to_7_3_and_once_with_the_series() {
    // pages, order, shift, barrier pairs: rewalk (per chunk), series (per table or block)
    let cases = [
        (256, 4, 16, 16, 1),
        (1024, 9, 21, 2, 2),
        (25600, 4, 16, 1600, 50),
        (25600, 9, 21, 50, 50),
        (1024, 0, 12, 2, 2),
    ];
    for (pages, order, shift, by_rewalk, by_series) in cases {
        let frames = chunks(&vec![order; pages >> order]);
        let size = (pages as u64) << 12;
        let (mapped, _) = warm_counts(&Rewalk, size, |ctx| {
            Rewalk.map_chunks(ctx, VA, &frames[..], shift, DATA)
        });
        assert_eq!(mapped, published(by_rewalk), "{pages} {order} {shift}");
        let series = Series::default();
        let (mapped, _) = warm_counts(&series, size, |ctx| {
            series.map_chunks(ctx, VA, &frames[..], shift, DATA)
        });
        assert_eq!(mapped, published(by_series), "{pages} {order} {shift}");
    }
}

#[test]
fn vmap_with_the_series_walks_once_per_run_of_equal_chunks() {
    let series = Series::default();
    for (orders, pairs) in [
        (&[8, 8, 4, 4, 0][..], 2 + 1),
        (&[8, 8], 1),
        (&[4, 8], 2),
        (&[0, 0, 0], 1),
        (&[9, 9, 4], 2 + 1),
    ] {
        let frames = chunks(orders);
        let size = (frames.len() as u64) << 12;
        let (mapped, _) = warm_counts(&series, size, |ctx| series.map_pages(ctx, VA, &frames[..], DATA));
        assert_eq!(mapped, published(pairs), "{orders:?}");
    }
}
