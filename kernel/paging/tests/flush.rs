//! Barriers and invalidations: which, in which order, how many; told from the sequence of everything a tree does.
//!
//! A sequence reads as a word: A a table is taken, S a store, s DSB ISHST, T a TLBI, d DSB ISH, i ISB, F a table goes back.

mod support;

use paging::mmu::{MmuEvent, tlbi_va_operand};
use paging::{
    Attributes, Config, Granule, Granule4K, Granule16K, Granule64K, LeafSet, LeafSize, Pending, PendingRange,
    PhysAddr, TlbiRange, VirtAddr, VirtRange,
};
use std::collections::{BTreeMap, BTreeSet};
use support::corpus::{base, corpus};
use support::ops::{Change, Op};
use support::traced::{Event, Log, TracedTree, traced, word};
use support::{Rng, Shape};

const DSB_ISHST: Event = Event::Mmu(MmuEvent::DsbIshst);
const DSB_ISH: Event = Event::Mmu(MmuEvent::DsbIsh);
const ISB: Event = Event::Mmu(MmuEvent::Isb);

fn tree<G: Granule>(tlbi_range: bool) -> TracedTree<G> {
    traced(Config::default(), tlbi_range)
}

fn prepared<G: Granule>(setup: &[Op], config: Config, tlbi_range: bool) -> TracedTree<G> {
    let tree = traced::<G>(config, tlbi_range);
    for op in setup {
        op.apply(&tree, base(&tree))
            .unwrap_or_else(|failure| panic!("{op:?}: {failure}"));
    }
    tree.tables().log.take();
    tree
}

fn events<G: Granule>(tree: &TracedTree<G>, op: &Op) -> Vec<Event> {
    tree.tables().log.take();
    op.apply(tree, base(tree))
        .unwrap_or_else(|failure| panic!("{op:?}: {failure}"));
    tree.tables().log.take()
}

fn tlbis(events: &[Event]) -> Vec<MmuEvent> {
    events
        .iter()
        .filter(|event| event.is_tlbi())
        .map(|event| match event {
            Event::Mmu(event) => *event,
            other => panic!("{other:?} is no TLBI"),
        })
        .collect()
}

/// The operand of a TLBI by range, taken apart by the format of the architecture (Arm ARM C5.5, TLBI RVAE1IS, and the
/// formula there): first address and pages.
fn decode<G: Granule>(operand: u64) -> (u64, u64) {
    assert_eq!(operand >> 48, 0, "an ASID in {operand:#x}");
    let granule = match operand >> 46 & 3 {
        1 => 12,
        2 => 14,
        3 => 16,
        reserved => panic!("TG {reserved} is reserved"),
    };
    assert_eq!(1 << granule, G::PAGE_SIZE, "TG");
    let (scale, num) = (operand >> 44 & 3, operand >> 39 & 31);
    assert_eq!(operand >> 37 & 3, 0, "TTL");
    // BaseADDR is VA[48 + (granule - 12):granule], sign-extended.
    let base = (operand & ((1 << 37) - 1)) << granule;
    let sign = 64 - (37 + granule);
    let va = if 37 + granule >= 64 {
        base
    } else {
        ((base << sign) as i64 >> sign) as u64
    };
    (va, (num + 1) * (1 << (5 * scale + 1)))
}

/// The pages that a TLBI covers, as (first address, bytes); `None` for all.
fn covered<G: Granule>(tlbi: MmuEvent) -> Option<(u64, u64)> {
    match tlbi {
        MmuEvent::TlbiLastLevel(va) | MmuEvent::TlbiAllLevels(va) => Some((va.0, G::PAGE_SIZE)),
        MmuEvent::TlbiRangeLastLevel(range) | MmuEvent::TlbiRangeAllLevels(range) => {
            let (va, pages) = decode::<G>(range.operand::<G>());
            assert_eq!(va, range.start.0, "{range:?}");
            Some((va, pages << G::PAGE_SHIFT))
        }
        MmuEvent::TlbiAll => None,
        other => panic!("{other:?} is no TLBI"),
    }
}

