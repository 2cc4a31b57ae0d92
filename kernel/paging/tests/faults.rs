//! A failed operation leaves everything as it was (DESIGN rule 7): whichever table page is missing, whichever frame is
//! bad, wherever something is in the way.

mod support;

use paging::mmu::MmuEvent;
use paging::{
    Attributes, Config, Error, Extent, Extents, Granule, Granule4K, Granule16K, Granule64K, LeafSet,
    LevelMask, PageArray, Pfn, PhysAddr, PhysRange, Tables, TinyGranule, VirtAddr, VirtRange,
};
use std::collections::{BTreeMap, BTreeSet};
use support::corpus::{Case, base, corpus};
use support::ops::Op;
use support::traced::{Event, TracedTree, traced};
use support::{Naive, audit, leaves_in};

const DATA: Attributes = Attributes::KERNEL_DATA;

fn prepared<G: Granule>(setup: &[Op], config: Config) -> TracedTree<G> {
    let tree = traced::<G>(config, false);
    for op in setup {
        op.apply(&tree, base(&tree))
            .unwrap_or_else(|failure| panic!("{op:?}: {failure}"));
    }
    tree.tables().log.take();
    tree.tables().host.reset_counts();
    tree
}

/// Table to level, by the links as they are.
fn levels<G: Granule>(tree: &TracedTree<G>) -> BTreeMap<PhysAddr, u8> {
    fn below<G: Granule>(
        tree: &TracedTree<G>,
        table: PhysAddr,
        level: u8,
        levels: &mut BTreeMap<PhysAddr, u8>,
    ) {
        levels.insert(table, level);
        for index in 0..G::ENTRIES {
            let found = tree.tables().host.peek(table, index);
            if level < 3 && found & 3 == 3 {
                below(
                    tree,
                    PhysAddr(found & 0xffff_ffff_f000 & !(G::PAGE_SIZE - 1)),
                    level + 1,
                    levels,
                );
            }
        }
    }
    let mut levels = BTreeMap::new();
    below(tree, tree.root(), G::ROOT_LEVEL, &mut levels);
    levels
}

/// The levels at which `events` changed a descriptor that walks can reach, but for a link's count. `before` are the tables
/// linked before.
fn levels_written<G: Granule>(before: BTreeMap<PhysAddr, u8>, events: &[Event]) -> LevelMask {
    let counted = (G::PAGE_SIZE - 1) & !3 | 0xf << 51;
    let mut linked = before;
    let mut mask = LevelMask::NONE;
    for event in events {
        let Event::Store { table, old, new, .. } = *event else {
            continue;
        };
        let Some(level) = linked.get(&table).copied() else {
            continue;
        };
        let link = |value: u64| {
            (level < 3 && value & 3 == 3).then_some(PhysAddr(value & 0xffff_ffff_f000 & !(G::PAGE_SIZE - 1)))
        };
        if link(old).is_some() && link(old) == link(new) && (old ^ new) & !counted == 0 {
            continue;
        }
        mask.insert(level);
        if let Some(gone) = link(old) {
            linked.remove(&gone);
        }
        if let Some(new) = link(new) {
            linked.insert(new, level + 1);
        }
    }
    mask
}

/// Frees come after their invalidation is complete, or the table was never linked.
fn assert_freed_in_order(events: &[Event], what: &str) {
    for (i, event) in events.iter().enumerate() {
        let Event::Free(table) = event else { continue };
        let linked = events[..i].iter().rposition(
            |event| matches!(event, Event::Store { old, .. } if old & 3 == 3 && old & 0xffff_ffff_f000 == table.0),
        );
        let Some(unlinked) = linked else { continue };
        let since: Vec<_> = events[unlinked..i].to_vec();
        let tlbi = since.iter().position(Event::is_tlbi);
        let dsb = since
            .iter()
            .rposition(|event| *event == Event::Mmu(MmuEvent::DsbIsh));
        assert!(
            tlbi.is_some() && tlbi < dsb,
            "{what}: {table:?} is freed before its invalidation: {since:?}"
        );
    }
}

