use crate::flush::{DSB_ISH, covered, decode, events, map, prepared, range_of, tlbis, tree, unmap};
use crate::support::corpus::base;
use crate::support::ops::Op;
use crate::support::traced::word;
use crate::support::{Rng, Shape};
use paging::mmu::{MmuEvent, tlbi_va_operand};
use paging::{
    Attributes, Config, Granule, Granule4K, Granule16K, Granule64K, LeafSet, LeafSize, TlbiRange, VirtAddr,
    VirtRange,
};

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

fn map_pages(page: u64, pages: u64) -> Op {
    Op::Map {
        page,
        shape: Shape::Range((1 << 24) + page, pages),
        attributes: Attributes::KERNEL_DATA,
        allowed: LeafSet::PAGES,
    }
}

#[test]
fn range_operations_cover_every_length_exactly() {
    fn granule<G: Granule>(max: u64) {
        let tree = tree::<G>(true);
        for pages in 1..=max {
            let page = pages % 37;
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
    for threshold in [1, 5, 16, 512] {
        for pages in [1, 2, 5, 6, 16, 17, 511, 512, 513, 700] {
            let config = Config {
                flush_all_above: threshold,
                ..Config::default()
            };
            let setup = [map_pages(0, pages), map_pages(pages, 1)];
            let tree = prepared::<Granule4K>(&setup, config, false);
            let tlbis = tlbis(&events(&tree, &unmap(0, pages)));
            // 513 and 700 pages empty the first table: one TLBI is of all levels.
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
