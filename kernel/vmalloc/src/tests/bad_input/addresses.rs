use super::*;

pub fn an_address_is_between_pages(seen: &mut Seen) {
    let vm = vm();
    let raw = vm.vmalloc(PAGE).unwrap().into_raw();
    let bad = Error::Misaligned(raw.add(1));
    seen.refused(&vm, bad, || vm.raw().vfree(raw.add(1)));
    seen.refused(&vm, bad, || vm.raw().vfree_atomic(raw.add(1)));
    seen.refused(&vm, bad, || vm.raw().vunmap(raw.add(1)));
    seen.refused(&vm, bad, || vm.raw().free_vm_area(raw.add(1)));
    seen.refused(&vm, bad, || vm.raw().vm_unmap_ram(raw.add(1), 1));
    seen.refused(&vm, bad, || vm.raw().vrealloc(raw.add(1), PAGE));
    let area = vm.vmalloc(PAGE).unwrap();
    seen.refused(&vm, Error::Misaligned(area.va().add(1)), || {
        area.set_memory_ro(0, 1)
    });
    drop(area);
    vm.raw().vfree(raw).unwrap();
    assert_empty(&vm);
}

pub fn an_address_is_foreign(seen: &mut Seen) {
    let vm = vm();
    let device = vm.ioremap(DEVICE, PAGE).unwrap();
    for va in [
        0,
        LINEAR + RAM,
        vm.range().end().0,
        REGION.0 - PAGE,
        u64::MAX - PAGE + 1,
    ] {
        let va = VirtAddr(va);
        let bad = Error::Outside(va);
        seen.refused(&vm, bad, || vm.raw().vfree(va));
        seen.refused(&vm, bad, || vm.raw().vfree_atomic(va));
        seen.refused(&vm, bad, || vm.raw().vunmap(va));
        seen.refused(&vm, bad, || vm.raw().iounmap(va));
        seen.refused(&vm, bad, || vm.raw().free_vm_area(va));
        seen.refused(&vm, bad, || vm.raw().vm_unmap_ram(va, 1));
        seen.refused(&vm, bad, || vm.raw().vrealloc(va, PAGE));
        seen.refused(&vm, bad, || vm.raw().set_memory_ro(va, PAGE));
        seen.refused(&vm, bad, || vm.vmalloc_to_pfn(va));
        seen.refused(&vm, bad, || vm.vread(va, &mut [0; 8]));
    }
    drop(device);
    assert_empty(&vm);
}

pub fn nothing_is_mapped_there(seen: &mut Seen) {
    let vm = vm();
    let va = vm.range().start;
    seen.refused(&vm, Error::NotMapped(va), || vm.vmalloc_to_pfn(va));
    let ram = vm.vm_map_ram(&[frame()[0]; 2][..]).unwrap();
    for at in [ram.add(PAGE), ram.add(2 * PAGE)] {
        seen.refused(&vm, Error::NotMapped(at), || vm.raw().vm_unmap_ram(at, 1));
    }
    vm.raw().vm_unmap_ram(ram, 2).unwrap();
    seen.refused(&vm, Error::NotMapped(ram), || vm.raw().vm_unmap_ram(ram, 2));
    vm.shrink();
    assert_empty(&vm);
}

pub fn no_area_is_there(seen: &mut Seen) {
    let vm = vm();
    let va = vm.range().start.add(100 * PAGE);
    seen.refused(&vm, Error::NoArea(va), || vm.raw().vfree(va));
    seen.refused(&vm, Error::NoArea(va), || vm.raw().vfree_atomic(va));
    seen.refused(&vm, Error::NoArea(va), || vm.raw().vunmap(va));
    seen.refused(&vm, Error::NoArea(va), || vm.raw().iounmap(va));
    seen.refused(&vm, Error::NoArea(va), || vm.raw().free_vm_area(va));
    seen.refused(&vm, Error::NoArea(va), || vm.raw().vrealloc(va, PAGE));
    seen.refused(&vm, Error::NoArea(va), || vm.raw().set_memory_rw(va, PAGE));
    assert_empty(&vm);
}

