use super::*;

fn frames_of(vm: &Vm, area: &VmArea<'_, Machine>) -> Vec<Pfn> {
    (0..area.range().size / PAGE)
        .map(|page| vm.vmalloc_to_pfn(area.range().start.add(page * PAGE)).unwrap())
        .collect()
}

#[test]
fn what_fits_stays_where_it_is() {
    let vm = vm();
    let mut area = vm.vmalloc(3 * PAGE - 5).unwrap();
    let (va, frames) = (area.va(), frames_of(&vm, &area));
    for size in [3 * PAGE, PAGE, 1, 2 * PAGE] {
        area.vrealloc(size).unwrap();
        assert_eq!((area.va(), area.size()), (va, size));
        assert_eq!(frames_of(&vm, &area), frames);
    }
    drop(area);
    assert_empty(&vm);
}

#[test]
fn what_grows_keeps_its_frames_at_a_new_address() {
    for vm in [vm(), lazy_on(2, 100, 1 << 20)] {
        for largest in [0, 2, 9] {
            vm.backend().ram().largest = largest;
            let mut area = vm.vmalloc(PAGE).unwrap();
            let mut size = PAGE;
            for more in [1, 3, 12, 100, 700, 1] {
                let (va, frames) = (area.va(), frames_of(&vm, &area));
                size += more * PAGE;
                vm.backend().go_to(0);
                area.vrealloc(size).unwrap();
                let now = frames_of(&vm, &area);
                assert_ne!(area.va(), va);
                assert_eq!(area.range().size, size);
                assert_eq!(now[..frames.len()], frames);
                let mut sorted: Vec<_> = now.iter().map(|frame| frame.0).collect();
                sorted.sort_unstable();
                sorted.dedup();
                assert_eq!(sorted.len() as u64, size / PAGE, "no frame is there twice");
                vm.backend()
                    .model
                    .va_reused(paging::VirtRange::new(va, frames.len() as u64 * PAGE));
                assert_consistent(&vm);
            }
            drop(area);
            vm.vm_unmap_aliases();
            assert_empty(&vm);
        }
    }
}

#[test]
fn a_growth_that_fails_changes_nothing() {
    let mut failures = 0;
    for k in 0.. {
        let vm = vm();
        vm.backend().ram().largest = 0;
        let mut area = vm.vmalloc(8 * PAGE).unwrap();
        let (va, frames, used) = (area.va(), frames_of(&vm, &area), vm.backend().ram().used());
        vm.backend().ram().budget = Some(k);
        let result = area.vrealloc(20 * PAGE);
        vm.backend().ram().budget = None;
        if result.is_ok() {
            drop(area);
            assert_empty(&vm);
            break;
        }
        failures += 1;
        assert!(matches!(result, Err(Error::OutOfFrames { .. })));
        assert_eq!(
            (area.va(), area.size(), frames_of(&vm, &area)),
            (va, 8 * PAGE, frames)
        );
        assert_eq!(vm.backend().ram().used(), used);
        drop(area);
        assert_empty(&vm);
    }
    assert!(failures > 12, "twelve frames and pages for lists");
    let vm = vm();
    let mut area = vm.vmalloc(PAGE).unwrap();
    vm.backend().model.fail_alloc_after(0);
    let result = area.vrealloc(3 * M2);
    assert!(matches!(result, Err(Error::Map(_))), "{result:?}");
    assert!(!vm.backend().model.cancel_alloc_failure());
    assert_eq!(area.size(), PAGE);
    drop(area);
    assert_empty(&vm);
}

#[test]
fn only_plain_memory_is_resized() {
    let vm = vm();
    let mut device = vm.ioremap(PhysAddr(0x900_0000), PAGE).unwrap();
    assert!(matches!(device.vrealloc(2 * PAGE), Err(Error::WrongKind { .. })));
    let mut stack = vm.alloc_stack(4 * PAGE).unwrap();
    assert!(matches!(stack.vrealloc(8 * PAGE), Err(Error::WrongKind { .. })));
    let mut area = vm.vmalloc(4 * PAGE).unwrap();
    assert!(matches!(area.vrealloc(0), Err(Error::Empty)));
    assert!(matches!(area.vrealloc(u64::MAX), Err(Error::TooLarge { .. })));
    assert!(matches!(area.vrealloc(2 * RAM_SIZE), Err(Error::TooLarge { .. })));
    area.set_memory_ro(0, PAGE).unwrap();
    assert!(matches!(
        area.vrealloc(8 * PAGE),
        Err(Error::PermissionsChanged(_))
    ));
    drop((device, stack, area));
    assert_empty(&vm);
}

