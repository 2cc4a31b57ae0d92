//! Defects found in other kernels' page tables.

use crate::support;

use mmu_model::{Features, Model};
use paging::mmu::MmuEvent;
use paging::{
    Attributes, Config, FrameArray, Granule, Granule4K, Half, LeafSet, LeafSize, PageArray, Pfn, PhysAddr,
    Tree, VirtAddr, VirtRange,
};
use support::ops::Op;
use support::traced::{Event, TracedTree, traced, word};
use support::{Shape, audit, expected_of_runs, leaves_in};

const DATA: Attributes = Attributes::KERNEL_DATA;

fn base(tree: &TracedTree<Granule4K>) -> VirtAddr {
    support::corpus::base(tree)
}

fn fresh(tlbi_range: bool) -> TracedTree<Granule4K> {
    traced(Config::default(), tlbi_range)
}

fn range(at: VirtAddr, page: u64, pages: u64) -> VirtRange {
    VirtRange::new(at.add(page << 12), pages << 12)
}

fn unmap(tree: &TracedTree<Granule4K>, page: u64, pages: u64) -> Vec<Event> {
    tree.tables().log.take();
    let mut batch = tree.batch();
    tree.unmap(range(base(tree), page, pages), &mut batch)
        .expect("memory suffices");
    batch.flush();
    tree.tables().log.take()
}

type ModelTree<'m> = Tree<Granule4K, mmu_model::Cpu<'m, Granule4K>, mmu_model::Cpu<'m, Granule4K>>;

