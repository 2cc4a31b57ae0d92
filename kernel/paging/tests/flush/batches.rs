use crate::flush::{DSB_ISH, covered, events, map, prepared, range_of, tlbis, unmap};
use crate::support::Rng;
use crate::support::ops::Op;
use crate::support::traced::{Event, Log, word};
use paging::{Config, Granule4K, Pending, PendingRange};
use std::collections::BTreeSet;

#[test]
fn an_empty_batch_issues_nothing() {
    let tree = prepared::<Granule4K>(&[map(5, 1)], Config::default(), true);
    drop(tree.batch());
    assert_eq!(tree.batch().flush(), None);
    tree.flush(Pending::new(), false);
    tree.flush(Pending::new(), true);
    assert!(tree.batch().pending().is_empty());
    assert_eq!(tree.batch().defer(7).flush(), Some(7));
    assert_eq!(tree.tables().log.take(), []);
    for op in [
        unmap(100, 300),
        Op::Split { page: 5, pages: 1 },
        Op::Coalesce { page: 0, pages: 512 },
    ] {
        assert_eq!(events(&tree, &op), [], "{op:?}");
    }
}

#[test]
fn a_dropped_batch_flushes_as_a_flushed_one_does() {
    let run = |flush: bool| {
        let tree = prepared::<Granule4K>(&[map(3, 40)], Config::default(), false);
        let mut batch = tree.batch();
        tree.unmap(range_of(&tree, 3, 40), &mut batch).expect("mapped");
        assert!(!batch.pending().is_empty());
        if flush {
            batch.flush();
        } else {
            drop(batch);
        }
        tree.tables().log.take()
    };
    assert_eq!(run(true), run(false));
    assert_eq!(word(&run(false)), "SsTdi");
}

#[test]
fn a_batch_of_many_operations_flushes_once() {
    let setup: Vec<_> = (0..40).map(|i| map(i * 1024, 3)).collect();
    let tree = prepared::<Granule4K>(&setup, Config::default(), false);
    let mut batch = tree.batch();
    for i in 0..40 {
        tree.unmap(range_of(&tree, i * 1024, 512), &mut batch)
            .expect("mapped");
    }
    assert_eq!(
        word(&tree.tables().log.take()),
        "S",
        "nothing is invalidated or freed before the flush"
    );
    assert_eq!(batch.pending().nr_dead_tables(), 40);
    batch.flush();
    let all = tree.tables().log.take();
    assert_eq!(word(&all), "sTdiF");
    assert_eq!(
        all.iter().filter(|event| matches!(event, Event::Free(_))).count(),
        40
    );
    assert_eq!(tree.tables().host.live(), 3);
}

#[test]
fn a_flush_for_another_cpu_begins_with_dsb_ish() {
    let tree = prepared::<Granule4K>(&[map(3, 40)], Config::default(), false);
    let mut batch = tree.batch();
    tree.unmap(range_of(&tree, 3, 40), &mut batch).expect("mapped");
    let mut pending = Pending::new();
    batch.defer_to(&mut pending);
    assert_eq!(
        word(&tree.tables().log.take()),
        "S",
        "what is left to another flush is not flushed"
    );
    tree.flush(pending, true);
    let all = tree.tables().log.take();
    assert_eq!(word(&all), "dTdi");
    assert_eq!(all.iter().filter(|event| **event == DSB_ISH).count(), 2);
}

