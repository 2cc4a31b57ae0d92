use super::*;
use crate::backend::Lock;

/// A page beside it keeps the table.
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
    foreign: ForeignPages::Flush,
};

/// Waiting is a panic.
fn alone_on_each(vm: &Vm, cpus: usize, f: impl Fn(usize)) {
    for cpu in 0..cpus {
        vm.backend().go_to(cpu);
        let own = vm.this_shard().number;
        let others = || vm.shards.iter().filter(|shard| shard.number != own);
        let _gates: Vec<_> = others().map(|shard| shard.purge.try_enter()).collect();
        let _others: Vec<_> = elsewhere(|| others().map(|shard| shard.state.lock()).collect());
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
fn a_cpu_that_has_no_room_asks_for_a_piece() {
    let (vm, _) = warm(2, Config::default(), 3);
    alone_on_each(&vm, 2, |_| {
        let _ = vm.vmalloc(510 * PAGE);
    });
}

#[test]
fn areas_of_all_sizes_that_fit_into_a_piece_stay_on_the_cpu() {
    let config = Config {
        flush: FlushPolicy::Lazy {
            areas: 1 << 20,
            pages: 1 << 30,
        },
        ..Config::default()
    };
    let (vm, beside) = warm(2, config, 1);
    let piece = |cpu| {
        vm.backend().go_to(cpu);
        vm.vmalloc(400 * PAGE).unwrap()
    };
    drop([piece(0), piece(1)]);
    vm.vm_unmap_aliases();
    for pages in [400, 256, 100, 64, 31, 16, 2] {
        alone_on_each(&vm, 2, |_| {
            let area = vm.vmalloc(pages * PAGE).unwrap();
            area.into_raw();
        });
        let mut raw = Vec::new();
        vm.vmallocinfo(|listing| raw.push(listing.info.va));
        raw.retain(|va| *va != beside);
        assert_eq!(raw.len(), 2);
        raw.into_iter().for_each(|va| vm.raw().vfree(va).unwrap());
        vm.vm_unmap_aliases();
    }
    alone_on_each(&vm, 2, |_| {
        drop(vm.ioremap(PhysAddr(0x900_0000), 16 * PAGE).unwrap());
    });
    vm.raw().vfree(beside).unwrap();
    assert_empty(&vm);
}

#[test]
fn no_two_owners_share_a_table() {
    let vm = lazy_on(4, 64, 4096);
    let mut numbers = Numbers(23);
    let mut areas: Vec<(VmArea<'_, Machine>, usize)> = Vec::new();
    for _ in 0..1500 {
        let cpu = numbers.below(4) as usize;
        vm.backend().go_to(cpu);
        if areas.len() < 60 && numbers.below(5) < 3 {
            let pages = 1 + numbers.below(30) + numbers.below(8) / 7 * numbers.below(1000);
            areas.push((vm.vmalloc(pages * PAGE).unwrap(), cpu));
        } else if !areas.is_empty() {
            drop(areas.swap_remove(numbers.below(areas.len() as u64) as usize));
        }
    }
    let spans = |area: &VmArea<'_, Machine>| {
        let range = area.range();
        range.start.0 / M2..=range.last().0 / M2
    };
    for (i, (area, _)) in areas.iter().enumerate() {
        let owner = vm.shard_of(area.area());
        for (other, _) in &areas[..i] {
            let apart = spans(area).all(|span| !spans(other).contains(&span));
            let same = vm.shard_of(other.area()).number == owner.number && !owner.is_common();
            assert!(apart || same, "{area:?} and {other:?} share a table");
        }
    }
    assert_consistent(&vm);
    areas.clear();
    assert_empty(&vm);
}

#[test]
fn a_cache_full_of_a_size_that_is_gone_lets_go() {
    let (vm, beside) = warm(1, Config::default(), 1);
    let dead: Vec<_> = (0..300).map(|_| vm.vmalloc(3 * PAGE).unwrap()).collect();
    drop(dead);
    assert_eq!(vm.usage().cached.0, 256);
    let mut pages = Vec::new();
    for _ in 0..40 {
        let area = vm.vmalloc(PAGE).unwrap();
        pages.push(area.va());
        drop(area);
    }
    pages.dedup();
    assert_eq!(
        pages.len(),
        1,
        "the first went into the cache, and came from it since"
    );
    vm.raw().vfree(beside).unwrap();
    assert_empty(&vm);
}

#[test]
fn what_another_cpu_frees_and_purges_goes_back_to_where_it_came_from() {
    for config in [Config::default(), LAZY] {
        let (vm, beside) = warm(3, config, 1);
        for _ in 0..50 {
            vm.backend().go_to(0);
            let area = vm.vmalloc(3 * PAGE).unwrap();
            let shard = vm.shard_of(area.area()).number;
            assert_eq!(shard, vm.this_shard().number);
            vm.backend().go_to(1);
            let before = vm.this_shard().state.lock().space.nr_areas;
            drop(area);
            vm.backend().go_to(2);
            vm.vm_unmap_aliases();
            vm.backend().go_to(1);
            assert_eq!(vm.this_shard().state.lock().space.nr_areas, before);
        }
        vm.raw().vfree(beside).unwrap();
        assert_empty(&vm);
    }
}

#[test]
fn another_cpu_ends_an_area_without_a_lock() {
    let (vm, beside) = warm(2, LAZY, 1);
    for _ in 0..3 {
        let area = vm.vmalloc(PAGE).unwrap();
        let va = area.va();
        vm.backend().go_to(1);
        let locks: Vec<_> = elsewhere(|| vm.shards.iter().map(|shard| shard.state.lock()).collect());
        drop(area);
        drop(locks);
        assert_eq!(vm.usage().deferred, (1, 2));
        assert_eq!(vm.vmalloc_to_pfn(va), Err(Error::NotMapped(va)));
        assert!(matches!(vm.raw().vfree(va), Err(Error::Freed(freed)) if freed.area.va == va));
        vm.backend().go_to(0);
        for _ in 0..16 {
            drop(vm.get_vm_area(PAGE, PAGE).unwrap());
        }
        assert_eq!(vm.usage().deferred, (0, 0), "one of sixteen calls takes it in");
    }
    vm.raw().vfree(beside).unwrap();
    assert_empty(&vm);
}

#[test]
fn what_other_cpus_end_is_taken_in_by_them_where_its_cpu_does_not() {
    for (areas, pages, share) in [(96, 1 << 20, 320), (1 << 20, 1024, 341)] {
        let vm = lazy_on(2, areas, pages);
        let made: Vec<_> = (0..300).map(|_| vm.vmalloc(9 * PAGE).unwrap()).collect();
        vm.backend().go_to(1);
        let mut most = 0;
        for area in made {
            drop(area);
            let usage = vm.usage();
            assert!(usage.deferred.1 <= share / 2, "{usage:?}");
            most = most.max(usage.lazy.1 + usage.deferred.1);
        }
        assert!(most <= share + share / 2, "{most} of {share}");
        assert!(most + 10 >= share, "{most} of {share}: flushed too early");
        assert_empty(&vm);
    }
}

#[test]
fn pieces_without_an_area_go_back() {
    let config = Config {
        cached_areas: 0,
        flush: FlushPolicy::Lazy {
            areas: 8,
            pages: 1 << 20,
        },
        ..Config::default()
    };
    let vm = vm_with(1 << 34, Features::default(), config);
    let areas: Vec<_> = (0..40).map(|_| vm.vmalloc(300 * PAGE).unwrap()).collect();
    assert_eq!(vm.usage().pieces, (40u64 * 301).next_multiple_of(512));
    assert_eq!(nr_last_level_tables_of(&vm, 40), 24);
    drop(areas);
    for _ in 0..100 {
        drop(vm.vmalloc(PAGE).unwrap());
    }
    assert!(vm.usage().pieces <= 3 * 512, "{:?}", vm.usage());
    assert!(nr_last_level_tables_of(&vm, 40) <= 3);
    vm.shrink();
    assert_eq!(vm.usage().pieces, 0);
    assert_empty(&vm);
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
    vm.shrink();
    assert_empty(&vm);
}

#[test]
fn all_cpus_together_defer_no_more_than_the_policy_says() {
    const CPUS: usize = 8;
    for (areas, pages) in [(90, 1 << 20), (1 << 20, 1024), (3, 64)] {
        let vm = lazy_on(CPUS, areas, pages);
        let mut numbers = Numbers(3);
        let mut most = (0, 0);
        for _ in 0..1500 {
            vm.backend().go_to(numbers.below(CPUS as u64) as usize);
            drop(vm.vmalloc((1 + numbers.below(9)) * PAGE).unwrap());
            let waiting = vm.usage().lazy;
            assert!(
                waiting.0 < areas && waiting.1 < pages,
                "{waiting:?} of {areas} areas and {pages} pages"
            );
            most = (waiting.0.max(most.0), waiting.1.max(most.1));
        }
        assert!(
            areas == 3 || most.0 * 2 >= areas || most.1 * 2 >= pages,
            "{most:?}: purged too early"
        );
        assert_empty(&vm);
    }
}

#[test]
fn the_lazy_limit_grows_with_the_bits_of_the_cpus_up_to_a_part_of_ram() {
    let limit = |cpus, frames| match FlushPolicy::lazy_for(cpus, frames, 256, 8192) {
        FlushPolicy::Lazy { areas, pages } => (areas, pages),
        FlushPolicy::Strict => panic!("strict"),
    };
    let plenty = 1 << 30;
    assert_eq!(limit(0, plenty), (256, 8192));
    assert_eq!(limit(1, plenty), (256, 8192));
    assert_eq!(limit(2, plenty), (512, 16384));
    assert_eq!(limit(64, plenty), (7 * 256, 7 * 8192));
    assert_eq!(limit(512, 64 << 8), (10 * 256, 256), "1/64 of 64 MiB");
}

#[test]
fn a_purge_takes_what_waits_on_every_cpu() {
    let vm = lazy_on(8, 1000, 1 << 20);
    for cpu in 0..8 {
        vm.backend().go_to(cpu);
        drop(vm.vmalloc(2 * PAGE).unwrap());
    }
    assert_eq!(vm.usage().lazy, (8, 24));
    let issued = issued_by(&vm, || vm.vm_unmap_aliases());
    assert_eq!(vm.usage().lazy, (0, 0));
    assert_eq!(
        (issued.dsb_ish, issued.isb, issued.tlbi),
        (16, 8, 16),
        "a flush for each"
    );
    assert_empty(&vm);
}

#[test]
fn what_a_cpu_keeps_is_given_up_when_addresses_run_out_on_another() {
    let features = Features {
        cpus: 2,
        ..Features::default()
    };
    let vm = vm_with(512, features, Config::default());
    let areas: Vec<_> = (0..10).map(|_| vm.vmalloc(3 * PAGE).unwrap()).collect();
    drop(areas);
    assert_eq!((vm.usage().cached, vm.usage().pieces), ((10, 40), 512));
    vm.backend().go_to(1);
    drop(vm.vmalloc(39 * PAGE).unwrap());
    assert_empty(&vm);
}

#[test]
fn what_cannot_be_had_empties_no_cache() {
    let vm = vm_with(2048, Features::default(), Config::default());
    let held = vm.get_vm_area(700 * PAGE, PAGE).unwrap();
    let areas: Vec<_> = (0..100).map(|_| vm.vmalloc(3 * PAGE).unwrap()).collect();
    drop(areas);
    let before = vm.usage();
    assert_eq!(before.cached.0, 100);
    assert!(matches!(
        vm.get_vm_area(1100 * PAGE, PAGE),
        Err(Error::OutOfSpace(_))
    ));
    assert!(matches!(
        vm.vmalloc(RAM_SIZE).err(),
        Some(Error::TooLarge { .. } | Error::OutOfSpace(_))
    ));
    assert_eq!(vm.usage(), before);
    drop(held);
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

#[test]
fn another_cpu_finds_the_bits_of_a_block_where_they_are() {
    let vm = lazy_on(2, 1000, 1 << 20);
    let frames: Vec<Pfn> = (0..32).map(|_| vm.backend().alloc_frames(0).unwrap()).collect();
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
    vm.shrink();
    assert_empty(&vm);
}

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
fn a_range_is_kept_for_the_next_of_its_size() {
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
    let other = vm.vmalloc(99 * PAGE).unwrap();
    assert_ne!(other.va(), va);
    vm.backend().go_to(1);
    let elsewhere = vm.vmalloc(100 * PAGE).unwrap();
    assert_ne!(elsewhere.va().0 / M2, va.0 / M2, "a CPU has its own");
    vm.backend().go_to(0);
    let again = vm.vmalloc(100 * PAGE).unwrap();
    assert_eq!(again.va(), va);
    assert_sound(&vm);
    drop((other, again, elsewhere));
    assert_eq!(vm.usage().cached, (3, 302));
    assert_empty(&vm);
}

#[test]
fn ranges_that_are_kept_go_back_where_addresses_run_out() {
    let vm = vm_with(1024, Features::default(), Config::default());
    let areas: Vec<_> = (0..9).map(|_| vm.vmalloc(100 * PAGE).unwrap()).collect();
    drop(areas);
    assert_eq!(vm.usage().cached.0, 9);
    let all = vm.get_vm_area(1023 * PAGE, 1).unwrap();
    assert_eq!(vm.usage().cached, (0, 0));
    assert_sound(&vm);
    drop(all);
    assert_empty(&vm);
}
