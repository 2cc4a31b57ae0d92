use super::*;

pub fn nothing_is_asked_for(seen: &mut Seen) {
    let vm = vm();
    let none: &[Pfn] = &[];
    let device = Attributes::kernel(MemoryType::DEVICE_NGNRE).writable();
    let mut empty = |call: &dyn Fn() -> Result<(), Error>| seen.refused(&vm, Error::Empty, call);
    empty(&|| vm.vmalloc(0).map(drop));
    empty(&|| vm.vzalloc(0).map(drop));
    empty(&|| vm.vmalloc_huge(0).map(drop));
    empty(&|| vm.allocate(&Request::new(0)).map(drop));
    empty(&|| vm.allocate(&Request::new(0).nowait()).map(drop));
    empty(&|| vm.alloc_stack(0).map(drop));
    empty(&|| vm.get_vm_area(0, PAGE).map(drop));
    empty(&|| vm.ioremap(DEVICE, 0).map(drop));
    empty(&|| vm.ioremap_wc(DEVICE, 0).map(drop));
    empty(&|| vm.ioremap_np(DEVICE, 0).map(drop));
    empty(&|| vm.ioremap_cache(DEVICE, 0).map(drop));
    empty(&|| vm.vmap(none).map(drop));
    empty(&|| vm.vmap_as(none, Attributes::KERNEL_RODATA).map(drop));
    empty(&|| vm.raw().vmap_put_pages(none).map(drop));
    empty(&|| vm.vmap_pfn(none, device).map(drop));
    empty(&|| vm.vmap_extents(&[]).map(drop));
    empty(&|| {
        let start = Pfn(1);
        vm.vmap_extents(&[Extent { start, pages: 0 }]).map(drop)
    });
    empty(&|| vm.vm_map_ram(none).map(drop));
    let area = vm.vmalloc(PAGE).unwrap();
    let reserved = vm.get_vm_area(PAGE, PAGE).unwrap();
    let raw = vm.vmalloc(PAGE).unwrap().into_raw();
    let mut empty = |call: &dyn Fn() -> Result<(), Error>| seen.refused(&vm, Error::Empty, call);
    empty(&|| area.set_memory_ro(0, 0).map(drop));
    empty(&|| vm.raw().set_memory_ro(raw, 0).map(drop));
    empty(&|| vm.raw().vrealloc(raw, 0).map(drop));
    empty(&|| reserved.unmap_pages(0, 0).map(drop));
    empty(&|| reserved.map_pages(0, none, Attributes::KERNEL_DATA).map(drop));
    drop((area, reserved));
    vm.raw().vfree(raw).unwrap();
    assert_empty(&vm);
}

pub fn more_than_there_is(seen: &mut Seen) {
    let vm = vm();
    let region = vm.range().size;
    let too_large = |size, limit| Error::TooLarge { size, limit };
    for size in [RAM_SIZE + 1, RAM_SIZE + PAGE, region] {
        let whole = size.next_multiple_of(PAGE);
        seen.refused(&vm, too_large(whole, RAM_SIZE), || vm.vmalloc(size));
        seen.refused(&vm, too_large(whole, RAM_SIZE), || vm.vmalloc_huge(size));
        seen.refused(&vm, too_large(whole, RAM_SIZE), || vm.alloc_stack(size));
        seen.refused(&vm, too_large(whole, RAM_SIZE), || {
            vm.allocate(&Request::new(size).nowait())
        });
    }
    for size in [region + 1, u64::MAX - PAGE + 1, u64::MAX] {
        seen.refused(&vm, too_large(size, region), || vm.vmalloc(size));
        seen.refused(&vm, too_large(size, region), || vm.get_vm_area(size, PAGE));
        seen.refused(&vm, too_large(size, region), || vm.alloc_stack(size));
    }
    seen.refused(&vm, too_large(region + M2, region), || {
        vm.get_vm_area(region, PAGE)
    });
    for pages in [RAM_SIZE / PAGE + 1, u64::MAX / PAGE, u64::MAX] {
        let extent = [Extent { start: Pfn(0), pages }];
        let size = pages.saturating_mul(PAGE);
        seen.refused(&vm, too_large(size, RAM_SIZE), || vm.vmap_extents(&extent));
    }
    let frames = std::vec![Pfn(RAM / PAGE); (RAM_SIZE / PAGE + 1) as usize];
    let whole = frames.len() as u64 * PAGE;
    seen.refused(&vm, too_large(whole, RAM_SIZE), || vm.vmap(&frames[..]));
    seen.refused(&vm, too_large(whole, RAM_SIZE), || {
        vm.raw().vmap_put_pages(&frames[..])
    });
    seen.refused(&vm, too_large(whole, RAM_SIZE), || vm.vm_map_ram(&frames[..]));
    let raw = vm.vmalloc(PAGE).unwrap().into_raw();
    seen.refused(&vm, too_large(2 * RAM_SIZE, RAM_SIZE), || {
        vm.raw().vrealloc(raw, 2 * RAM_SIZE)
    });
    seen.refused(&vm, too_large(u64::MAX, region), || {
        vm.raw().vrealloc(raw, u64::MAX)
    });
    vm.raw().vfree(raw).unwrap();
    let small = vm_with(512, Features::default(), Config::default());
    seen.refused(&small, too_large(2 * M2, M2), || small.ioremap(DEVICE, M2));
    assert_empty(&vm);
}

