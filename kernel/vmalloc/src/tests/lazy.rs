use super::*;

fn lazily(areas: usize, pages: u64) -> Config {
    Config {
        flush: FlushPolicy::Lazy { areas, pages },
        ..Config::default()
    }
}

#[test]
fn frames_and_addresses_are_lazy_until_the_flush() {
    let vm = lazy(100, 1 << 20);
    let keep = vm.vmalloc(PAGE).unwrap();
    let area = vm.vmalloc(5 * PAGE).unwrap();
    let va = area.va();
    let nothing = Issued {
        dsb_ishst: 0,
        dsb_ish: 0,
        isb: 0,
        tlbi: 0,
    };
    assert_eq!(issued_by(&vm, || drop(area)), nothing);
    assert_eq!(vm.usage().lazy, (1, 6));
    assert_eq!(vm.backend().ram().used(), 6, "its frames are not free");
    let next = vm.vmalloc(5 * PAGE).unwrap();
    assert_ne!(next.va(), va, "its addresses are not free");
    assert!(matches!(vm.raw().vfree(va), Err(Error::Freed(_))));
    assert_sound(&vm);
    vm.vm_unmap_aliases();
    assert_eq!(vm.usage().lazy, (0, 0));
    assert_eq!(vm.backend().ram().used(), 6);
    drop((keep, next));
    vm.shrink();
    assert_empty(&vm);
}

#[test]
fn one_flush_covers_all_that_wait() {
    let vm = lazy_share(8, 1 << 20);
    let keep = vm.vmalloc(PAGE).unwrap();
    let areas: Vec<_> = (0..8).map(|_| vm.vmalloc(PAGE).unwrap()).collect();
    let issued = issued_by(&vm, || drop(areas));
    assert_eq!(vm.usage().lazy, (0, 0), "the eighth was the last straw");
    // The leading DSB ISH covers other CPUs' stores.
    assert_eq!((issued.dsb_ishst, issued.dsb_ish, issued.isb), (0, 2, 1));
    assert_eq!(issued.tlbi, 8, "a page each");
    assert_sound(&vm);
    drop(keep);
    vm.shrink();
    assert_empty(&vm);
}

#[test]
fn areas_side_by_side_are_flushed_as_one_range() {
    let features = Features {
        tlbi_range: true,
        ..Features::default()
    };
    let vm = vm_with(1 << 34, features, lazily(128, 1 << 20));
    let keep = vm.vmalloc(PAGE).unwrap();
    let mut areas: Vec<_> = (0..64).map(|_| vm.vmalloc(PAGE).unwrap()).collect();
    areas.rotate_left(20);
    areas[44..].reverse();
    let ranges: Vec<_> = areas.iter().map(|area| area.range()).collect();
    for range in &ranges {
        assert!(
            vm.backend()
                .model
                .cpu(0)
                .access(range.start, Access::Read)
                .is_ok()
        );
    }
    let issued = issued_by(&vm, || drop(areas));
    assert_eq!(vm.usage().lazy, (0, 0), "64 are the share of one of two shards");
    assert_eq!((issued.dsb_ishst, issued.dsb_ish, issued.isb), (0, 2, 1));
    assert_eq!(issued.tlbi, 2, "127 pages, guards included");
    for range in &ranges {
        assert!(
            vm.backend()
                .model
                .cpu(0)
                .access(range.start, Access::Read)
                .is_err()
        );
    }
    assert_sound(&vm);
    drop(keep);
    vm.shrink();
    assert_empty(&vm);
}

