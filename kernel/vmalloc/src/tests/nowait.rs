//! Memory for whoever cannot wait.

use super::*;
use crate::backend::{Lock, WalkLock};
use paging::LeafSet;

fn nowait(size: u64) -> Request {
    Request::new(size).nowait()
}

#[test]
fn memory_without_waiting_is_as_good() {
    let vm = vm();
    for (size, leaf) in [
        (PAGE, LeafSize::PAGE),
        (K64, LeafSize::PAGE_GROUP),
        (M2, LeafSize::BLOCK2),
    ] {
        let area = in_exception(|| vm.allocate(&nowait(size).zeroed())).unwrap();
        assert_eq!(area.outcome().leaves.get(leaf), 1, "{size:#x} bytes");
        let pa = area.translate(0).unwrap();
        assert_maps(&area, &vm, |page| pa.add(page * PAGE));
        assert!(vm.backend().ram().is_zeroed(Pfn(pa.0 / PAGE)));
    }
    let area = vm.allocate(&nowait(32 << 20).huge()).unwrap();
    assert_eq!(area.outcome().leaves.get(LeafSize::BLOCK2_GROUP), 1);
    drop(area);
    let area = vm.allocate(&nowait(PAGE).aligned(K64)).unwrap();
    assert!(area.va().is_aligned(K64));
    drop(area);
    assert_empty(&vm);
}

#[test]
fn whoever_holds_a_lock_is_not_waited_for() {
    let vm = vm();
    let state = vm.state.lock();
    let result = in_exception(|| vm.allocate(&nowait(PAGE)));
    assert_eq!(result.err(), Some(Error::WouldBlock));
    drop(state);
    assert_eq!(
        vm.usage(),
        Usage::default(),
        "nothing was got, and nothing is deferred"
    );
    let release = vm.backend().walks().release();
    let result = in_exception(|| vm.allocate(&nowait(PAGE)));
    assert_eq!(result.err(), Some(Error::WouldBlock));
    drop(release);
    assert_eq!(vm.usage().areas, 0);
    assert_eq!(
        vm.usage().deferred,
        (1, 2),
        "what it had got waits for who can wait"
    );
    assert_eq!(vm.backend().ram().used(), 1);
    drop(vm.vmalloc(PAGE).unwrap());
    assert_eq!(vm.usage().deferred, (0, 0));
    assert_empty(&vm);
}

#[test]
fn an_allocator_whose_lock_is_taken_has_nothing() {
    let vm = vm();
    vm.backend().ram().locked = true;
    let result = vm.allocate(&nowait(PAGE));
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
    let waiting = vm.usage().waiting;
    assert_ne!(waiting.0, 0);
    let size = RAM_SIZE / 2 + PAGE;
    assert_eq!(
        vm.allocate(&nowait(size)).err(),
        Some(Error::OutOfFrames { size })
    );
    assert_eq!(vm.usage().waiting, waiting);
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
            vm.allocate(&nowait(20 * PAGE))
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
        vm.backend().model.fail_alloc_after(k);
        let result = in_exception(|| {
            vm.allocate(&nowait(20 * PAGE))
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

/// The tables that a failed map has made may be read by others, so it gives none back; the next call that can wait does.
#[test]
fn tables_of_a_map_that_failed_go_with_the_next_call_that_can_wait() {
    let vm = vm();
    let base = vm.backend().model.nr_tables();
    vm.backend().model.fail_alloc_after(1);
    let result = in_exception(|| vm.allocate(&nowait(PAGE)));
    vm.backend().model.cancel_alloc_failure();
    assert!(matches!(
        result.err(),
        Some(Error::Map(paging::Error::OutOfTables(_)))
    ));
    assert_eq!(vm.backend().model.nr_tables(), base + 1, "withheld");
    drop(vm.get_vm_area(PAGE, PAGE).unwrap());
    assert_eq!(vm.backend().model.nr_tables(), base);
    assert_empty(&vm);
}

#[test]
fn a_page_for_areas_is_asked_for_without_waiting() {
    let vm = vm();
    let mut areas = Vec::new();
    vm.backend().ram().node_budget = Some(0);
    let error = loop {
        match vm.allocate(&nowait(PAGE)) {
            Ok(area) => areas.push(area),
            Err(error) => break error,
        }
    };
    assert_eq!(error, Error::OutOfNodes);
    vm.backend().ram().node_budget = None;
    areas.push(in_exception(|| vm.allocate(&nowait(PAGE))).unwrap());
    drop(areas);
    assert_empty(&vm);
}

/// Taking an empty table out while others walk is what the engine's map would do for a block.
#[test]
fn no_block_is_mapped_over_an_empty_table_without_waiting() {
    let vm = vm_with(1 << 12, Features::default(), Config::default());
    let pages = vm
        .vmap_as(vec_of_frames().as_slice(), Attributes::KERNEL_DATA)
        .unwrap();
    drop(pages);
    let area = vm.allocate(&nowait(M2)).unwrap();
    assert_eq!(area.outcome().tables_removed, 0);
    assert_eq!(area.outcome().leaves.get(LeafSize::BLOCK2), 0);
    assert_eq!(area.outcome().leaves.get(LeafSize::PAGE_GROUP), 32);
    drop(area);
    let area = vm.vmalloc(M2).unwrap();
    assert_eq!(
        area.outcome().leaves.get(LeafSize::BLOCK2),
        1,
        "who can wait prunes"
    );
    drop(area);
    assert_empty(&vm);
    assert!(vm.config().leaves == LeafSet::ALL);
}

/// Every other frame of 2M: no leaf but pages, in each table.
fn vec_of_frames() -> Vec<Pfn> {
    (0..1024).map(|i| Pfn(RAM / PAGE + i * 2)).collect()
}

#[test]
fn without_waiting_bad_requests_are_as_bad() {
    let vm = vm();
    assert_eq!(vm.allocate(&nowait(0)).err(), Some(Error::Empty));
    assert!(matches!(
        vm.allocate(&nowait(RAM_SIZE + 1)).err(),
        Some(Error::TooLarge { .. })
    ));
    let align = 3;
    let request = nowait(PAGE).aligned(align);
    assert_eq!(vm.allocate(&request).err(), Some(Error::BadAlignment { align }));
    assert_eq!(vm.usage(), Usage::default());
    assert_empty(&vm);
}