/// For each k, the operation with k tables to be had: fails and changes nothing, until k suffices.
fn every_allocation_fails<G: Granule>(case: &Case) -> u64 {
    let name = format!("{} on {}", case.name, G::NAME);
    let tree = prepared::<G>(&case.setup, Config::default());
    case.op
        .apply(&tree, base(&tree))
        .unwrap_or_else(|failure| panic!("{name}: {failure}"));
    let needed = tree.tables().host.allocated.get();
    let wanted = leaves_in(&tree, tree.range());
    audit(&tree);
    for k in 0..needed {
        let tree = prepared::<G>(&case.setup, Config::default());
        let before = tree.tables().host.snapshot();
        let linked = levels(&tree);
        tree.tables().host.budget.set(k);
        let failure = match case.op.apply(&tree, base(&tree)) {
            Err(failure) => failure,
            Ok(outcome) => panic!("{name} with {k} of {needed} tables: {outcome:?}"),
        };
        assert!(
            matches!(failure.error, Error::OutOfTables(_)),
            "{name}, table {k}: {failure:?}"
        );
        assert_eq!(tree.tables().host.snapshot(), before, "{name}, table {k}");
        let events = tree.tables().log.take();
        assert_eq!(
            failure.levels,
            levels_written::<G>(linked, &events),
            "{name}, table {k}: levels"
        );
        assert_freed_in_order(&events, &name);
        audit(&tree);
        // And the same once more, with memory: the failure has left nothing that would be in the way.
        tree.tables().host.budget.set(u64::MAX);
        case.op
            .apply(&tree, base(&tree))
            .unwrap_or_else(|failure| panic!("{name} again: {failure}"));
        assert_eq!(leaves_in(&tree, tree.range()), wanted, "{name} after failure {k}");
        audit(&tree);
    }
    needed
}

fn every_allocation_of_the_corpus_fails<G: Granule>() {
    let needed: u64 = corpus::<G>().iter().map(every_allocation_fails::<G>).sum();
    assert!(
        needed > 100,
        "the corpus on {} allocates only {needed} tables",
        G::NAME
    );
}

#[test]
fn out_of_tables_at_any_allocation_leaves_everything_as_it_was_on_4k() {
    every_allocation_of_the_corpus_fails::<Granule4K>();
}

#[test]
fn out_of_tables_at_any_allocation_leaves_everything_as_it_was_on_16k() {
    every_allocation_of_the_corpus_fails::<Granule16K>();
}

#[test]
fn out_of_tables_at_any_allocation_leaves_everything_as_it_was_on_64k() {
    every_allocation_of_the_corpus_fails::<Granule64K>();
}

#[test]
fn the_levels_reported_are_the_levels_written() {
    for case in corpus::<Granule4K>() {
        let tree = prepared::<Granule4K>(&case.setup, Config::default());
        let linked = levels(&tree);
        let outcome = case.op.apply(&tree, base(&tree)).expect("memory suffices");
        let events = tree.tables().log.take();
        let written = levels_written::<Granule4K>(linked.clone(), &events);
        // A new table is filled before it is linked: its level counts too.
        let after = levels(&tree);
        let new = after.iter().filter(|(table, _)| !linked.contains_key(table));
        let mut wanted = written;
        for (table, level) in new {
            if events
                .iter()
                .any(|event| matches!(event, Event::Store { table: t, .. } if t == table))
            {
                wanted.insert(*level);
            }
        }
        // A table that goes as a whole takes its leaves' levels along, which it is not written at.
        for level in 0..4 {
            let gone = linked
                .iter()
                .any(|(table, l)| *l == level && !after.contains_key(table));
            if gone && outcome.levels.contains(level) {
                wanted.insert(level);
            }
        }
        assert_eq!(outcome.levels, wanted, "{}", case.name);
    }
}

#[test]
fn tables_added_and_removed_are_counted_and_freed_in_order() {
    for case in corpus::<Granule4K>() {
        for repeat_tlbi in [false, true] {
            let config = Config {
                repeat_tlbi,
                ..Config::default()
            };
            let tree = prepared::<Granule4K>(&case.setup, config);
            let before = tree.tables().host.live() as i64;
            let outcome = case.op.apply(&tree, base(&tree)).expect("memory suffices");
            let after = tree.tables().host.live() as i64;
            let change = i64::from(outcome.tables_added) - i64::from(outcome.tables_removed);
            assert_eq!(after - before, change, "{}: {outcome:?}", case.name);
            assert_freed_in_order(&tree.tables().log.take(), case.name);
        }
    }
}

