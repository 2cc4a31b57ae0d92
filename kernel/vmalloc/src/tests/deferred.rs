use super::*;

fn raw(vm: &Vm) -> VirtAddr {
    vm.vmalloc(PAGE).unwrap().into_raw()
}

fn refused(vm: &Vm) -> Vec<(VirtAddr, Error)> {
    vm.backend().refused.lock().unwrap().clone()
}

#[test]
#[should_panic(expected = "a lock is waited for in an exception handler")]
fn a_plain_free_in_an_exception_is_caught() {
    let vm = vm();
    let va = raw(&vm);
    let _ = in_exception(|| vm.raw().vfree(va));
}

#[test]
fn an_exception_frees_by_address_without_waiting() {
    let vm = vm();
    let va = raw(&vm);
    in_exception(|| vm.raw().vfree_atomic(va)).unwrap();
    let usage = vm.usage();
    assert_eq!(
        (usage.areas, usage.deferred, usage.deferred_addresses),
        (0, (1, 2), 0)
    );
    assert_eq!(vm.find_vm_area(va), None);
    assert!(vm.backend().model.translate(va).is_some(), "still mapped");
    assert_eq!(vm.backend().ram().used(), 1, "its frame is lazy");
    drop(vm.vmalloc(PAGE).unwrap());
    assert_eq!(
        vm.usage().deferred,
        (0, 0),
        "the next call that can wait has drained it"
    );
    assert_empty(&vm);
}

#[test]
fn an_exception_that_interrupted_the_holder_of_a_lock_frees() {
    let vm = vm();
    let (one, other) = (raw(&vm), raw(&vm));
    let state = hold_all(&vm);
    in_exception(|| vm.raw().vfree_atomic(one)).unwrap();
    drop(state);
    let usage = vm.usage();
    assert_eq!(
        (usage.areas, usage.deferred, usage.deferred_addresses),
        (2, (0, 0), 1)
    );
    in_exception(|| vm.raw().vfree_atomic(other)).unwrap();
    vm.vm_unmap_aliases();
    let usage = vm.usage();
    assert_eq!(
        (usage.areas, usage.deferred, usage.deferred_addresses),
        (0, (0, 0), 0)
    );
    assert_eq!((usage.refused, refused(&vm)), (0, Vec::new()));
    assert_empty(&vm);
}

#[test]
fn each_call_that_can_wait_drains() {
    type Call = fn(&Vm);
    let calls: [(&str, Call); 5] = [
        ("an allocation", |vm| vm.vmalloc(PAGE).unwrap().free()),
        ("a vmap", |vm| {
            vm.vmap([Pfn(RAM / PAGE)].as_slice()).unwrap().free()
        }),
        ("an ioremap", |vm| {
            vm.ioremap(PhysAddr(0x900_0000), 1).unwrap().free()
        }),
        ("a reservation", |vm| vm.get_vm_area(PAGE, PAGE).unwrap().free()),
        ("a purge", |vm| vm.vm_unmap_aliases()),
    ];
    for (name, call) in calls {
        let vm = vm();
        let va = raw(&vm);
        vm.raw().vfree_atomic(va).unwrap();
        call(&vm);
        assert_eq!(vm.usage().deferred, (0, 0), "{name}");
        assert_empty(&vm);
    }
    let vm = vm();
    let (va, other) = (raw(&vm), vm.vmalloc(PAGE).unwrap());
    vm.raw().vfree_atomic(va).unwrap();
    drop(other);
    assert_eq!(vm.usage().deferred, (0, 0), "a free");
    assert_empty(&vm);
}

/// Another CPU drains a bounded number at a time.
#[test]
fn any_cpu_can_deal_with_what_was_deferred() {
    let vm = lazy_on(3, 3000, 1 << 20);
    let large = vm.vmalloc(3 * M2).unwrap();
    let raw = raw(&vm);
    let areas: Vec<_> = (0..150).map(|_| vm.vmalloc(PAGE).unwrap()).collect();
    for area in areas {
        in_exception(|| area.free_atomic()).unwrap();
    }
    in_exception(|| large.free_atomic()).unwrap();
    let locks = hold_all(&vm);
    in_exception(|| vm.raw().vfree_atomic(raw)).unwrap();
    drop(locks);
    vm.backend().go_to(2);
    let gate = vm.shards.get(1).purge.try_enter();
    assert!(
        !vm.deal_with_deferred(),
        "what flushes the shard is not waited for"
    );
    assert_eq!(vm.usage().deferred.0, 150);
    drop(gate);
    assert!(!vm.deal_with_deferred() && !vm.deal_with_deferred());
    assert_eq!(vm.usage().deferred.0, 150 - 2 * 64);
    assert!(vm.deal_with_deferred());
    assert_eq!((vm.usage().deferred.0, vm.usage().deferred_addresses), (0, 0));
    assert_empty(&vm);
}

#[test]
fn a_double_free_in_an_exception_is_refused_at_once_where_it_can_be() {
    let vm = vm();
    let va = raw(&vm);
    vm.raw().vfree_atomic(va).unwrap();
    for result in [vm.raw().vfree_atomic(va), vm.raw().vfree(va)] {
        assert!(matches!(result, Err(Error::Freed(freed)) if freed.area.va == va));
    }
    assert_eq!(vm.usage().refused, 0, "whoever did it was told");
    assert_empty(&vm);
}

