use super::*;

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

fn free_taken(vm: &Vm, taken: Vec<(Pfn, u32)>) {
    for (first, order) in taken {
        vm.backend().free_frames(first, order);
    }
}

fn machine_with_an_idle_table_only() -> Vm {
    let features = Features {
        pool_pages: 4,
        ..Features::default()
    };
    vm_with(1 << 34, features, Config::default())
}

fn use_up_tables(vm: &Vm) {
    let before = vm.backend().model.nr_tables();
    drop(vm.vmalloc(PAGE).unwrap());
    assert_eq!(vm.backend().model.nr_tables(), before + 1);
}

#[test]
fn a_page_to_note_pages_in_is_won_back() {
    let vm = lazy(1000, 1 << 20);
    let pages: Vec<_> = (0..8).map(|_| vm.backend().alloc_frames(0).unwrap()).collect();
    let waits = vm.vmalloc(PAGE).unwrap();
    let taken = take_all(&vm);
    drop(waits);
    assert_eq!(vm.usage().lazy.0, 1);
    let area = vm.raw().vmap_put_pages(&pages[..]).unwrap();
    assert_eq!(vm.usage().lazy.0, 0);
    drop(area);
    free_taken(&vm, taken);
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
    assert_eq!(vm.usage().lazy.0, 0);
    drop(area);
    free_taken(&vm, taken);
    assert_empty(&vm);
}

#[test]
fn a_table_for_a_change_of_permissions_is_won_back() {
    let vm = machine_with_an_idle_table_only();
    let area = vm.vmalloc(M2).unwrap();
    use_up_tables(&vm);
    area.set_memory_ro(PAGE, PAGE).unwrap();
    assert!(!attributes_at(&vm, area.va().add(PAGE)).is_writable());
    drop(area);
    let va = vm.vmalloc(M2).unwrap().into_raw();
    vm.shrink();
    use_up_tables(&vm);
    vm.raw().set_memory_ro(va.add(M2 - PAGE), PAGE).unwrap();
    assert!(!attributes_at(&vm, va.add(M2 - PAGE)).is_writable());
    vm.raw().vfree(va).unwrap();
    assert_empty(&vm);
}

#[test]
fn a_table_for_a_part_of_a_sparse_area_is_won_back() {
    let vm = machine_with_an_idle_table_only();
    let block = vm.backend().alloc_frames(9).unwrap();
    let frames: Vec<_> = (0..512).map(|i| Pfn(block.0 + i)).collect();
    let area = vm.get_vm_area(M2, M2).unwrap();
    area.map_pages(0, &frames[..], Attributes::KERNEL_DATA).unwrap();
    use_up_tables(&vm);
    area.unmap_pages(PAGE, PAGE).unwrap();
    assert_eq!(area.translate(PAGE), None);
    area.unmap_pages(0, M2).unwrap();
    vm.shrink();
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
    assert_eq!(vm.usage().lazy.0, 0);
    areas.drain(areas.len() - 4..);
    assert_eq!(vm.usage().lazy.0, 4);
    let area = vm.vmalloc(2 * PAGE).unwrap();
    assert_eq!(vm.usage().lazy.0, 0);
    drop((first, area, areas));
    assert_empty(&vm);
}

#[test]
fn parts_that_come_and_go_leave_no_tables() {
    let vm = vm();
    let frame = vm.backend().alloc_frames(0).unwrap();
    let area = vm.get_vm_area(64 * M2, M2).unwrap();
    for part in 0..64 {
        area.map_pages(part * M2, &[frame][..], Attributes::KERNEL_DATA)
            .unwrap();
        area.map_pages((part + 1) * M2 - PAGE, &[frame][..], Attributes::KERNEL_DATA)
            .unwrap();
        area.unmap_pages(part * M2, PAGE).unwrap();
        assert_eq!(vm.backend().model.nr_tables(), 3 + 1);
        area.unmap_pages((part + 1) * M2 - PAGE, PAGE).unwrap();
        assert_eq!(vm.backend().model.nr_tables(), 3);
    }
    drop(area);
    let mut mapped = Vec::new();
    for _ in 0..400 {
        mapped.push(vm.vm_map_ram(&[frame; 32][..]).unwrap());
    }
    let spans = vm.usage().pieces / 512;
    assert!(spans <= 200 / 7 + 1, "seven blocks to a piece: {spans}");
    for va in mapped {
        vm.raw().vm_unmap_ram(va, 32).unwrap();
    }
    assert!(vm.backend().model.nr_tables() as u64 <= 3 + spans);
    vm.shrink();
    assert_eq!(vm.backend().model.nr_tables(), 3);
    vm.backend().free_frames(frame, 0);
    assert_empty(&vm);
}

#[test]
fn a_request_for_more_frames_than_there_are_takes_none() {
    let vm = vm();
    vm.backend().ram().largest = 0;
    let held = vm.vmalloc(3 * RAM_SIZE / 4).unwrap();
    let refused = vm.backend().ram().refused;
    let size = RAM_SIZE / 2 + PAGE;
    assert_eq!(vm.vmalloc(size).err(), Some(Error::OutOfFrames { size }));
    assert_eq!(vm.backend().ram().refused, refused, "none was asked for");
    drop(held);
    assert_empty(&vm);
}

#[test]
fn a_request_that_fails_for_what_others_free_ends() {
    let vm = lazy(1000, 1 << 20);
    let tries = std::cell::Cell::new(0);
    let result: Result<(), Error> = vm.under_pressure(|| {
        tries.set(tries.get() + 1);
        drop(vm.vmalloc(PAGE).unwrap());
        Err(Error::OutOfFrames { size: PAGE })
    });
    assert_eq!((result, tries.get()), (Err(Error::OutOfFrames { size: PAGE }), 3));
    assert_empty(&vm);
}
