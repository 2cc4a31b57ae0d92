use crate::support::{ByAddress, CheckedLock, PAGE, Plant, Rig, Scenario, me};
use crate::{LAZY, REUSED, STRICT, scenario};
use paging::{Pfn, VirtAddr, VirtRange};
use vmalloc::{Backend, Error, Lock};

const MAP_RAM: Scenario = scenario(LAZY, 1500, |rig| {
    let given: CheckedLock<Vec<(VirtAddr, Vec<Pfn>)>> = Lock::new(vmalloc::LockClass::Gate, Vec::new());
    let ram = |rig: &Rig, nr: u64| -> Vec<Pfn> {
        let frame = || rig.machine().alloc_frames(0).expect("memory suffices");
        (0..nr).map(|_| frame()).collect()
    };
    let unmap = |rig: &Rig, va: VirtAddr, frames: &[Pfn]| {
        for (page, frame) in frames.iter().enumerate() {
            let at = va.add(page as u64 * PAGE);
            assert_eq!(rig.machine().load(at), frame.0, "page {page} at {va}");
        }
        rig.freed(VirtRange::new(va, frames.len() as u64 * PAGE));
        rig.vm
            .raw()
            .vm_unmap_ram(va, frames.len() as u64)
            .expect("mapped");
        for frame in frames {
            rig.machine().free_frames(*frame, 0);
        }
    };
    let map = |rig: &Rig, nr: u64| {
        let frames = ram(rig, nr);
        let va = rig.vm.vm_map_ram(&frames[..]).expect("memory suffices");
        rig.taken_without_guard(VirtRange::new(va, nr * PAGE), me() as u64);
        for (page, frame) in frames.iter().enumerate() {
            rig.machine().store(va.add(page as u64 * PAGE), frame.0);
        }
        (va, frames)
    };
    let own = |rig: &Rig| {
        for nr in [2, 1] {
            let (va, frames) = map(rig, nr);
            unmap(rig, va, &frames);
        }
    };
    let maker = |rig: &Rig| {
        let mapping = map(rig, 3);
        given.lock().push(mapping);
        rig.vm.vm_unmap_aliases();
    };
    rig.at_once(&[&own, &own, &maker]);
    let rest = std::mem::take(&mut *given.lock());
    for (va, frames) in rest {
        unmap(rig, va, &frames);
    }
});

#[test]
fn pages_mapped_for_a_short_while_are_free_when_the_unmap_returns() {
    MAP_RAM.holds();
    Scenario {
        config: STRICT,
        ..MAP_RAM
    }
    .holds();
}

#[test]
fn pages_that_are_not_flushed_when_the_unmap_returns_are_noticed() {
    MAP_RAM.catches(Plant::NoTlbi, REUSED);
}

#[test]
fn pages_whose_flush_is_not_complete_when_the_unmap_returns_are_noticed() {
    MAP_RAM.catches(Plant::NoTrailingDsb, REUSED);
}

const UNMAPPED_TWICE: Scenario = scenario(STRICT, 1000, |rig| {
    let frame = rig.machine().alloc_frames(0).expect("memory suffices");
    let va = rig.vm.vm_map_ram(&[frame][..]).expect("memory suffices");
    let ended = std::sync::atomic::AtomicUsize::new(0);
    let unmap = |rig: &Rig| match rig.vm.raw().vm_unmap_ram(va, 1) {
        Ok(()) => {
            ended.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        }
        Err(Error::NotMapped(at)) => assert_eq!(at, va),
        Err(Error::Freed(_) | Error::Owned(_)) => {}
        Err(other) => panic!("{other}"),
    };
    rig.at_once(&[&unmap, &unmap, &|rig| rig.vm.vm_unmap_aliases()]);
    assert_eq!(ended.into_inner(), 1, "one of them ends it");
    rig.machine().free_frames(frame, 0);
});

#[test]
fn of_two_who_unmap_the_same_pages_one_does_and_the_other_is_told() {
    UNMAPPED_TWICE.holds();
}

#[test]
fn pages_unmapped_twice_before_their_flush_are_noticed() {
    UNMAPPED_TWICE.catches(Plant::NoTlbi, REUSED);
}