/// DESIGN rule 6: the frames' owner decides.
#[test]
fn what_waits_is_decided_by_whose_frames_they_are() {
    type Map = for<'v> fn(&'v Vm, Pfn) -> VmArea<'v, Machine>;
    let kinds: [(&str, bool, bool, Map); 7] = [
        ("ioremap of a device", false, true, |vm, frame| {
            vm.ioremap(PhysAddr(frame.0 * PAGE + 8), 16).unwrap()
        }),
        ("ioremap_cache of a device", false, true, |vm, frame| {
            vm.ioremap_cache(PhysAddr(frame.0 * PAGE), PAGE).unwrap()
        }),
        ("ioremap_cache of RAM", true, false, |vm, frame| {
            vm.ioremap_cache(PhysAddr(frame.0 * PAGE + 8), 16).unwrap()
        }),
        ("vmap", true, false, |vm, frame| vm.vmap(&[frame][..]).unwrap()),
        ("vmap_extents", true, false, |vm, frame| {
            let extent = Extent {
                start: frame,
                pages: 1,
            };
            vm.vmap_extents(&[extent]).unwrap()
        }),
        ("vmap_pfn", false, false, |vm, frame| {
            vm.vmap_pfn(&[frame][..], Attributes::DEVICE).unwrap()
        }),
        ("map_pages", true, false, |vm, frame| {
            let area = vm.get_vm_area(PAGE, 1).unwrap();
            area.map_pages(0, &[frame][..], Attributes::KERNEL_DATA).unwrap();
            area
        }),
    ];
    for (what, ram, waits, map) in kinds {
        let vm = lazy_on(2, 100, 1 << 20);
        let frame = if ram {
            vm.backend().alloc_frames(0).unwrap()
        } else {
            Pfn(0x9000)
        };
        let area = map(&vm, frame);
        let va = area.va();
        vm.backend().go_to(1);
        assert!(
            vm.backend().model.cpu(1).access(va, Access::Read).is_ok(),
            "{what}"
        );
        vm.backend().go_to(0);
        let can_defer = area.free_atomic();
        assert_eq!(can_defer.is_ok(), waits, "{what}");
        drop(can_defer);
        drop(vm.get_vm_area(PAGE, 1).unwrap());
        assert_eq!(vm.usage().lazy.0, usize::from(waits), "{what}");
        if ram {
            vm.backend().free_frames(frame, 0);
        }
        assert_sound(&vm);
        vm.vm_unmap_aliases();
        assert_empty(&vm);
    }
    let vm = lazy(100, 1 << 20);
    drop(vm.ioremap_cache(PhysAddr(RAM - PAGE), 2 * PAGE).unwrap());
    assert_eq!(vm.usage().lazy.0, 0);
    drop(vm.ioremap_cache(PhysAddr(RAM - PAGE), PAGE).unwrap());
    assert_eq!(vm.usage().lazy.0, 1);
}

#[test]
fn pages_count_as_well_as_areas() {
    let vm = lazy_share(1000, 64);
    let keep = vm.vmalloc(PAGE).unwrap();
    drop(vm.vmalloc(62 * PAGE).unwrap());
    assert_eq!(vm.usage().lazy, (1, 63));
    drop(vm.vmalloc(PAGE).unwrap());
    assert_eq!(vm.usage().lazy, (0, 0));
    drop(keep);
    vm.shrink();
    assert_empty(&vm);
}

#[test]
fn what_runs_out_forces_the_flush() {
    let config = Config {
        flush: FlushPolicy::Lazy {
            areas: 1000,
            pages: 1 << 20,
        },
        ..Config::default()
    };
    let vm = vm_with(512, Features::default(), config);
    let keep = vm.vmalloc(PAGE).unwrap();
    drop(vm.vmalloc(509 * PAGE).unwrap());
    assert_eq!(vm.usage().lazy.0, 1);
    drop(vm.vmalloc(500 * PAGE).unwrap());
    assert_sound(&vm);
    drop(keep);
    vm.shrink();
    assert_empty(&vm);
    let vm = lazy(1000, 1 << 30);
    let keep = vm.vmalloc(PAGE).unwrap();
    drop(vm.vmalloc(RAM_SIZE - M2).unwrap());
    assert_eq!(vm.usage().lazy.0, 1);
    drop(vm.vmalloc(RAM_SIZE - M2).unwrap());
    assert_sound(&vm);
    drop(keep);
    vm.shrink();
    assert_empty(&vm);
}

/// Two links may be held for one address otherwise.
#[test]
fn a_piece_keeps_its_table_until_it_goes_back() {
    let vm = lazy(1000, 1 << 30);
    let nothing = Issued {
        dsb_ishst: 0,
        dsb_ish: 0,
        isb: 0,
        tlbi: 0,
    };
    let area = vm.vmalloc(PAGE).unwrap();
    assert_eq!(vm.backend().model.nr_tables(), 4);
    assert_eq!(issued_by(&vm, || drop(area)), nothing);
    assert_eq!(vm.backend().model.nr_tables(), 4, "empty, and linked");
    let next = vm.vmalloc(PAGE).unwrap();
    assert_eq!(next.outcome().tables_added, 0);
    drop(next);
    vm.vm_unmap_aliases();
    assert_eq!(vm.backend().model.nr_tables(), 4);
    vm.shrink();
    assert_eq!(vm.backend().model.nr_tables(), 3, "those above stay");
    assert_empty(&vm);
}

#[test]
fn tables_of_large_areas_go_with_them() {
    let vm = vm();
    for _ in 0..200 {
        let areas: Vec<_> = (0..8)
            .map(|_| vm.allocate(&Request::new(PAGE).aligned(2 * M2)).unwrap())
            .collect();
        assert_eq!(vm.backend().model.nr_tables(), 3 + 8);
        drop(areas);
        assert_eq!(vm.backend().model.nr_tables(), 3);
    }
    assert_empty(&vm);
}