fn on_model(test: impl FnOnce(&Model<Granule4K>, &ModelTree<'_>, VirtAddr)) {
    let (model, root) = Model::<Granule4K>::with_root(Features {
        cpus: 2,
        panics: true,
        ..Features::default()
    });
    let cpu = model.cpu(0);
    let tree = Tree::new(root, Half::High, cpu, cpu, Config::default());
    test(&model, &tree, tree.range().start.add(1 << 46));
    model.assert_quiescent();
}

/// Defect 1: what to invalidate was found by a walk after the leaves were gone.
#[test]
fn what_is_invalidated_is_told_from_the_tables_as_they_were() {
    for (mapped, unmapped) in [(512, 512), (512, 511), (512, 1), (600, 512), (513, 513)] {
        let tree = fresh(false);
        let frames = (0..mapped).map(|i| Pfn(7 + 2 * i)).collect();
        Op::map(512, Shape::Array(frames))
            .apply(&tree, base(&tree))
            .expect("vacant");
        let events = unmap(&tree, 512, unmapped);
        let tlbis: Vec<_> = events.iter().filter(|event| event.is_tlbi()).collect();
        if unmapped > 512 {
            assert_eq!(tlbis, [&Event::Mmu(MmuEvent::TlbiAll)]);
            continue;
        }
        let mut pages: Vec<_> = tlbis
            .iter()
            .map(|event| match event {
                Event::Mmu(MmuEvent::TlbiLastLevel(va) | MmuEvent::TlbiAllLevels(va)) => va.0,
                other => panic!("{other:?}"),
            })
            .collect();
        pages.sort_unstable();
        let wanted: Vec<_> = (0..unmapped).map(|i| base(&tree).0 + ((512 + i) << 12)).collect();
        assert_eq!(pages, wanted, "{unmapped} of {mapped} pages");
    }
}

/// Defect 2: groups began where a counter said.
#[test]
fn a_contiguous_group_begins_where_both_addresses_are_aligned_to_it() {
    let tree = fresh(false);
    for va in 0..16 {
        for pa in 0..16 {
            for pages in [16, 31, 64] {
                Op::map(va, Shape::Range((1 << 20) + pa, pages))
                    .apply(&tree, base(&tree))
                    .expect("vacant");
                audit(&tree);
                let groups = leaves_in(&tree, tree.range())
                    .iter()
                    .filter(|leaf| leaf.size == LeafSize::PAGE_GROUP)
                    .inspect(|leaf| {
                        assert!(
                            leaf.va.is_aligned(1 << 16) && leaf.pa.is_aligned(1 << 16),
                            "{leaf:?}"
                        )
                    })
                    .count() as u64;
                let possible = if va == pa {
                    (va + pages) / 16 - va.div_ceil(16)
                } else {
                    0
                };
                assert_eq!(groups, possible, "{pages} pages at page {va} from frame {pa}");
                unmap(&tree, va, pages);
            }
        }
    }
    Op::map(1, Shape::Range((1 << 20) + 1, 64))
        .apply(&tree, base(&tree))
        .expect("vacant");
    let sizes: Vec<_> = leaves_in(&tree, tree.range())
        .iter()
        .map(|leaf| leaf.size)
        .collect();
    let wanted = [
        vec![LeafSize::PAGE; 15],
        vec![LeafSize::PAGE_GROUP; 3],
        vec![LeafSize::PAGE; 1],
    ]
    .concat();
    assert_eq!(sizes, wanted);
}

/// Defect 3: nothing, or only a compiler fence.
#[test]
fn a_dsb_stands_between_the_last_store_and_the_first_tlbi() {
    for tlbi_range in [false, true] {
        for case in support::corpus::corpus::<Granule4K>() {
            let tree = fresh(tlbi_range);
            for op in &case.setup {
                op.apply(&tree, base(&tree)).expect("memory suffices");
            }
            tree.tables().log.take();
            case.op.apply(&tree, base(&tree)).expect("memory suffices");
            let word = word(&tree.tables().log.take());
            for wrong in ["ST", "AT", "FT"] {
                assert!(!word.contains(wrong), "{}: {word}", case.name);
            }
        }
    }
}

/// Defect 4: the walker may not see the store yet, and a fault may have been speculated. Real
/// boards did fault.
#[test]
fn a_fresh_mapping_is_complete_for_walks_when_the_call_returns() {
    on_model(|model, tree, at| {
        for (page, pages) in [(5, 1), (16, 16), (512, 512), (3000, 77)] {
            Shape::Range((1 << 20) + page, pages)
                .map(tree, at.add(page << 12), DATA, LeafSet::ALL)
                .expect("vacant");
            for cpu in 0..2 {
                for offset in [0, pages / 2, pages - 1] {
                    let va = at.add((page + offset) << 12);
                    if cpu == 1 {
                        model.hand_over(0, 1);
                        paging::Mmu::isb(&model.cpu(1));
                    }
                    let pa = model
                        .cpu(cpu)
                        .access(va, mmu_model::Access::Write)
                        .expect("mapped");
                    assert_eq!(pa.0, ((1 << 20) + page + offset) << 12);
                }
            }
        }
        let mut batch = tree.batch();
        tree.unmap(range(at, 0, 4096), &mut batch).expect("mapped");
        batch.flush();
    });
}

/// Defect 5: before walk caches were invalidated, or even before it was unlinked.
#[test]
fn a_table_page_goes_back_behind_the_invalidation_of_the_walk_caches() {
    on_model(|_, tree, at| {
        for round in 0..20 {
            for (page, pages) in [(5, 1), (512, 700), (1 << 18, 3), (1 << 19, 512)] {
                Shape::Range((1 << 20) + round, pages)
                    .map(tree, at.add(page << 12), DATA, LeafSet::ALL)
                    .expect("vacant");
            }
            let mut batch = tree.batch();
            for (page, pages) in [(0, 1024), (1024, 500), (1 << 18, 1 << 18), (1 << 19, 512)] {
                tree.unmap(range(at, page, pages), &mut batch).expect("mapped");
            }
            batch.flush();
        }
    });
}

/// Defect 6: a table was zeroed through its link (recursive map).
#[test]
fn a_table_is_zeroed_before_it_is_linked() {
    on_model(|_, tree, at| {
        for i in 0..40 {
            Shape::Range(5, 1)
                .map(tree, at.add(i << 30), DATA, LeafSet::ALL)
                .expect("vacant");
        }
        let mut batch = tree.batch();
        tree.unmap(range(at, 0, 40 << 18), &mut batch).expect("mapped");
    });
    let tree = fresh(false);
    Op::map(512, Shape::Range(1 << 20, 512))
        .apply(&tree, base(&tree))
        .expect("vacant");
    tree.tables().log.take();
    Op::Split { page: 700, pages: 3 }
        .apply(&tree, base(&tree))
        .expect("memory suffices");
    let events = tree.tables().log.take();
    let link = events
        .iter()
        .position(|event| matches!(event, Event::Store { new, .. } if new & !0xffff_ffff_f000 == 3))
        .expect("a link to the new table");
    let Event::Store { new, .. } = events[link] else {
        unreachable!()
    };
    let filled = events
        .iter()
        .rposition(|event| matches!(event, Event::Store { table, .. } if table.0 == new & 0xffff_ffff_f000))
        .expect("stores into the table");
    assert!(
        events[filled..link].contains(&Event::Mmu(MmuEvent::DsbIshst)),
        "complete before it is linked"
    );
}

/// Defect 7: only the *first* page of a block's run was looked at.
#[test]
fn every_page_under_a_large_leaf_was_compared() {
    struct Odd {
        first: u64,
        pages: u64,
        odd: u64,
    }
    impl FrameArray for Odd {
        fn nr_frames(&self) -> usize {
            self.pages as usize
        }
        fn frame(&self, index: usize) -> Option<Pfn> {
            Some(Pfn(if index as u64 == self.odd {
                3
            } else {
                self.first + index as u64
            }))
        }
    }
    let tree = fresh(false);
    for odd in (0..1024).step_by(17).chain([511, 512, 1023]) {
        let array = Odd {
            first: 1 << 20,
            pages: 1024,
            odd,
        };
        let all = range(base(&tree), 0, 1024);
        tree.map(all, &mut PageArray::new(&array), DATA, LeafSet::ALL)
            .expect("vacant");
        for page in 0..1024 {
            let va = all.start.add(page << 12);
            let leaf = tree.translate(va).expect("mapped");
            let wanted = array.frame(page as usize).expect("a frame").0 << 12;
            assert_eq!(leaf.translate(va).0, wanted, "page {page}, odd one {odd}");
        }
        let mut runs = vec![(1 << 20, odd), (3, 1), ((1 << 20) + odd + 1, 1023 - odd)];
        runs.retain(|(_, pages)| *pages != 0);
        let wanted = expected_of_runs::<Granule4K>(all.start, &runs, LeafSet::ALL);
        assert_eq!(
            leaves_in(&tree, all).len(),
            wanted.len(),
            "no leaf is smaller than need be"
        );
        unmap(&tree, 0, 1024);
    }
}

/// Defect 8: a failed map left its first half.
#[test]
fn a_map_that_fails_leaves_no_prefix_mapped() {
    on_model(|model, tree, at| {
        let tables = model.nr_tables();
        for k in 0..4 {
            model.fail_alloc_after(k);
            let failure = Shape::Range((1 << 20) + 1, 1200)
                .map(tree, at.add((1 << 30) - (600 << 12)), DATA, LeafSet::ALL)
                .expect_err("a table is missing");
            assert!(
                matches!(failure.error, paging::Error::OutOfTables(_)),
                "{failure}"
            );
            assert_eq!(model.leaves(), [], "after {k} tables");
            tree.prune(tree.range()).expect("the tree's own range");
            assert_eq!(model.nr_tables(), tables, "after {k} tables");
            model.va_reused(range(at, 0, 1 << 20));
            model.frame_reused(PhysAddr(1 << 32), 1 << 32);
        }
    });
}

/// Defect 9: above a threshold everything was invalidated, on this CPU only.
#[test]
fn an_invalidation_of_everything_reaches_every_cpu() {
    // The engine has no local form, and the model would tell them apart.
    on_model(|model, tree, at| {
        let frames = (0..2000).map(|i| Pfn(7 + 2 * i)).collect();
        Shape::Array(frames)
            .map(tree, at, DATA, LeafSet::ALL)
            .expect("vacant");
        let mut batch = tree.batch();
        tree.unmap(range(at, 0, 2000), &mut batch).expect("mapped");
        batch.flush();
        assert_eq!(model.counters().tlbi_all, 1, "more than the threshold");
        model.frame_reused(PhysAddr(7 << 12), 4000 << 12);
        model.va_reused(range(at, 0, 2000));
    });
}

/// Defect 10: addresses were freed where the other CPUs could not be flushed.
#[test]
fn addresses_and_frames_are_deferred_until_the_flush_is_complete() {
    struct Area<'m> {
        model: &'m Model<Granule4K>,
        va: VirtRange,
        pa: PhysAddr,
    }
    impl Drop for Area<'_> {
        fn drop(&mut self) {
            self.model.va_reused(self.va);
            self.model.frame_reused(self.pa, self.va.size);
        }
    }
    on_model(|model, tree, at| {
        for pages in [1, 16, 100, 512, 3000] {
            support::prune(tree);
            Shape::Range(1 << 20, pages)
                .map(tree, at, DATA, LeafSet::ALL)
                .expect("vacant");
            let mut batch = tree.batch().defer(Area {
                model,
                va: range(at, 0, pages),
                pa: PhysAddr(1 << 32),
            });
            tree.unmap(range(at, 0, pages), &mut batch).expect("mapped");
            drop(batch);
        }
    });
    let (model, root) = Model::<Granule4K>::with_root(Features::default());
    let tree = ModelTree::new(root, Half::High, model.cpu(0), model.cpu(0), Config::default());
    let at = tree.range().start;
    Shape::Range(1 << 20, 1)
        .map(&tree, at, DATA, LeafSet::ALL)
        .expect("vacant");
    let mut batch = tree.batch();
    tree.unmap(range(at, 0, 1), &mut batch).expect("mapped");
    let early = Area {
        model: &model,
        va: range(at, 0, 1),
        pa: PhysAddr(1 << 32),
    };
    drop(early);
    assert_eq!(model.take_violations().len(), 2, "the addresses and the frames");
    batch.flush();
    model.assert_quiescent();
}