#[test]
fn no_operation_of_the_corpus_takes_tables_that_it_does_not_link() {
    for case in corpus::<Granule4K>() {
        let tree = prepared::<Granule4K>(&case.setup, Config::default());
        let outcome = case.op.apply(&tree, base(&tree)).expect("memory suffices");
        let taken = tree.tables().host.allocated.get();
        assert_eq!(taken, u64::from(outcome.tables_added), "{}", case.name);
    }
}

/// Maps from each source in turn, each of which goes wrong at page `k`, and sees nothing changed and the same said.
fn fails_alike<G: Granule>(
    tree: &TracedTree<G>,
    at: VirtAddr,
    frames: &[Option<u64>],
    contiguous: bool,
    wanted: Error,
) {
    let range = VirtRange::new(at, (frames.len() as u64) << G::PAGE_SHIFT);
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
        tree.reclaim();
        assert_eq!(tree.tables().host.snapshot(), before, "{what}");
        assert_eq!(Naive::of(tree), naive, "{what}");
        said.insert(failure.levels.bits());
    };
    let array: Vec<Option<Pfn>> = frames.iter().map(|frame| frame.map(Pfn)).collect();
    try_source("array", &mut || {
        tree.map(range, &mut PageArray::new(array.as_slice()), DATA, LeafSet::ALL)
    });
    if let Some(all) = frames.iter().copied().collect::<Option<Vec<u64>>>() {
        // The same numbers as a plain slice of each kind: those have ways of their own.
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
    Op::map(2000, support::Shape::Range(99, 1))
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
    Op::map(2000, support::Shape::Range(99, 1))
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
            // The address as it would stand in a descriptor: what does not fit is where no address has bits.
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
    tree.reclaim();
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
            let taken = Op::map(k, support::Shape::Range(0x777 + k, 1));
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
            // Not one descriptor was written, not even for a moment.
            Op::Unmap { page: k, pages: 1 }
                .apply(&tree, base(&tree))
                .expect("mapped");
        }
    }
    assert_eq!(tree.tables().host.live(), 1);
}

#[test]
fn a_block_or_a_group_or_an_invalid_leaf_in_the_way_is_said_with_its_level() {
    for (page, pages, level) in [
        (512, 512, 2),
        (512 * 16, 512 * 16, 2),
        (1 << 18, 1 << 18, 1),
        (16, 16, 3),
    ] {
        for valid in [true, false] {
            let tree = traced::<Granule4K>(Config::default(), false);
            Op::map(page, support::Shape::Range((1 << 24) + page, pages))
                .apply(&tree, base(&tree))
                .expect("vacant");
            Op::SetValid { page, pages, valid }
                .apply(&tree, base(&tree))
                .expect("mapped");
            tree.tables().log.take();
            let before = tree.tables().host.snapshot();
            let inside = page + pages / 2 + 1;
            let failure = Op::map(inside, support::Shape::Range(5, 3)).apply(&tree, base(&tree));
            let failure = failure.expect_err("occupied");
            let Error::Occupied { va, level: at, found } = failure.error else {
                panic!("{failure:?}");
            };
            assert_eq!((va, at), (base(&tree).add(inside << 12), level));
            assert_eq!(found.is_valid(), valid);
            assert_eq!(failure.levels, LevelMask::NONE);
            assert_eq!(tree.tables().host.snapshot(), before);
            // Over its border, too: the first address that is taken.
            let failure = Op::map(page - 5, support::Shape::Range(1 << 23, 9)).apply(&tree, base(&tree));
            let failure = failure.expect_err("occupied");
            assert!(matches!(failure.error, Error::Occupied { va, .. } if va == base(&tree).add(page << 12)));
            assert_eq!(tree.tables().host.snapshot(), before);
        }
    }
}

