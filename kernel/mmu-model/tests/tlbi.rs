use crate::common::{RW, Rig};
use mmu_model::descriptor as d;
use mmu_model::{Features, Rule};
use paging::{Granule, Granule4K, Granule4K52, Mmu, Tables, TlbiRange, VirtAddr, VirtRange};

fn with_ranges<G: Granule>() -> Rig<G> {
    Rig::new(Features {
        tlbi_range: true,
        ..Features::default()
    })
}

fn pages_taken_out<G: Granule>(rig: &Rig<G>, pages: u64) {
    for page in 0..pages {
        let va = rig.va(page);
        rig.table(3, va);
        rig.put(0, 3, va, rig.leaf(3, rig.frames(0) + page * G::PAGE_SIZE, RW));
    }
    rig.made();
    for page in 0..pages {
        rig.put(0, 3, rig.va(page), 0);
    }
    rig.cpu(0).dsb_ishst();
}

/// 64 KiB with TCR_EL1.DS.
fn unit<G: Granule>() -> u64 {
    if d::has_shareability::<G>() {
        1
    } else {
        (1 << 16) / G::PAGE_SIZE
    }
}

fn held<G: Granule>(rig: &Rig<G>, pages: u64) -> Vec<u64> {
    (0..pages)
        .filter(|page| {
            rig.model.va_reused(rig.page_range(rig.va(*page), 1));
            !rig.model.take_violations().is_empty()
        })
        .collect()
}

for_granules! {
    fn a_range_covers_num_plus_1_times_2_to_the_5_scale_plus_1_pages<G>() {
        for (start, scale, num, pages) in [(0, 0, 0, 2), (1, 0, 3, 8), (5, 0, 24, 50), (0, 0, 31, 64), (0, 1, 0, 64)] {
            let rig = with_ranges::<G>();
            let start = start / unit::<G>() * unit::<G>();
            pages_taken_out(&rig, 64);
            rig.cpu(0).tlbi_rvaale1is(TlbiRange { start: rig.va(start), scale, num });
            rig.cpu(0).dsb_ish();
            let expected: Vec<_> = (0..64).filter(|page| !(start..start + pages).contains(page)).collect();
            assert_eq!(held(&rig, 64), expected, "scale {scale} num {num}");
        }
    }

    fn everything_goes_with_vmalle1is<G>() {
        let rig = Rig::<G>::plain();
        let va = rig.va(0);
        pages_taken_out(&rig, 40);
        let table = rig.find(3, va).0;
        rig.put(0, 2, va, 0);
        let cpu = rig.cpu(0);
        cpu.dsb_ishst();
        cpu.tlbi_vmalle1is();
        cpu.dsb_ish();
        cpu.isb();
        cpu.free_table(table);
        rig.model.assert_quiescent();
    }

    fn an_all_levels_range_frees_every_table_in_it<G>() {
        let rig = with_ranges::<G>();
        let va = rig.va(0);
        let next = va.add(d::size::<G>(2));
        rig.map(3, va, rig.frames(0), RW);
        rig.map(3, next, rig.frames(1), RW);
        let tables = [rig.find(3, va).0, rig.find(3, next).0];
        rig.put(0, 2, va, 0);
        rig.put(0, 2, next, 0);
        let cpu = rig.cpu(0);
        cpu.dsb_ishst();
        let mut start = va;
        let mut left = 2 << G::INDEX_BITS;
        for scale in 0..4 {
            let unit = 5 * u32::from(scale) + 1;
            while left >> unit != 0 && (left % (1 << (unit + 5)) != 0 || scale == 3) {
                let num = ((left >> unit) & 31) - 1;
                let range = TlbiRange { start, scale, num: num as u8 };
                cpu.tlbi_rvaae1is(range);
                start = start.add(range.pages() * G::PAGE_SIZE);
                left -= range.pages();
            }
        }
        assert_eq!(left, 0);
        cpu.dsb_ish();
        cpu.isb();
        tables.into_iter().for_each(|table| cpu.free_table(table));
        rig.model.assert_quiescent();
    }

    fn the_last_page_of_the_address_space_is_covered<G>() {
        let rig = with_ranges::<G>();
        let pages = unit::<G>().max(2);
        let first = VirtAddr(0u64.wrapping_sub(pages * G::PAGE_SIZE));
        let last = VirtAddr(0u64.wrapping_sub(2 * G::PAGE_SIZE));
        for va in [last, last.add(G::PAGE_SIZE)] {
            rig.table(3, va);
            rig.put(0, 3, va, rig.leaf(3, rig.frames(0) + (va.0 & G::PAGE_SIZE), RW));
        }
        rig.made();
        rig.put(0, 3, last, 0);
        rig.put(0, 3, last.add(G::PAGE_SIZE), 0);
        let cpu = rig.cpu(0);
        cpu.dsb_ishst();
        cpu.tlbi_vaale1is(last.add(G::PAGE_SIZE));
        cpu.tlbi_rvaale1is(TlbiRange { start: first, scale: 0, num: (pages / 2 - 1) as u8 });
        cpu.dsb_ish();
        cpu.isb();
        rig.model.va_reused(VirtRange::new(last, 2 * G::PAGE_SIZE));
        rig.model.assert_quiescent();
    }

    fn a_range_tlbi_without_the_feature_is_undefined<G>() {
        let rig = Rig::<G>::plain();
        rig.cpu(0).tlbi_rvaale1is(TlbiRange { start: rig.va(0), scale: 0, num: 0 });
        rig.assert_broken(&[Rule::TlbiOperand]);
    }

    fn fields_that_overflow_their_bits_are_refused<G>() {
        for (scale, num) in [(0, 32), (4, 0)] {
            let rig = with_ranges::<G>();
            rig.cpu(0).tlbi_rvaale1is(TlbiRange { start: rig.va(0), scale, num });
            rig.assert_broken(&[Rule::TlbiOperand]);
        }
    }

    fn a_tlbi_that_comes_before_the_dsb_is_told_at_once<G>() {
        let rig = Rig::<G>::plain();
        let va = rig.va(0);
        rig.map(3, va, rig.frames(0), RW);
        rig.put(0, 3, va, 0);
        rig.cpu(0).tlbi_vaale1is(rig.va(1));
        rig.model.assert_clean();
        rig.cpu(0).tlbi_vaale1is(va);
        rig.assert_broken(&[Rule::TlbiBeforeDsb]);
    }

    fn a_map_elsewhere_without_its_dsb_yet_does_not_spoil_a_tlbi<G>() {
        let rig = Rig::<G>::plain();
        let (va, other) = (rig.va(0), rig.va(1));
        rig.map(3, va, rig.frames(0), RW);
        rig.put(0, 3, va, 0);
        rig.cpu(0).dsb_ishst();
        rig.put(0, 3, other, rig.leaf(3, rig.frames(1), RW));
        rig.cpu(0).tlbi_vmalle1is();
        rig.cpu(0).dsb_ish();
        rig.cpu(0).isb();
        rig.model.assert_quiescent();
    }
}

