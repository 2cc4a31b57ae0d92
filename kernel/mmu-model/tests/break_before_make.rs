use crate::common::{NC, RO, RW, RX, Rig};
use mmu_model::descriptor as d;
use mmu_model::{Access, Features, Rule};
use paging::{
    Granule, Granule4K, Granule4K52, Granule16K, Granule16K52, Granule64K, Granule64K52, Mmu, PhysAddr,
    Tables, VirtAddr,
};

const A: u64 = 0x10_0000;

fn changed_in_place(old: u64, new: u64) -> Rig<Granule4K> {
    let rig = Rig::plain();
    let va = rig.va(7);
    rig.map(3, va, A, old);
    rig.put(0, 3, va, rig.leaf(3, A, new));
    rig.flush_leaves(va, 0x1000, 0x1000);
    rig
}

#[test]
fn permissions_may_change_in_place() {
    for (old, new) in [
        (RW, RO),
        (RO, RW),
        (RO, RX),
        (RX, RO),
        (RW, RW & !d::UXN),
        (RW, RW | d::GUARDED),
    ] {
        changed_in_place(old, new).model.assert_quiescent();
    }
}

#[test]
fn the_access_flag_may_change_in_place() {
    changed_in_place(RW, RW & !d::ACCESS_FLAG)
        .model
        .assert_quiescent();
    changed_in_place(RW & !d::ACCESS_FLAG, RW)
        .model
        .assert_quiescent();
}

#[test]
fn software_bits_are_not_seen_by_walks_and_need_no_flush() {
    let rig = Rig::<Granule4K>::plain();
    let va = rig.va(7);
    rig.map(3, va, A, RW);
    rig.put(0, 3, va, rig.leaf(3, A, RW | 0b1010 << 55));
    rig.made();
    rig.model.assert_quiescent();
}

#[test]
fn memory_type_shareability_and_ng_may_not_change_in_place() {
    for new in [NC, RW & !d::SHAREABILITY, RW | d::NOT_GLOBAL, RW | d::NON_SECURE] {
        changed_in_place(RW, new).assert_broken(&[Rule::BreakBeforeMake]);
    }
}

#[test]
fn a_leaf_whose_access_flag_is_clear_is_never_held() {
    let rig = Rig::<Granule4K>::plain();
    let va = rig.va(7);
    rig.map(3, va, A, RW & !d::ACCESS_FLAG);
    assert!(rig.cpu(0).access(va, Access::Read).is_err());
    rig.put(0, 3, va, rig.leaf(3, 2 * A, RW));
    rig.made();
    assert!(rig.cpu(0).access(va, Access::Read).is_ok());
    rig.model.assert_quiescent();
}

fn block_and_table<G: Granule>(features: Features, pages_at: u64) -> (Rig<G>, VirtAddr, PhysAddr) {
    let rig = Rig::new(features);
    let va = rig.va(0);
    rig.map(2, va, rig.frames(0), RW);
    let cpu = rig.cpu(0);
    let child = cpu.alloc_table().expect("a table");
    for i in 0..1 << G::INDEX_BITS {
        cpu.store(
            child,
            i,
            rig.leaf(3, rig.frames(pages_at) + i as u64 * G::PAGE_SIZE, RW),
        );
    }
    (rig, va, child)
}

