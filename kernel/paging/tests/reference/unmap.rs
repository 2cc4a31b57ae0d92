use super::barriers::{flushed, warm_counts};
use super::{DATA, G, K, M, VA, for_both, on_tree};
use paging::mmu::{MmuEvent, NoMmu, Tracing};
use paging::reference::{Error, Walker};
use paging::{Granule4K, LeafSize, PhysAddr, TlbiRange, VirtAddr};
use std::cell::RefCell;

#[test]
fn an_unmap_is_one_flush_by_range_operations_where_there_are_some() {
    for (size, tlbi, by_range) in [
        (4 * K, 1, 0),
        (8 * K, 1, 1),
        (12 * K, 2, 1),
        (M, 1, 1),
        (M + 4 * K, 2, 1),
        (32 * M, 1, 1),
        (100 * M, 2, 2),
        (G, 1, 1),
    ] {
        for_both!(|walker| {
            let (_, unmapped) = warm_counts(&walker, size, |ctx| {
                walker.map_range(ctx, VA, PhysAddr(6 * G), size, DATA)
            });
            assert_eq!(unmapped, flushed(tlbi, by_range), "{size:#x}");
        });
    }
}

fn flush_events(va: VirtAddr, size: u64, tlbi_range: bool) -> Vec<MmuEvent> {
    let events = RefCell::new(Vec::new());
    let mmu = Tracing::new(NoMmu { tlbi_range }, |event| events.borrow_mut().push(event));
    paging::reference::flush_range::<Granule4K, _>(&mmu, va, size);
    events.take()
}

#[test]
fn a_flush_is_framed_by_its_barriers_and_covers_each_page_once() {
    for pages in (1..2000).chain([65_535, 65_536, 2_097_151, 2_097_152]) {
        let events = flush_events(VA, pages << 12, true);
        let [MmuEvent::DsbIshst, tlbis @ .., MmuEvent::DsbIsh, MmuEvent::Isb] = &events[..] else {
            panic!("{events:?}");
        };
        let mut next = VA;
        for tlbi in tlbis {
            next = match *tlbi {
                MmuEvent::TlbiRangeLastLevel(range) => {
                    assert_eq!(range.start, next);
                    next.add(range.pages() << 12)
                }
                MmuEvent::TlbiLastLevel(va) => {
                    assert_eq!(va, next);
                    next.add(4096)
                }
                other => panic!("{other:?}"),
            };
        }
        assert_eq!(next, VA.add(pages << 12), "{pages} pages: {tlbis:?}");
    }
    let whole = TlbiRange {
        start: VA,
        scale: 3,
        num: 31,
    };
    assert_eq!(
        flush_events(VA, 8 * G, true)[1],
        MmuEvent::TlbiRangeLastLevel(whole)
    );
}

#[test]
fn a_flush_beyond_its_limit_invalidates_everything() {
    let all = [
        MmuEvent::DsbIshst,
        MmuEvent::TlbiAll,
        MmuEvent::DsbIsh,
        MmuEvent::Isb,
    ];
    assert_eq!(flush_events(VA, 8 * G + 4 * K, true), all);
    assert_eq!(flush_events(VA, 2 * M, false), all);
    assert_eq!(flush_events(VA, 2 * M - 4 * K, false).len(), 3 + 511);
}

#[test]
fn an_unmap_exchanges_every_page_and_clears_a_block_with_one_store() {
    for (size, pa, stores) in [(M, 6 * G + 64 * K, 256), (2 * M, 6 * G, 1), (G, 6 * G, 1)] {
        for_both!(|walker| {
            on_tree::<Granule4K>(|ctx| {
                walker.map_range(ctx, VA, PhysAddr(pa), size, DATA).expect("maps");
                let before = ctx.tables.stores.get();
                walker.unmap(ctx, VA, size).expect("unmaps");
                assert_eq!(ctx.tables.stores.get() - before, stores);
            });
        });
    }
}

#[test]
fn an_unmap_of_a_part_of_a_leaf_is_refused_there() {
    let refused = [
        (2 * M, VA, 4 * K, VA, LeafSize::BLOCK2),
        (2 * M, VA.add(M), M, VA.add(M), LeafSize::BLOCK2),
        (G, VA.add(2 * M), 2 * M, VA.add(2 * M), LeafSize::BLOCK1),
        (M, VA, 4 * K, VA, LeafSize::PAGE_GROUP),
        (M, VA.add(4 * K), M - 4 * K, VA.add(4 * K), LeafSize::PAGE_GROUP),
        (M, VA, 68 * K, VA.add(64 * K), LeafSize::PAGE_GROUP),
    ];
    for (mapped, at, size, va, leaf) in refused {
        for_both!(|walker| {
            on_tree::<Granule4K>(|ctx| {
                walker
                    .map_range(ctx, VA, PhysAddr(6 * G), mapped, DATA)
                    .expect("maps");
                ctx.mmu.take();
                let got = walker.unmap(ctx, at, size);
                assert_eq!(got, Err(Error::PartialLeaf { va, leaf }));
                assert_ne!(ctx.mmu.take().tlbi, 0);
                for offset in (va.offset_from(VA)..mapped).step_by(4096) {
                    let expected = PhysAddr(6 * G + offset);
                    assert_eq!(ctx.translate(VA.add(offset)), Some((expected, leaf)));
                }
            });
        });
    }
}

#[test]
fn a_block_takes_the_place_of_an_empty_table_which_is_freed_after_an_all_level_tlbi() {
    for_both!(|walker| {
        on_tree::<Granule4K>(|ctx| {
            for (size, tables) in [(2 * M, 1), (G, 513)] {
                walker
                    .map_range(ctx, VA, PhysAddr(4 * K), size, DATA)
                    .expect("maps pages");
                walker.unmap(ctx, VA, size).expect("unmaps");
                let before = ctx.tables.in_use();
                ctx.mmu.take();
                walker
                    .map_range(ctx, VA, PhysAddr(6 * G), size, DATA)
                    .expect("maps a block");
                assert_eq!(before - ctx.tables.in_use(), tables);
                let counts = ctx.mmu.take();
                // Each table: DSB ISHST, TLBI, DSB ISH, ISB. The block: DSB ISHST, ISB.
                let tables = tables as u64;
                assert_eq!((counts.tlbi, counts.tlbi_range), (tables, 0));
                assert_eq!((counts.dsb, counts.isb), (2 * tables + 1, tables + 1));
                walker.unmap(ctx, VA, size).expect("unmaps");
            }
        });
    });
}