fn is_all_levels(tlbi: MmuEvent) -> bool {
    matches!(
        tlbi,
        MmuEvent::TlbiAllLevels(_) | MmuEvent::TlbiRangeAllLevels(_) | MmuEvent::TlbiAll
    )
}

/// Whether the TLBIs cover exactly the pages of `range`, nothing beside them.
fn assert_exact_cover<G: Granule>(tlbis: &[MmuEvent], range: VirtRange) {
    let mut pieces: Vec<_> = tlbis
        .iter()
        .map(|tlbi| covered::<G>(*tlbi).expect("not all"))
        .collect();
    pieces.sort_unstable();
    let mut end = range.start.0;
    for (start, size) in &pieces {
        assert!(
            *start >= range.start.0 && *start <= end,
            "{range:?}: a gap or a start outside at {start:#x}: {tlbis:?}"
        );
        end = end.max(start + size);
    }
    assert_eq!(end, range.end().0, "{range:?}: {tlbis:?}");
}

fn map(page: u64, pages: u64) -> Op {
    Op::map(page, Shape::Range((1 << 24) + page, pages))
}

fn map_pages(page: u64, pages: u64) -> Op {
    Op::Map {
        page,
        shape: Shape::Range((1 << 24) + page, pages),
        attributes: Attributes::KERNEL_DATA,
        allowed: LeafSet::PAGES,
    }
}

fn unmap(page: u64, pages: u64) -> Op {
    Op::Unmap { page, pages }
}

fn range_of<G: Granule>(tree: &TracedTree<G>, page: u64, pages: u64) -> VirtRange {
    VirtRange::new(base(tree).add(page << G::PAGE_SHIFT), pages << G::PAGE_SHIFT)
}

// Words.

#[test]
fn a_fresh_map_of_any_size_is_one_dsb_ishst_one_isb_and_no_tlbi() {
    let sizes = [
        1,
        2,
        15,
        16,
        17,
        100,
        512,
        513,
        25_600,
        1 << 13,
        1 << 18,
        (1 << 22) + 512 + 16 + 1,
    ];
    for pages in sizes {
        for allowed in [LeafSet::ALL, LeafSet::PAGES] {
            if allowed == LeafSet::PAGES && pages > 100_000 {
                continue;
            }
            let tree = tree::<Granule4K>(false);
            let op = Op::Map {
                page: 0,
                shape: Shape::Range(1 << 24, pages),
                attributes: Attributes::KERNEL_DATA,
                allowed,
            };
            let events = events(&tree, &op);
            let barriers: Vec<_> = events
                .iter()
                .filter(|event| matches!(event, Event::Mmu(_)))
                .collect();
            assert_eq!(barriers, [&DSB_ISHST, &ISB], "{pages} pages");
            assert_eq!(
                &events[events.len() - 2..],
                [DSB_ISHST, ISB],
                "behind the last store"
            );
        }
    }
}

#[test]
fn every_map_of_the_corpus_is_one_dsb_ishst_and_one_isb_behind_its_last_store() {
    let mut maps = 0;
    for case in corpus::<Granule4K>() {
        if let Op::Map { .. } = case.op {
            maps += 1;
            let tree = prepared::<Granule4K>(&case.setup, Config::default(), true);
            let events = events(&tree, &case.op);
            let barriers: Vec<_> = events
                .iter()
                .filter(|event| matches!(event, Event::Mmu(_)))
                .collect();
            assert_eq!(barriers, [&DSB_ISHST, &ISB], "{}", case.name);
            assert_eq!(&events[events.len() - 2..], [DSB_ISHST, ISB], "{}", case.name);
        }
    }
    assert!(maps >= 10);
}

/// Takes the break-before-make cycles out of a word: clear, DSB ISHST, TLBI, DSB ISH, make.
fn without_cycles(mut word: String) -> (String, usize) {
    let mut cycles = 0;
    while let Some(at) = word.find("SsTdS") {
        word.replace_range(at..at + 5, "S");
        cycles += 1;
    }
    (word, cycles)
}

