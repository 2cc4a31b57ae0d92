use super::*;

#[test]
fn nothing_and_too_much_are_refused() {
    let vm = vm();
    let limit = RAM_SIZE;
    assert_eq!(vm.vmalloc(0).err(), Some(Error::Empty));
    assert_eq!(vm.vzalloc(0).err(), Some(Error::Empty));
    assert_eq!(vm.get_vm_area(0, PAGE).err(), Some(Error::Empty));
    assert_eq!(vm.ioremap(PhysAddr(0), 0).err(), Some(Error::Empty));
    assert_eq!(vm.vmap::<[Pfn]>(&[]).err(), Some(Error::Empty));
    assert_eq!(vm.vmap_extents(&[]).err(), Some(Error::Empty));
    let empty = [Extent {
        start: Pfn(1),
        pages: 0,
    }];
    assert_eq!(vm.vmap_extents(&empty).err(), Some(Error::Empty));
    let size = RAM_SIZE + 1;
    let too_large = |size| Some(Error::TooLarge { size, limit });
    assert_eq!(vm.vmalloc(size).err(), too_large(RAM_SIZE + PAGE), "above RAM");
    let region = vm.range().size;
    for size in [region + 1, u64::MAX, u64::MAX - PAGE + 1] {
        assert_eq!(
            vm.vmalloc(size).err(),
            Some(Error::TooLarge { size, limit: region })
        );
        assert_eq!(
            vm.get_vm_area(size, 1).err(),
            Some(Error::TooLarge { size, limit: region })
        );
    }
    let no_room_for_a_guard = vm.get_vm_area(region, 1).err();
    assert_eq!(
        no_room_for_a_guard,
        Some(Error::TooLarge {
            size: region + M2,
            limit: region
        })
    );
    for pages in [RAM_SIZE / PAGE + 1, u64::MAX] {
        let extent = [Extent { start: Pfn(0), pages }];
        let size = pages.saturating_mul(PAGE);
        assert_eq!(vm.vmap_extents(&extent).err(), too_large(size));
    }
    assert_empty(&vm);
}

#[test]
fn an_alignment_that_is_no_power_of_two_is_refused() {
    let vm = vm();
    for align in [0, 3, 12288, u64::MAX] {
        let request = Request::new(PAGE).aligned(align);
        assert_eq!(vm.allocate(&request).err(), Some(Error::BadAlignment { align }));
        assert_eq!(
            vm.get_vm_area(PAGE, align).err(),
            Some(Error::BadAlignment { align })
        );
    }
    assert_empty(&vm);
}

/// Linux's align_shift case.
#[test]
fn an_alignment_beyond_the_region_has_no_place() {
    let vm = vm();
    let area = vm.vmalloc(1).unwrap();
    for shift in 0..64 {
        let request = Request::new(PAGE).aligned(1 << shift);
        match vm.allocate(&request) {
            Ok(area) => assert_eq!(area.va().0 % (1 << shift), 0),
            Err(error) => {
                assert!(matches!(
                    error,
                    Error::OutOfSpace(va::Error::NoAlignedSpace { .. })
                ));
                assert!(shift >= 46, "the region has 2^46 bytes: 1 << {shift}");
            }
        }
    }
    drop(area);
    assert_empty(&vm);
}

#[test]
fn physical_ranges_beyond_the_cpu_are_refused() {
    let vm = vm();
    for (pa, size) in [
        (u64::MAX, 2),
        (u64::MAX, 1),
        (1 << 48, 1),
        ((1 << 48) - 1, 2),
        (PAGE, u64::MAX),
    ] {
        let pa = PhysAddr(pa);
        assert_eq!(vm.ioremap(pa, size).err(), Some(Error::BadPhysical { pa, size }));
    }
    assert!(vm.ioremap(PhysAddr((1 << 48) - 1), 1).is_ok());
    let beyond = [Pfn(1 << 36)];
    let refused = vm.vmap(&beyond[..]).err();
    assert!(matches!(
        refused,
        Some(Error::Map(paging::Error::PhysicalRange(_)))
    ));
    assert_empty(&vm);
}

#[test]
fn a_missing_page_is_named() {
    let vm = vm();
    let frames = [Some(Pfn(RAM / PAGE)), None, Some(Pfn(RAM / PAGE))];
    let refused = vm.vmap(&frames[..]).err();
    assert_eq!(refused, Some(Error::Map(paging::Error::NoFrame { page: 1 })));
    let refused = vm.vmap(&[None][..]).err();
    assert_eq!(refused, Some(Error::Map(paging::Error::NoFrame { page: 0 })));
    assert_empty(&vm);
}

#[test]
fn an_executable_and_writable_mapping_is_refused() {
    let vm = vm();
    let frames = [Pfn(RAM / PAGE)];
    let refused = vm.vmap_as(&frames[..], Attributes::KERNEL_TEXT.writable()).err();
    assert!(matches!(
        refused,
        Some(Error::Map(paging::Error::WritableExecutable(_)))
    ));
    assert_empty(&vm);
}

