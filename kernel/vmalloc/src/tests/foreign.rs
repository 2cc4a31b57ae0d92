use super::*;

const NOTHING: Issued = Issued {
    dsb_ishst: 0,
    dsb_ish: 0,
    isb: 0,
    tlbi: 0,
};

fn vm_of(foreign: ForeignPages) -> Vm {
    let config = Config {
        flush: FlushPolicy::Lazy {
            areas: 1000,
            pages: 1 << 20,
        },
        foreign,
        ..Config::default()
    };
    let features = Features {
        cpus: 2,
        ..Features::default()
    };
    vm_with(1 << 34, features, config)
}

fn can_access(vm: &Vm, va: VirtAddr) -> bool {
    let possible = vm.backend().model.cpu(1).possible(va, Access::Read);
    possible.iter().any(Result::is_ok)
}

type Pair = (&'static str, fn(&Vm, Pfn) -> VirtAddr, fn(&Vm, VirtAddr));

const PAIRS: [Pair; 5] = [
    (
        "vunmap",
        |vm, frame| vm.vmap(&[frame; 40][..]).unwrap().into_raw(),
        |vm, va| vm.raw().vunmap(va).unwrap(),
    ),
    (
        "vm_unmap_ram",
        |vm, frame| vm.vm_map_ram(&[frame][..]).unwrap(),
        |vm, va| vm.raw().vm_unmap_ram(va, 1).unwrap(),
    ),
    (
        "vm_unmap_ram of an area",
        |vm, frame| vm.vm_map_ram(&[frame; 40][..]).unwrap(),
        |vm, va| vm.raw().vm_unmap_ram(va, 40).unwrap(),
    ),
    (
        "iounmap of RAM",
        |vm, frame| {
            let pa = PhysAddr(frame.0 * PAGE);
            vm.ioremap_cache(pa, PAGE).unwrap().into_raw()
        },
        |vm, va| vm.raw().iounmap(va).unwrap(),
    ),
    (
        "free_vm_area",
        |vm, frame| {
            let area = vm.get_vm_area(PAGE, 1).unwrap();
            area.map_pages(0, &[frame][..], Attributes::KERNEL_DATA).unwrap();
            area.into_raw()
        },
        |vm, va| vm.raw().free_vm_area(va).unwrap(),
    ),
];

#[test]
fn by_default_no_tlb_knows_the_pages_when_the_call_returns() {
    assert_eq!(Config::default().foreign, ForeignPages::Flush);
    for (what, map, end) in PAIRS {
        let vm = vm_of(ForeignPages::Flush);
        let frame = vm.backend().alloc_frames(0).unwrap();
        let va = map(&vm, frame);
        assert!(can_access(&vm, va), "{what}");
        let issued = issued_by(&vm, || end(&vm, va));
        assert_eq!((issued.dsb_ish, issued.isb), (1, 1), "{what}");
        assert!(issued.tlbi != 0 && !can_access(&vm, va), "{what}");
        vm.backend().free_frames(frame, 0);
        vm.shrink();
        assert_empty(&vm);
    }
}

#[test]
fn deferred_they_are_unmapped_at_once_and_a_tlb_may_know_them_until_the_flush() {
    for (what, map, end) in PAIRS {
        for by in [0, 1] {
            let vm = vm_of(ForeignPages::Defer);
            let frame = vm.backend().alloc_frames(0).unwrap();
            let va = map(&vm, frame);
            vm.backend().go_to(1);
            let reached = vm.backend().model.cpu(1).access(va, Access::Read);
            assert!(reached.is_ok(), "{what}");
            vm.backend().go_to(by);
            assert_eq!(issued_by(&vm, || end(&vm, va)), NOTHING, "{what} on CPU {by}");
            assert!(vm.vmalloc_to_pfn(va).is_err(), "{what}: nothing is mapped");
            assert!(can_access(&vm, va), "{what}: the hazard");
            let next = map(&vm, frame);
            assert_ne!(next, va, "{what}: the addresses wait");
            end(&vm, next);
            vm.vm_unmap_aliases();
            assert!(!can_access(&vm, va) && !can_access(&vm, next), "{what}");
            vm.backend().free_frames(frame, 0);
            vm.backend().go_to(0);
            vm.shrink();
            assert_empty(&vm);
        }
    }
}

#[test]
#[should_panic]
fn a_frame_that_is_freed_before_the_flush_is_noticed() {
    let vm = vm_of(ForeignPages::Defer);
    let frame = vm.backend().alloc_frames(0).unwrap();
    let va = vm.vm_map_ram(&[frame][..]).unwrap();
    assert!(can_access(&vm, va));
    vm.raw().vm_unmap_ram(va, 1).unwrap();
    vm.backend().free_frames(frame, 0);
    assert_sound(&vm);
}

#[test]
fn strict_means_all_pages() {
    let config = Config {
        foreign: ForeignPages::Defer,
        ..Config::default()
    };
    let vm = vm_with(1 << 34, Features::default(), config);
    let frame = vm.backend().alloc_frames(0).unwrap();
    for (what, map, end) in PAIRS {
        let va = map(&vm, frame);
        assert!(issued_by(&vm, || end(&vm, va)).tlbi != 0, "{what}");
    }
    vm.backend().free_frames(frame, 0);
    vm.shrink();
    assert_empty(&vm);
}

#[test]
fn deferred_small_mappings_use_up_blocks_and_what_waits_has_a_bound() {
    let vm = vm_of(ForeignPages::Defer);
    let frame = vm.backend().alloc_frames(0).unwrap();
    let kept = vm.vm_map_ram(&[frame][..]).unwrap();
    let mut flushes = 0;
    for round in 0..100_000u64 {
        let va = vm.vm_map_ram(&[frame; 3][..]).unwrap();
        let issued = issued_by(&vm, || vm.raw().vm_unmap_ram(va, 3).unwrap());
        flushes += u64::from(issued != NOTHING);
        assert!(vm.raw().vm_unmap_ram(va, 3).is_err(), "a second time");
        if round % 1000 == 0 {
            let waiting = vm.usage().lazy;
            assert!(waiting.0 < 1000 / 3, "{waiting:?}");
            assert!(vm.usage().areas <= 2, "{:?}", vm.usage());
        }
    }
    let blocks = 100_000 / (BLOCK_PAGES / 3);
    assert!(vm.usage().pieces < 1 << 16, "{:?}", vm.usage());
    assert!(flushes <= blocks, "{flushes} flushes of {blocks} blocks");
    assert_eq!(vm.vmalloc_to_pfn(kept), Ok(frame));
    vm.raw().vm_unmap_ram(kept, 1).unwrap();
    vm.vm_unmap_aliases();
    vm.backend().free_frames(frame, 0);
    vm.shrink();
    assert_empty(&vm);
}
