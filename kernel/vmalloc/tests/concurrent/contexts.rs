use crate::support::{Area, ByAddress, PAGE, Plant, Rig, Scenario, me};
use crate::{LAZY, REUSED, ROOMY, STRICT, scenario};
use vmalloc::{Error, Request};

/// [`vm_unmap_aliases`](vmalloc::Vmalloc::vm_unmap_aliases), while another CPU is freeing a
/// deferred area.
const DEFERRED: Scenario = scenario(ROOMY, 2000, |rig| {
    let drain = |rig: &Rig| {
        for _ in 0..2 {
            drop(rig.vm.get_vm_area(3 * PAGE, PAGE).expect("addresses suffice"));
        }
    };
    let raw = rig.filled(1, 9);
    let at = raw.range();
    let va = raw.into_inner().into_raw();
    let gives = |rig: &Rig| {
        let area = rig.filled(2, me() as u64);
        let ranges = [area.range(), at];
        rig.freed(ranges[0]);
        rig.freed(ranges[1]);
        area.into_inner().free_atomic().expect("its frames are its own");
        rig.vm.raw().vfree_atomic(va).expect("it is raw");
        rig.vm.vm_unmap_aliases();
        for range in ranges {
            for page in 0..range.size / PAGE {
                let at = range.start.add(page * PAGE);
                assert!(rig.vm.vmalloc_to_pfn(at).is_err(), "{at} is still mapped");
            }
            rig.assert_forgotten(range);
        }
        assert_eq!(rig.machine().ram().used(), 0, "frames are still lazy");
    };
    rig.at_once(&[&drain, &drain, &gives]);
});

#[test]
fn whoever_asks_for_a_flush_has_it_of_what_was_deferred_too() {
    DEFERRED.holds();
    Scenario {
        config: STRICT,
        ..DEFERRED
    }
    .holds();
}

#[test]
fn a_deferred_area_whose_flush_does_nothing_is_noticed() {
    DEFERRED.catches(Plant::NoTlbi, REUSED);
}

const NOWAIT: Scenario = scenario(LAZY, 1500, |rig| {
    let handler = |rig: &Rig| {
        let key = me() as u64;
        for pages in [1, 2, 9] {
            let request = Request::new(pages * PAGE);
            let request = if key.is_multiple_of(2) {
                request.nolock()
            } else {
                request.nowait()
            };
            match rig.vm.allocate(&request) {
                Ok(area) => {
                    let area = Area::from(area);
                    rig.fill(&area, key);
                    rig.assert_filled(area.range(), key);
                    rig.freed(area.range());
                    if pages == 1 {
                        area.into_inner().free_atomic().expect("its frames are its own");
                    } else {
                        let va = area.into_inner().into_raw();
                        rig.vm.raw().vfree_atomic(va).expect("it is raw");
                    }
                }
                Err(Error::WouldBlock) => assert!(key.is_multiple_of(2)),
                Err(other) => panic!("{other}"),
            }
        }
    };
    let waits = |rig: &Rig| {
        for pages in [1, 9] {
            let area = rig.filled(pages, me() as u64);
            rig.check_and_free(area, me() as u64);
        }
        rig.vm.vm_unmap_aliases();
    };
    rig.at_once(&[&handler, &handler, &waits]);
});

#[test]
fn who_cannot_wait_and_who_waits_are_in_each_others_way_and_no_more() {
    NOWAIT.holds_where_some_spin();
    Scenario {
        config: STRICT,
        ..NOWAIT
    }
    .holds_where_some_spin();
}

#[test]
fn memory_freed_without_waiting_and_never_flushed_is_noticed() {
    NOWAIT.catches(Plant::NoTlbi, REUSED);
}

#[test]
fn frames_lost_where_nothing_was_waited_for_are_noticed() {
    NOWAIT.catches(Plant::FramesLeak, &["frames leaked"]);
}

const FREED_TWICE_ATOMIC: Scenario = scenario(LAZY, 1500, |rig| {
    let area = rig.filled(2, 5);
    let range = area.range();
    rig.freed(range);
    let va = area.into_inner().into_raw();
    let told = std::sync::atomic::AtomicUsize::new(0);
    let free = |rig: &Rig| match rig.vm.raw().vfree_atomic(va) {
        Ok(()) => {}
        Err(Error::Freed(_) | Error::Owned(_)) => {
            told.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        }
        Err(other) => panic!("{other}"),
    };
    rig.at_once(&[&free, &free, &|rig| rig.vm.vm_unmap_aliases()]);
    rig.vm.vm_unmap_aliases();
    let told = told.into_inner() + rig.vm.usage().refused;
    assert_eq!(told, 1, "one of them frees it, the other is told, now or later");
});

#[test]
fn of_two_who_free_the_same_area_without_waiting_one_does() {
    FREED_TWICE_ATOMIC.holds();
}