#[test]
fn a_range_from_within_64k_is_not_what_its_operand_says_with_ds() {
    let rig = with_ranges::<Granule4K52>();
    rig.cpu(0).tlbi_rvaae1is(TlbiRange {
        start: rig.va(1),
        scale: 0,
        num: 0,
    });
    rig.assert_broken(&[Rule::TlbiOperand]);
}

#[test]
fn a_misaligned_range_is_not_what_its_operand_says() {
    let rig = with_ranges::<Granule4K>();
    rig.cpu(0).tlbi_rvaae1is(TlbiRange {
        start: rig.va(1).add(0x800),
        scale: 0,
        num: 0,
    });
    rig.assert_broken(&[Rule::TlbiOperand]);
}

#[test]
fn repeating_a_tlbi_and_its_dsb_is_harmless() {
    let rig = Rig::<Granule4K>::plain();
    pages_taken_out(&rig, 1);
    for _ in 0..2 {
        rig.cpu(0).tlbi_vaae1is(rig.va(0));
        rig.cpu(0).dsb_ish();
    }
    rig.cpu(0).isb();
    rig.model.assert_quiescent();
}

#[test]
fn counters_count_what_was_issued() {
    let rig = with_ranges::<Granule4K>();
    let cpu = rig.cpu(0);
    let before = rig.model.counters();
    cpu.fill_linear(rig.root, 0, 4, 0, 0);
    cpu.dsb_ishst();
    cpu.dsb_ish();
    cpu.isb();
    cpu.tlbi_vaae1is(rig.va(0));
    cpu.tlbi_rvaae1is(TlbiRange {
        start: rig.va(0),
        scale: 0,
        num: 0,
    });
    cpu.tlbi_vmalle1is();
    assert_eq!(cpu.load(rig.root, 0), 0);
    let after = rig.model.counters();
    assert_eq!(after.stores - before.stores, 4);
    assert_eq!(after.loads - before.loads, 1);
    assert_eq!(
        (after.dsb_ishst, after.dsb_ish, after.isb),
        (before.dsb_ishst + 1, before.dsb_ish + 1, before.isb + 1)
    );
    assert_eq!((after.tlbi_va, after.tlbi_range, after.tlbi_all), (1, 1, 1));
}