#[test]
fn ranges_that_are_empty_misaligned_or_outside_are_refused_by_every_operation() {
    let tree = traced::<Granule4K>(Config::default(), false);
    let top = VirtAddr(0u64.wrapping_sub(1 << 12));
    let cases = [
        (VirtRange::new(base(&tree), 0), Error::Empty(base(&tree))),
        (
            VirtRange::new(base(&tree).add(8), 1 << 12),
            Error::Misaligned(base(&tree).0 + 8),
        ),
        (VirtRange::new(base(&tree), 0x1800), Error::Misaligned(0x1800)),
        (
            VirtRange::new(VirtAddr(0), 1 << 12),
            Error::NonCanonical(VirtAddr(0), 1 << 12),
        ),
        (
            VirtRange::new(VirtAddr(tree.range().start.0 - 0x1000), 0x2000),
            Error::NonCanonical(VirtAddr(tree.range().start.0 - 0x1000), 0x2000),
        ),
        (VirtRange::new(top, 0x2000), Error::NonCanonical(top, 0x2000)),
        (VirtRange::new(top, 1 << 63), Error::NonCanonical(top, 1 << 63)),
    ];
    for (range, wanted) in cases {
        let mut batch = tree.batch();
        let source = &mut PhysRange::new(PhysAddr(1 << 30), range.size >> 12);
        let results = [
            tree.map(range, source, DATA, LeafSet::ALL),
            tree.unmap(range, &mut batch),
            tree.protect(range, |old| old, &mut batch),
            tree.set_valid(range, false, &mut batch),
            tree.split(range, &mut batch),
            tree.coalesce(range, &mut batch),
        ];
        for result in results {
            assert_eq!(result.expect_err("refused").error, wanted, "{range:?}");
        }
        assert_eq!(tree.visit(range, |_| paging::Visit::Continue), Err(wanted));
    }
    assert_eq!(tree.tables().log.take(), [], "nothing was done");
    // The very last page is a page like any other.
    let last = VirtRange::new(top, 1 << 12);
    tree.map(
        last,
        &mut PhysRange::new(PhysAddr(1 << 30), 1),
        DATA,
        LeafSet::ALL,
    )
    .expect("mapped");
    let mut batch = tree.batch();
    tree.protect(last, |old| old.read_only(), &mut batch)
        .expect("mapped");
    tree.split(last, &mut batch).expect("nothing to split");
    tree.coalesce(last, &mut batch).expect("nothing to fold");
    assert!(
        tree.translate(VirtAddr(u64::MAX))
            .is_some_and(|leaf| !leaf.attributes.is_writable())
    );
    tree.unmap(last, &mut batch).expect("mapped");
    batch.flush();
    assert_eq!(tree.tables().host.live(), 1);
}

#[test]
fn a_leaf_that_ends_with_the_address_space_is_cut_at_its_head() {
    let tree = traced::<Granule4K>(Config::default(), false);
    let start = VirtAddr(0u64.wrapping_sub(1 << 30));
    let all = VirtRange::new(start, 1 << 30);
    tree.map(
        all,
        &mut PhysRange::new(PhysAddr(1 << 30), 1 << 18),
        DATA,
        LeafSet::ALL,
    )
    .expect("mapped");
    let mut batch = tree.batch();
    let tail = VirtRange::new(VirtAddr(0u64.wrapping_sub(0x5000)), 0x5000);
    tree.split(tail, &mut batch).expect("memory suffices");
    let outcome = tree.unmap(tail, &mut batch).expect("memory suffices");
    batch.flush();
    assert_eq!(outcome.leaves.pages::<Granule4K>(), 5);
    assert!(tree.translate(VirtAddr(tail.start.0 - 1)).is_some());
    assert!(tree.translate(VirtAddr(u64::MAX)).is_none());
    audit(&tree);
}