#[test]
fn every_operation_of_the_corpus_keeps_to_the_grammar() {
    for repeat_tlbi in [false, true] {
        for tlbi_range in [false, true] {
            for case in corpus::<Granule4K>() {
                if let Op::UnmapKeeping { .. } | Op::UnmapOneTable { .. } | Op::TakeOut { .. } = case.op {
                    // Two operations, each with its flush: told below.
                    continue;
                }
                let config = Config {
                    repeat_tlbi,
                    ..Config::default()
                };
                let tree = prepared::<Granule4K>(&case.setup, config, tlbi_range);
                let events = events(&tree, &case.op);
                let mut word = word(&events);
                let what = format!("{}: {word}", case.name);
                if repeat_tlbi {
                    // Every invalidation has its second, and no other has.
                    let once = word.replace("TdTd", "Td");
                    assert_eq!(once.matches("Td").count(), word.matches("TdTd").count(), "{what}");
                    word = once;
                }
                // A leaf that no walk uses is replaced without a break, but behind the new tables' contents.
                if case.name.contains("valid") {
                    word = word.replace("SsS", "S").replace("AsS", "S");
                    word = word
                        .strip_prefix("sS")
                        .map_or(word.clone(), |rest| format!("S{rest}"));
                }
                let (word, cycles) = without_cycles(word);
                // What is left: tables and stores, the flush, tables that go back.
                let head = word.trim_start_matches(['A', 'S']);
                let tail = head.trim_end_matches('F');
                assert!(
                    matches!(tail, "" | "si" | "sTdi"),
                    "{what} leaves {tail:?} after {cycles} cycles"
                );
                if events.iter().any(|event| matches!(event, Event::Store { .. })) {
                    assert_ne!(tail, "", "{what}: stores without a flush");
                }
            }
        }
    }
}

#[test]
fn a_prune_marks_invalidates_unmarks_and_then_gives_back() {
    for (pages, tables) in [(1, 3), (40, 3), (1 << 13, 2)] {
        let tree = prepared::<Granule4K>(&[map(pages, pages)], Config::default(), true);
        let mut batch = tree.batch();
        let range = range_of(&tree, pages, pages);
        let kept = tree.unmap_keeping_tables(range, &mut batch).expect("mapped");
        batch.flush();
        assert_eq!((kept.tables_removed, kept.tables_emptied), (0, 1));
        assert_eq!(word(&tree.tables().log.take()), "SsTdi", "no table goes");
        let pruned = tree.prune(range).expect("a valid range");
        assert_eq!(pruned.tables_removed, tables);
        // The count in the link above goes down with each mark that goes: upwards, a round for each level.
        let all = tree.tables().log.take();
        assert_eq!(word(&all), "SsTdiSF".repeat(tables as usize), "{pages} pages");
        assert!(tlbis(&all).iter().all(|tlbi| is_all_levels(*tlbi)));
        assert_eq!(tree.tables().host.live(), 1);
        // And with nothing to prune, nothing is done.
        assert_eq!(
            tree.prune(range).expect("a valid range"),
            paging::Outcome::default()
        );
        assert_eq!(tree.tables().log.take(), []);
    }
}

#[test]
fn an_unmap_is_stores_dsb_ishst_tlbi_dsb_ish_isb() {
    for (pages, wanted) in [
        (1, "SsTdiF"),
        (16, "SsTdiF"),
        (512, "SsTdiF"),
        (1 << 13, "SsTdiF"),
        (1 << 18, "SsTdiF"),
    ] {
        let tree = prepared::<Granule4K>(&[map(pages, pages)], Config::default(), false);
        assert_eq!(
            word(&events(&tree, &unmap(pages, pages))),
            wanted,
            "{pages} pages"
        );
    }
    // Where something stays in the table, no table goes.
    let tree = prepared::<Granule4K>(&[map(1, 1), map(3, 1)], Config::default(), false);
    assert_eq!(word(&events(&tree, &unmap(1, 1))), "SsTdi");
}

