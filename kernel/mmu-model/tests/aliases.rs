//! DESIGN rule 12.

use crate::common::{NC, RO, RW, RX, Rig};
use mmu_model::descriptor as d;
use mmu_model::{Features, Rule};
use paging::{Granule4K, Mmu, PhysAddr, Tables, VirtAddr};

const A: u64 = 0x20_0000;

/// Device-nGnRE, MAIR index 1.
const DEVICE: u64 = RW & !d::ATTR_INDEX | 1 << 2;
/// Normal Write-Through, MAIR index 4.
const THROUGH: u64 = RW & !d::ATTR_INDEX | 4 << 2;

for_granules! {
    fn a_page_inside_a_cacheable_block_may_not_be_mapped_as_nc<G>() {
        let rig = Rig::<G>::plain();
        let frames = rig.frames(0);
        rig.map(2, rig.va(0), frames, RW);
        let beside = rig.va(1 << G::INDEX_BITS);
        rig.map(3, beside, frames + 3 * G::PAGE_SIZE, NC);
        rig.assert_broken(&[Rule::MismatchedAlias]);
        rig.assert_told(&format!("at {:#x} the same frame is Normal, outer Back, inner Back, SH 3", rig.va(0).0));
        rig.assert_told("Normal, outer None, inner None");
    }

    fn nor_a_block_around_a_page_that_is_nc<G>() {
        let rig = Rig::<G>::plain();
        let frames = rig.frames(0);
        rig.map(3, rig.va(0), frames + 3 * G::PAGE_SIZE, NC);
        rig.model.assert_quiescent();
        rig.map(2, rig.va(1 << G::INDEX_BITS), frames, RW);
        rig.assert_broken(&[Rule::MismatchedAlias]);
    }

    fn the_frames_beside_it_are_others<G>() {
        let rig = Rig::<G>::plain();
        let frames = rig.frames(0);
        let block = d::size::<G>(2);
        rig.map(2, rig.va(0), frames + block, RW);
        rig.map(3, rig.va(1 << G::INDEX_BITS), frames + block - G::PAGE_SIZE, NC);
        rig.map(3, rig.va((1 << G::INDEX_BITS) + 1), frames + 2 * block, NC);
        rig.model.assert_quiescent();
    }

    fn an_alias_that_was_taken_out_and_flushed_is_none<G>() {
        let rig = Rig::<G>::plain();
        let frames = rig.frames(0);
        let block = d::size::<G>(2);
        rig.map(2, rig.va(0), frames, RW);
        rig.put(0, 2, rig.va(0), 0);
        rig.flush_leaves(rig.va(0), block, block);
        rig.map(3, rig.va(1 << G::INDEX_BITS), frames, NC);
        rig.model.assert_quiescent();
    }

    fn one_that_was_taken_out_may_still_be_held<G>() {
        let rig = Rig::<G>::plain();
        let frames = rig.frames(0);
        rig.map(2, rig.va(0), frames, RW);
        rig.put(0, 2, rig.va(0), 0);
        rig.made();
        rig.map(3, rig.va(1 << G::INDEX_BITS), frames, NC);
        rig.assert_broken(&[Rule::MismatchedAlias]);
        rig.assert_told("no TLBI has matched it");
    }

    fn a_group_may_be_held_for_the_frames_of_all_its_members<G>() {
        let rig = Rig::<G>::plain();
        let frames = rig.frames(0);
        rig.map_group(3, rig.va(0), frames, RW);
        rig.put_group(0, 3, rig.va(0), None);
        rig.flush_leaves(rig.va(0), d::group_size::<G>(3) - G::PAGE_SIZE, G::PAGE_SIZE);
        rig.map(3, rig.va(1 << G::INDEX_BITS), frames, NC);
        rig.model.assert_clean();
        let last = frames + d::group_size::<G>(3) - G::PAGE_SIZE;
        rig.map(3, rig.va((1 << G::INDEX_BITS) + 1), last, NC);
        rig.assert_broken(&[Rule::MismatchedAlias]);
    }

    fn a_private_table_is_judged_when_it_is_linked<G>() {
        let rig = Rig::<G>::plain();
        let frames = rig.frames(0);
        rig.map(3, rig.va(0), frames, RW);
        let cpu = rig.cpu(0);
        let table = cpu.alloc_table().expect("a table");
        cpu.store(table, 1, rig.leaf(3, frames, NC));
        rig.model.assert_clean();
        let (parent, index) = rig.slot(2, rig.va(1 << G::INDEX_BITS));
        assert!(cpu.compare_exchange(parent, index, 0, table.0 | 0b11).is_ok());
        rig.assert_broken(&[Rule::MismatchedAlias]);
    }

    fn a_table_that_was_cut_off_still_leads_to_its_frames<G>() {
        let rig = Rig::<G>::plain();
        let frames = rig.frames(0);
        rig.map(3, rig.va(0), frames, RW);
        rig.put(0, 2, rig.va(0), 0);
        rig.made();
        rig.map(3, rig.va(1 << G::INDEX_BITS), frames, NC);
        rig.assert_broken(&[Rule::MismatchedAlias]);
    }
}

