use crate::support::{Area, ByAddress, CheckedLock, PAGE, Plant, Rig, Scenario, me};
use crate::{LAZY, REUSED, scenario};
use paging::VirtRange;
use vmalloc::{Error, Lock};

const HANDED_OVER: Scenario = scenario(LAZY, 1500, |rig| {
    let given: CheckedLock<Vec<(VirtRange, u64)>> = Lock::new(vmalloc::LockClass::Gate, Vec::new());
    let maker = |rig: &Rig| {
        for pages in [1, 3, 2] {
            let key = 10 * me() as u64 + pages;
            let area = rig.filled(pages, key);
            let range = area.range();
            area.into_inner().into_raw();
            given.lock().push((range, key));
        }
    };
    let freer = |rig: &Rig| {
        let mut left = 3;
        while left != 0 {
            let next = given.lock().pop();
            let Some((range, key)) = next else {
                shuttle::thread::yield_now();
                continue;
            };
            rig.assert_filled(range, key);
            rig.freed(range);
            rig.vm.raw().vfree(range.start).expect("it is raw");
            left -= 1;
        }
    };
    rig.at_once(&[&maker, &freer, &maker, &freer]);
});

#[test]
fn what_one_cpu_makes_another_may_free() {
    HANDED_OVER.holds();
}

#[test]
fn a_hand_over_that_orders_nothing_is_noticed() {
    HANDED_OVER.catches(Plant::LocksDoNotOrder, REUSED);
}

/// While its own CPU drains or is flushed.
const HANDED_ON: Scenario = scenario(LAZY, 1500, |rig| {
    let given: CheckedLock<Vec<(Area<'_>, u64)>> = Lock::new(vmalloc::LockClass::Gate, Vec::new());
    let maker = |_: &Rig| {
        for pages in [1, 3, 2] {
            let key = 10 * me() as u64 + pages;
            let area = rig.filled(pages, key);
            given.lock().push((area, key));
        }
        for _ in 0..16 {
            drop(rig.vm.get_vm_area(PAGE, PAGE).expect("addresses suffice"));
        }
    };
    let ender = |_: &Rig| {
        let mut left = 3;
        while left != 0 {
            let next = given.lock().pop();
            let Some((area, key)) = next else {
                shuttle::thread::yield_now();
                continue;
            };
            rig.check_and_free(area, key);
            left -= 1;
        }
    };
    rig.at_once(&[&maker, &ender, &maker, &ender]);
});

#[test]
fn what_one_cpu_makes_another_may_end() {
    HANDED_ON.holds();
}

#[test]
fn an_area_that_another_cpu_ends_and_whose_flush_does_nothing_is_noticed() {
    HANDED_ON.catches(Plant::NoTlbi, REUSED);
}

const FREED_TWICE: Scenario = scenario(LAZY, 1500, |rig| {
    let area = rig.filled(2, 5);
    let range = area.range();
    rig.freed(range);
    let va = area.into_inner().into_raw();
    let freed = std::sync::atomic::AtomicUsize::new(0);
    let free = |rig: &Rig| match rig.vm.raw().vfree(va) {
        Ok(()) => {
            freed.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        }
        Err(Error::Freed(freed)) => assert_eq!(freed.area.va, va),
        Err(Error::Owned(area)) => assert_eq!(area.va, va),
        Err(other) => panic!("{other}"),
    };
    rig.at_once(&[&free, &free, &|rig| rig.vm.vm_unmap_aliases()]);
    assert_eq!(freed.into_inner(), 1, "one of them frees it");
});

#[test]
fn of_two_who_free_the_same_area_one_does_and_the_other_is_told() {
    FREED_TWICE.holds();
}

#[test]
fn an_area_freed_twice_before_its_flush_is_noticed() {
    FREED_TWICE.catches(Plant::NoTlbi, REUSED);
}
