use crate::support::{Plant, Rig, Scenario, me};
use crate::{LAZIEST, LAZY, REUSED, ROOMY, STRICT, scenario};

const PURGE: Scenario = scenario(LAZY, 2000, |rig| {
    let churn = |rig: &Rig| {
        for round in 0..3 {
            let area = rig.filled(1 + round, me() as u64);
            rig.check_and_free(area, me() as u64);
        }
    };
    let purge = |rig: &Rig| {
        rig.vm.vm_unmap_aliases();
        rig.vm.vm_unmap_aliases();
    };
    rig.at_once(&[&churn, &churn, &purge]);
});

#[test]
fn neither_frames_nor_tables_nor_addresses_are_used_again_before_the_flush() {
    PURGE.holds();
    Scenario {
        config: LAZIEST,
        ..PURGE
    }
    .holds();
    Scenario {
        config: STRICT,
        ..PURGE
    }
    .holds();
}

#[test]
fn a_purge_without_its_leading_barrier_is_noticed() {
    PURGE.catches(Plant::NoLeadingDsb, REUSED);
}

#[test]
fn a_purge_without_its_trailing_barrier_is_noticed() {
    PURGE.catches(Plant::NoTrailingDsb, REUSED);
}

#[test]
fn a_purge_without_its_invalidations_is_noticed() {
    PURGE.catches(Plant::NoTlbi, REUSED);
}

#[test]
fn a_purge_that_does_not_see_what_others_stored_is_noticed() {
    PURGE.catches(Plant::LocksDoNotOrder, REUSED);
}

/// [`vm_unmap_aliases`](vmalloc::Vmalloc::vm_unmap_aliases), while another CPU is about to flush.
const ALIASES: Scenario = scenario(ROOMY, 2000, |rig| {
    let churn = |rig: &Rig| {
        let areas: Vec<_> = (0..2).map(|_| rig.filled(1, me() as u64)).collect();
        for area in areas {
            rig.check_and_free(area, me() as u64);
        }
    };
    let wants = |rig: &Rig| {
        let area = rig.filled(2, me() as u64);
        let range = area.range();
        rig.check_and_free(area, me() as u64);
        rig.vm.vm_unmap_aliases();
        rig.assert_forgotten(range);
    };
    rig.at_once(&[&churn, &churn, &wants]);
});

#[test]
fn whoever_asks_for_a_flush_has_it_when_the_call_returns() {
    ALIASES.holds();
}

#[test]
fn a_flush_that_was_asked_for_and_does_nothing_is_noticed() {
    ALIASES.catches(Plant::NoTlbi, REUSED);
}

/// RAM suffices for two CPUs if each waits for what the other frees. A call tries three times.
const PRESSURE: Scenario = scenario(LAZIEST, 2000, |rig| {
    let churn = |rig: &Rig| {
        for _ in 0..2 {
            let area = rig.filled(28, me() as u64);
            rig.check_and_free(area, me() as u64);
        }
    };
    rig.at_once(&[&churn, &churn]);
});

#[test]
fn memory_on_its_way_back_is_waited_for_before_there_is_none() {
    PRESSURE.holds();
}

#[test]
fn memory_that_is_lost_on_its_way_back_is_noticed() {
    PRESSURE.catches(Plant::FramesLeak, &["memory suffices", "frames leaked"]);
}
