//! Bugs that Linux had in this area. Left out are those of an allocator or a page structure: 4, 6,
//! 9, 16. 1 (a table freed under a walker) is in `concurrent`.

use crate::support;

use mmu_model::{Access, Features, Model};
use paging::mmu::MmuEvent;
use paging::{
    Attributes, BreakPolicy, Config, Error, Granule, Granule4K, Granule16K, Granule64K, Half, LeafSet,
    LeafSize, LevelMask, Pfn, PhysAddr, Tree, VirtAddr, VirtRange,
};
use support::corpus::base;
use support::ops::{Change, Op};
use support::traced::{Event, TracedTree, traced, word};
use support::{Shape, audit, leaves_in};

const DATA: Attributes = Attributes::KERNEL_DATA;

type ModelTree<'m> = Tree<Granule4K, mmu_model::Cpu<'m, Granule4K>, mmu_model::Cpu<'m, Granule4K>>;

fn on_model(test: impl FnOnce(&Model<Granule4K>, &ModelTree<'_>, VirtAddr)) {
    let (model, root) = Model::<Granule4K>::with_root(Features {
        cpus: 2,
        panics: true,
        tlbi_range: true,
        ..Features::default()
    });
    let cpu = model.cpu(0);
    let tree = Tree::new(root, Half::High, cpu, cpu, Config::default());
    test(&model, &tree, tree.range().start.add(1 << 46));
    model.assert_quiescent();
}

fn fresh() -> TracedTree<Granule4K> {
    traced(Config::default(), false)
}

fn part(at: VirtAddr, page: u64, pages: u64) -> VirtRange {
    VirtRange::new(at.add(page << 12), pages << 12)
}

fn map(page: u64, pages: u64) -> Op {
    Op::map(page, Shape::Range((1 << 24) + page, pages))
}

fn events(tree: &TracedTree<Granule4K>, op: &Op) -> Vec<Event> {
    tree.tables().log.take();
    op.apply(tree, base(tree)).expect("memory suffices");
    tree.tables().log.take()
}

fn assert_maps(tree: &TracedTree<Granule4K>, page: u64, frames: &[Pfn]) {
    for (i, frame) in frames.iter().enumerate() {
        let va = base(tree).add((page + i as u64) << 12);
        let leaf = tree
            .translate(va)
            .unwrap_or_else(|| panic!("page {i} of {} is not mapped", frames.len()));
        assert_eq!(
            leaf.translate(va).0,
            frame.0 << 12,
            "page {i} of {}",
            frames.len()
        );
    }
}

fn chunks(orders: impl IntoIterator<Item = u32>) -> Vec<Pfn> {
    let mut next = 1 << 20;
    let mut frames = Vec::new();
    for order in orders {
        let start = u64::next_multiple_of(next, 1 << order);
        frames.extend((start..start + (1 << order)).map(Pfn));
        next = start + (1 << order) + 1;
    }
    frames
}

/// Bug 2: on a missing page a walker returned before it reported the levels.
#[test]
fn bug_2_the_levels_written_are_reported_when_the_map_fails_half_way() {
    for k in [0u64, 1, 17, 600, 1023] {
        let tree = fresh();
        let frames: Vec<_> = (0..1024).map(|i| (i != k).then_some(Pfn(5 + 2 * i))).collect();
        let mut source = paging::PageArray::new(frames.as_slice());
        let failure = tree
            .map(part(base(&tree), 3, 1024), &mut source, DATA, LeafSet::ALL)
            .expect_err("a page is missing");
        let mut wanted = LevelMask::NONE;
        for level in 0..if k == 0 { 2 } else { 4 } {
            wanted.insert(level);
        }
        assert_eq!(failure.levels, wanted, "page {k}");
    }
}

/// Bug 3: an error in the loop left lazy mode on, in which barriers are only noted.
#[test]
fn bug_3_a_failed_map_leaves_no_barrier_owing() {
    on_model(|model, tree, at| {
        for k in [0u64, 1, 100, 511, 512, 513, 1000] {
            let frames: Vec<_> = (0..1024).map(|i| (i != k).then_some(Pfn(5 + 2 * i))).collect();
            let mut source = paging::PageArray::new(frames.as_slice());
            tree.map(part(at, 3, 1024), &mut source, DATA, LeafSet::ALL)
                .expect_err("a page is missing");
            model.assert_quiescent();
        }
    });
}

/// Bug 5: the array index was advanced by bytes, not by pages.
#[test]
fn bug_5_the_array_is_followed_page_by_page_over_leaves_of_all_sizes() {
    for orders in [
        vec![9, 4, 0, 0, 4, 9, 1, 2, 3],
        vec![0, 9, 9, 4],
        vec![4, 4, 9, 13, 0, 9],
    ] {
        for page in [0, 512 - 16, 512 - 1] {
            let tree = fresh();
            let frames = chunks(orders.iter().copied());
            Op::map(page, Shape::Array(frames.clone()))
                .apply(&tree, base(&tree))
                .expect("vacant");
            assert_maps(&tree, page, &frames);
        }
    }
}

/// Bug 7: a batch was mapped in steps of the size that fits the *first* chunk.
#[test]
fn bug_7_no_leaf_reaches_over_the_end_of_its_run() {
    for orders in [
        (0..=9).collect::<Vec<_>>(),
        (0..=9).rev().collect(),
        vec![4, 5, 6, 7, 8, 9],
        vec![5, 4, 5, 4, 5],
        vec![8, 8, 8, 8],
        vec![9, 9, 9],
        // Known overruns.
        vec![4, 8, 8, 8],
        vec![8, 4, 8, 8],
        vec![4, 9, 9],
        [vec![5], vec![7; 16]].concat(),
    ] {
        for page in [0, 1, 16, 17, 496, 511] {
            for tail in [0, 1, 15, 17, 100] {
                let tree = fresh();
                let mut frames = chunks(orders.iter().copied());
                frames.truncate(frames.len() - tail);
                Op::map(page, Shape::Array(frames.clone()))
                    .apply(&tree, base(&tree))
                    .expect("vacant");
                assert_maps(&tree, page, &frames);
                let end = base(&tree).add((page + frames.len() as u64) << 12);
                assert_eq!(tree.translate(end), None, "nothing is mapped behind the array");
                audit(&tree);
            }
        }
    }
}

/// Bug 8: the caller mapped single pages with the large shift.
#[test]
fn bug_8_an_array_that_falls_back_to_single_pages_is_mapped_by_what_it_holds() {
    for large in 0..4 {
        let tree = fresh();
        let mut frames = chunks(vec![9; large]);
        frames.extend((0..512 * 4 - frames.len() as u64).map(|i| Pfn((1 << 26) + 3 * i)));
        let outcome = Op::map(512, Shape::Array(frames.clone()))
            .apply(&tree, base(&tree))
            .expect("vacant");
        assert_maps(&tree, 512, &frames);
        assert_eq!(outcome.leaves.get(LeafSize::BLOCK2), large as u32);
        assert_eq!(outcome.leaves.get(LeafSize::PAGE), 512 * (4 - large as u32));
    }
}

/// Bug 10: a permission change over part of a huge area stopped half way.
#[test]
fn bug_10_a_permission_change_is_all_or_nothing() {
    for (setup, budget) in [
        (vec![map(512, 2048)], 0),
        (vec![map(512, 2048)], 1),
        (vec![map(512, 1024), map(1600, 900)], 9),
    ] {
        let tree = fresh();
        for op in &setup {
            op.apply(&tree, base(&tree)).expect("vacant");
        }
        let before = tree.tables().host.snapshot();
        tree.tables().host.budget.set(budget);
        let op = Op::Protect {
            page: 700,
            pages: 1500,
            change: Change::ReadOnly,
        };
        op.apply(&tree, base(&tree))
            .expect_err("not all of it can change");
        assert_eq!(tree.tables().host.snapshot(), before);
    }
}

/// Bug 11: all of the linear alias changed.
#[test]
fn bug_11_rights_change_inside_the_range_and_nowhere_else() {
    for (page, pages) in [
        (512 + 100, 57),
        (513, 1),
        (1000, 48),
        (512, 512),
        (1 << 18, 5),
        ((1 << 18) + 777, 70_000),
    ] {
        let tree = fresh();
        map(512, 1024).apply(&tree, base(&tree)).expect("vacant");
        map(1 << 18, 1 << 18).apply(&tree, base(&tree)).expect("vacant");
        let op = Op::Protect {
            page,
            pages,
            change: Change::ReadOnly,
        };
        op.apply(&tree, base(&tree)).expect("memory suffices");
        let range = part(base(&tree), page, pages);
        for leaf in leaves_in(&tree, tree.range()) {
            let leaf_range = leaf.range::<Granule4K>();
            let inside = range.contains(leaf_range.start) && range.contains(leaf_range.last());
            assert!(
                inside || !range.overlaps(leaf_range),
                "{leaf:?} sticks out of {range:?}"
            );
            assert_eq!(leaf.attributes.is_writable(), !inside, "{leaf:?}");
        }
    }
}

/// Bug 12: a table that a block replaced leaked, or was freed while walk caches led to it.
#[test]
fn bug_12_a_block_where_a_table_was_meets_no_stale_link() {
    let tree = fresh();
    let pages = Op::Map {
        page: 512,
        shape: Shape::Range(77, 512),
        attributes: DATA,
        allowed: LeafSet::PAGES,
    };
    let unmap = Op::Unmap {
        page: 512,
        pages: 512,
    };
    events(&tree, &map(0, 1));
    events(&tree, &pages);
    let gone = events(&tree, &unmap);
    let all_levels = gone.iter().any(|event| {
        matches!(
            event,
            Event::Mmu(MmuEvent::TlbiAllLevels(_) | MmuEvent::TlbiRangeAllLevels(_) | MmuEvent::TlbiAll)
        )
    });
    assert!(all_levels, "{}", word(&gone));
    assert_eq!(
        gone.iter()
            .filter(|event| matches!(event, Event::Free(_)))
            .count(),
        1
    );
    assert_eq!(
        word(&events(&tree, &map(512, 512))),
        "Ssi",
        "a block needs no table and no TLBI"
    );
    on_model(|model, tree, at| {
        for round in 0..5 {
            for (pages, leaf) in [
                (512, LeafSize::BLOCK2),
                (3, LeafSize::PAGE),
                (1 << 18, LeafSize::BLOCK1),
            ] {
                let range = Shape::Range((1 << 24) + (round << 18), pages);
                if let Err(failure) = range.map(tree, at, DATA, LeafSet::ALL) {
                    assert!(matches!(failure.error, Error::EmptyTable { .. }), "{failure}");
                    tree.prune(part(at, 0, pages)).expect("a valid range");
                    range.map(tree, at, DATA, LeafSet::ALL).expect("vacant");
                }
                assert_eq!(tree.translate(at).expect("mapped").size, leaf);
                model.cpu(0).access(at, Access::Write).expect("mapped");
                let mut batch = tree.batch();
                tree.unmap(part(at, 0, pages), &mut batch).expect("mapped");
            }
        }
        support::prune(tree);
        assert_eq!(model.nr_tables(), 1, "tables are freed once, and all of them");
    });
}

/// Bug 13: code for a linear map of pages met blocks; a split in place was decided on before all
/// CPUs were known.
#[test]
fn bug_13_blocks_are_met_and_in_place_is_never_a_default() {
    assert_eq!(Config::default().break_policy, BreakPolicy::BreakBeforeMake);
    for pages in [512, 512 * 16, 1 << 18, 1 << 22] {
        let tree = fresh();
        map(pages, pages).apply(&tree, base(&tree)).expect("vacant");
        let op = Op::Protect {
            page: pages + 3,
            pages: 2,
            change: Change::ReadOnly,
        };
        assert_eq!(word(&events(&tree, &op)), "ASsTdSsi", "broken, invalidated, made");
        audit(&tree);
    }
}

/// Bug 14: a page group's address was compared with the size of a *block* group.
#[test]
fn bug_14_a_cut_at_the_edge_of_a_leaf_changes_nothing() {
    for (leaf, size) in [
        (64, 16),
        (1024, 512),
        (1 << 14, 1 << 13),
        (1 << 18, 1 << 18),
        (1 << 22, 1 << 22),
    ] {
        let tree = fresh();
        map(leaf, 3 * size).apply(&tree, base(&tree)).expect("vacant");
        let before = tree.tables().host.snapshot();
        for (page, pages) in [
            (leaf, size),
            (leaf + size, size),
            (leaf, 3 * size),
            (leaf + size, 2 * size),
        ] {
            assert_eq!(
                events(&tree, &Op::Split { page, pages }),
                [],
                "{pages} pages at {page}"
            );
        }
        assert_eq!(tree.tables().host.snapshot(), before);
        let op = Op::Protect {
            page: leaf + size,
            pages: size,
            change: Change::ReadOnly,
        };
        op.apply(&tree, base(&tree)).expect("mapped");
        let leaves = leaves_in(&tree, part(base(&tree), leaf + size, size));
        assert_eq!(leaves.len(), 1, "{leaves:?}");
        assert_eq!(leaves[0].size.bytes::<Granule4K>(), size << 12);
    }
}

/// Bug 15: a split used an entry that was read before its first stage.
#[test]
fn bug_15_every_stage_of_a_split_reads_the_tables_anew() {
    for (page, pages) in [
        ((1 << 18) + 5, (1 << 18) - 11),
        ((1 << 18) + 5, 3),
        ((1 << 18) + 512 * 16 + 3, 512 * 15),
        ((1 << 18) + 511, 3),
        ((2 << 18) - 5, 10),
    ] {
        let tree = fresh();
        map(1 << 18, 2 << 18).apply(&tree, base(&tree)).expect("vacant");
        for op in [
            Op::Split { page, pages },
            Op::Protect {
                page,
                pages,
                change: Change::ReadOnly,
            },
            Op::Unmap {
                page: page + 1,
                pages: pages - 2,
            },
        ] {
            op.apply(&tree, base(&tree)).expect("memory suffices");
            audit(&tree);
        }
        for (at, mapped) in [
            (page - 1, true),
            (page, true),
            (page + 1, pages < 3),
            (page + pages - 2, pages < 3),
            (page + pages - 1, true),
            (page + pages, true),
        ] {
            let va = base(&tree).add(at << 12);
            let leaf = tree.translate(va);
            assert_eq!(leaf.is_some(), mapped, "page {at}");
            if let Some(leaf) = leaf {
                assert_eq!(leaf.translate(va).0, ((1 << 24) + at) << 12);
            }
        }
    }
}

/// Bug 17.
#[test]
fn bug_17_unmapping_part_of_a_leaf_leaves_the_rest() {
    for size in [16, 512, 512 * 16, 1 << 18] {
        for (first, pages) in [(0, 1), (size - 1, 1), (size / 2, size / 4), (1, size - 2)] {
            let tree = fresh();
            map(size, size).apply(&tree, base(&tree)).expect("vacant");
            Op::Unmap {
                page: size + first,
                pages,
            }
            .apply(&tree, base(&tree))
            .expect("memory suffices");
            let mut left = 0;
            for leaf in leaves_in(&tree, tree.range()) {
                assert_eq!(
                    leaf.pa.0 - (1 << 36),
                    leaf.va.offset_from(base(&tree)),
                    "{leaf:?}"
                );
                assert!(
                    !leaf
                        .range::<Granule4K>()
                        .overlaps(part(base(&tree), size + first, pages))
                );
                left += leaf.size.bytes::<Granule4K>() >> 12;
            }
            assert_eq!(left, size - pages);
        }
    }
}

/// Bug 18: entries of the small pages stayed in TLBs.
#[test]
fn bug_18_a_fold_invalidates_every_page_it_replaces() {
    for pages in [16, 512] {
        let tree = traced::<Granule4K>(
            Config {
                flush_all_above: u32::MAX,
                ..Config::default()
            },
            false,
        );
        let small = Op::Map {
            page: 512,
            shape: Shape::Range(512, pages),
            attributes: DATA,
            allowed: LeafSet::PAGES,
        };
        small.apply(&tree, base(&tree)).expect("vacant");
        let fold = Op::Coalesce { page: 512, pages };
        let mut hit: Vec<_> = events(&tree, &fold)
            .iter()
            .filter_map(|event| match event {
                Event::Mmu(MmuEvent::TlbiLastLevel(va) | MmuEvent::TlbiAllLevels(va)) => Some(va.0),
                _ => None,
            })
            .collect();
        hit.sort_unstable();
        let wanted: Vec<_> = (0..pages).map(|i| base(&tree).0 + ((512 + i) << 12)).collect();
        assert_eq!(hit, wanted);
        assert_eq!(leaves_in(&tree, tree.range()).len(), 1);
    }
    on_model(|model, tree, at| {
        for pages in [16, 512, 512 * 16] {
            Shape::Range(1 << 20, pages)
                .map(tree, at, DATA, LeafSet::PAGES)
                .expect("vacant");
            let mut batch = tree.batch();
            tree.coalesce(part(at, 0, pages), &mut batch)
                .expect("takes no memory");
            batch.flush();
            assert_eq!(
                tree.translate(at).expect("mapped").size.bytes::<Granule4K>(),
                pages << 12
            );
            let mut batch = tree.batch();
            tree.unmap(part(at, 0, pages), &mut batch).expect("mapped");
            batch.flush();
            model.frame_reused(PhysAddr(1 << 32), pages << 12);
            model.va_reused(part(at, 0, pages));
        }
    });
}

/// Bug 19: contiguous mappings depended on another feature's configuration.
#[test]
fn bug_19_contiguous_groups_are_on_unless_someone_turns_them_off() {
    fn granule<G: Granule>() {
        for size in LeafSize::ALL.into_iter().filter(|size| size.exists::<G>()) {
            for without in [false, true] {
                let leaves = if without {
                    LeafSet::ALL.without_groups()
                } else {
                    LeafSet::ALL
                };
                let config = Config {
                    leaves,
                    ..Config::default()
                };
                assert_eq!(config == Config::default(), !without);
                let tree = traced::<G>(config, false);
                let pages = size.bytes::<G>() >> G::PAGE_SHIFT;
                let outcome = Op::map(pages, Shape::Range(pages, pages))
                    .apply(&tree, base(&tree))
                    .expect("vacant");
                let whole = outcome.leaves.get(size);
                assert_eq!(
                    whole == 1,
                    !without || !size.is_contiguous(),
                    "{} {size:?}: {outcome:?}",
                    G::NAME
                );
            }
        }
    }
    granule::<Granule4K>();
    granule::<Granule16K>();
    granule::<Granule64K>();
}