#[test]
fn writable_and_executable_at_once_is_refused_before_anything_changes() {
    let tree = traced::<Granule4K>(Config::default(), false);
    let range = VirtRange::new(base(&tree), 40 << 12);
    let mut source = PhysRange::new(PhysAddr(1 << 30), 40);
    let failure = tree
        .map(range, &mut source, DATA.executable(), LeafSet::ALL)
        .expect_err("W^X");
    assert_eq!(failure.error, Error::WritableExecutable(range.start));
    // Text, and one page of it that is data: to make all of it executable fails at that page.
    let text = DATA.read_only().executable();
    tree.map(
        range,
        &mut PhysRange::new(PhysAddr(1 << 30), 40),
        text,
        LeafSet::ALL,
    )
    .expect("mapped");
    let page = VirtRange::new(base(&tree).add(20 << 12), 1 << 12);
    let mut batch = tree.batch();
    tree.protect(page, |_| DATA, &mut batch).expect("memory suffices");
    batch.flush();
    let before = tree.tables().host.snapshot();
    let mut batch = tree.batch();
    let failure = tree
        .protect(range, Attributes::executable, &mut batch)
        .expect_err("W^X");
    assert_eq!(failure.error, Error::WritableExecutable(page.start));
    let failure = tree
        .protect(range, Attributes::writable, &mut batch)
        .expect_err("W^X");
    assert_eq!(failure.error, Error::WritableExecutable(range.start));
    assert!(batch.pending().is_empty());
    drop(batch);
    assert_eq!(tree.tables().host.snapshot(), before);
}

#[test]
fn protect_of_a_range_with_a_hole_changes_nothing() {
    for hole in [0, 1, 15, 16, 31, 600, 1099] {
        let tree = traced::<Granule4K>(Config::default(), false);
        Op::map(0, support::Shape::Range(1 << 24, 1100))
            .apply(&tree, base(&tree))
            .expect("vacant");
        Op::Unmap { page: hole, pages: 1 }
            .apply(&tree, base(&tree))
            .expect("memory suffices");
        let before = tree.tables().host.snapshot();
        let mut batch = tree.batch();
        let range = VirtRange::new(base(&tree), 1100 << 12);
        let va = base(&tree).add(hole << 12);
        for result in [
            tree.protect(range, Attributes::read_only, &mut batch),
            tree.set_valid(range, false, &mut batch),
        ] {
            assert_eq!(result.expect_err("a hole").error, Error::NotMapped(va));
        }
        assert!(batch.pending().is_empty());
        drop(batch);
        assert_eq!(tree.tables().host.snapshot(), before);
    }
}

#[test]
fn the_tiny_granule_survives_every_failure_of_every_range() {
    for page in 0..64 {
        for pages in 1..=64 - page {
            let setup = Op::map(0, support::Shape::Range(0x1000, 64));
            for op in [
                Op::Unmap { page, pages },
                Op::Protect {
                    page,
                    pages,
                    change: support::ops::Change::ReadOnly,
                },
                Op::Split { page, pages },
            ] {
                let run = |k: u64| {
                    let tree = traced::<TinyGranule>(Config::default(), false);
                    let start = tree.range().start;
                    setup.apply(&tree, start).expect("vacant");
                    let before = tree.tables().host.snapshot();
                    tree.tables().host.budget.set(k);
                    let result = op.apply(&tree, start);
                    audit(&tree);
                    if result.is_err() {
                        assert_eq!(tree.tables().host.snapshot(), before, "{op:?} with {k} tables");
                    }
                    result.is_ok()
                };
                let enough = (0..10).find(|k| run(*k));
                assert!(enough.is_some_and(|k| k <= 4), "{op:?} takes {enough:?} tables");
            }
        }
    }
}

#[test]
fn a_table_that_was_never_linked_needs_no_invalidation() {
    // Two tables reserved, the third missing: they go back as they came.
    let tree = traced::<Granule4K>(Config::default(), false);
    Op::map(1 << 18, support::Shape::Range(1 << 18, 1 << 18))
        .apply(&tree, base(&tree))
        .expect("vacant");
    tree.tables().log.take();
    tree.tables().host.budget.set(2);
    let range = VirtRange::new(base(&tree).add((1 << 30) + 0x1000), (1 << 29) + 0x1000);
    let mut batch = tree.batch();
    let failure = tree.unmap(range, &mut batch).expect_err("three are needed");
    drop(batch);
    assert_eq!(failure.levels, LevelMask::NONE);
    let events = tree.tables().log.take();
    let kinds: String = events.iter().map(Event::letter).collect();
    assert_eq!(kinds, "AAAFF", "{events:?}");
    let _ = tree.tables().alloc_table();
}
