use crate::flush::{DSB_ISH, covered, events, is_all_levels, map, prepared, range_of, tlbis, unmap};
use crate::support::corpus::corpus;
use crate::support::traced::{Event, TracedTree};
use paging::mmu::MmuEvent;
use paging::{Config, Granule, Granule4K, Granule16K, Granule64K, LeafSize, PhysAddr, VirtAddr, VirtRange};
use std::collections::BTreeMap;

#[test]
fn a_leaf_takes_one_tlbi_for_each_descriptor_that_a_tlb_may_hold() {
    // (leaf, pages, TLBIs by VA, stride): DESIGN rule 4.
    for (leaf, pages, nr, stride) in [
        (LeafSize::PAGE, 1, 1, 1 << 12),
        (LeafSize::PAGE_GROUP, 16, 16, 1 << 12),
        (LeafSize::BLOCK2, 512, 1, 1 << 21),
        (LeafSize::BLOCK2_GROUP, 512 * 16, 16, 1 << 21),
        (LeafSize::BLOCK1, 1 << 18, 1, 1 << 30),
        (LeafSize::BLOCK1_GROUP, 1 << 22, 16, 1 << 30),
    ] {
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
fn a_table_that_is_covered_whole_takes_no_more_tlbis_than_its_leaf() {
    for (leaf, pages, nr) in [
        (LeafSize::PAGE, 1, 1),
        (LeafSize::PAGE_GROUP, 16, 16),
        (LeafSize::BLOCK2, 512, 1),
        (LeafSize::BLOCK2_GROUP, 512 * 16, 16),
        (LeafSize::BLOCK1, 1 << 18, 1),
        (LeafSize::BLOCK1_GROUP, 1 << 22, 16),
    ] {
        let tree = prepared::<Granule4K>(&[map(pages, pages)], Config::default(), false);
        let table = Granule4K::table_span(leaf.level()) >> 12;
        let first = pages & !(table - 1);
        let tlbis = tlbis(&events(&tree, &unmap(first, table)));
        assert_eq!(tlbis.len(), nr, "{leaf:?}: {tlbis:?}");
        assert!(
            tlbis.iter().any(|tlbi| is_all_levels(*tlbi)),
            "{leaf:?}: {tlbis:?}"
        );
        assert!(!tlbis.contains(&MmuEvent::TlbiAll), "{leaf:?}");
    }
}

fn spans<G: Granule>(tree: &TracedTree<G>) -> BTreeMap<PhysAddr, VirtRange> {
    fn below<G: Granule>(
        tree: &TracedTree<G>,
        table: PhysAddr,
        level: i8,
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