/// Defect 11.
#[test]
fn contiguous_mappings_of_every_size_can_be_removed_whole_and_in_part() {
    for pages in [16, 512 * 16, 1 << 22] {
        for (page, part) in [
            (pages, pages),
            (pages, 1),
            (pages + 7, pages - 9),
            (2 * pages - 1, 1),
        ] {
            let tree = fresh(false);
            Op::map(pages, Shape::Range(1 << 24, pages))
                .apply(&tree, base(&tree))
                .expect("vacant");
            let groups = leaves_in(&tree, tree.range());
            assert!(groups.len() == 1 && groups[0].size.is_contiguous());
            unmap(&tree, page, part);
            audit(&tree);
            let left: u64 = leaves_in(&tree, tree.range())
                .iter()
                .map(|leaf| leaf.size.bytes::<Granule4K>() >> 12)
                .sum();
            assert_eq!(left, pages - part);
        }
    }
}

/// Defect 12: part of a group was edited by its descriptors alone.
#[test]
fn part_of_a_group_changes_only_after_the_group_was_taken_apart() {
    let parts = (0..16).flat_map(|first| (first + 1..=16).map(move |end| (first, end - first)));
    for (first, pages) in parts.filter(|(_, pages)| *pages != 16) {
        for protect in [false, true] {
            on_model(|model, tree, at| {
                Shape::Range(1 << 20, 16)
                    .map(tree, at, DATA, LeafSet::ALL)
                    .expect("vacant");
                let part = range(at, first, pages);
                let mut batch = tree.batch();
                if protect {
                    tree.protect(part, Attributes::read_only, &mut batch)
                        .expect("mapped");
                } else {
                    tree.unmap(part, &mut batch).expect("mapped");
                }
                batch.flush();
                for page in 0..16 {
                    let va = at.add(page << 12);
                    let leaf = tree.translate(va);
                    let inside = part.contains(va);
                    assert_eq!(leaf.is_none(), inside && !protect, "page {page}");
                    if let Some(leaf) = leaf {
                        assert_eq!(leaf.size, LeafSize::PAGE);
                        assert_eq!(leaf.translate(va).0, ((1 << 20) + page) << 12);
                        assert_eq!(leaf.attributes.is_writable(), !inside);
                    }
                    let access = model.cpu(1).access_with_retry(va, mmu_model::Access::Write);
                    assert_eq!(access.is_ok(), !inside, "page {page} of {part:?}");
                }
                let mut batch = tree.batch();
                tree.unmap(range(at, 0, 16), &mut batch).expect("mapped");
            });
        }
    }
}

#[test]
fn the_three_defects_that_only_tables_show_are_absent_on_every_granule() {
    fn granule<G: Granule>() {
        for case in support::corpus::corpus::<G>() {
            let tree = traced::<G>(Config::default(), true);
            for op in case.setup.iter().chain([&case.op]) {
                op.apply(&tree, support::corpus::base(&tree))
                    .expect("memory suffices");
                audit(&tree);
            }
        }
    }
    granule::<Granule4K>();
    granule::<paging::Granule16K>();
    granule::<paging::Granule64K>();
}