#[test]
fn a_double_free_that_could_not_be_looked_at_is_reported_when_its_turn_comes() {
    let vm = vm();
    let va = raw(&vm);
    let state = hold_all(&vm);
    in_exception(|| vm.raw().vfree_atomic(va)).unwrap();
    in_exception(|| vm.raw().vfree_atomic(va)).unwrap();
    drop(state);
    assert_eq!(vm.usage().deferred_addresses, 2);
    vm.vm_unmap_aliases();
    assert_eq!(vm.usage().refused, 1);
    let refused = refused(&vm);
    assert!(
        matches!(refused[..], [(at, Error::Freed(freed))] if at == va && freed.area.va == va),
        "{refused:?}"
    );
    assert_empty(&vm);
}

#[test]
fn what_is_no_area_of_its_own_memory_is_refused() {
    let vm = vm();
    let mapped = vm.vmap([Pfn(RAM / PAGE)].as_slice()).unwrap().into_raw();
    let held = vm.vmalloc(2 * PAGE).unwrap();
    let inside = REGION.add(1);
    assert_eq!(vm.raw().vfree_atomic(inside), Err(Error::Misaligned(inside)));
    let outside = VirtAddr(REGION.0 - PAGE);
    assert_eq!(vm.raw().vfree_atomic(outside), Err(Error::Outside(outside)));
    assert!(matches!(
        vm.raw().vfree_atomic(mapped),
        Err(Error::WrongKind { .. })
    ));
    assert!(matches!(vm.raw().vfree_atomic(held.va()), Err(Error::Owned(_))));
    assert!(matches!(
        vm.raw().vfree_atomic(held.va().add(PAGE)),
        Err(Error::Interior { .. })
    ));
    let state = hold_all(&vm);
    vm.raw().vfree_atomic(mapped).unwrap();
    drop(state);
    vm.vm_unmap_aliases();
    assert!(matches!(refused(&vm)[..], [(va, Error::WrongKind { .. })] if va == mapped));
    assert_eq!(vm.usage().areas, 2, "and nothing has changed");
    vm.raw().vunmap(mapped).unwrap();
    drop(held);
    assert_empty(&vm);
}

#[test]
fn where_there_is_no_room_for_an_address_the_area_stays() {
    let vm = vm();
    let areas: Vec<VirtAddr> = (0..=MAX_DEFERRED_ADDRESSES).map(|_| raw(&vm)).collect();
    let state = hold_all(&vm);
    let (last, others) = areas.split_last().unwrap();
    for va in others {
        in_exception(|| vm.raw().vfree_atomic(*va)).unwrap();
    }
    let refusal = in_exception(|| vm.raw().vfree_atomic(*last));
    assert_eq!(refusal, Err(Error::TooManyDeferred { va: *last }));
    drop(state);
    assert_eq!(vm.usage().deferred_addresses, MAX_DEFERRED_ADDRESSES);
    vm.vm_unmap_aliases();
    assert_eq!(vm.usage().areas, 1);
    assert!(vm.find_vm_area(*last).is_some());
    vm.raw().vfree_atomic(*last).unwrap();
    assert_empty(&vm);
}

#[test]
fn a_handle_is_freed_in_any_context() {
    let vm = lazy(1000, 1 << 20);
    let areas: Vec<_> = (0..200).map(|_| vm.vmalloc(PAGE).unwrap()).collect();
    let device = vm.ioremap(PhysAddr(0x900_0000), PAGE).unwrap();
    let state = hold_all(&vm);
    for area in areas {
        in_exception(|| area.free_atomic()).unwrap();
    }
    in_exception(|| device.free_atomic()).unwrap();
    drop(state);
    assert_eq!(
        vm.usage().deferred,
        (201, 402),
        "there is always room for an area"
    );
    vm.vm_unmap_aliases();
    assert_eq!(vm.usage().deferred, (0, 0));
    assert_empty(&vm);
}

#[test]
fn pages_of_somebody_else_are_not_left_mapped_behind_his_back() {
    let vm = vm();
    let area = vm.vmap([Pfn(RAM / PAGE)].as_slice()).unwrap();
    let Err(area) = in_exception(|| area.free_atomic()) else {
        panic!("it was taken");
    };
    drop(area);
    assert_empty(&vm);
}

#[test]
fn an_area_whose_permissions_were_changed_is_put_right_when_its_turn_comes() {
    let vm = vm_with_linear_map(1, Config::default());
    let area = vm.vmalloc(PAGE).unwrap();
    area.set_memory_ro(0, PAGE).unwrap();
    let alias = VirtAddr(LINEAR + area.translate(0).unwrap().0);
    in_exception(|| area.free_atomic()).unwrap();
    assert!(!attributes_at(&vm, alias).is_writable());
    vm.vm_unmap_aliases();
    assert!(attributes_at(&vm, alias).is_writable());
    assert_empty(&vm);
}

#[test]
fn addresses_that_keep_coming_keep_nobody_from_those_before() {
    let vm: &'static Vm = std::boxed::Box::leak(std::boxed::Box::new(vm()));
    let (wrong, right) = (raw(vm), raw(vm));
    vm.raw().vfree(wrong).unwrap();
    let late = |va| {
        let _state = hold_all(vm);
        in_exception(|| vm.raw().vfree_atomic(va)).unwrap();
    };
    late(wrong);
    late(right);
    let again = move || late(wrong);
    *vm.backend().when_refused.borrow_mut() = Some(std::boxed::Box::new(again));
    vm.vm_unmap_aliases();
    *vm.backend().when_refused.borrow_mut() = None;
    assert_eq!(vm.find_vm_area(right), None, "its turn has come");
    assert_eq!(vm.usage().areas, 0);
    vm.vm_unmap_aliases();
    assert_eq!(vm.usage().deferred_addresses, 0);
    assert_empty(vm);
}