pub fn an_address_is_inside_an_area(seen: &mut Seen) {
    let vm = vm();
    let area = vm.vmalloc(3 * PAGE).unwrap();
    let info = area.info();
    let raw = area.into_raw();
    for page in 1..3 {
        let va = raw.add(page * PAGE);
        let bad = Error::Interior { va, area: info };
        seen.refused(&vm, bad, || vm.raw().vfree(va));
        seen.refused(&vm, bad, || vm.raw().vfree_atomic(va));
        seen.refused(&vm, bad, || vm.raw().vunmap(va));
        seen.refused(&vm, bad, || vm.raw().vrealloc(va, PAGE));
    }
    vm.raw().vfree(raw).unwrap();
    assert_empty(&vm);
}

pub fn an_address_is_a_guards(seen: &mut Seen) {
    let vm = vm();
    let stack = vm.alloc_stack(2 * PAGE).unwrap();
    let info = stack.info();
    let raw = stack.into_raw();
    for va in [VirtAddr(raw.0 - PAGE), raw.add(2 * PAGE)] {
        let bad = Error::Guard { va, area: info };
        seen.refused(&vm, bad, || vm.raw().vfree(va));
        seen.refused(&vm, bad, || vm.raw().vrealloc(va, PAGE));
    }
    vm.raw().vfree(raw).unwrap();
    assert_empty(&vm);
}

pub fn a_handle_has_it(seen: &mut Seen) {
    let vm = vm();
    let area = vm.vmalloc(PAGE).unwrap();
    let bad = Error::Owned(area.info());
    seen.refused(&vm, bad, || vm.raw().vfree(area.va()));
    seen.refused(&vm, bad, || vm.raw().vfree_atomic(area.va()));
    seen.refused(&vm, bad, || vm.raw().vrealloc(area.va(), PAGE));
    seen.refused(&vm, bad, || vm.raw().set_memory_ro(area.va(), PAGE));
    drop(area);
    assert_empty(&vm);
}

pub fn it_is_of_another_kind(seen: &mut Seen) {
    let vm = vm();
    let device = vm.ioremap(DEVICE, PAGE).unwrap();
    let area = device.info();
    let wrong = |expected| Error::WrongKind { area, expected };
    seen.refused(&vm, wrong(Kind::Reserved), || device.unmap_pages(0, PAGE));
    seen.refused(&vm, wrong(Kind::Vmalloc), || device.set_memory_ro(0, PAGE));
    let raw = device.into_raw();
    seen.refused(&vm, wrong(Kind::Vmalloc), || vm.raw().vfree(raw));
    seen.refused(&vm, wrong(Kind::Vmalloc), || vm.raw().vfree_atomic(raw));
    seen.refused(&vm, wrong(Kind::Vmap), || vm.raw().vunmap(raw));
    seen.refused(&vm, wrong(Kind::Reserved), || vm.raw().free_vm_area(raw));
    seen.refused(&vm, wrong(Kind::Vmalloc), || vm.raw().vrealloc(raw, 2 * PAGE));
    vm.raw().iounmap(raw).unwrap();
    assert_empty(&vm);
}

#[track_caller]
fn freed_by(area: AreaInfo) -> impl Fn(&Error) {
    move |error| match error {
        Error::Freed(freed) => {
            assert_eq!(freed.area, area, "the area that was there");
            assert_eq!(freed.by.file(), file!(), "who freed it");
        }
        other => panic!("{other}"),
    }
}

