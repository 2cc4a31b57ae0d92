//! DESIGN rule 7.

use super::*;

fn at_each(vm: &Vm, set: impl Fn(&Vm, Option<u64>), f: impl Fn(&Vm) -> Result<(), Error>) -> Vec<Error> {
    let mut errors = Vec::new();
    for k in 0.. {
        vm.shrink();
        vm.backend().tree().prune(vm.range()).unwrap();
        let before = vm.usage();
        let used = vm.backend().ram().used();
        let tables = vm.backend().model.nr_tables();
        set(vm, Some(k));
        let result = f(vm);
        set(vm, None);
        let Err(error) = result else {
            assert_sound(vm);
            return errors;
        };
        errors.push(error);
        vm.shrink();
        vm.backend().tree().prune(vm.range()).unwrap();
        let after = vm.usage();
        assert_eq!((after.areas, after.pages), (before.areas, before.pages));
        assert_eq!(vm.backend().ram().used(), used, "frames, at failure {k}");
        assert_eq!(vm.backend().model.nr_tables(), tables, "tables, at failure {k}");
        assert_sound(vm);
        assert!(k < 10_000, "it never succeeds");
    }
    errors
}

fn fail_tables(vm: &Vm, k: Option<u64>) {
    match k {
        Some(k) => vm.backend().model.fail_alloc_after(k),
        None => {
            vm.backend().model.cancel_alloc_failure();
        }
    }
}

#[test]
fn the_kth_frame_may_fail() {
    let vm = vm();
    vm.backend().ram().largest = 0;
    let size = 600 * PAGE;
    let errors = at_each(
        &vm,
        |vm, k| vm.backend().ram().budget = k,
        |vm| vm.vmalloc(size).map(drop),
    );
    assert_eq!(errors.len(), 600 + 2, "each frame, and each page of the list");
    assert!(errors.iter().all(|error| *error == Error::OutOfFrames { size }));
    assert_empty(&vm);
}

#[test]
fn the_kth_table_may_fail() {
    let vm = vm();
    let errors = at_each(&vm, fail_tables, |vm| vm.vmalloc(PAGE).map(drop));
    assert_eq!(errors.len(), 3, "levels 1, 2 and 3");
    assert!(
        errors
            .iter()
            .all(|error| matches!(error, Error::Map(paging::Error::OutOfTables(_))))
    );
    let errors = at_each(&vm, fail_tables, |vm| {
        vm.ioremap(PhysAddr(0x900_0000), 5 * PAGE).map(drop)
    });
    assert_eq!(errors.len(), 3);
    assert_empty(&vm);
}

#[test]
fn a_map_that_is_tried_again_after_a_prune_begins_with_the_first_block() {
    let features = Features {
        // Three are empty and linked, three are free, four are needed.
        pool_pages: 7,
        ..Features::default()
    };
    let vm = vm_with(1 << 34, features, Config::default());
    drop(vm.vmalloc(PAGE).unwrap());
    assert_eq!(vm.backend().model.nr_tables(), 4);
    vm.backend().ram().largest = 0;
    let area = vm.allocate(&Request::new(600 * PAGE).aligned(1 << 40)).unwrap();
    let frames: Vec<_> = (0..600)
        .map(|page| vm.vmalloc_to_pfn(area.va().add(page * PAGE)).unwrap())
        .collect();
    assert!(
        frames.is_sorted_by(|a, b| a < b),
        "the lowest free ones, in order"
    );
    drop(area);
    assert_empty(&vm);
}

#[test]
fn a_page_for_areas_may_fail() {
    let vm = vm();
    vm.backend().ram().node_budget = Some(0);
    let mut areas = Vec::new();
    let error = loop {
        match vm.vmalloc(PAGE) {
            Ok(area) => areas.push(area),
            Err(error) => break error,
        }
    };
    assert_eq!(error, Error::OutOfNodes);
    assert_eq!(vm.backend().ram().used(), areas.len() as u64);
    assert_sound(&vm);
    vm.backend().ram().node_budget = None;
    areas.push(vm.vmalloc(PAGE).unwrap());
    drop(areas);
    assert_empty(&vm);
}

#[test]
fn addresses_may_run_out() {
    let vm = vm_with(512, Features::default(), Config::default());
    let mut areas = Vec::new();
    let error = loop {
        match vm.vmalloc(3 * PAGE) {
            Ok(area) => areas.push(area),
            Err(error) => break error,
        }
    };
    assert_eq!(areas.len(), 128);
    assert_eq!(error, Error::OutOfSpace(va::Error::NoSpace { pages: 4 }));
    assert_eq!(vm.backend().ram().used(), 3 * 128);
    drop(areas.remove(3));
    areas.push(vm.vmalloc(3 * PAGE).unwrap());
    areas.truncate(8);
    assert!(vm.usage().cached.0 != 0);
    areas.clear();
    areas.push(vm.vmalloc(511 * PAGE).unwrap());
    drop(areas);
    assert_empty(&vm);
}

#[test]
fn frames_may_run_out() {
    let vm = vm();
    let area = vm.vmalloc(RAM_SIZE - M2).unwrap();
    // The block list took a frame of the last 2M.
    assert_eq!(vm.vmalloc(M2).err(), Some(Error::OutOfFrames { size: M2 }));
    assert_eq!(vm.backend().ram().used(), (RAM_SIZE - M2) / PAGE + 1);
    drop(area);
    assert_empty(&vm);
}

#[test]
fn a_phase_is_given_up_step_by_step_where_space_is_tight() {
    let vm = vm_with(1024, Features::default(), Config::default());
    let pa = PhysAddr(0x1020_0000 - 64 * PAGE);
    let area = vm.ioremap(pa, 64 * PAGE + M2).unwrap();
    assert_eq!(area.outcome().leaves.get(LeafSize::BLOCK2), 0);
    assert_eq!(area.outcome().leaves.get(LeafSize::PAGE_GROUP), 36);
    assert_eq!(area.outcome().leaves.get(LeafSize::PAGE), 0);
    drop(area);
    let odd = vm.vmalloc(PAGE).unwrap();
    let area = vm.ioremap(pa.add(PAGE), 511 * PAGE).unwrap();
    assert!(
        area.outcome().leaves.get(LeafSize::PAGE) > 0,
        "anywhere, in the end"
    );
    drop((odd, area));
    assert_empty(&vm);
}