#[test]
fn a_raw_area_is_resized_by_its_address() {
    let vm = vm();
    let va = vm.vmalloc(PAGE).unwrap().into_raw();
    let frame = vm.vmalloc_to_pfn(va).unwrap();
    let grown = vm.raw().vrealloc(va, 5 * PAGE).unwrap();
    assert_eq!(vm.vmalloc_to_pfn(grown), Ok(frame));
    assert!(matches!(vm.raw().vrealloc(va, PAGE), Err(Error::Freed(_))));
    assert!(matches!(
        vm.raw().vrealloc(grown.add(PAGE), PAGE),
        Err(Error::Interior { .. })
    ));
    assert!(matches!(
        vm.raw().vrealloc(VirtAddr(PAGE), PAGE),
        Err(Error::Outside(_))
    ));
    vm.raw().vfree(grown).unwrap();
    assert_empty(&vm);
}

#[test]
fn pages_handed_over_go_back_with_the_area() {
    for vm in [vm(), lazy(100, 1 << 20)] {
        let frames: Vec<_> = (0..40).map(|_| vm.backend().alloc_frames(0).unwrap()).collect();
        let area = vm.raw().vmap_put_pages(&frames[..]).unwrap();
        assert_maps(&area, &vm, |page| PhysAddr(frames[page as usize].0 * PAGE));
        let va = area.into_raw();
        vm.raw().vunmap(va).unwrap();
        vm.vm_unmap_aliases();
        assert_empty(&vm);
    }
}

#[test]
fn pages_that_cannot_be_taken_over_stay_the_callers() {
    let vm = vm();
    let frames: Vec<_> = (0..40).map(|_| vm.backend().alloc_frames(0).unwrap()).collect();
    vm.backend().ram().budget = Some(0);
    assert!(matches!(
        vm.raw().vmap_put_pages(&frames[..]),
        Err(Error::OutOfFrames { .. })
    ));
    vm.backend().ram().budget = None;
    vm.backend().model.fail_alloc_after(1);
    assert!(matches!(vm.raw().vmap_put_pages(&frames[..]), Err(Error::Map(_))));
    vm.backend().model.cancel_alloc_failure();
    assert!(matches!(vm.raw().vmap_put_pages::<[Pfn]>(&[]), Err(Error::Empty)));
    frames
        .iter()
        .for_each(|frame| vm.backend().free_frames(*frame, 0));
    assert_empty(&vm);
}

#[test]
fn vmap_pfn_takes_what_is_not_ram() {
    let vm = vm();
    let device = Attributes::kernel(MemoryType::DEVICE_NGNRE).writable();
    let area = vm.vmap_pfn(&[Pfn(0x9000), Pfn(0x9005)][..], device).unwrap();
    assert_eq!(vm.vmalloc_to_pfn(area.va().add(PAGE)), Ok(Pfn(0x9005)));
    let refused = vm.vmap_pfn(&[Pfn(0x9000), Pfn(RAM / PAGE)][..], device);
    assert!(matches!(
        refused,
        Err(Error::Ram {
            pa: PhysAddr(RAM),
            ..
        })
    ));
    drop(area);
    assert_empty(&vm);
}

#[test]
fn vmap_pfn_takes_more_pages_than_there_is_ram() {
    let vm = vm();
    let device = Attributes::kernel(MemoryType::DEVICE_NGNRE).writable();
    let first = 0x40_0000_0000 / PAGE;
    let nr = 2 * RAM_SIZE / PAGE;
    let frames: Vec<_> = (first..first + nr).map(Pfn).collect();
    let area = vm.vmap_pfn(&frames[..], device).unwrap();
    assert_eq!(area.size(), 2 * RAM_SIZE);
    assert_eq!(
        area.translate(area.size() - 1),
        Some(PhysAddr((first + nr) * PAGE - 1))
    );
    drop(area);
    let small = vm_with(512, Features::default(), Config::default());
    assert_eq!(
        small.vmap_pfn(&frames[..513], device).err(),
        Some(Error::TooLarge {
            size: 513 * PAGE,
            limit: 512 * PAGE
        })
    );
    assert_empty(&vm);
}