#[test]
fn a_permission_change_in_place_is_stores_dsb_ishst_tlbi_dsb_ish_isb() {
    for pages in [1, 16, 512, 1 << 13, 1 << 18] {
        let tree = prepared::<Granule4K>(&[map(pages, pages)], Config::default(), true);
        let op = Op::Protect {
            page: pages,
            pages,
            change: Change::ReadOnly,
        };
        let all = events(&tree, &op);
        assert_eq!(word(&all), "SsTdi", "{pages} pages");
        assert_eq!(all.iter().filter(|event| **event == DSB_ISHST).count(), 1);
        assert!(
            tlbis(&all).iter().all(|tlbi| !is_all_levels(*tlbi)),
            "no link changed"
        );
        // The same again changes nothing, and so issues nothing.
        assert_eq!(events(&tree, &op), []);
    }
}

#[test]
fn a_change_of_memory_type_is_break_invalidate_make() {
    for pages in [1, 16, 512, 1 << 13, 1 << 18] {
        let tree = prepared::<Granule4K>(&[map(pages, pages)], Config::default(), false);
        let op = Op::Protect {
            page: pages,
            pages,
            change: Change::Memory(paging::MemoryType::NORMAL_NC),
        };
        let all = events(&tree, &op);
        assert_eq!(word(&all), "SsTdSsi", "{pages} pages");
        // All of a group is broken before the one batch of TLBIs, and nothing is valid between.
        let broken = all.iter().position(|event| *event == DSB_ISHST).expect("a DSB");
        assert!(
            all[..broken]
                .iter()
                .all(|event| matches!(event, Event::Store { new: 0, .. })),
            "{pages} pages"
        );
    }
}

#[test]
fn making_leaves_valid_again_needs_no_tlbi() {
    for pages in [1, 16, 512] {
        let off = Op::SetValid {
            page: pages,
            pages,
            valid: false,
        };
        let on = Op::SetValid {
            page: pages,
            pages,
            valid: true,
        };
        let tree = prepared::<Granule4K>(&[map(pages, pages)], Config::default(), false);
        assert_eq!(word(&events(&tree, &off)), "SsTdi");
        assert_eq!(word(&events(&tree, &on)), "Ssi");
        // And to take an invalid leaf out takes none but for its table.
        events(&tree, &off);
        let tree2 = prepared::<Granule4K>(
            &[map(pages, pages), map(pages + 600, 1), map(pages * 2, 1), off],
            Config::default(),
            false,
        );
        let all = events(&tree2, &unmap(pages, pages));
        assert_eq!(
            tlbis(&all).len(),
            usize::from(word(&all).contains('F')),
            "{pages} pages: {all:?}"
        );
    }
}

#[test]
fn a_split_in_place_is_flushed_behind_it() {
    let config = Config {
        break_policy: paging::BreakPolicy::InPlace,
        ..Config::default()
    };
    let tree = prepared::<Granule4K>(&[map(512, 512)], config, false);
    let op = Op::Split {
        page: 512 + 5,
        pages: 9,
    };
    let all = events(&tree, &op);
    assert_eq!(
        word(&all),
        "ASsSsTdi",
        "new table, DSB, one store over the block, flush"
    );
    let after = all.iter().position(|event| *event == DSB_ISHST).expect("a DSB");
    let in_place: Vec<_> = all[after..]
        .iter()
        .filter(|event| matches!(event, Event::Store { .. }))
        .collect();
    assert!(matches!(in_place[..], [Event::Store { old, new, .. }] if old & 1 == 1 && new & 3 == 3));
}

#[test]
fn a_cut_leaf_is_broken_once_however_deep_the_cut() {
    for (leaf, cut, pages) in [
        (512, 100, 1),
        (512, 257, 30),
        (1 << 13, 100, 1),
        (1 << 18, 100, 1),
        (1 << 18, 5, (1 << 17) + 9),
        (1 << 22, 77, 3 << 20),
    ] {
        for op in [
            Op::Split {
                page: leaf + cut,
                pages,
            },
            Op::Unmap {
                page: leaf + cut,
                pages,
            },
            Op::Protect {
                page: leaf + cut,
                pages,
                change: Change::ReadOnly,
            },
        ] {
            let tree = prepared::<Granule4K>(&[map(leaf, leaf)], Config::default(), true);
            let all = events(&tree, &op);
            assert_eq!(word(&all), "ASsTdSsi", "{op:?}");
        }
    }
}