pub fn an_alignment_is_no_power_of_two(seen: &mut Seen) {
    let vm = vm();
    for align in [0, 3, PAGE + 1, 3 * PAGE, u64::MAX] {
        let bad = Error::BadAlignment { align };
        seen.refused(&vm, bad, || vm.allocate(&Request::new(PAGE).aligned(align)));
        seen.refused(&vm, bad, || {
            vm.allocate(&Request::new(PAGE).aligned(align).nowait())
        });
        seen.refused(&vm, bad, || vm.get_vm_area(PAGE, align));
        seen.refused(&vm, bad, || vm.alloc_stack_aligned(PAGE, align));
    }
    assert_empty(&vm);
}

pub fn a_physical_range_ends_beyond_all(seen: &mut Seen) {
    let vm = vm();
    for (pa, size) in [(u64::MAX, 1), (u64::MAX, 2), (1 << 48, 1), (PAGE, u64::MAX)] {
        let pa = PhysAddr(pa);
        let bad = Error::BadPhysical { pa, size };
        seen.refused(&vm, bad, || vm.ioremap(pa, size));
        seen.refused(&vm, bad, || vm.ioremap_cache(pa, size));
    }
    assert_empty(&vm);
}

pub fn ram_is_asked_for_as_a_device(seen: &mut Seen) {
    let vm = vm();
    let device = Attributes::kernel(MemoryType::DEVICE_NGNRE).writable();
    for (pa, size) in [(RAM, 1), (RAM - PAGE, PAGE + 1), (RAM + RAM_SIZE - 1, 1)] {
        let pa = PhysAddr(pa);
        let ram = Error::Ram { pa, size };
        seen.refused(&vm, ram, || vm.ioremap(pa, size));
        seen.refused(&vm, ram, || vm.ioremap_wc(pa, size));
        seen.refused(&vm, ram, || vm.ioremap_np(pa, size));
    }
    let ram = Error::Ram {
        pa: PhysAddr(RAM),
        size: PAGE,
    };
    let frames = &[Pfn(0x9000), Pfn(RAM / PAGE)][..];
    seen.refused(&vm, ram, || vm.vmap_pfn(frames, device));
    seen.refused(&vm, ram, || vm.vmap_pfn(frames, Attributes::KERNEL_DATA));
    let sparse = vm.get_vm_area(2 * PAGE, PAGE).unwrap();
    for attributes in other_types() {
        seen.refused(&vm, ram, || vm.vmap_as(frames, attributes));
        seen.refused(&vm, ram, || sparse.map_pages(0, frames, attributes));
        drop(vm.vmap_as(&frames[..1], attributes).unwrap());
        sparse.map_pages(0, &frames[..1], attributes).unwrap();
        sparse.unmap_pages(0, PAGE).unwrap();
        vm.vm_unmap_aliases();
    }
    drop(vm.vmap_as(frames, Attributes::KERNEL_RODATA).unwrap());
    drop(sparse);
    assert_empty(&vm);
}

fn other_types() -> impl Iterator<Item = Attributes> {
    [
        MemoryType::DEVICE_NGNRNE,
        MemoryType::DEVICE_NGNRE,
        MemoryType::NORMAL_NC,
        MemoryType::NORMAL_WT,
        MemoryType::new(MemoryType::NORMAL.index(), 0),
        MemoryType::new(MemoryType::NORMAL.index(), 2),
        MemoryType::new(7, 3),
    ]
    .into_iter()
    .map(|memory| Attributes::kernel(memory).writable())
}