pub fn it_was_freed_before(seen: &mut Seen) {
    for vm in [vm(), lazy(100, 1 << 20)] {
        let keep = vm.vmalloc(PAGE).unwrap();
        let area = vm.vmalloc(3 * PAGE).unwrap();
        let check = freed_by(area.info());
        let raw = area.into_raw();
        vm.raw().vfree(raw).unwrap();
        for purge in [false, true] {
            if purge {
                vm.vm_unmap_aliases();
            }
            let calls: [&dyn Fn() -> Result<(), Error>; 4] = [
                &|| vm.raw().vfree(raw),
                &|| vm.raw().vfree_atomic(raw),
                &|| vm.raw().vunmap(raw),
                &|| vm.raw().vrealloc(raw, PAGE).map(drop),
            ];
            for call in calls {
                let before = everything(&vm);
                let error = call().unwrap_err();
                check(&error);
                seen.0.insert(variant(&error));
                assert_eq!(everything(&vm), before);
            }
        }
        drop(keep);
        assert_empty(&vm);
    }
}

pub fn it_has_another_length(seen: &mut Seen) {
    let vm = vm();
    for nr in [3, 40] {
        let frames = std::vec![frame()[0]; nr as usize];
        let va = vm.vm_map_ram(&frames[..]).unwrap();
        for wrong in [0, 1, nr - 1, nr + 1, 64, u64::MAX] {
            let bad = Error::WrongLength {
                va,
                size: nr * PAGE,
                expected: wrong.saturating_mul(PAGE),
            };
            seen.refused(&vm, bad, || vm.raw().vm_unmap_ram(va, wrong));
        }
        vm.raw().vm_unmap_ram(va, nr).unwrap();
    }
    vm.shrink();
    assert_empty(&vm);
}

pub fn its_permissions_were_changed(seen: &mut Seen) {
    let vm = vm();
    let area = vm.vmalloc(2 * PAGE).unwrap();
    area.set_memory_ro(0, PAGE).unwrap();
    let raw = area.into_raw();
    let info = vm.find_vm_area(raw).unwrap();
    seen.refused(&vm, Error::PermissionsChanged(info), || {
        vm.raw().vrealloc(raw, 8 * PAGE)
    });
    vm.raw().vfree(raw).unwrap();
    assert_empty(&vm);
}

pub fn a_lock_is_taken(seen: &mut Seen) {
    let vm = vm();
    let state = hold_all(&vm);
    let result = vm.allocate(&Request::new(PAGE).nolock());
    drop(state);
    seen.refused(&vm, Error::WouldBlock, || result);
    assert_empty(&vm);
}

pub fn too_many_are_put_off(seen: &mut Seen) {
    let vm = vm();
    let area = vm.vmalloc(PAGE).unwrap().into_raw();
    let state = hold_all(&vm);
    let no_such = vm.range().start.add(PAGE << 20);
    for _ in 0..crate::MAX_DEFERRED_ADDRESSES {
        vm.raw().vfree_atomic(no_such).unwrap();
    }
    let result = vm.raw().vfree_atomic(area);
    drop(state);
    seen.refused(&vm, Error::TooManyDeferred { va: area }, || result);
    vm.raw().vfree(area).unwrap();
    assert_eq!(vm.usage().refused, crate::MAX_DEFERRED_ADDRESSES);
    assert_empty(&vm);
}

pub fn a_part_is_not_in_the_area(seen: &mut Seen) {
    let vm = vm();
    let area = vm.vmalloc(4 * PAGE).unwrap();
    let reserved = vm.get_vm_area(4 * PAGE, PAGE).unwrap();
    for (offset, size) in [
        (0, 5 * PAGE),
        (4 * PAGE, PAGE),
        (3 * PAGE, 2 * PAGE),
        (u64::MAX - PAGE + 1, PAGE),
        (PAGE, u64::MAX - PAGE + 1),
    ] {
        let beyond = |area| Error::OutOfBounds { offset, size, area };
        seen.refused(&vm, beyond(area.info()), || area.set_memory_ro(offset, size));
        seen.refused(&vm, beyond(area.info()), || area.set_memory_invalid(offset, size));
        seen.refused(&vm, beyond(reserved.info()), || {
            reserved.unmap_pages(offset, size)
        });
    }
    drop((area, reserved));
    assert_empty(&vm);
}