#[test]
fn an_empty_batch_issues_nothing() {
    let tree = prepared::<Granule4K>(&[map(5, 1)], Config::default(), true);
    drop(tree.batch());
    assert_eq!(tree.batch().flush(), None);
    tree.flush(Pending::new(), false);
    tree.flush(Pending::new(), true);
    assert!(tree.batch().pending().is_empty());
    let (pending, cargo) = tree.batch().withhold(7).detach();
    assert!(pending.is_empty() && cargo == Some(7));
    assert_eq!(tree.tables().log.take(), []);
    // Operations that find nothing to do, too.
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
    assert!(word(&run(false)).ends_with("sTdiF"));
}

#[test]
fn a_batch_of_many_operations_flushes_once() {
    let setup: Vec<_> = (0..40).map(|i| map(i * 1024, 3)).collect();
    let tree = prepared::<Granule4K>(&setup, Config::default(), false);
    let mut batch = tree.batch();
    for i in 0..40 {
        tree.unmap(range_of(&tree, i * 1024, 3), &mut batch)
            .expect("mapped");
    }
    assert_eq!(
        word(&tree.tables().log.take()),
        "S",
        "nothing is invalidated or freed before the flush"
    );
    assert_eq!(batch.pending().nr_dead_tables(), 40 + 2);
    batch.flush();
    let all = tree.tables().log.take();
    assert_eq!(word(&all), "sTdiF");
    assert_eq!(
        all.iter().filter(|event| matches!(event, Event::Free(_))).count(),
        42
    );
    assert_eq!(tree.tables().host.live(), 1);
}

#[test]
fn a_flush_for_another_cpu_begins_with_dsb_ish() {
    let tree = prepared::<Granule4K>(&[map(3, 40)], Config::default(), false);
    let mut batch = tree.batch();
    tree.unmap(range_of(&tree, 3, 40), &mut batch).expect("mapped");
    let (pending, _) = batch.detach();
    assert_eq!(
        word(&tree.tables().log.take()),
        "S",
        "a detached batch does not flush"
    );
    tree.flush(pending, true);
    let all = tree.tables().log.take();
    assert_eq!(word(&all), "dTdiF");
    assert_eq!(all.iter().filter(|event| **event == DSB_ISH).count(), 2);
}

#[test]
fn pending_work_of_many_batches_merges_into_one_flush() {
    let setup: Vec<_> = (0..30).map(|i| map(i * 1024, 2)).collect();
    let tree = prepared::<Granule4K>(&setup, Config::default(), true);
    let mut all = Pending::new();
    for i in 0..30 {
        let mut batch = tree.batch();
        tree.unmap(range_of(&tree, i * 1024, 2), &mut batch)
            .expect("mapped");
        all.merge(tree.tables(), batch.detach().0);
    }
    assert_eq!(all.nr_dead_tables(), 30 + 2);
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
    assert_eq!(tree.tables().host.live(), 1);
}

/// Takes single pages out, every one of `distance` and in the order of `pages`, as areas with a guard page between; gives
/// how many TLBIs the flush of all of them issues.
fn tlbis_for_pages(pages: &[u64], distance: u64, tlbi_range: bool) -> usize {
    let setup: Vec<_> = pages.iter().map(|page| map(distance * page, 1)).collect();
    let tree = prepared::<Granule4K>(&setup, Config::default(), tlbi_range);
    let mut all = Pending::new();
    // In shares, as CPUs pass them on.
    for share in pages.chunks(8) {
        let mut some = Pending::new();
        for page in share {
            let taken = tree.take_out_of_one_table(range_of(&tree, distance * page, 1));
            tree.leave(taken.expect("a page"), &mut some);
        }
        tree.leave_all(&mut some, &mut all);
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
        let taken = tree.take_out_of_one_table(range_of(&tree, first, pages));
        tree.leave(taken.expect("a leaf"), &mut all);
    }
    assert_eq!(all.ranges().count(), 2, "{all:?}");
    assert_eq!(all.nr_tlbis(true), 2);
    tree.flush(all, false);
}

