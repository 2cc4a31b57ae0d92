use super::*;

fn nolock(size: u64) -> Request {
    Request::new(size).nolock()
}

#[test]
fn memory_without_waiting_is_as_good() {
    let vm = vm();
    for (size, leaf) in [
        (PAGE, LeafSize::PAGE),
        (K64, LeafSize::PAGE_GROUP),
        (M2, LeafSize::BLOCK2),
    ] {
        let area = in_exception(|| vm.allocate(&nolock(size).zeroed())).unwrap();
        assert_eq!(area.outcome().leaves.get(leaf), 1, "{size:#x} bytes");
        let pa = area.translate(0).unwrap();
        assert_maps(&area, &vm, |page| pa.add(page * PAGE));
        assert!(vm.backend().ram().is_zeroed(Pfn(pa.0 / PAGE)));
    }
    let area = vm.allocate(&nolock(32 << 20).huge()).unwrap();
    assert_eq!(area.outcome().leaves.get(LeafSize::BLOCK2_GROUP), 1);
    drop(area);
    let area = vm.allocate(&nolock(PAGE).aligned(K64)).unwrap();
    assert!(area.va().is_aligned(K64));
    drop(area);
    assert_empty(&vm);
}

#[test]
fn whoever_holds_a_lock_is_not_waited_for() {
    let vm = vm();
    let state = hold_all(&vm);
    let result = in_exception(|| vm.allocate(&nolock(PAGE)));
    assert_eq!(result.err(), Some(Error::WouldBlock));
    drop(state);
    assert_eq!(
        vm.usage(),
        Usage::default(),
        "nothing was got, and nothing is deferred"
    );
    vm.backend().ram().budget = Some(0);
    let result = in_exception(|| vm.allocate(&nolock(PAGE)));
    assert_eq!(result.err(), Some(Error::OutOfFrames { size: PAGE }));
    vm.backend().ram().budget = None;
    assert_eq!(vm.usage().areas, 0);
    assert_eq!(
        vm.usage().deferred,
        (1, 2),
        "what it had got waits for a call that deals with it"
    );
    drop(vm.vmalloc(PAGE).unwrap());
    assert_eq!(vm.usage().deferred, (0, 0));
    assert_empty(&vm);
}

#[test]
fn an_allocator_whose_lock_is_taken_has_nothing() {
    let vm = vm();
    drop(vm.vmalloc(2 * PAGE).unwrap());
    vm.backend().ram().locked = true;
    let result = vm.allocate(&nolock(PAGE));
    assert_eq!(result.err(), Some(Error::OutOfFrames { size: PAGE }));
    let area = vm.vmalloc(PAGE).unwrap();
    drop(area);
    vm.backend().ram().locked = false;
    assert_empty(&vm);
}

#[test]
fn nothing_is_purged_for_who_cannot_wait() {
    let vm = lazy(1000, 1 << 30);
    drop(vm.vmalloc(RAM_SIZE / 2).unwrap());
    let waiting = vm.usage().lazy;
    assert_ne!(waiting.0, 0);
    let size = RAM_SIZE / 2 + PAGE;
    assert_eq!(
        vm.allocate(&nolock(size)).err(),
        Some(Error::OutOfFrames { size })
    );
    assert_eq!(vm.usage().lazy, waiting);
    drop(vm.vmalloc(size).unwrap());
    assert_empty(&vm);
}

#[test]
fn whatever_fails_first_leaves_nothing_behind() {
    let vm = vm();
    vm.backend().ram().largest = 0;
    let (mut frames, mut tables) = (0, 0);
    for k in 0.. {
        vm.backend().ram().budget = Some(k);
        let result = in_exception(|| {
            vm.allocate(&nolock(20 * PAGE))
                .map(|area| area.free_atomic().unwrap())
        });
        vm.backend().ram().budget = None;
        vm.vm_unmap_aliases();
        assert_eq!(vm.backend().ram().used(), 0, "frames, at failure {k}");
        assert_eq!(vm.usage().deferred, (0, 0));
        match result {
            Ok(()) => break,
            Err(error) => assert_eq!(error, Error::OutOfFrames { size: 20 * PAGE }),
        }
        frames += 1;
    }
    for k in 0.. {
        vm.shrink();
        vm.backend().tree().prune(vm.range()).unwrap();
        vm.backend().model.fail_alloc_after(k);
        let result = in_exception(|| {
            vm.allocate(&nolock(20 * PAGE))
                .map(|area| area.free_atomic().unwrap())
        });
        vm.backend().model.cancel_alloc_failure();
        vm.vm_unmap_aliases();
        assert_eq!(vm.backend().ram().used(), 0, "frames, at failure {k}");
        match result {
            Ok(()) => break,
            Err(error) => assert!(matches!(error, Error::Map(paging::Error::OutOfTables(_)))),
        }
        tables += 1;
    }
    assert_eq!(
        (frames, tables),
        (21, 3),
        "each frame and the list's page, each table"
    );
    assert_empty(&vm);
}