pub fn memory_of_its_own_is_asked_for_uncached(seen: &mut Seen) {
    let vm = vm();
    for attributes in other_types() {
        let error = Error::MemoryType(attributes.memory());
        for request in [
            Request::new(PAGE),
            Request::new(5 * PAGE).zeroed(),
            Request::new(M2).huge(),
            Request::new(PAGE).nowait(),
        ] {
            seen.refused(&vm, error, || vm.allocate(&request.with_attributes(attributes)));
        }
    }
    let request = Request::new(PAGE).with_attributes(Attributes::KERNEL_RODATA);
    drop(vm.allocate(&request).unwrap());
    assert_empty(&vm);
}

pub fn no_addresses_are_left(seen: &mut Seen) {
    let vm = vm_with(512, Features::default(), Config::default());
    let full = vm.get_vm_area(508 * PAGE, PAGE).unwrap();
    let none = Error::OutOfSpace(va::Error::NoSpace { pages: 4 });
    seen.refused(&vm, none, || vm.vmalloc(3 * PAGE));
    seen.refused(&vm, none, || vm.ioremap(DEVICE, 3 * PAGE));
    seen.refused(&vm, none, || vm.vmap(&[frame()[0]; 3][..]));
    seen.refused(&vm, none, || vm.get_vm_area(3 * PAGE, PAGE));
    let block = Error::OutOfSpace(va::Error::NoSpace { pages: 65 });
    seen.refused(&vm, block, || vm.vm_map_ram(&frame()[..]));
    let large = Error::OutOfSpace(va::Error::NoSpace { pages: 512 });
    seen.refused(&vm, large, || vm.get_vm_area(511 * PAGE, M2));
    let raw = vm.vmalloc(PAGE).unwrap().into_raw();
    seen.refused(&vm, Error::OutOfSpace(va::Error::NoSpace { pages: 3 }), || {
        vm.raw().vrealloc(raw, 2 * PAGE)
    });
    vm.raw().vfree(raw).unwrap();
    drop(full);
    let unaligned = Error::OutOfSpace(va::Error::NoAlignedSpace {
        pages: 512,
        align: 1 << 40,
        phase: 0,
    });
    let far = vm_with(1024, Features::default(), Config::default());
    let first = far.vmalloc(PAGE).unwrap();
    seen.refused(&far, unaligned, || {
        far.allocate(&Request::new(PAGE).aligned(PAGE << 40))
    });
    drop(first);
    assert_empty(&far);
    assert_empty(&vm);
}

pub fn no_frames_are_left(seen: &mut Seen) {
    let vm = vm();
    let raw = vm.vmalloc(PAGE).unwrap().into_raw();
    vm.backend().ram().budget = Some(0);
    let none = |size| Error::OutOfFrames { size };
    seen.refused(&vm, none(3 * PAGE), || vm.vmalloc(2 * PAGE + 1));
    seen.refused(&vm, none(M2), || vm.vmalloc_huge(M2));
    seen.refused(&vm, none(PAGE), || vm.alloc_stack(PAGE));
    seen.refused(&vm, none(PAGE), || vm.raw().vrealloc(raw, 2 * PAGE));
    vm.backend().ram().budget = None;
    let frames: Vec<_> = (0..8).map(|_| vm.backend().alloc_frames(0).unwrap()).collect();
    vm.backend().ram().budget = Some(0);
    seen.refused(&vm, none(PAGE), || vm.raw().vmap_put_pages(&frames[..]));
    vm.backend().ram().budget = None;
    frames
        .iter()
        .for_each(|frame| vm.backend().free_frames(*frame, 0));
    vm.raw().vfree(raw).unwrap();
    assert_empty(&vm);
}

