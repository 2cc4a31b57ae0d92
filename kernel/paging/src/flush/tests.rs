extern crate std;

use super::pending::{MAX_RANGES, Packed};
use super::{Pending, for_each_range_op, nr_all_tlbis, nr_range_ops};
use crate::addr::{VirtAddr, VirtRange};
use crate::granule::{Granule, Granule4K, Granule4K52, Granule16K, Granule16K52, Granule64K, Granule64K52};
use std::vec::Vec;

/// `(NUM + 1) * 2^(5 * SCALE + 1)` pages from BaseADDR (Arm ARM C5.5, TLBI RVAE1IS).
fn pieces<G: Granule>(start: VirtAddr, pages: u64) -> Vec<(u64, u64)> {
    let pieces = core::cell::RefCell::new(Vec::new());
    for_each_range_op::<G>(
        start,
        pages,
        |op| {
            let operand = op.operand::<G>();
            assert_eq!(operand >> 46, G::TLBI_TG);
            let (scale, num, ttl) = (operand >> 44 & 3, operand >> 39 & 31, operand >> 37 & 3);
            assert_eq!(ttl, 0);
            let base = operand & ((1 << 37) - 1);
            // In units of 64 KiB with TCR_EL1.DS.
            let shift = if G::DS { 16 } else { G::PAGE_SHIFT };
            let first = VirtAddr((base << shift) | start.0 & !((1 << (37 + shift)) - 1));
            pieces.borrow_mut().push((
                first.offset_from(start) >> G::PAGE_SHIFT,
                (num + 1) << (5 * scale + 1),
            ));
        },
        |va| {
            pieces
                .borrow_mut()
                .push((va.offset_from(start) >> G::PAGE_SHIFT, 1))
        },
    );
    pieces.into_inner()
}

fn is_one_operation(pages: u64) -> bool {
    (0..4).any(|scale| pages % (2 << (5 * scale)) == 0 && (1..=32).contains(&(pages / (2 << (5 * scale)))))
}

fn fewest(pages: u64) -> u64 {
    match pages {
        1 => 1,
        pages if is_one_operation(pages) => 1,
        pages => pages.div_ceil(1 << 21).max(2),
    }
}

fn check<G: Granule>(pages: u64) {
    let start = VirtAddr(0xffff_0000_0000_0000 + ((pages % 4096) << G::PAGE_SHIFT));
    let pieces = pieces::<G>(start, pages);
    assert_eq!(pieces.len() as u64, fewest(pages), "{pages} pages: {pieces:?}");
    assert_eq!(
        pieces.len() as u64,
        nr_range_ops::<G>(start, pages),
        "{pages} pages"
    );
    covers_exactly(pages, pieces);
}

fn covers_exactly(pages: u64, mut pieces: Vec<(u64, u64)>) {
    pieces.sort_unstable();
    let mut end = 0;
    for (first, nr) in &pieces {
        assert!(*first <= end, "{pages} pages: a gap before {first}: {pieces:?}");
        end = end.max(first + nr);
        assert!(first + nr <= pages, "{pages} pages: beyond the end: {pieces:?}");
    }
    assert_eq!(end, pages, "{pieces:?}");
}

#[test]
fn range_operations_of_every_length_cover_it_exactly_and_are_the_fewest() {
    (1..=70_000).for_each(check::<Granule4K>);
    (1..=3_000).for_each(check::<Granule16K>);
    (1..=3_000).for_each(check::<Granule64K>);
}

fn check_ds<G: Granule>(pages: u64) {
    let place = pages.wrapping_mul(0x9e37_79b9) >> 7 & ((1 << 16 >> G::PAGE_SHIFT) - 1);
    let start = VirtAddr(0xfff8_0000_0000_0000 + ((pages % 64) << 16) + (place << G::PAGE_SHIFT));
    let pieces = pieces::<G>(start, pages);
    assert_eq!(
        pieces.len() as u64,
        nr_range_ops::<G>(start, pages),
        "{pages} pages"
    );
    let head = ((1 << 16 >> G::PAGE_SHIFT) - place) & ((1 << 16 >> G::PAGE_SHIFT) - 1);
    let most = head.min(pages) + (pages >> 21) + 4 + 1;
    assert!(
        pieces.len() as u64 <= most,
        "{pages} pages from {place}: {pieces:?}"
    );
    covers_exactly(pages, pieces);
}

#[test]
fn range_operations_with_ds_begin_at_64k_and_cover_every_length_exactly() {
    (1..=70_000).for_each(check_ds::<Granule4K52>);
    (1..=3_000).for_each(check_ds::<Granule16K52>);
    (1..=3_000).for_each(check::<Granule64K52>);
    for shift in 16..34 {
        for near in -70i64..=70 {
            check_ds::<Granule4K52>(((1i64 << shift) + near) as u64);
            check_ds::<Granule16K52>(((3i64 << shift) + near) as u64);
        }
    }
}

#[test]
fn range_operations_of_large_ranges_cover_them_exactly_and_are_the_fewest() {
    let mut x = 0x2545_f491_4f6c_dd1du64;
    for round in 0..200_000 {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        check::<Granule4K>(1 + x % (1 << (16 + round % 20)));
    }
    for shift in 16..34 {
        for near in -70i64..=70 {
            check::<Granule4K>(((1i64 << shift) + near) as u64);
            check::<Granule4K>(((3i64 << shift) + near) as u64);
        }
    }
}

#[test]
fn whatever_is_collected_is_covered_at_its_stride_and_with_its_links() {
    let mut x = 0x9e37_79b9_7f4a_7c15u64;
    let mut next = |below: u64| {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        x % below
    };
    let base = 0u64.wrapping_sub(1 << 30);
    for round in 0..2_000 {
        let slack = if round % 2 == 0 {
            0
        } else {
            Granule4K::cont_size(3)
        };
        let spread = 1 << next(9);
        let mut pending = Pending::<Granule4K>::new();
        let mut all = std::vec::Vec::new();
        for _ in 0..next(40) {
            let stride = if next(8) == 0 { 2 } else { 3 };
            let unit = Granule4K::size(stride);
            let units = (1u64 << 30) / unit;
            let pages = 1 + next(4);
            let first = (units - 1 - next(spread.min(units - 4))).min(units - pages);
            let range = VirtRange::new(VirtAddr(base + first * unit), pages * unit);
            let links = next(16) == 0;
            let new = Packed::new::<Granule4K>(range, stride, links);
            match next(3) {
                0 => pending.record(new, slack),
                1 => pending.collect(new, slack),
                _ => pending.invalidate(range, stride, links),
            }
            all.push((range, stride, links));
        }
        assert!(pending.ranges().count() <= MAX_RANGES);
        for (range, stride, links) in &all {
            let covered = pending.ranges().any(|pending| {
                pending.range.contains(range.start)
                    && pending.range.contains(range.last())
                    && pending.stride >= *stride
                    && pending.links >= *links
            });
            assert!(covered, "{range:?} of {stride} {links}: {pending:?}");
        }
        let apart = all.iter().map(|(range, stride, links)| {
            Packed::new::<Granule4K>(*range, *stride, *links).unpack::<Granule4K>()
        });
        let (joined, apart) = (pending.nr_tlbis(true), nr_all_tlbis::<Granule4K>(apart, true));
        let strides_mix = all.iter().any(|a| a.1 != all[0].1);
        assert!(
            joined <= apart || strides_mix,
            "{joined} and not {apart}: {all:?}"
        );
    }
}