/// What must not be reused before the flush; says when it goes.
struct Frames(Log);

impl Drop for Frames {
    fn drop(&mut self) {
        self.0.push(Event::Note("frames go back"));
    }
}

#[test]
fn what_is_withheld_goes_back_after_the_flush() {
    for flush in [false, true] {
        let tree = prepared::<Granule4K>(&[map(3, 40)], Config::default(), false);
        let mut batch = tree.batch().withhold(Frames(tree.tables().log.clone()));
        tree.unmap(range_of(&tree, 3, 40), &mut batch).expect("mapped");
        if flush {
            drop(batch.flush());
        } else {
            drop(batch);
        }
        assert_eq!(word(&tree.tables().log.take()), "SsTdiFn");
    }
}

#[test]
fn a_panic_between_unmap_and_flush_does_not_leak_the_frames_early() {
    let tree = prepared::<Granule4K>(&[map(3, 40)], Config::default(), false);
    let unwound = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let mut batch = tree.batch().withhold(Frames(tree.tables().log.clone()));
        tree.unmap(range_of(&tree, 3, 40), &mut batch).expect("mapped");
        std::panic::resume_unwind(Box::new("the caller's own trouble"));
    }));
    assert!(unwound.is_err());
    assert_eq!(word(&tree.tables().log.take()), "SsTdiFn");
}

// Strides and levels.

#[test]
fn a_leaf_takes_one_tlbi_for_each_descriptor_that_a_tlb_may_hold() {
    // (leaf, pages, TLBIs by VA, bytes between them). A group may be held as its members (DESIGN rule 4).
    for (leaf, pages, nr, stride) in [
        (LeafSize::PAGE, 1, 1, 1 << 12),
        (LeafSize::PAGE_GROUP, 16, 16, 1 << 12),
        (LeafSize::BLOCK2, 512, 1, 1 << 21),
        (LeafSize::BLOCK2_GROUP, 512 * 16, 16, 1 << 21),
        (LeafSize::BLOCK1, 1 << 18, 1, 1 << 30),
        (LeafSize::BLOCK1_GROUP, 1 << 22, 16, 1 << 30),
    ] {
        // Something else keeps the table.
        let neighbour = if pages == 1 { 7 } else { 2 * pages };
        let tree = prepared::<Granule4K>(
            &[map(pages, pages), map(neighbour, pages)],
            Config::default(),
            false,
        );
        let wanted: Vec<_> = (0..nr)
            .map(|i| MmuEvent::TlbiLastLevel(range_of(&tree, pages, pages).start.add(i * stride)))
            .collect();
        assert_eq!(tlbis(&events(&tree, &unmap(pages, pages))), wanted, "{leaf:?}");
    }
}

#[test]
fn a_leaf_that_empties_its_table_takes_no_more_tlbis_than_the_leaf() {
    for (leaf, pages, nr) in [
        (LeafSize::PAGE, 1, 1),
        (LeafSize::PAGE_GROUP, 16, 16),
        (LeafSize::BLOCK2, 512, 1),
        (LeafSize::BLOCK2_GROUP, 512 * 16, 16),
        (LeafSize::BLOCK1, 1 << 18, 1),
        (LeafSize::BLOCK1_GROUP, 1 << 22, 16),
    ] {
        let tree = prepared::<Granule4K>(&[map(pages, pages)], Config::default(), false);
        let tlbis = tlbis(&events(&tree, &unmap(pages, pages)));
        assert_eq!(tlbis.len(), nr, "{leaf:?}: {tlbis:?}");
        assert!(
            tlbis.iter().any(|tlbi| is_all_levels(*tlbi)),
            "{leaf:?}: {tlbis:?}"
        );
        assert!(!tlbis.contains(&MmuEvent::TlbiAll), "{leaf:?}");
    }
}

