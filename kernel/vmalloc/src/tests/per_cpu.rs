//! What each CPU keeps for itself.

use super::*;
use crate::backend::Lock;

/// A machine of `cpus` CPUs on which an area of `pages` pages has come and gone, and a page beside it stays, so that no table
/// becomes empty.
fn warm(cpus: usize, config: Config, pages: u64) -> (Vm, VirtAddr) {
    let features = Features {
        cpus,
        ..Features::default()
    };
    let vm = vm_with(1 << 34, features, config);
    let beside = vm.vmalloc(PAGE).unwrap().into_raw();
    for cpu in 0..cpus {
        vm.backend().go_to(cpu);
        drop(vm.vmalloc(pages * PAGE).unwrap());
        vm.vm_unmap_aliases();
    }
    vm.backend().go_to(0);
    (vm, beside)
}

const LAZY: Config = Config {
    leaves: paging::LeafSet::ALL,
    flush: FlushPolicy::Lazy {
        areas: 1000,
        pages: 1 << 20,
    },
    cached_areas: 8,
};

/// Runs `f` on each CPU in turn while all locks but those of its own slot are taken: waiting for one is a panic.
fn alone_on_each(vm: &Vm, cpus: usize, f: impl Fn(usize)) {
    for cpu in 0..cpus {
        vm.backend().go_to(cpu);
        let _state = vm.state.lock();
        let _purge = vm.purge.lock();
        let _others: Vec<_> = (0..NR_CPU_SLOTS)
            .filter(|other| *other != cpu)
            .map(|other| vm.cpus.of(other).state.lock())
            .collect();
        f(cpu);
    }
}

#[test]
fn small_areas_come_and_go_by_their_cpus_lock_alone() {
    for config in [Config::default(), LAZY] {
        let (vm, beside) = warm(4, config, 3);
        alone_on_each(&vm, 4, |_| {
            drop(vm.vmalloc(3 * PAGE).unwrap());
        });
        vm.raw().vfree(beside).unwrap();
        assert_empty(&vm);
    }
}

#[test]
#[should_panic(expected = "a lock is taken twice, or against the order")]
fn a_cpu_that_keeps_no_such_range_asks_the_address_space() {
    let (vm, _) = warm(2, Config::default(), 3);
    alone_on_each(&vm, 2, |_| {
        let _ = vm.vmalloc(4 * PAGE);
    });
}

#[test]
fn vm_map_ram_takes_its_cpus_lock_alone() {
    let (vm, beside) = warm(4, Config::default(), 1);
    let frames: Vec<Pfn> = (0..4).map(|_| vm.backend().alloc_frames(0).unwrap()).collect();
    let kept: Vec<_> = (0..4)
        .map(|cpu| {
            vm.backend().go_to(cpu);
            vm.vm_map_ram(&frames[..1]).unwrap()
        })
        .collect();
    alone_on_each(&vm, 4, |_| {
        let va = vm.vm_map_ram(&frames[..]).unwrap();
        vm.raw().vm_unmap_ram(va, 4).unwrap();
    });
    for va in kept {
        vm.raw().vm_unmap_ram(va, 1).unwrap();
    }
    frames
        .iter()
        .for_each(|frame| vm.backend().free_frames(*frame, 0));
    vm.raw().vfree(beside).unwrap();
    vm.vm_unmap_aliases();
    assert_empty(&vm);
}

#[test]
fn all_cpus_together_withhold_no_more_than_the_policy_says() {
    const CPUS: usize = 8;
    for (areas, pages) in [(64, 1 << 20), (1 << 20, 1024), (3, 64)] {
        let vm = lazy_on(CPUS, areas, pages);
        let mut numbers = Numbers(3);
        let (mut most, mut in_slots) = ((0, 0), 0);
        for _ in 0..1500 {
            vm.backend().go_to(numbers.below(CPUS as u64) as usize);
            drop(vm.vmalloc((1 + numbers.below(9)) * PAGE).unwrap());
            let waiting = vm.usage().waiting;
            assert!(
                waiting.0 < areas && waiting.1 < pages,
                "{waiting:?} of {areas} areas and {pages} pages"
            );
            most = (waiting.0.max(most.0), waiting.1.max(most.1));
            in_slots = in_slots.max(waiting.0 - vm.state.lock().waiting.nr_areas());
        }
        assert_eq!(in_slots == 0, areas == 3, "a share that is worth nothing is none");
        assert!(
            most.0 * 2 >= areas || most.1 * 2 >= pages,
            "{most:?}: purged too early"
        );
        assert_empty(&vm);
    }
}

#[test]
fn a_purge_takes_what_waits_on_every_cpu() {
    let vm = lazy_on(8, 1000, 1 << 20);
    for cpu in 0..8 {
        vm.backend().go_to(cpu);
        drop(vm.vmalloc(2 * PAGE).unwrap());
    }
    assert_eq!(vm.usage().waiting, (8, 24));
    let issued = issued_by(&vm, || vm.vm_unmap_aliases());
    assert_eq!(vm.usage().waiting, (0, 0));
    assert_eq!(
        issued.dsb_ishst, 3,
        "three empty tables' links, after one flush for all"
    );
    assert_empty(&vm);
}