fn twice(first: u64, second: u64) -> Rig<Granule4K> {
    let rig = Rig::plain();
    rig.map(3, rig.va(0), A, first);
    rig.map(3, rig.va(7), A, second);
    rig
}

#[test]
fn permissions_are_no_part_of_the_memory_type() {
    for (first, second) in [
        (RW, RO),
        (RO, RX),
        (RW, RW | d::NOT_GLOBAL),
        (NC, NC | d::AP_READ_ONLY),
    ] {
        twice(first, second).model.assert_quiescent();
    }
}

#[test]
fn type_cacheability_and_shareability_are() {
    let outer = RW & !d::SHAREABILITY | 0b10 << 8;
    for (first, second) in [(RW, NC), (DEVICE, RW), (NC, DEVICE), (RW, THROUGH), (RW, outer)] {
        twice(first, second).assert_broken(&[Rule::MismatchedAlias]);
        twice(second, first).assert_broken(&[Rule::MismatchedAlias]);
    }
}

#[test]
fn what_is_cacheable_nowhere_is_outer_shareable_whatever_sh_says() {
    let inner = |attributes| attributes & !d::SHAREABILITY | 0b11 << 8;
    let outer = |attributes| attributes & !d::SHAREABILITY | 0b10 << 8;
    for attributes in [NC, DEVICE] {
        twice(inner(attributes), outer(attributes))
            .model
            .assert_quiescent();
    }
}

#[test]
fn two_indices_that_mair_gives_one_meaning_are_one_type() {
    let rig = Rig::<Granule4K>::new(Features {
        // Both are Write-Back, with different allocation hints.
        mair: 0xee_ff_44_04_00,
        ..Features::default()
    });
    rig.map(3, rig.va(0), A, RW);
    rig.map(3, rig.va(7), A, THROUGH);
    rig.model.assert_quiescent();
}

#[test]
fn a_leaf_without_its_access_flag_translates_nothing() {
    twice(RW, NC & !d::ACCESS_FLAG).model.assert_quiescent();
    twice(RW & !d::ACCESS_FLAG, NC).model.assert_quiescent();
}

#[test]
fn another_root_is_looked_through_too() {
    let rig = Rig::<Granule4K>::plain();
    let cpu = rig.cpu(0);
    rig.map(3, rig.va(0), A, RW);
    let low = cpu.alloc_table().expect("a table");
    rig.model.set_root(low, VirtAddr(0));
    let mut table = low;
    for _ in 0..3 {
        let next = cpu.alloc_table().expect("a table");
        assert!(cpu.compare_exchange(table, 0, 0, next.0 | 0b11).is_ok());
        table = next;
    }
    cpu.store(table, 0, rig.leaf(3, A, NC));
    cpu.dsb_ishst();
    rig.assert_broken(&[Rule::MismatchedAlias]);
    assert_eq!(
        rig.model.translate(VirtAddr(0)).map(|leaf| PhysAddr(leaf.pa)),
        Some(PhysAddr(A))
    );
}

#[test]
fn only_ram_has_one_memory_type() {
    // Registers may be mapped as several Device types and as Non-cacheable.
    for (ram, rules) in [
        (0..A, vec![]),
        (0..0, vec![]),
        (A + 0x1000..u64::MAX, vec![]),
        (A..A + 0x1000, vec![Rule::MismatchedAlias]),
    ] {
        let rig = Rig::<Granule4K>::new(Features {
            one_memory_type: ram,
            ..Features::default()
        });
        rig.map(3, rig.va(0), A, DEVICE);
        rig.map(3, rig.va(7), A, NC);
        rig.assert_broken(&rules);
    }
}

#[test]
fn of_a_block_that_is_ram_in_part_that_part_counts() {
    for (page, rules) in [(0, vec![]), (5, vec![Rule::MismatchedAlias])] {
        let rig = Rig::<Granule4K>::new(Features {
            one_memory_type: A + 0x1000..u64::MAX,
            ..Features::default()
        });
        rig.map(3, rig.va(0), A + page * 0x1000, NC);
        rig.map(2, rig.va(512), A, RW);
        rig.assert_broken(&rules);
    }
}
