use super::memory::Memory;
use super::overrun::{OVERRUNS, wrong_after_map};
use super::{Counted, Counter, DATA, G, K, M, VA, chunks, on_tree, wrong_pages};
use paging::reference::{Error, Walker};
use paging::{
    Granule, Granule4K, Granule16K, Granule64K, LeafSize, LevelMask, Pfn, PhysAddr, TinyGranule, VirtAddr,
    VirtRange, for_each_walker,
};
use std::collections::BTreeSet;

#[test]
fn every_registered_walker_maps_every_page_of_those_arrays_to_its_frame() {
    for (orders, offset, (_, pages)) in OVERRUNS {
        for_each_walker!(|walker| {
            let got = wrong_after_map(&walker, orders, VA.add(offset));
            assert_eq!(got, (0, pages), "{orders:?} at +{offset:#x}");
        });
    }
}

#[test]
fn an_unmap_passes_over_holes() {
    for_each_walker!(|walker| {
        on_tree::<Granule4K>(|ctx| {
            walker
                .map_range(ctx, VA.add(5 * M), PhysAddr(6 * G), 4 * K, DATA)
                .expect("maps");
            walker.unmap(ctx, VA, G).expect("unmaps");
            assert_eq!(ctx.translate(VA.add(5 * M)), None);
        });
    });
}

/// Checks that only `frames` are mapped in `span` pages.
fn map_and_unmap<Gr, W, F>(walker: &W, va: VirtAddr, frames: &[Pfn], span: u64, map: F)
where
    Gr: Granule,
    W: Walker<Gr, Memory, Counter>,
    F: FnOnce(&Counted<'_, Gr>) -> Result<LevelMask, Error>,
{
    let all = VirtRange::new(VirtAddr(0), span << Gr::PAGE_SHIFT);
    on_tree::<Gr>(|ctx| {
        let story = || format!("{} maps {} pages at {va:?}", W::NAME, frames.len());
        let levels = map(ctx).unwrap_or_else(|error| panic!("{}: {error}", story()));
        assert_eq!(wrong_pages(ctx, va, frames), 0, "{}", story());
        let leaves = ctx.leaf_counts(all);
        assert_eq!(leaves.pages::<Gr>(), frames.len() as u64, "{}", story());
        for size in LeafSize::ALL {
            assert!(
                leaves.get(size) == 0 || levels.contains(size.level()),
                "{}: {levels:?}",
                story()
            );
        }
        let size = (frames.len() as u64) << Gr::PAGE_SHIFT;
        let unmapped = walker.unmap(ctx, va, size).expect("unmaps");
        assert!(!unmapped.is_empty());
        assert!(ctx.leaf_counts(all).is_empty(), "{}", story());
    });
}

pub fn agrees_on_random_mappings<Gr, W>(walker: &W, seed: u64, rounds: u32, span: u64)
where
    Gr: Granule,
    W: Walker<Gr, Memory, Counter>,
{
    let mut state = seed;
    let mut random = move |below: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % below
    };
    for _ in 0..rounds {
        let orders: Vec<u32> = (0..=random(6)).map(|_| random(11) as u32).collect();
        let mut frames = chunks(&orders);
        frames.drain(..random(frames.len() as u64) as usize);
        frames.truncate(span as usize);
        let room = span - frames.len() as u64 + 1;
        let va = VirtAddr(random(room) << Gr::PAGE_SHIFT);
        let size = (frames.len() as u64) << Gr::PAGE_SHIFT;
        let pa = PhysAddr(frames[0].0 << Gr::PAGE_SHIFT);
        let run: Vec<Pfn> = (frames[0].0..).map(Pfn).take(frames.len()).collect();
        map_and_unmap(walker, va, &frames, span, |ctx: &Counted<'_, Gr>| {
            walker.map_pages(ctx, va, &frames[..], DATA)
        });
        map_and_unmap(walker, va, &run, span, |ctx: &Counted<'_, Gr>| {
            walker.map_range(ctx, va, pa, size, DATA)
        });
        let order = random(11) as u32;
        let mut whole = chunks(&[order; 3]);
        whole.truncate(span as usize);
        let shift = Gr::PAGE_SHIFT + order;
        let va = VirtAddr(random(span - whole.len() as u64 + 1) << Gr::PAGE_SHIFT);
        map_and_unmap(walker, va, &whole, span, |ctx: &Counted<'_, Gr>| {
            walker.map_chunks(ctx, va, &whole[..], shift, DATA)
        });
    }
}

#[test]
fn registered_walkers_map_random_arrays_and_ranges_right_in_every_granule() {
    for_each_walker!(|walker| {
        agrees_on_random_mappings::<Granule4K, _>(&walker, 0x9e37_79b9_7f4a_7c15, 60, 1 << 14);
        agrees_on_random_mappings::<Granule16K, _>(&walker, 0xd1b5_4a32_d192_ed03, 20, 1 << 14);
        agrees_on_random_mappings::<Granule64K, _>(&walker, 0x94d0_49bb_1331_11eb, 10, 1 << 14);
        agrees_on_random_mappings::<TinyGranule, _>(&walker, 0xbf58_476d_1ce4_e5b9, 400, 64);
    });
}

#[test]
fn walkers_are_registered_by_name() {
    fn name<W: Walker<Granule4K, Memory, Counter>>(_: &W) -> &'static str {
        W::NAME
    }
    let mut names = Vec::new();
    for_each_walker!(|walker| {
        names.push(name(&walker));
    });
    let unique: BTreeSet<_> = names.iter().collect();
    assert_eq!(unique.len(), names.len());
    assert!(
        names.contains(&"rewalk") && names.contains(&"series"),
        "{names:?}"
    );
}
