use crate::support::{PAGE, Plant, Rig, Scenario, me};
use crate::{LAZY, REUSED, scenario};
use paging::VirtRange;

const GROWTH: Scenario = scenario(LAZY, 800, |rig| {
    let grow = |rig: &Rig| {
        let key = me() as u64;
        let mut area = rig.filled(1, key);
        for pages in [2, 5] {
            let old = area.range();
            rig.freed(old);
            area.vrealloc(pages * PAGE).expect("memory suffices");
            rig.assert_filled(VirtRange::new(area.range().start, old.size), key);
            rig.fill(&area, key);
        }
        rig.check_and_free(area, key);
    };
    let churn = |rig: &Rig| {
        for _ in 0..2 {
            let area = rig.filled(2, me() as u64);
            rig.check_and_free(area, me() as u64);
        }
    };
    rig.at_once(&[&grow, &grow, &churn]);
});

#[test]
fn an_area_that_grows_keeps_its_pages_and_gives_up_its_addresses() {
    GROWTH.holds();
}

#[test]
fn addresses_given_up_before_they_are_flushed_are_noticed() {
    GROWTH.catches(Plant::NoTlbi, REUSED);
}
