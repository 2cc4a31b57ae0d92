use crate::faults::{DATA, assert_freed_in_order, levels, levels_written};
use crate::support::corpus::base;
use crate::support::ops::Op;
use crate::support::traced::{TracedTree, traced};
use crate::support::{Naive, Shape, audit, prune};
use paging::{
    Config, Error, Extent, Extents, Granule, Granule4K, LeafSet, LevelMask, PageArray, Pfn, PhysAddr,
    PhysRange, VirtAddr, VirtRange,
};
use std::collections::BTreeSet;

fn fails_alike<G: Granule>(
    tree: &TracedTree<G>,
    at: VirtAddr,
    frames: &[Option<u64>],
    contiguous: bool,
    wanted: Error,
) {
    let range = VirtRange::new(at, (frames.len() as u64) << G::PAGE_SHIFT);
    prune(tree);
    let before = tree.tables().host.snapshot();
    let naive = Naive::of(tree);
    let mut said = BTreeSet::new();
    let mut try_source = |what: &str, map: &mut dyn FnMut() -> Result<paging::Outcome, paging::Failure>| {
        let linked = levels(tree);
        tree.tables().log.take();
        let failure = map().expect_err(what);
        assert_eq!(failure.error, wanted, "{what}");
        let events = tree.tables().log.take();
        assert_eq!(
            failure.levels,
            levels_written::<G>(linked, &events),
            "{what}: levels"
        );
        assert_freed_in_order(&events, what);
        tree.prune(tree.range()).expect("the tree's own range");
        assert_eq!(tree.tables().host.snapshot(), before, "{what}");
        assert_eq!(Naive::of(tree), naive, "{what}");
        said.insert(failure.levels.bits());
    };
    let array: Vec<Option<Pfn>> = frames.iter().map(|frame| frame.map(Pfn)).collect();
    try_source("array", &mut || {
        tree.map(range, &mut PageArray::new(array.as_slice()), DATA, LeafSet::ALL)
    });
    if let Some(all) = frames.iter().copied().collect::<Option<Vec<u64>>>() {
        // Plain slices have code of their own.
        let pfns: Vec<Pfn> = all.iter().copied().map(Pfn).collect();
        try_source("slice of Pfn", &mut || {
            tree.map(range, &mut PageArray::new(pfns.as_slice()), DATA, LeafSet::ALL)
        });
        try_source("slice of u64", &mut || {
            tree.map(range, &mut PageArray::new(all.as_slice()), DATA, LeafSet::ALL)
        });
        let extents: Vec<Extent> = all
            .iter()
            .map(|frame| Extent {
                start: Pfn(*frame),
                pages: 1,
            })
            .collect();
        try_source("extents", &mut || {
            tree.map(range, &mut Extents::new(&extents), DATA, LeafSet::ALL)
        });
        if contiguous {
            try_source("range", &mut || {
                let mut source = PhysRange::new(PhysAddr(all[0] << G::PAGE_SHIFT), all.len() as u64);
                tree.map(range, &mut source, DATA, LeafSet::ALL)
            });
        }
    }
    assert_eq!(said.len(), 1, "every source reports the same levels: {said:?}");
    audit(tree);
}

#[test]
fn a_missing_frame_at_any_page_changes_nothing() {
    let tree = traced::<Granule4K>(Config::default(), false);
    Op::map(2000, Shape::Range(99, 1))
        .apply(&tree, base(&tree))
        .expect("mapped");
    for skew in [0, 1] {
        for k in (0..1100)
            .step_by(7)
            .chain([1, 2, 3, 4, 15, 16, 17, 511, 512, 513, 1023, 1024, 1025, 1099])
        {
            let frames: Vec<_> = (0..1100)
                .map(|i| (i != k).then_some((1 << 20) + skew + i))
                .collect();
            fails_alike(
                &tree,
                base(&tree).add(((k + 1) % 5) << 12),
                &frames,
                false,
                Error::NoFrame { page: k },
            );
        }
    }
}