#[test]
fn a_missing_table_page_is_won_back_from_a_piece_that_is_idle() {
    let features = Features {
        pool_pages: 4,
        ..Features::default()
    };
    for config in [Config::default(), lazily(1000, 1 << 30)] {
        let vm = vm_with(1 << 34, features.clone(), config);
        drop(vm.vmalloc(PAGE).unwrap());
        assert_eq!(vm.backend().model.nr_tables(), 4, "none is left");
        drop(vm.allocate(&Request::new(PAGE).aligned(2 * M2)).unwrap());
        assert_empty(&vm);
    }
}

#[test]
fn a_table_that_an_area_covers_whole_goes_with_it() {
    for lazy in [false, true] {
        let vm = if lazy { lazy_on(2, 1000, 1 << 30) } else { vm() };
        vm.backend().ram().largest = 0;
        let keep = vm.vmalloc(PAGE).unwrap();
        let area = vm.allocate(&Request::new(M2).aligned(M2)).unwrap();
        assert_eq!(vm.backend().model.nr_tables(), 5);
        drop(area);
        if lazy {
            vm.backend().go_to(1);
            assert_eq!(vm.backend().model.nr_tables(), 5, "lazy");
            let beside = vm.allocate(&Request::new(M2).aligned(M2)).unwrap();
            drop(beside);
            vm.vm_unmap_aliases();
        }
        assert_eq!(vm.backend().model.nr_tables(), 4);
        drop(keep);
        assert_empty(&vm);
    }
}

/// DESIGN rule 6.
#[test]
fn a_purge_on_another_cpu_waits_for_the_stores_of_the_first() {
    let vm = lazy_on(3, 1000, 1 << 30);
    let keep = vm.vmalloc(PAGE).unwrap();
    let area = vm.vmalloc(3 * PAGE).unwrap();
    let va = area.va();
    for cpu in 0..3 {
        vm.backend().go_to(cpu);
        assert!(vm.backend().model.cpu(cpu).access(va, Access::Read).is_ok());
    }
    vm.backend().go_to(0);
    drop(area);
    vm.backend().go_to(1);
    let issued = issued_by(&vm, || vm.vm_unmap_aliases());
    assert_eq!(
        (issued.dsb_ishst, issued.dsb_ish, issued.isb, issued.tlbi),
        (0, 2, 1, 3)
    );
    vm.backend().go_to(2);
    assert!(vm.backend().model.cpu(2).access(va, Access::Read).is_err());
    vm.backend().go_to(0);
    let again = vm.vmalloc(3 * PAGE).unwrap();
    assert_eq!(again.va(), va);
    assert_consistent(&vm);
    drop((keep, again));
    assert_empty(&vm);
}

#[test]
fn areas_freed_on_other_cpus_than_their_own_are_lazy_alike() {
    for vm in [lazy_on(4, 5, 1 << 20), lazy_on(4, 1000, 40)] {
        let mut numbers = Numbers(7);
        let mut areas = Vec::new();
        for round in 0..400 {
            vm.backend().go_to(numbers.below(4) as usize);
            if areas.len() < 8 && numbers.below(2) == 0 {
                areas.push(vm.vmalloc((1 + numbers.below(20)) * PAGE).unwrap());
            } else if !areas.is_empty() {
                let index = numbers.below(areas.len() as u64) as usize;
                let area: VmArea<'_, Machine> = areas.swap_remove(index);
                let cpu = numbers.below(4) as usize;
                vm.backend().go_to(cpu);
                let _ = vm.backend().model.cpu(cpu).access(area.va(), Access::Write);
                drop(area);
            }
            if round % 50 == 0 {
                vm.vm_unmap_aliases();
            }
            assert_consistent(&vm);
        }
        drop(areas);
        assert_empty(&vm);
    }
}

#[test]
fn pages_of_somebody_else_are_flushed_at_once() {
    let vm = lazy(1000, 1 << 30);
    let keep = vm.vmalloc(PAGE).unwrap();
    let owner = vm.backend().alloc_frames(0).unwrap();
    let area = vm.vmap(&[owner][..]).unwrap();
    let issued = issued_by(&vm, || drop(area));
    assert_eq!((issued.tlbi, issued.dsb_ish), (1, 1));
    vm.backend().free_frames(owner, 0);
    assert_sound(&vm);
    let device = vm.ioremap(PhysAddr(0x900_0000), PAGE).unwrap();
    drop(device);
    assert_eq!(vm.usage().lazy.0, 1, "a device is not used for something else");
    drop(keep);
    vm.shrink();
    assert_empty(&vm);
}