/// The span of each table, by the links as they are.
fn spans<G: Granule>(tree: &TracedTree<G>) -> BTreeMap<PhysAddr, VirtRange> {
    fn below<G: Granule>(
        tree: &TracedTree<G>,
        table: PhysAddr,
        level: u8,
        va: VirtAddr,
        spans: &mut BTreeMap<PhysAddr, VirtRange>,
    ) {
        spans.insert(table, VirtRange::new(va, G::table_span(level)));
        for index in 0..if level < 3 { G::ENTRIES } else { 0 } {
            let found = tree.tables().host.peek(table, index);
            if found & 3 == 3 {
                let child = PhysAddr(found & 0xffff_ffff_f000 & !(G::PAGE_SIZE - 1));
                below(
                    tree,
                    child,
                    level + 1,
                    va.add((index as u64) << G::shift(level)),
                    spans,
                );
            }
        }
    }
    let mut spans = BTreeMap::new();
    below(tree, tree.root(), G::ROOT_LEVEL, tree.range().start, &mut spans);
    spans
}

#[test]
fn a_table_goes_back_only_behind_an_all_levels_tlbi_in_its_span() {
    fn granule<G: Granule>() {
        for tlbi_range in [false, true] {
            for case in corpus::<G>() {
                let tree = prepared::<G>(&case.setup, Config::default(), tlbi_range);
                let spans = spans(&tree);
                let all = events(&tree, &case.op);
                for (i, event) in all.iter().enumerate() {
                    let Event::Free(table) = event else { continue };
                    let Some(span) = spans.get(table) else { continue };
                    let waited = all[..i]
                        .iter()
                        .rposition(|event| *event == DSB_ISH)
                        .expect("a DSB ISH");
                    let hit = tlbis(&all[..waited]).into_iter().any(|tlbi| {
                        is_all_levels(tlbi)
                            && covered::<G>(tlbi).is_none_or(|(start, size)| {
                                span.overlaps(VirtRange::new(VirtAddr(start), size))
                            })
                    });
                    assert!(
                        hit,
                        "{} on {}: {table:?} at {span:?}: {all:?}",
                        case.name,
                        G::NAME
                    );
                }
            }
        }
    }
    granule::<Granule4K>();
    granule::<Granule16K>();
    granule::<Granule64K>();
}

// Ranges and thresholds.

#[test]
fn range_operations_cover_every_length_exactly() {
    fn granule<G: Granule>(max: u64) {
        let tree = tree::<G>(true);
        for pages in 1..=max {
            let page = pages % 37;
            // A neighbour keeps the last table, so that nothing but the pages is invalidated.
            let setup = Op::map(
                page,
                Shape::Array((0..pages).map(|i| paging::Pfn(5 + 2 * i)).collect()),
            );
            setup.apply(&tree, base(&tree)).expect("vacant");
            Op::map(page + pages, Shape::Range(1, 1))
                .apply(&tree, base(&tree))
                .expect("vacant");
            let tlbis = tlbis(&events(&tree, &unmap(page, pages)));
            assert_exact_cover::<G>(&tlbis, range_of(&tree, page, pages));
            events(&tree, &unmap(0, max + 40));
        }
    }
    granule::<Granule4K>(700);
    granule::<Granule16K>(300);
    granule::<Granule64K>(300);
}

#[test]
fn range_operations_cover_any_number_of_blocks_exactly() {
    let mut rng = Rng(0x9e37_79b9);
    for round in 0..200 {
        let tree = tree::<Granule4K>(true);
        let blocks = 1 + rng.below(1 << (1 + round % 13));
        let page = rng.below(64) << 9;
        // A neighbour keeps the last table.
        let setup = Op::Map {
            page,
            shape: Shape::Range((1 << 24) + page, (blocks + 1) << 9),
            attributes: Attributes::KERNEL_DATA,
            allowed: LeafSet::of(&[LeafSize::BLOCK2]),
        };
        setup.apply(&tree, base(&tree)).expect("vacant");
        let mut pieces: Vec<_> = tlbis(&events(&tree, &unmap(page, blocks << 9)))
            .into_iter()
            .map(|tlbi| match tlbi {
                // Any address of a block takes all of it.
                MmuEvent::TlbiLastLevel(va) | MmuEvent::TlbiAllLevels(va) => (va.0, 2 << 20),
                tlbi => covered::<Granule4K>(tlbi).expect("not all"),
            })
            .collect();
        pieces.sort_unstable();
        let range = range_of(&tree, page, blocks << 9);
        let mut end = range.start.0;
        for (start, size) in pieces {
            assert!(
                start >= range.start.0 && start <= end,
                "{blocks} blocks: a gap at {end:#x}"
            );
            end = end.max(start + size);
        }
        assert_eq!(end, range.end().0, "{blocks} blocks");
    }
}