#[test]
fn a_source_that_is_too_short_is_refused_before_anything_is_read() {
    let tree = traced::<Granule4K>(Config::default(), false);
    let range = VirtRange::new(base(&tree), 17 << 12);
    for short in 0..17u64 {
        let extents = [Extent {
            start: Pfn(1 << 20),
            pages: short,
        }];
        let array = vec![Pfn(5); short as usize];
        let results = [
            tree.map(
                range,
                &mut PhysRange::new(PhysAddr(1 << 32), short),
                DATA,
                LeafSet::ALL,
            ),
            tree.map(range, &mut Extents::new(&extents), DATA, LeafSet::ALL),
            tree.map(range, &mut PageArray::new(array.as_slice()), DATA, LeafSet::ALL),
        ];
        for result in results {
            let failure = result.expect_err("too short");
            assert_eq!(failure.error, Error::NoFrame { page: short });
            assert_eq!(failure.levels, LevelMask::NONE);
        }
    }
    assert_eq!(tree.tables().log.take(), [], "nothing was done");
}

#[test]
fn an_address_beyond_the_implemented_ones_at_any_page_changes_nothing() {
    let config = Config {
        pa_bits: 40,
        ..Config::default()
    };
    let tree = traced::<Granule4K>(config, false);
    Op::map(2000, Shape::Range(99, 1))
        .apply(&tree, base(&tree))
        .expect("mapped");
    let limit = 1u64 << (40 - 12);
    for k in (0..1100)
        .step_by(7)
        .chain([1, 2, 3, 4, 15, 16, 17, 511, 512, 513, 1023, 1024, 1025, 1099])
    {
        for bad in [limit, limit + 77, 1 << 36, 1 << 52, 1 << 60, u64::MAX] {
            let frames: Vec<_> = (0..1100)
                .map(|i| Some(if i == k { bad } else { (1 << 20) + i }))
                .collect();
            // The excess is where no address has bits.
            let wanted = Error::PhysicalRange(PhysAddr(bad.rotate_left(12)));
            fails_alike(
                &tree,
                base(&tree).add(((k + 1) % 5) << 12),
                &frames,
                false,
                wanted,
            );
        }
    }
}

#[test]
fn a_run_that_reaches_beyond_the_implemented_addresses_fails_alike_from_every_source() {
    let config = Config {
        pa_bits: 40,
        ..Config::default()
    };
    let tree = traced::<Granule4K>(config, false);
    let limit = 1u64 << (40 - 12);
    for k in (0..1100)
        .step_by(13)
        .chain([1, 2, 3, 4, 15, 16, 17, 511, 512, 513, 1023, 1024, 1025, 1099])
    {
        let frames: Vec<_> = (0..1100).map(|i| Some(limit - k + i)).collect();
        let at = base(&tree).add(((k + 1) % 5) << 12);
        fails_alike(
            &tree,
            at,
            &frames,
            true,
            Error::PhysicalRange(PhysAddr(limit << 12)),
        );
    }
}

#[test]
fn a_misaligned_physical_range_is_refused() {
    let tree = traced::<Granule4K>(Config::default(), false);
    for odd in [1, 0x800, 0xfff] {
        let range = VirtRange::new(base(&tree), 4 << 12);
        let mut source = PhysRange::new(PhysAddr((1 << 30) + odd), 4);
        let failure = tree
            .map(range, &mut source, DATA, LeafSet::ALL)
            .expect_err("misaligned");
        assert_eq!(failure.error, Error::PhysicalRange(PhysAddr((1 << 30) + odd)));
    }
    tree.prune(tree.range()).expect("the tree's own range");
    assert_eq!(tree.tables().host.live(), 1);
}

#[test]
fn something_in_the_way_at_any_page_is_said_before_anything_changes() {
    let tree = traced::<Granule4K>(Config::default(), false);
    for pages in [1, 16, 40, 600, 1100] {
        for k in (0..pages)
            .step_by(if pages > 100 { 31 } else { 1 })
            .chain([pages - 1])
        {
            let taken = Op::map(k, Shape::Range(0x777 + k, 1));
            taken.apply(&tree, base(&tree)).expect("vacant");
            let found = tree.walk(base(&tree).add(k << 12)).expect("in range");
            let found = found.steps().last().expect("a walk has steps").descriptor;
            let frames: Vec<_> = (0..pages).map(|i| Some((1 << 20) + i)).collect();
            let wanted = Error::Occupied {
                va: base(&tree).add(k << 12),
                level: 3,
                found,
            };
            fails_alike(&tree, base(&tree), &frames, true, wanted);
            Op::Unmap { page: k, pages: 1 }
                .apply(&tree, base(&tree))
                .expect("mapped");
        }
    }
    prune(&tree);
    assert_eq!(tree.tables().host.live(), 1);
}
