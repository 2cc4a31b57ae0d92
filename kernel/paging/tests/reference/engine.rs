//! On lists that the series maps wrongly.

use super::memory::Memory;
use super::overrun::OVERRUNS;
use super::{Counted, Counter, DATA, G, K, M, VA, chunks, counter, on_tree, wrong_pages};
use paging::mmu::MmuCounts;
use paging::reference::{Context, Engine, Error, Rewalk, Series, Walker};
use paging::{
    Granule, Granule4K, Granule4K52, Granule64K52, LeafCounts, LeafSize, LevelMask, PhysAddr, VirtAddr,
    VirtRange,
};

fn map_twice<W, F>(walker: &W, va: VirtAddr, size: u64, map: F) -> (LeafCounts, MmuCounts)
where
    W: Walker<Granule4K, Memory, Counter>,
    F: Fn(&Counted<'_, Granule4K>) -> Result<LevelMask, Error>,
{
    let mut result = (LeafCounts::default(), MmuCounts::default());
    on_tree::<Granule4K>(|ctx| {
        map(ctx).expect("maps");
        walker.unmap(ctx, va, size).expect("unmaps");
        ctx.mmu.take();
        map(ctx).expect("maps again");
        result = (ctx.leaf_counts(VirtRange::new(va, size)), ctx.mmu.take());
    });
    result
}

fn nr_leaves(counts: &LeafCounts) -> u32 {
    LeafSize::ALL.iter().map(|size| counts.get(*size)).sum()
}

#[test]
fn the_engine_translates_every_page_as_both_references_do() {
    for (orders, offset, _) in OVERRUNS {
        let frames = chunks(orders);
        let va = VA.add(offset);
        let (engine, rewalk, series) = (
            Memory::new::<Granule4K>(),
            Memory::new::<Granule4K>(),
            Memory::new::<Granule4K>(),
        );
        let mmu = counter();
        let new = |tables| Context::<Granule4K, Memory, Counter>::new(tables, &mmu).expect("a root table");
        let (engine, rewalk, series) = (new(&engine), new(&rewalk), new(&series));
        Engine.map_pages(&engine, va, &frames[..], DATA).expect("maps");
        Rewalk.map_pages(&rewalk, va, &frames[..], DATA).expect("maps");
        Series::default()
            .map_pages(&series, va, &frames[..], DATA)
            .expect("maps");
        assert_eq!(wrong_pages(&engine, va, &frames), 0, "{orders:?} at +{offset:#x}");
        for page in 0..=frames.len() as u64 {
            let at = |ctx: &Counted<'_, Granule4K>| ctx.translate(va.add(page << 12)).map(|(pa, _)| pa);
            assert_eq!(at(&engine), at(&rewalk), "{orders:?}, page {page}");
            assert_eq!(at(&engine), at(&series), "{orders:?}, page {page}");
        }
    }
}

#[test]
fn the_engine_takes_no_more_leaves_than_either_and_one_pair_of_barriers() {
    let one_pair = MmuCounts {
        dsb: 1,
        dsb_ishst: 1,
        isb: 1,
        ..MmuCounts::default()
    };
    for (orders, offset, _) in OVERRUNS {
        let frames = chunks(orders);
        let (va, size) = (VA.add(offset), (frames.len() as u64) << 12);
        let (ours, issued) = map_twice(&Engine, va, size, |ctx| {
            Engine.map_pages(ctx, va, &frames[..], DATA)
        });
        let (rewalk, _) = map_twice(&Rewalk, va, size, |ctx| {
            Rewalk.map_pages(ctx, va, &frames[..], DATA)
        });
        let series = Series::default();
        let (series, _) = map_twice(&series, va, size, |ctx| {
            series.map_pages(ctx, va, &frames[..], DATA)
        });
        assert!(
            nr_leaves(&ours) <= nr_leaves(&rewalk),
            "{orders:?}: {ours:?} {rewalk:?}"
        );
        assert!(
            nr_leaves(&ours) <= nr_leaves(&series),
            "{orders:?}: {ours:?} {series:?}"
        );
        assert_eq!(issued, one_pair, "{orders:?}");
    }
}

#[test]
fn only_the_engine_takes_32m_groups_and_maps_an_array_with_1g_blocks() {
    let pa = PhysAddr(6 * G);
    let (ours, _) = map_twice(&Engine, VA, 32 * M, |ctx| {
        Engine.map_range(ctx, VA, pa, 32 * M, DATA)
    });
    assert_eq!((ours.get(LeafSize::BLOCK2_GROUP), nr_leaves(&ours)), (1, 1));
    let frames = chunks(&[18]);
    let (ours, _) = map_twice(&Engine, VA, G, |ctx| Engine.map_pages(ctx, VA, &frames[..], DATA));
    assert_eq!((ours.get(LeafSize::BLOCK1), nr_leaves(&ours)), (1, 1));
    let series = Series::default();
    let (theirs, _) = map_twice(&series, VA, G, |ctx| series.map_pages(ctx, VA, &frames[..], DATA));
    assert_eq!((theirs.get(LeafSize::BLOCK2), nr_leaves(&theirs)), (512, 512));
}

#[test]
fn the_engine_finds_groups_behind_a_single_page_where_the_series_has_stopped_looking() {
    let frames = chunks(&[0, 4, 4]);
    let (va, size) = (VA.add(60 * K), 132 * K);
    let (ours, _) = map_twice(&Engine, va, size, |ctx| {
        Engine.map_pages(ctx, va, &frames[..], DATA)
    });
    assert_eq!((ours.get(LeafSize::PAGE_GROUP), ours.get(LeafSize::PAGE)), (2, 1));
    let series = Series::default();
    let (theirs, _) = map_twice(&series, va, size, |ctx| {
        series.map_pages(ctx, va, &frames[..], DATA)
    });
    assert_eq!(
        (theirs.get(LeafSize::PAGE_GROUP), theirs.get(LeafSize::PAGE)),
        (0, 33)
    );
}

#[test]
fn what_fails_through_the_engine_leaves_nothing_behind() {
    on_tree::<Granule4K>(|ctx| {
        let frames = [Some(paging::Pfn(7)), None];
        let got = Engine.map_pages(ctx, VA, &frames[..], DATA);
        assert_eq!(got, Err(Error::Engine(paging::Error::NoFrame { page: 1 })));
        assert_eq!(ctx.translate(VA), None);
        assert_eq!(ctx.tables.in_use(), 1);
    });
}

#[test]
fn the_engine_maps_to_each_address_that_the_granule_has() {
    fn at_the_end_of<Gr: Granule>() {
        on_tree::<Gr>(|ctx| {
            let pa = PhysAddr((1 << Gr::PA_BITS) - Gr::PAGE_SIZE);
            Engine.map_range(ctx, VA, pa, Gr::PAGE_SIZE, DATA).expect("maps");
            assert_eq!(ctx.translate(VA).map(|(pa, _)| pa), Some(pa));
            Engine.unmap(ctx, VA, Gr::PAGE_SIZE).expect("unmaps");
        });
    }
    at_the_end_of::<Granule4K>();
    at_the_end_of::<Granule4K52>();
    at_the_end_of::<Granule64K52>();
}
