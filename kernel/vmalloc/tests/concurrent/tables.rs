use crate::support::{Area, PAGE, Plant, Rig, Scenario, Schedules, me};
use crate::{LAZY, STRICT, scenario};
use vmalloc::Request;

const TABLES: Scenario = scenario(LAZY, 1000, |rig| {
    rig.machine().ram().largest = 0;
    let whole = |rig: &Rig| {
        let request = Request::new(8 * PAGE).aligned(8 * PAGE);
        for _ in 0..2 {
            let area = Area::from(rig.vm.allocate(&request).expect("memory suffices"));
            rig.fill(&area, me() as u64);
            rig.check_and_free(area, me() as u64);
        }
    };
    let part = |rig: &Rig| {
        for _ in 0..2 {
            let area = rig.filled(1, me() as u64);
            rig.check_and_free(area, me() as u64);
            rig.vm.vm_unmap_aliases();
        }
    };
    let reader = |rig: &Rig| {
        for page in 0..12 {
            let va = rig.vm.range().start.add(page * PAGE);
            let _ = rig.vm.vmalloc_to_pfn(va);
        }
    };
    rig.at_once(&[&whole, &part, &reader]);
});

#[test]
fn nobody_reads_or_writes_a_table_that_was_freed() {
    TABLES.holds();
}

#[test]
fn a_walk_that_keeps_nobody_out_is_noticed() {
    TABLES.catches_on(Schedules::Priorities, Plant::LooksDoNotExclude, &["BadTable"]);
}

const BUG_1: Scenario = scenario(STRICT, 1000, |rig| {
    let request = Request::new(8 * PAGE).aligned(8 * PAGE);
    let keep = rig.filled(1, 99);
    let replace = |rig: &Rig| {
        for largest in [0, 3, 0, 3] {
            rig.machine().ram().largest = largest;
            let area = Area::from(rig.vm.allocate(&request).expect("memory suffices"));
            assert_eq!(area.outcome().leaves.get(paging::LeafSize::BLOCK2), largest / 3);
            rig.fill(&area, me() as u64);
            rig.check_and_free(area, me() as u64);
        }
    };
    let prune = |rig: &Rig| rig.vm.vm_unmap_aliases();
    let reader = |rig: &Rig| {
        for page in 0..24 {
            let va = rig.vm.range().start.add(page * PAGE);
            let _ = rig.vm.vmalloc_to_pfn(va);
        }
        rig.vm.vmallocinfo(|_| ());
    };
    rig.at_once(&[&replace, &prune, &reader]);
    rig.check_and_free(keep, 99);
});

#[test]
fn bug_1_nobody_walks_a_table_that_a_block_replaces() {
    BUG_1.holds();
}

#[test]
fn a_table_that_a_block_replaces_under_a_walker_is_noticed() {
    BUG_1.catches_on(Schedules::Priorities, Plant::LooksDoNotExclude, &["BadTable"]);
}

const FAILED_MAPS: Scenario = scenario(LAZY, 1500, |rig| {
    rig.machine().refuse_tables(Some(2));
    let fail = |rig: &Rig| {
        for _ in 0..3 {
            if let Ok(area) = rig.vm.vmalloc(PAGE) {
                drop(area);
            }
        }
    };
    let reader = |rig: &Rig| {
        for page in 0..6 {
            let va = rig.vm.range().start.add(page * PAGE);
            let _ = rig.vm.vmalloc_to_pfn(va);
        }
    };
    rig.at_once(&[&fail, &fail, &reader]);
    rig.machine().refuse_tables(None);
});

#[test]
fn a_map_that_fails_gives_no_table_back_that_somebody_reads() {
    FAILED_MAPS.holds_where_some_spin();
}