for_granules! {
    fn a_block_split_by_break_before_make_is_sound<G>() {
        let (rig, va, child) = block_and_table::<G>(Features::default(), 0);
        rig.put(0, 2, va, 0);
        rig.flush_leaves(va, d::size::<G>(2), d::size::<G>(2));
        let (table, index) = rig.find(2, va);
        assert!(rig.cpu(0).compare_exchange(table, index, 0, child.0 | 0b11).is_ok());
        rig.made();
        let last = va.add(d::size::<G>(2) - 8);
        let pa = rig.cpu(0).access(last, Access::Write).map(|pa| pa.0);
        assert_eq!(pa, Ok(rig.frames(0) + d::size::<G>(2) - 8));
        rig.model.assert_quiescent();
    }

    fn a_block_replaced_by_a_table_in_place_is_a_conflict<G>() {
        let (rig, va, child) = block_and_table::<G>(Features::default(), 0);
        let (table, index) = rig.find(2, va);
        let block = rig.cpu(0).load(table, index);
        assert!(rig.cpu(0).compare_exchange(table, index, block, child.0 | 0b11).is_ok());
        rig.assert_broken(&[Rule::BreakBeforeMake]);
    }

    fn where_the_cpu_tolerates_it_a_block_may_become_the_same_pages_in_place<G>() {
        let tolerant = Features { tolerates_size_change: true, ..Features::default() };
        let (rig, va, child) = block_and_table::<G>(tolerant, 0);
        let (table, index) = rig.find(2, va);
        let block = rig.cpu(0).load(table, index);
        assert!(rig.cpu(0).compare_exchange(table, index, block, child.0 | 0b11).is_ok());
        rig.flush_leaves(va, d::size::<G>(2), d::size::<G>(2));
        rig.model.assert_quiescent();
    }

    fn but_never_other_pages<G>() {
        let tolerant = Features { tolerates_size_change: true, ..Features::default() };
        let (rig, va, child) = block_and_table::<G>(tolerant, 1);
        let (table, index) = rig.find(2, va);
        let block = rig.cpu(0).load(table, index);
        assert!(rig.cpu(0).compare_exchange(table, index, block, child.0 | 0b11).is_ok());
        rig.assert_broken(&[Rule::BreakBeforeMake]);
    }

    fn one_tlbi_anywhere_in_a_block_is_enough_for_it<G>() {
        let rig = Rig::<G>::plain();
        let va = rig.va(0);
        rig.map(2, va, rig.frames(0), RW);
        rig.put(0, 2, va, 0);
        rig.flush_leaves(va.add(G::PAGE_SIZE), G::PAGE_SIZE, G::PAGE_SIZE);
        rig.model.assert_quiescent();
    }

    fn a_block_over_pages_of_which_one_was_not_invalidated_is_a_conflict<G>() {
        // Peers' defect.
        let rig = Rig::<G>::plain();
        let va = rig.va(0);
        let (block, page) = (d::size::<G>(2), G::PAGE_SIZE);
        rig.map(3, va, rig.frames(0), RW);
        rig.map(3, va.add(block - page), rig.frames(0) + block - page, RW);
        let (child, _) = rig.find(3, va);
        rig.put(0, 2, va, 0);
        let cpu = rig.cpu(0);
        cpu.dsb_ishst();
        cpu.tlbi_vaae1is(va);
        cpu.dsb_ish();
        cpu.isb();
        cpu.free_table(child);
        rig.model.assert_clean();
        rig.put(0, 2, va, rig.leaf(2, rig.frames(0), RW));
        rig.assert_broken(&[Rule::BreakBeforeMake]);
    }

    fn a_block_over_a_table_invalidated_page_by_page_at_all_levels_is_sound<G>() {
        let rig = Rig::<G>::plain();
        let va = rig.va(0);
        let (block, page) = (d::size::<G>(2), G::PAGE_SIZE);
        rig.map(3, va, rig.frames(0), RW);
        rig.map(3, va.add(block - page), rig.frames(0) + block - page, RW);
        let (child, _) = rig.find(3, va);
        rig.put(0, 2, va, 0);
        let cpu = rig.cpu(0);
        cpu.dsb_ishst();
        cpu.tlbi_vaae1is(va);
        cpu.tlbi_vaae1is(va.add(block - page));
        cpu.dsb_ish();
        rig.put(0, 2, va, rig.leaf(2, rig.frames(0), RW));
        rig.made();
        cpu.free_table(child);
        rig.model.assert_quiescent();
    }

    fn a_block_where_an_empty_table_was_cut_off_and_not_invalidated_is_a_conflict<G>() {
        let rig = Rig::<G>::plain();
        let va = rig.va(0);
        rig.table(3, va);
        rig.put(0, 2, va, 0);
        rig.made();
        rig.put(0, 2, va, rig.leaf(2, rig.frames(0), RW));
        rig.assert_broken(&[Rule::BreakBeforeMake]);
        rig.assert_told("link to table");
    }

    fn an_empty_table_where_a_block_was_taken_out_and_not_invalidated_is_a_conflict<G>() {
        let rig = Rig::<G>::plain();
        let va = rig.va(0);
        rig.map(2, va, rig.frames(0), RW);
        rig.put(0, 2, va, 0);
        rig.made();
        rig.table(3, va);
        rig.assert_broken(&[Rule::BreakBeforeMake]);
        rig.assert_told("block to pa");
    }

    fn a_table_replaced_by_a_block_in_place_is_a_conflict<G>() {
        let rig = Rig::<G>::plain();
        let va = rig.va(0);
        rig.map(3, va, rig.frames(0), RW);
        rig.put(0, 2, va, rig.leaf(2, rig.frames(0), RW));
        rig.assert_broken(&[Rule::BreakBeforeMake]);
    }

    fn another_table_in_place_is_a_conflict_even_if_it_maps_the_same<G>() {
        let rig = Rig::<G>::plain();
        let va = rig.va(0);
        rig.map(3, va, rig.frames(0), RW);
        let cpu = rig.cpu(0);
        let copy = cpu.alloc_table().expect("a table");
        cpu.store(copy, 0, rig.leaf(3, rig.frames(0), RW));
        cpu.dsb_ishst();
        rig.put(0, 2, va, copy.0 | 0b11);
        rig.assert_broken(&[Rule::BreakBeforeMake]);
    }

    fn remapping_what_was_taken_out_and_not_invalidated_is_sound_if_it_is_the_same<G>() {
        let rig = Rig::<G>::plain();
        let va = rig.va(3);
        rig.map(3, va, rig.frames(0), RW);
        rig.put(0, 3, va, 0);
        rig.put(0, 3, va, rig.leaf(3, rig.frames(0), RO));
        rig.flush_leaves(va, G::PAGE_SIZE, G::PAGE_SIZE);
        rig.model.assert_quiescent();
    }

    fn the_count_in_a_live_link_may_change_without_a_word<G>() {
        let rig = Rig::<G>::plain();
        let va = rig.va(0);
        rig.map(3, va, rig.frames(0), RW);
        let (table, index) = rig.find(2, va);
        let link = rig.cpu(0).load(table, index);
        for count in [1 << 2, 0x3ff << 2 & !d::address_bits::<G>(), 0xff << 51] {
            let found = rig.cpu(0).load(table, index);
            assert!(rig.cpu(0).compare_exchange(table, index, found, link | count).is_ok());
        }
        rig.made();
        assert!(rig.cpu(0).access(va, Access::Read).is_ok());
        rig.model.assert_quiescent();
    }
}

