use super::*;

fn frames(vm: &Vm, nr: u64) -> Vec<Pfn> {
    (0..nr).map(|_| vm.backend().alloc_frames(0).unwrap()).collect()
}

fn free(vm: &Vm, frames: &[Pfn]) {
    frames
        .iter()
        .for_each(|frame| vm.backend().free_frames(*frame, 0));
}

#[test]
fn small_mappings_share_a_block_and_are_flushed_when_they_end() {
    for vm in [vm(), lazy(1000, 1 << 30)] {
        let frames = frames(&vm, 8);
        let a = vm.vm_map_ram(&frames[..3]).unwrap();
        let b = vm.vm_map_ram(&frames[3..]).unwrap();
        assert_eq!(b, a.add(3 * PAGE), "behind each other in one block");
        assert_eq!(vm.usage().areas, 1);
        for (page, frame) in frames.iter().enumerate() {
            assert_eq!(vm.vmalloc_to_pfn(a.add(page as u64 * PAGE)), Ok(*frame));
        }
        let issued = issued_by(&vm, || vm.raw().vm_unmap_ram(a, 3).unwrap());
        assert_eq!((issued.dsb_ishst, issued.dsb_ish, issued.tlbi), (1, 1, 3));
        free(&vm, &frames[..3]);
        let again = vm.vm_map_ram(&frames[3..5]).unwrap();
        assert_eq!(again, a, "the lowest pages that are free");
        vm.raw().vm_unmap_ram(again, 2).unwrap();
        vm.raw().vm_unmap_ram(b, 5).unwrap();
        free(&vm, &frames[3..]);
        vm.shrink();
        assert_eq!(vm.usage().areas, 0, "an idle block goes");
        assert_empty(&vm);
    }
}

#[test]
fn a_wrong_length_is_refused_and_a_second_unmap_too() {
    let vm = vm();
    let frames = frames(&vm, 40);
    let small = vm.vm_map_ram(&frames[..4]).unwrap();
    let beside = vm.vm_map_ram(&frames[4..8]).unwrap();
    for nr in [0, 1, 3, 5, 8, u64::MAX] {
        assert!(
            matches!(vm.raw().vm_unmap_ram(small, nr), Err(Error::WrongLength { .. })),
            "{nr}"
        );
    }
    assert_eq!(
        vm.raw().vm_unmap_ram(small.add(PAGE), 3),
        Err(Error::NotMapped(small.add(PAGE)))
    );
    assert!(matches!(
        vm.raw().vm_unmap_ram(small.add(1), 4),
        Err(Error::Misaligned(_))
    ));
    assert!(
        matches!(vm.raw().vfree(small), Err(Error::WrongKind { .. })),
        "the block is nobody's to free"
    );
    vm.raw().vm_unmap_ram(small, 4).unwrap();
    assert_eq!(vm.raw().vm_unmap_ram(small, 4), Err(Error::NotMapped(small)));
    vm.raw().vm_unmap_ram(beside, 4).unwrap();
    let large = vm.vm_map_ram(&frames[..]).unwrap();
    assert!(matches!(
        vm.raw().vm_unmap_ram(large, 39),
        Err(Error::WrongLength { .. })
    ));
    vm.raw().vm_unmap_ram(large, 40).unwrap();
    assert!(matches!(vm.raw().vm_unmap_ram(large, 40), Err(Error::Freed(_))));
    assert!(matches!(vm.vm_map_ram::<[Pfn]>(&[]), Err(Error::Empty)));
    free(&vm, &frames);
    vm.shrink();
    assert_empty(&vm);
}

#[test]
fn a_mapping_that_fails_leaves_its_pages_free() {
    let vm = vm();
    let frames = frames(&vm, 4);
    for k in 0..3 {
        vm.backend().model.fail_alloc_after(k);
        assert!(matches!(vm.vm_map_ram(&frames[..]), Err(Error::Map(_))));
        vm.backend().model.cancel_alloc_failure();
        vm.shrink();
        assert_eq!(vm.usage().areas, 0);
        vm.backend().tree().prune(vm.range()).unwrap();
    }
    let va = vm.vm_map_ram(&frames[..]).unwrap();
    vm.raw().vm_unmap_ram(va, 4).unwrap();
    free(&vm, &frames);
    vm.shrink();
    assert_empty(&vm);
}

#[test]
fn each_cpu_has_its_block_and_any_cpu_may_unmap() {
    let vm = lazy_on(4, 100, 1 << 20);
    let frames = frames(&vm, 32);
    let mut numbers = Numbers(5);
    let mut live: Vec<(VirtAddr, u64, usize)> = Vec::new();
    for round in 0..600 {
        vm.backend().go_to(numbers.below(4) as usize);
        if numbers.below(3) != 0 && live.len() < 40 {
            let nr = 1 + numbers.below(32);
            let first = numbers.below(33 - nr) as usize;
            let va = vm.vm_map_ram(&frames[first..first + nr as usize]).unwrap();
            for (other, pages, _) in &live {
                let apart = va.0 + nr * PAGE <= other.0 || other.0 + pages * PAGE <= va.0;
                assert!(apart, "two mappings overlap");
            }
            live.push((va, nr, first));
        } else if !live.is_empty() {
            let index = numbers.below(live.len() as u64) as usize;
            let (va, nr, first) = live.swap_remove(index);
            for page in 0..nr {
                let frame = frames[first + page as usize];
                assert_eq!(vm.vmalloc_to_pfn(va.add(page * PAGE)), Ok(frame));
            }
            vm.raw().vm_unmap_ram(va, nr).unwrap();
            vm.backend()
                .model
                .va_reused(paging::VirtRange::new(va, nr * PAGE));
        }
        if round % 100 == 0 {
            vm.vm_unmap_aliases();
        }
        assert_consistent(&vm);
    }
    for (va, nr, _) in live {
        vm.raw().vm_unmap_ram(va, nr).unwrap();
    }
    free(&vm, &frames);
    vm.shrink();
    assert_empty(&vm);
}
