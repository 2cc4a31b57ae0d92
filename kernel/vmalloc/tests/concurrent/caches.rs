use crate::support::{PAGE, Plant, Rig, Scenario, me};
use crate::{LAZY, REUSED, STRICT, scenario};
use vmalloc::Error;

/// One CPU wants nearly all addresses.
const BUG_16: Scenario = scenario(STRICT, 1500, |rig| {
    let churn = |rig: &Rig| {
        for pages in [1, 2, 1] {
            let area = rig.filled(pages, me() as u64);
            rig.check_and_free(area, me() as u64);
        }
    };
    let drain = |rig: &Rig| {
        let region = rig.vm.range().size;
        for _ in 0..2 {
            match rig.vm.get_vm_area(region - 32 * PAGE, PAGE) {
                Ok(area) => drop(area),
                Err(Error::OutOfSpace(_)) => {}
                Err(other) => panic!("{other}"),
            }
        }
    };
    rig.at_once(&[&churn, &churn, &drain]);
});

#[test]
fn bug_16_kept_ranges_are_dropped_and_given_out_on_all_cpus() {
    BUG_16.holds();
    Scenario {
        config: LAZY,
        ..BUG_16
    }
    .holds();
}

#[test]
fn kept_ranges_that_are_given_out_before_they_are_flushed_are_noticed() {
    BUG_16.catches(Plant::NoTlbi, REUSED);
}
