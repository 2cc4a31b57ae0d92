//! What is withheld is not missed: whoever would fail for lack of memory has it given back, and tries again.

use super::*;

/// Takes every frame that is left.
fn take_all(vm: &Vm) -> Vec<(Pfn, u32)> {
    let backend = vm.backend();
    let mut taken = Vec::new();
    for order in (0..=backend.max_order()).rev() {
        while let Some(first) = backend.alloc_frames(order) {
            taken.push((first, order));
        }
    }
    taken
}

fn give_back(vm: &Vm, taken: Vec<(Pfn, u32)>) {
    for (first, order) in taken {
        vm.backend().free_frames(first, order);
    }
}

/// A machine on which the tables of a page that is gone are all that are to be had: nothing is left of the pool, and three are linked and
/// empty.
fn machine_with_empty_tables_only() -> Vm {
    let features = Features {
        // The root, two above a block; and three for a page elsewhere.
        pool_pages: 6,
        ..Features::default()
    };
    vm_with(1 << 34, features, Config::default())
}

/// Leaves empty tables behind.
fn use_up_tables(vm: &Vm) {
    let before = vm.backend().model.nr_tables();
    drop(vm.allocate(&Request::new(PAGE).aligned(1 << 40)).unwrap());
    assert_eq!(vm.backend().model.nr_tables(), before + 3);
}

#[test]
fn a_page_to_note_pages_in_is_won_back() {
    let vm = lazy(1000, 1 << 20);
    let pages: Vec<_> = (0..8).map(|_| vm.backend().alloc_frames(0).unwrap()).collect();
    let waits = vm.vmalloc(PAGE).unwrap();
    let taken = take_all(&vm);
    drop(waits);
    assert_eq!(vm.usage().waiting.0, 1);
    let area = vm.raw().vmap_put_pages(&pages[..]).unwrap();
    assert_eq!(vm.usage().waiting.0, 0);
    drop(area);
    give_back(&vm, taken);
    assert_empty(&vm);
}

#[test]
fn a_page_for_the_blocks_of_an_area_that_grows_is_won_back() {
    let vm = lazy(1000, 1 << 20);
    vm.backend().ram().largest = 0;
    let mut area = vm.vmalloc(4 * PAGE).unwrap();
    let (waits, spare) = (vm.vmalloc(PAGE).unwrap(), vm.backend().alloc_frames(0).unwrap());
    vm.backend().ram().largest = u32::MAX;
    let taken = take_all(&vm);
    drop(waits);
    vm.backend().free_frames(spare, 0);
    area.vrealloc(5 * PAGE).unwrap();
    assert_eq!(vm.usage().waiting.0, 0);
    drop(area);
    give_back(&vm, taken);
    assert_empty(&vm);
}

#[test]
fn a_table_for_a_change_of_permissions_is_won_back() {
    let vm = machine_with_empty_tables_only();
    let area = vm.vmalloc(M2).unwrap();
    use_up_tables(&vm);
    area.set_memory_ro(PAGE, PAGE).unwrap();
    assert!(!attributes_at(&vm, area.va().add(PAGE)).is_writable());
    drop(area);
    let va = vm.vmalloc(M2).unwrap().into_raw();
    vm.vm_unmap_aliases();
    use_up_tables(&vm);
    vm.raw().set_memory_ro(va.add(M2 - PAGE), PAGE).unwrap();
    assert!(!attributes_at(&vm, va.add(M2 - PAGE)).is_writable());
    vm.raw().vfree(va).unwrap();
    assert_empty(&vm);
}

#[test]
fn a_table_for_a_part_of_a_sparse_area_is_won_back() {
    let vm = machine_with_empty_tables_only();
    let block = vm.backend().alloc_frames(9).unwrap();
    let frames: Vec<_> = (0..512).map(|i| Pfn(block.0 + i)).collect();
    let area = vm.get_vm_area(M2, M2).unwrap();
    area.map_pages(0, &frames[..], Attributes::KERNEL_DATA).unwrap();
    use_up_tables(&vm);
    area.unmap_pages(PAGE, PAGE).unwrap();
    assert_eq!(area.translate(PAGE), None);
    area.unmap_pages(0, M2).unwrap();
    vm.vm_unmap_aliases();
    use_up_tables(&vm);
    area.map_pages(PAGE, &frames[1..2], Attributes::KERNEL_DATA)
        .unwrap();
    drop(area);
    vm.backend().free_frames(block, 9);
    assert_empty(&vm);
}

#[test]
fn a_node_of_an_area_that_waits_is_won_back() {
    let config = Config {
        cached_areas: 0,
        flush: FlushPolicy::Lazy {
            areas: 1000,
            pages: 1 << 20,
        },
        ..Config::default()
    };
    let vm = vm_with(1 << 34, Features::default(), config);
    let first = vm.vmalloc(PAGE).unwrap();
    vm.backend().ram().node_budget = Some(0);
    let mut areas = Vec::new();
    while let Ok(area) = vm.vmalloc(PAGE) {
        areas.push(area);
    }
    assert_eq!(vm.usage().waiting.0, 0);
    areas.drain(areas.len() - 4..);
    assert_eq!(vm.usage().waiting.0, 4);
    let area = vm.vmalloc(2 * PAGE).unwrap();
    assert_eq!(vm.usage().waiting.0, 0);
    drop((first, area, areas));
    assert_empty(&vm);
}

/// What unmaps leave empty is bounded however they are made: by parts of one area, or of blocks.
#[test]
fn parts_that_come_and_go_leave_no_more_empty_tables_than_areas_do() {
    let vm = vm();
    let frame = vm.backend().alloc_frames(0).unwrap();
    let area = vm.get_vm_area(1 << 30, M2).unwrap();
    for part in 0..512 {
        area.map_pages(part * M2, &[frame][..], Attributes::KERNEL_DATA)
            .unwrap();
        area.unmap_pages(part * M2, PAGE).unwrap();
        assert!(vm.backend().model.nr_tables() < 3 + 64, "after {part}");
    }
    drop(area);
    // A block of each of these in turn is the only thing in its table.
    let mut mapped = Vec::new();
    let mut fillers = Vec::new();
    for _ in 0..200 {
        fillers.push(vm.get_vm_area(M2, M2).unwrap());
        for _ in 0..2 {
            mapped.push(vm.vm_map_ram(&[frame; 32][..]).unwrap());
        }
    }
    for (nr, va) in mapped.into_iter().enumerate() {
        vm.raw().vm_unmap_ram(va, 32).unwrap();
        let left = 400 - nr;
        assert!(
            vm.backend().model.nr_tables() < 4 + 64 + left.div_ceil(2),
            "after {nr}"
        );
    }
    drop(fillers);
    vm.vm_unmap_aliases();
    vm.backend().free_frames(frame, 0);
    assert_empty(&vm);
}