#[test]
fn pending_work_of_many_batches_merges_into_one_flush() {
    let setup: Vec<_> = (0..30).map(|i| map(i * 1024, 2)).collect();
    let tree = prepared::<Granule4K>(&setup, Config::default(), true);
    let mut all = Pending::new();
    for i in 0..30 {
        let mut batch = tree.batch();
        tree.unmap(range_of(&tree, i * 1024, 512), &mut batch)
            .expect("mapped");
        batch.defer_to(&mut all);
    }
    assert_eq!(all.nr_dead_tables(), 30);
    tree.tables().log.take();
    tree.flush(all, false);
    let done = tree.tables().log.take();
    assert_eq!(word(&done), "sTdiF");
    let tlbis = tlbis(&done);
    for i in 0..30 {
        let range = range_of(&tree, i * 1024, 2);
        for va in [range.start.0, range.start.0 + 0x1000] {
            let hit = tlbis.iter().any(|tlbi| {
                covered::<Granule4K>(*tlbi).is_none_or(|(start, size)| va.wrapping_sub(start) < size)
            });
            assert!(hit, "{va:#x} is not invalidated by {tlbis:?}");
        }
    }
    assert_eq!(tree.tables().host.live(), 3);
}

/// After unmapping every `distance`-th page, guard pages between.
fn tlbis_for_pages(pages: &[u64], distance: u64, tlbi_range: bool) -> usize {
    let setup: Vec<_> = pages.iter().map(|page| map(distance * page, 1)).collect();
    let tree = prepared::<Granule4K>(&setup, Config::default(), tlbi_range);
    let mut all = Pending::new();
    for share in pages.chunks(8) {
        let mut some = Pending::new();
        for page in share {
            let mut batch = tree.batch();
            tree.unmap(range_of(&tree, distance * page, 1), &mut batch)
                .expect("a page");
            batch.defer_to(&mut some);
        }
        tree.defer_all(&mut some, &mut all);
        assert!(some.is_empty());
    }
    tree.tables().log.take();
    tree.flush(all, true);
    let done = tlbis(&tree.tables().log.take());
    for page in pages {
        let va = range_of(&tree, distance * page, 1).start.0;
        let hit = done.iter().any(|tlbi| {
            covered::<Granule4K>(*tlbi).is_none_or(|(start, size)| va.wrapping_sub(start) < size)
        });
        assert!(hit, "{va:#x} is not invalidated by {done:?}");
    }
    done.len()
}

#[test]
fn neighbours_with_a_guard_page_between_are_invalidated_as_one_range() {
    let up: Vec<_> = (0..100).collect();
    let down: Vec<_> = (0..100).rev().collect();
    let inside_out: Vec<_> = (0..50).flat_map(|i| [49 - i, 50 + i]).collect();
    let two_streams: Vec<_> = (0..50).flat_map(|i| [i, 1000 - i]).collect();
    for (pages, most) in [(&up, 2), (&down, 2), (&inside_out, 2), (&two_streams, 4)] {
        assert_eq!(tlbis_for_pages(pages, 2, true), most, "{pages:?}");
        assert_eq!(tlbis_for_pages(pages, 17, true), most, "{pages:?}");
    }
    assert_eq!(tlbis_for_pages(&up[..8], 18, true), 8, "too far from each other");
    assert_eq!(
        tlbis_for_pages(&up[..8], 2, false),
        8,
        "one by one, the guard pages would cost as much as the pages"
    );
}

#[test]
fn leaves_of_different_strides_are_recorded_apart() {
    let (block, page) = (512, 1024);
    let tree = prepared::<Granule4K>(
        &[map(block, 512), map(page, 1), map(9, 1)],
        Config::default(),
        true,
    );
    let mut all = Pending::new();
    for (first, pages) in [(block, 512), (page, 1)] {
        let mut batch = tree.batch();
        tree.unmap(range_of(&tree, first, pages), &mut batch)
            .expect("a leaf");
        batch.defer_to(&mut all);
    }
    assert_eq!(all.ranges().count(), 2, "{all:?}");
    assert_eq!(all.nr_tlbis(true), 2);
    tree.flush(all, false);
}

struct Frames(Log);

impl Drop for Frames {
    fn drop(&mut self) {
        self.0.push(Event::Note("frames go back"));
    }
}