#[test]
fn what_a_cpu_keeps_is_given_up_when_addresses_run_out_on_another() {
    let features = Features {
        cpus: 2,
        ..Features::default()
    };
    let vm = vm_with(40, features, Config::default());
    let areas: Vec<_> = (0..10).map(|_| vm.vmalloc(3 * PAGE).unwrap()).collect();
    drop(areas);
    assert_eq!(vm.usage().cached, (10, 40));
    vm.backend().go_to(1);
    drop(vm.vmalloc(39 * PAGE).unwrap());
    assert_empty(&vm);
}

#[test]
fn a_range_that_a_cpu_keeps_still_says_who_freed_it() {
    let (vm, beside) = warm(2, Config::default(), 1);
    let va = vm.vmalloc(PAGE).unwrap().into_raw();
    vm.raw().vfree(va).unwrap();
    vm.backend().go_to(1);
    assert!(matches!(vm.raw().vfree(va), Err(Error::Freed(freed)) if freed.area.va == va));
    vm.raw().vfree(beside).unwrap();
    assert_empty(&vm);
}

/// A block that CPU 0 hands out from, and one that it has left, both looked for by CPU 1.
#[test]
fn another_cpu_finds_the_bits_of_a_block_where_they_are() {
    let vm = lazy_on(2, 1000, 1 << 20);
    let frames: Vec<Pfn> = (0..32).map(|_| vm.backend().alloc_frames(0).unwrap()).collect();
    // The third does not fit into the first block.
    let mapped: Vec<_> = (0..3).map(|_| vm.vm_map_ram(&frames[..]).unwrap()).collect();
    assert_eq!(vm.usage().areas, 2);
    vm.backend().go_to(1);
    for va in &mapped {
        assert!(matches!(
            vm.raw().vm_unmap_ram(*va, 31),
            Err(Error::WrongLength { .. })
        ));
        assert_eq!(
            vm.raw().vm_unmap_ram(va.add(PAGE), 31),
            Err(Error::NotMapped(va.add(PAGE)))
        );
    }
    for va in mapped {
        vm.raw().vm_unmap_ram(va, 32).unwrap();
        assert!(vm.raw().vm_unmap_ram(va, 32).is_err());
    }
    assert_eq!(
        vm.usage().areas,
        1,
        "the block that was left is gone with its last mapping"
    );
    frames
        .iter()
        .for_each(|frame| vm.backend().free_frames(*frame, 0));
    vm.vm_unmap_aliases();
    assert_empty(&vm);
}

/// The phase of the first run alone would have no page of the second in a block.
#[test]
fn a_vmap_follows_the_run_that_holds_the_largest_leaf() {
    let vm = vm();
    let first = RAM / PAGE + 3;
    let second = RAM / PAGE + 1024;
    let frames: Vec<Pfn> = (0..5)
        .map(|page| Pfn(first + page))
        .chain((0..2048).map(|page| Pfn(second + page)))
        .collect();
    let extents = [
        Extent {
            start: Pfn(first),
            pages: 5,
        },
        Extent {
            start: Pfn(second),
            pages: 2048,
        },
    ];
    for area in [vm.vmap(&frames[..]).unwrap(), vm.vmap_extents(&extents).unwrap()] {
        assert_eq!(area.outcome().leaves.get(LeafSize::BLOCK2), 4);
        assert_eq!(area.outcome().leaves.get(LeafSize::PAGE), 5);
        assert_maps(&area, &vm, |page| PhysAddr(frames[page as usize].0 * PAGE));
    }
    assert_empty(&vm);
}

#[test]
fn a_large_range_is_kept_for_whoever_asks_for_its_size_next() {
    let features = Features {
        cpus: 2,
        ..Features::default()
    };
    let vm = vm_with(1 << 34, features, Config::default());
    let (area, beyond) = (vm.vmalloc(100 * PAGE).unwrap(), vm.vmalloc(257 * PAGE).unwrap());
    let va = area.va();
    drop(beyond);
    assert_eq!(vm.usage().cached, (0, 0), "with its guard it is too large");
    drop(area);
    assert_eq!(vm.usage().cached, (1, 101));
    assert!(matches!(vm.raw().vfree(va), Err(Error::Freed(_))));
    vm.backend().go_to(1);
    let other = vm.vmalloc(99 * PAGE).unwrap();
    assert_ne!(other.va(), va);
    let again = vm.vmalloc(100 * PAGE).unwrap();
    assert_eq!(again.va(), va);
    assert_sound(&vm);
    drop((other, again));
    assert_eq!(vm.usage().cached, (2, 201));
    assert_empty(&vm);
}

#[test]
fn large_ranges_that_are_kept_go_back_where_addresses_run_out() {
    let vm = vm_with(1000, Features::default(), Config::default());
    let areas: Vec<_> = (0..9).map(|_| vm.vmalloc(100 * PAGE).unwrap()).collect();
    drop(areas);
    assert_eq!(vm.usage().cached.0, 9);
    let all = vm.get_vm_area(999 * PAGE, 1).unwrap();
    assert_eq!(vm.usage().cached, (0, 0));
    assert_sound(&vm);
    drop(all);
    assert_empty(&vm);
}