#[test]
fn a_page_for_areas_is_asked_for_without_waiting() {
    let vm = vm();
    let mut areas = Vec::new();
    vm.backend().ram().node_budget = Some(0);
    let error = loop {
        match vm.allocate(&nolock(PAGE)) {
            Ok(area) => areas.push(area),
            Err(error) => break error,
        }
    };
    assert_eq!(error, Error::OutOfNodes);
    vm.backend().ram().node_budget = None;
    areas.push(in_exception(|| vm.allocate(&nolock(PAGE))).unwrap());
    drop(areas);
    assert_empty(&vm);
}

#[test]
fn memory_that_comes_and_goes_in_interrupts_alone_comes_back() {
    let vm = lazy(64, 1 << 20);
    for round in 0..3 * RAM_SIZE / PAGE {
        let area = vm.allocate(&Request::new(PAGE).nowait()).unwrap();
        let va = area.into_raw();
        vm.raw().vfree_atomic(va).unwrap();
        assert!(vm.usage().deferred.0 <= 1, "round {round}");
        assert!(vm.backend().ram().used() < 80, "round {round}");
    }
    assert!(
        vm.backend()
            .deferred_work
            .load(std::sync::atomic::Ordering::Relaxed)
            != 0
    );
    vm.shrink();
    assert_empty(&vm);
}

#[test]
fn an_interrupt_handler_waits_for_no_gate() {
    let vm = lazy(4, 1 << 20);
    let raw: Vec<_> = (0..8).map(|_| vm.vmalloc(PAGE).unwrap().into_raw()).collect();
    let gates: Vec<_> = vm
        .shards
        .iter()
        .map(|shard| shard.purge.try_enter().expect("nothing is inside"))
        .collect();
    let linear_map = vm.linear_map.0.try_enter();
    for va in raw {
        vm.raw().vfree_atomic(va).unwrap();
        drop(vm.allocate(&Request::new(PAGE).nowait()).unwrap().free_atomic());
    }
    assert_eq!(vm.usage().deferred.0, 16);
    drop((gates, linear_map));
    assert_empty(&vm);
}

#[test]
fn a_changed_area_is_not_dealt_with_in_an_interrupt() {
    let vm = vm_with_linear_map(1, Config::default());
    let area = vm.vmalloc(PAGE).unwrap();
    area.set_memory_ro(0, PAGE).unwrap();
    area.free_atomic().unwrap();
    let linear_map = vm.linear_map.0.try_enter();
    for _ in 0..3 {
        let area = vm.allocate(&Request::new(PAGE).nowait()).unwrap();
        area.free_atomic().unwrap();
    }
    assert_eq!(vm.usage().deferred.0, 2, "the changed one, and the last");
    drop(linear_map);
    drop(vm.vmalloc(PAGE).unwrap());
    drop(vm.vmalloc(PAGE).unwrap());
    assert_eq!(vm.usage().deferred.0, 0);
    assert_empty(&vm);
}

#[test]
fn without_waiting_bad_requests_are_as_bad() {
    let vm = vm();
    assert_eq!(vm.allocate(&nolock(0)).err(), Some(Error::Empty));
    assert!(matches!(
        vm.allocate(&nolock(RAM_SIZE + 1)).err(),
        Some(Error::TooLarge { .. })
    ));
    let align = 3;
    let request = nolock(PAGE).aligned(align);
    assert_eq!(vm.allocate(&request).err(), Some(Error::BadAlignment { align }));
    assert_eq!(vm.usage(), Usage::default());
    assert_empty(&vm);
}