pub fn a_page_is_not_to_be_taken_over(seen: &mut Seen) {
    let vm = vm();
    let alloc = |order| vm.backend().alloc_frames(order).unwrap();
    let own: Vec<Pfn> = (0..6).map(|_| alloc(0)).collect();
    let (block, gone) = (alloc(1), alloc(0));
    vm.backend().free_frames(gone, 0);
    let taken = vm.raw().vmap_put_pages(&own[5..]).unwrap();
    for bad in [
        own[0],
        block,
        Pfn(block.0 + 1),
        gone,
        Pfn(0x9000),
        Pfn(u64::MAX),
        own[5],
    ] {
        for at in [1, 4, 5] {
            let mut frames = own[..5].to_vec();
            frames.insert(at, bad);
            seen.refused(&vm, Error::NotToBeTakenOver(bad), || {
                vm.raw().vmap_put_pages(&frames[..])
            });
        }
    }
    drop(taken);
    drop(vm.raw().vmap_put_pages(&own[..5]).unwrap());
    vm.backend().free_frames(block, 1);
    assert_empty(&vm);
}

pub fn no_nodes_are_left(seen: &mut Seen) {
    let vm = vm();
    let mut areas = Vec::from([vm.get_vm_area(PAGE, PAGE).unwrap()]);
    vm.backend().ram().node_budget = Some(0);
    while let Ok(area) = vm.get_vm_area(PAGE, PAGE) {
        areas.push(area);
    }
    assert!(areas.len() > 8, "a page of nodes");
    seen.refused(&vm, Error::OutOfNodes, || vm.vmalloc(PAGE));
    seen.refused(&vm, Error::OutOfNodes, || vm.ioremap(DEVICE, PAGE));
    seen.refused(&vm, Error::OutOfNodes, || vm.vmap(&frame()[..]));
    seen.refused(&vm, Error::OutOfNodes, || vm.vm_map_ram(&frame()[..]));
    seen.refused(&vm, Error::OutOfNodes, || vm.get_vm_area(PAGE, PAGE));
    drop(areas);
    assert_empty(&vm);
}

pub fn the_walker_refuses(seen: &mut Seen) {
    let vm = vm();
    let executable = Attributes::KERNEL_TEXT.writable();
    let start = vm.range().start;
    let both = Error::Map(paging::Error::WritableExecutable(start));
    seen.refused(&vm, both, || vm.vmap_as(&frame()[..], executable));
    let hole = [Some(Pfn(RAM / PAGE)), None];
    let no_frame = Error::Map(paging::Error::NoFrame { page: 1 });
    seen.refused(&vm, no_frame, || vm.vmap(&hole[..]));
    let own = vm.backend().alloc_frames(0).unwrap();
    seen.refused(&vm, no_frame, || vm.raw().vmap_put_pages(&[Some(own), None][..]));
    vm.backend().free_frames(own, 0);
    let beyond = Error::Map(paging::Error::PhysicalRange(PhysAddr(1 << 48)));
    seen.refused(&vm, beyond, || vm.vmap(&[Pfn(1 << 36)][..]));
    seen.refused(&vm, beyond, || {
        vm.vm_map_ram_and_forget_the_block(&[Pfn(1 << 36)])
    });
    let area = vm.vmalloc(PAGE).unwrap();
    let both = Error::Map(paging::Error::WritableExecutable(area.va()));
    seen.refused(&vm, both, || area.set_memory_x(0, PAGE));
    let reserved = vm.get_vm_area(2 * PAGE, PAGE).unwrap();
    reserved
        .map_pages(PAGE, &frame()[..], Attributes::KERNEL_DATA)
        .unwrap();
    let taken = reserved.map_pages(0, &[frame()[0]; 2][..], Attributes::KERNEL_DATA);
    assert!(
        matches!(taken, Err(Error::Map(paging::Error::Occupied { va, .. })) if va == reserved.va().add(PAGE))
    );
    drop((area, reserved));
    vm.vm_unmap_aliases();
    for level in 1..=3i8 {
        vm.backend().model.fail_alloc_after(level as u64 - 1);
        let before = everything(&vm);
        let result = vm.vmalloc(PAGE);
        assert!(
            matches!(result, Err(Error::Map(paging::Error::OutOfTables(at))) if at == level),
            "{result:?}"
        );
        assert_eq!(everything(&vm), before);
    }
    assert_empty(&vm);
}

trait ForgetTheBlock {
    fn vm_map_ram_and_forget_the_block(&self, frames: &[Pfn]) -> Result<VirtAddr, Error>;
}

impl ForgetTheBlock for Vm {
    fn vm_map_ram_and_forget_the_block(&self, frames: &[Pfn]) -> Result<VirtAddr, Error> {
        let result = self.vm_map_ram(frames);
        self.shrink();
        result
    }
}