#[test]
fn res0_bits_in_a_link_of_a_large_granule_are_refused_unless_tolerated() {
    fn refused<G: Granule>(bits: &[u32]) {
        for (tolerated, broken) in [(false, &[Rule::MalformedDescriptor][..]), (true, &[])] {
            for bit in bits {
                let rig = Rig::<G>::new(Features {
                    table_res0_ignored: tolerated,
                    ..Features::default()
                });
                let va = rig.va(0);
                rig.map(3, va, rig.frames(0), RW);
                let (table, index) = rig.find(2, va);
                let link = rig.cpu(0).load(table, index);
                rig.put(0, 2, va, link | 1 << bit);
                rig.assert_broken(broken);
            }
        }
    }
    refused::<Granule16K>(&[12, 13, 48, 50]);
    refused::<Granule64K>(&[12, 15, 48, 50]);
    // Bits 49:48 and 15:12 are of the address.
    refused::<Granule4K52>(&[50]);
    refused::<Granule16K52>(&[12, 13, 50]);
    refused::<Granule64K52>(&[48, 50]);
}

#[test]
fn reserved_encodings_and_misaligned_blocks_are_refused() {
    let rig = Rig::<Granule4K>::plain();
    let va = rig.va(0);
    for (level, raw) in [
        (3, A | RW | 0b01),
        (0, 1 << 39 | RW | 0b01),
        (2, 0x1000 | RW | 0b01),
        (3, A | RW & !d::SHAREABILITY | 1 << 8 | 0b11),
    ] {
        rig.table(level, va);
        rig.put(0, level, va, raw);
        rig.assert_broken(&[Rule::MalformedDescriptor]);
        let _ = rig.model.take_violations();
        rig.put(0, level, va, 0);
        rig.cpu(0).dsb_ishst();
        rig.cpu(0).tlbi_vmalle1is();
        rig.cpu(0).dsb_ish();
    }
}

#[test]
fn an_output_beyond_the_implemented_size_is_refused() {
    let rig = Rig::<Granule4K>::new(Features {
        pa_bits: 40,
        ..Features::default()
    });
    let va = rig.va(0);
    rig.map(3, va, (1 << 40) - 0x1000, RW);
    rig.model.assert_quiescent();
    rig.map(3, va.add(0x1000), 1 << 40, RW);
    rig.assert_broken(&[Rule::OutputTooLarge]);
}
