use crate::flush::{DSB_ISHST, ISB, events, is_all_levels, map, prepared, range_of, tlbis, tree, unmap};
use crate::support::Shape;
use crate::support::corpus::corpus;
use crate::support::ops::{Change, Op};
use crate::support::traced::{Event, word};
use paging::{Attributes, Config, Granule4K, LeafSet};

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

/// Clear, DSB ISHST, TLBI, DSB ISH, make.
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
                let config = Config {
                    repeat_tlbi,
                    ..Config::default()
                };
                let tree = prepared::<Granule4K>(&case.setup, config, tlbi_range);
                let events = events(&tree, &case.op);
                let mut word = word(&events);
                let what = format!("{}: {word}", case.name);
                if repeat_tlbi {
                    let once = word.replace("TdTd", "Td");
                    assert_eq!(once.matches("Td").count(), word.matches("TdTd").count(), "{what}");
                    word = once;
                }
                // An invalid leaf needs no break, but the new tables' contents come first.
                if case.name.contains("valid") {
                    word = word.replace("SsS", "S").replace("AsS", "S");
                    word = word
                        .strip_prefix("sS")
                        .map_or(word.clone(), |rest| format!("S{rest}"));
                }
                let (word, cycles) = without_cycles(word);
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
fn a_prune_unlinks_invalidates_and_then_frees() {
    for (pages, tables) in [(1, 3), (40, 3), (1 << 13, 2)] {
        let tree = prepared::<Granule4K>(&[map(pages, pages)], Config::default(), true);
        let mut batch = tree.batch();
        let range = range_of(&tree, pages, pages);
        let gone = tree.unmap(range, &mut batch).expect("mapped");
        batch.flush();
        assert_eq!(gone.tables_removed, 0);
        assert_eq!(word(&tree.tables().log.take()), "SsTdi", "no table goes");
        let pruned = tree.prune(range).expect("a valid range");
        assert_eq!(pruned.tables_removed, tables);
        let all = tree.tables().log.take();
        assert_eq!(word(&all), "SsTdiF", "{pages} pages: one flush for all levels");
        assert!(tlbis(&all).iter().all(|tlbi| is_all_levels(*tlbi)));
        assert_eq!(tlbis(&all).len(), 1, "one address finds the links of all levels");
        assert_eq!(tree.tables().host.live(), 1);
        assert_eq!(
            tree.prune(range).expect("a valid range"),
            paging::Outcome::default()
        );
        assert_eq!(tree.tables().log.take(), []);
    }
}

#[test]
fn an_unmap_is_stores_dsb_ishst_tlbi_dsb_ish_isb() {
    for pages in [1, 16, 512, 1 << 13, 1 << 18] {
        let tree = prepared::<Granule4K>(&[map(pages, pages)], Config::default(), false);
        let word = word(&events(&tree, &unmap(pages, pages)));
        assert_eq!(word, "SsTdi", "{pages} pages");
    }
    let tree = prepared::<Granule4K>(&[map(1, 1), map(3, 1)], Config::default(), false);
    assert_eq!(word(&events(&tree, &unmap(0, 512))), "SsTdiF");
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