#[test]
fn what_is_deferred_goes_back_after_the_flush() {
    for flush in [false, true] {
        let tree = prepared::<Granule4K>(&[map(3, 40)], Config::default(), false);
        let mut batch = tree.batch().defer(Frames(tree.tables().log.clone()));
        tree.unmap(range_of(&tree, 3, 40), &mut batch).expect("mapped");
        if flush {
            drop(batch.flush());
        } else {
            drop(batch);
        }
        assert_eq!(word(&tree.tables().log.take()), "SsTdin");
    }
}

#[test]
fn a_panic_between_unmap_and_flush_does_not_leak_the_frames_early() {
    let tree = prepared::<Granule4K>(&[map(3, 40)], Config::default(), false);
    let unwound = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let mut batch = tree.batch().defer(Frames(tree.tables().log.clone()));
        tree.unmap(range_of(&tree, 3, 40), &mut batch).expect("mapped");
        std::panic::resume_unwind(Box::new("the caller's own trouble"));
    }));
    assert!(unwound.is_err());
    assert_eq!(word(&tree.tables().log.take()), "SsTdin");
}

#[test]
fn pending_says_how_many_tlbis_its_flush_issues() {
    let mut rng = Rng(77);
    for round in 0..300 {
        let tlbi_range = round % 2 == 0;
        let config = Config {
            flush_all_above: u32::MAX,
            ..Config::default()
        };
        let tree = prepared::<Granule4K>(&[map(16, 3000)], config, tlbi_range);
        let mut batch = tree.batch();
        for _ in 0..1 + rng.below(20) {
            let page = rng.below(3000);
            let pages = 1 + rng.below(40);
            tree.unmap(range_of(&tree, page, pages), &mut batch)
                .expect("memory suffices");
        }
        let said = batch.pending().nr_tlbis(tlbi_range);
        tree.tables().log.take();
        batch.flush();
        assert_eq!(
            said,
            tlbis(&tree.tables().log.take()).len() as u64,
            "round {round}"
        );
    }
}

#[test]
fn whatever_a_batch_merges_stays_invalidated() {
    let mut rng = Rng(4711);
    for round in 0..200 {
        let tlbi_range = round % 2 == 0;
        let config = Config {
            flush_all_above: u32::MAX,
            ..Config::default()
        };
        let mut pages = BTreeSet::new();
        while pages.len() < 30 {
            pages.insert(rng.below(20_000));
        }
        let setup: Vec<_> = pages.iter().map(|page| map(*page, 1)).collect();
        let tree = prepared::<Granule4K>(&setup, config, tlbi_range);
        let mut order: Vec<_> = pages.iter().copied().collect();
        let nr = order.len();
        for i in 0..nr {
            order.swap(i, rng.below(nr as u64) as usize);
        }
        let mut batch = tree.batch();
        for page in &order {
            tree.unmap(range_of(&tree, *page, 1), &mut batch).expect("mapped");
        }
        tree.tables().log.take();
        batch.flush();
        let tlbis = tlbis(&tree.tables().log.take());
        for page in order {
            let va = range_of(&tree, page, 1).start.0;
            let hit = tlbis.iter().any(|tlbi| {
                covered::<Granule4K>(*tlbi).is_none_or(|(start, size)| va.wrapping_sub(start) < size)
            });
            assert!(hit, "page {page} is not invalidated in round {round}");
        }
        crate::support::prune(&tree);
        assert_eq!(tree.tables().host.live(), 1);
    }
}

#[test]
fn pending_ranges_tell_what_was_there_before_the_stores() {
    let tree = prepared::<Granule4K>(&[map(512, 512), map(1024 + 16, 16)], Config::default(), false);
    let mut batch = tree.batch();
    tree.unmap(range_of(&tree, 512, 512), &mut batch).expect("mapped");
    let block = PendingRange {
        range: range_of(&tree, 512, 512),
        stride: 2,
        links: false,
    };
    assert_eq!(batch.pending().ranges().collect::<Vec<_>>(), [block]);
    drop(batch);
}