#[test]
fn without_range_operations_pages_are_invalidated_one_by_one_up_to_the_threshold() {
    for threshold in [0, 1, 5, 16, 512] {
        for pages in [1, 2, 5, 6, 16, 17, 511, 512, 513, 700] {
            let config = Config {
                flush_all_above: threshold,
                ..Config::default()
            };
            let setup = [map_pages(0, pages), map_pages(pages, 1)];
            let tree = prepared::<Granule4K>(&setup, config, false);
            let tlbis = tlbis(&events(&tree, &unmap(0, pages)));
            // 513 and 700 pages empty the first table: one of their TLBIs is for all levels.
            if pages > u64::from(threshold) {
                assert_eq!(tlbis, [MmuEvent::TlbiAll], "{pages} pages, threshold {threshold}");
            } else {
                assert_eq!(tlbis.len() as u64, pages);
                assert_exact_cover::<Granule4K>(&tlbis, range_of(&tree, 0, pages));
            }
        }
    }
}

#[test]
fn the_threshold_counts_operations_not_pages() {
    let config = Config {
        flush_all_above: 4,
        ..Config::default()
    };
    let setup = [map_pages(0, 3000), map_pages(3000, 1)];
    let tree = prepared::<Granule4K>(&setup, config, true);
    let tlbis = tlbis(&events(&tree, &unmap(0, 3000)));
    assert!(
        tlbis.len() <= 4 && !tlbis.contains(&MmuEvent::TlbiAll),
        "{tlbis:?}"
    );
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
        // Single pages far apart: more than a batch can keep apart.
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
        assert_eq!(tree.tables().host.live(), 1);
    }
}

#[test]
fn a_repeated_tlbi_is_one_more_tlbi_and_one_more_dsb_ish() {
    let config = |repeat_tlbi| Config {
        repeat_tlbi,
        ..Config::default()
    };
    for tlbi_range in [false, true] {
        for op in [unmap(3, 40), unmap(3, 1), unmap(0, 4000)] {
            let count = |repeat| {
                let tree = prepared::<Granule4K>(&[map(0, 4000)], config(repeat), tlbi_range);
                let all = events(&tree, &op);
                let ish = all.iter().filter(|event| **event == DSB_ISH).count();
                let invalidations = word(&all).matches("Td").count();
                (tlbis(&all).len(), ish, invalidations)
            };
            let (once, dsb, invalidations) = count(false);
            let (again, dsb_again, _) = count(true);
            assert_eq!(again, once + invalidations, "{op:?}");
            assert_eq!(dsb_again, dsb + invalidations, "{op:?}");
        }
    }
}

#[test]
fn the_operands_are_the_architectures() {
    // Arm ARM C5.5, TLBI VAAE1IS: VA[55:12] in bits 43:0.
    assert_eq!(tlbi_va_operand(VirtAddr(0xffff_8000_1234_5000)), 0xff8_0001_2345);
    // TLBI RVAE1IS: TG 1 (4K), SCALE 2, NUM 5, TTL 0, base.
    let range = TlbiRange {
        start: VirtAddr(0xffff_8000_0040_0000),
        scale: 2,
        num: 5,
    };
    let operand = range.operand::<Granule4K>();
    assert_eq!(
        operand,
        0b01 << 46 | 2 << 44 | 5 << 39 | (0xffff_8000_0040_0000u64 >> 12 & 0x1f_ffff_ffff)
    );
    assert_eq!(
        decode::<Granule4K>(operand),
        (0xffff_8000_0040_0000, 6 * (1 << 11))
    );
    assert_eq!(range.pages(), 6 * (1 << 11));
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
