use crate::support::{Area, PAGE, Plant, Rig, Scenario, me};
use crate::{LAZY, scenario};
use mmu_model::Access;
use paging::VirtAddr;
use vmalloc::Request;

/// Beside readers through both mappings.
const PERMISSIONS: Scenario = scenario(LAZY, 600, |rig| {
    let stays = rig.filled(2, 99);
    let stays_at = stays.range();
    let alias = |rig: &Rig, va: VirtAddr| {
        let frame = rig.vm.vmalloc_to_pfn(va).expect("mapped");
        rig.machine().alias(frame)
    };
    let changer = |rig: &Rig| {
        let area = rig.filled(4, me() as u64);
        let at = area.range().start.add(PAGE);
        area.set_memory_ro(PAGE, PAGE).expect("tables suffice");
        for va in [at, alias(rig, at)] {
            let cpu = rig.machine().model().cpu(me());
            assert!(cpu.access_with_retry(va, Access::Read).is_ok());
            assert!(
                cpu.access_with_retry(va, Access::Write).is_err(),
                "{va} is writable"
            );
        }
        rig.machine().store(at.add(PAGE), (me() as u64) << 16 | 2);
        area.set_memory_rw(PAGE, PAGE).expect("tables suffice");
        rig.machine().store(at, (me() as u64) << 16 | 1);
        area.set_memory_invalid(2 * PAGE, PAGE).expect("tables suffice");
        area.set_memory_valid(2 * PAGE, PAGE).expect("tables suffice");
        rig.check_and_free(area, me() as u64);
    };
    let reader = |rig: &Rig| {
        for _ in 0..2 {
            for page in 0..2 {
                let at = stays_at.start.add(page * PAGE);
                let mut word = [0; 8];
                // Under the shard's lock: the area may be broken.
                assert_eq!(rig.vm.vread(at, &mut word), Ok(8));
                assert_eq!(u64::from_le_bytes(word), 99 << 16 | page);
                // Without a lock: the fault handler waits for the make.
                let found = rig.machine().load_through_breaks(alias(rig, at));
                assert_eq!(found, 99 << 16 | page);
            }
        }
    };
    rig.at_once(&[&changer, &changer, &reader]);
    rig.check_and_free(stays, 99);
});

const CUT: Scenario = scenario(LAZY, 600, |rig| {
    let request = Request::new(8 * PAGE).aligned(8 * PAGE);
    let area = Area::from(rig.vm.allocate(&request).expect("memory suffices"));
    assert_eq!(area.outcome().leaves.get(paging::LeafSize::BLOCK2), 1);
    rig.fill(&area, 7);
    let at = area.range().start;
    let changer = |_: &Rig| {
        area.set_memory_ro(PAGE, PAGE).expect("tables suffice");
        area.set_memory_rw(PAGE, PAGE).expect("tables suffice");
    };
    let reader = |rig: &Rig| {
        for page in 0..4 {
            let va = at.add(page * PAGE);
            assert!(rig.vm.vmalloc_to_pfn(va).is_ok(), "{va} is mapped all the time");
            let mut word = [0; 8];
            assert_eq!(rig.vm.vread(va, &mut word), Ok(8));
            assert_eq!(u64::from_le_bytes(word), 7 << 16 | page);
        }
    };
    rig.at_once(&[&changer, &reader]);
    rig.check_and_free(area, 7);
});

#[test]
fn what_is_mapped_is_found_while_its_leaf_is_cut() {
    CUT.holds();
}

#[test]
fn permissions_change_under_readers_of_the_area_and_of_its_alias() {
    PERMISSIONS.holds();
}

#[test]
fn an_alias_that_keeps_its_rights_is_noticed() {
    PERMISSIONS.catches(Plant::AliasIsForgotten, &["is writable"]);
}

#[test]
fn rights_that_outlive_their_flush_are_noticed() {
    PERMISSIONS.catches(Plant::NoTlbi, &["StaleAccess", "BreakBeforeMake"]);
}