#[test]
fn a_double_free_names_the_area_and_who_freed_it() {
    let vm = vm();
    let area = vm.vmalloc(3 * PAGE).unwrap();
    let info = area.info();
    let va = area.into_raw();
    let line = line!() + 1;
    vm.raw().vfree(va).unwrap();
    match vm.raw().vfree(va) {
        Err(Error::Freed(freed)) => {
            assert_eq!(freed.area, info);
            assert_eq!((freed.by.line(), freed.by.file()), (line, file!()));
        }
        other => panic!("{other:?}"),
    }
    let again = vm.vmalloc(3 * PAGE).unwrap();
    assert_eq!(again.va(), va);
    assert_eq!(vm.raw().vfree(va), Err(Error::Owned(again.info())));
    drop(again);
    assert!(
        matches!(vm.raw().vfree(va), Err(Error::Freed(_))),
        "freed through its handle"
    );
    assert_empty(&vm);
}

#[test]
fn a_double_free_is_known_when_the_range_is_a_gap_again() {
    let config = Config {
        cached_areas: 0,
        ..Config::default()
    };
    let vm = vm_with(1 << 20, Features::default(), config);
    let keep = vm.vmalloc(PAGE).unwrap();
    let area = vm.vmalloc(3 * PAGE).unwrap();
    let info = area.info();
    let va = area.into_raw();
    vm.raw().vfree(va).unwrap();
    assert_eq!(vm.check().unwrap().parked, 0);
    assert!(matches!(vm.raw().vfree(va), Err(Error::Freed(freed)) if freed.area == info));
    assert!(matches!(vm.raw().vfree(va.add(PAGE)), Err(Error::Freed(freed)) if freed.area == info));
    assert_eq!(
        vm.raw().vfree(va.add(100 * PAGE)),
        Err(Error::NoArea(va.add(100 * PAGE)))
    );
    drop(keep);
    assert_empty(&vm);
}

#[test]
fn foreign_interior_and_guard_addresses_are_told_apart() {
    let vm = vm();
    let area = vm.vmalloc(3 * PAGE).unwrap();
    let info = area.info();
    let va = area.into_raw();
    let interior = va.add(PAGE);
    assert_eq!(
        vm.raw().vfree(interior),
        Err(Error::Interior {
            va: interior,
            area: info
        })
    );
    let guard = va.add(3 * PAGE);
    assert_eq!(
        vm.raw().vfree(guard),
        Err(Error::Guard {
            va: guard,
            area: info
        })
    );
    assert_eq!(vm.raw().vfree(va.add(1)), Err(Error::Misaligned(va.add(1))));
    assert_eq!(vm.raw().vfree(VirtAddr(0)), Err(Error::Outside(VirtAddr(0))));
    let linear = VirtAddr(0xffff_0000_4000_0000);
    assert_eq!(vm.raw().vfree(linear), Err(Error::Outside(linear)));
    assert_eq!(vm.raw().vfree(va.add(M2)), Err(Error::NoArea(va.add(M2))));
    assert_eq!(vm.usage().areas, 1, "nothing has happened");
    vm.raw().vfree(va).unwrap();
    assert_empty(&vm);
}

#[test]
fn each_kind_is_freed_by_its_own_call() {
    let vm = vm();
    let frames = [Pfn(RAM / PAGE)];
    let areas = [
        vm.vmalloc(PAGE).unwrap(),
        vm.vmap(&frames[..]).unwrap(),
        vm.ioremap(PhysAddr(0x900_0000), PAGE).unwrap(),
        vm.get_vm_area(PAGE, PAGE).unwrap(),
    ];
    type End = fn(&Vm, VirtAddr) -> Result<(), Error>;
    let calls: [End; 4] = [
        |vm, va| vm.raw().vfree(va),
        |vm, va| vm.raw().vunmap(va),
        |vm, va| vm.raw().iounmap(va),
        |vm, va| vm.raw().free_vm_area(va),
    ];
    let kinds = [Kind::Vmalloc, Kind::Vmap, Kind::Ioremap, Kind::Reserved];
    for (i, area) in areas.into_iter().enumerate() {
        let info = area.info();
        assert_eq!(info.kind, kinds[i]);
        let va = area.into_raw();
        for (j, call) in calls.iter().enumerate() {
            if i != j {
                let wrong = Error::WrongKind {
                    area: info,
                    expected: kinds[j],
                };
                assert_eq!(call(&vm, va), Err(wrong));
            }
        }
        calls[i](&vm, va).unwrap();
    }
    assert_empty(&vm);
}

#[test]
fn what_a_handle_owns_is_not_for_its_address() {
    let vm = vm();
    let area = vm.vmalloc(PAGE).unwrap();
    assert_eq!(vm.raw().vfree(area.va()), Err(Error::Owned(area.info())));
    area.free();
    assert_empty(&vm);
}
