//! Bugs that other systems reported.
//!
//! - asterinas 1214, 2779, 2868; ruxos 141; SerenityOS 5162: rounding up overflows:
//!   `any_size_at_any_alignment_is_refused_or_right`
//! - Linux bdebd6a2831b; asterinas: a copy overruns:
//!   `a_read_at_any_place_of_any_length_stays_in_the_region`
//! - Linux fc1e0d980037: a flush skips a full `vm_map_ram` block:
//!   `a_full_block_leaves_no_translation_behind`
//! - Linux ac0476e8ca2e: `vm_map_ram` of no pages:
//!   `short_mappings_of_every_length_end_by_their_own_length`
//! - Linux 7cf85e2f0fb2: the last page belongs to no area:
//!   `each_byte_of_the_last_page_is_the_areas`
//! - nuttx 15556: unmap by an address never mapped: `a_device_is_unmapped_by_its_first_page_alone`
//! - Linux 5ea8ec74c57c, 70d1eb031a68: reads use the old size: `what_is_read_follows_the_size`
//! - phoenix-rtos-kernel 829: a kernel mapping is not global and outlives its invalidation:
//!   `each_kind_of_area_is_global_and_not_for_user_code`
//! - Linux fc2c22693c60: a listing retakes its lock:
//!   `anything_may_be_called_while_areas_are_listed`
//! - zephyr 72706; osv 1397: tables are miscounted: `tables_come_and_go_with_their_last_page`
//! - edk2 9095: a page of a read-only block cannot become writable:
//!   `a_page_of_a_read_only_block_is_writable_again`

use super::*;

const EXTREMES: [u64; 22] = [
    0,
    1,
    2,
    3,
    PAGE - 1,
    PAGE,
    PAGE + 1,
    K64 - 1,
    K64,
    M2 - 1,
    M2,
    M2 + 1,
    1 << 30,
    1 << 46,
    (1 << 46) + 1,
    1 << 47,
    1 << 52,
    1 << 62,
    1 << 63,
    u64::MAX - PAGE,
    u64::MAX - PAGE + 1,
    u64::MAX,
];

fn access(vm: &Vm, cpu: usize, va: VirtAddr, access: Access) -> bool {
    vm.backend().go_to(cpu);
    let done = vm.backend().model.cpu(cpu).access(va, access).is_ok();
    vm.backend().go_to(0);
    done
}

fn two_cpus() -> Vm {
    let features = Features {
        cpus: 2,
        ..Features::default()
    };
    vm_with(1 << 34, features, Config::default())
}

fn frames(vm: &Vm, nr: u64) -> Vec<Pfn> {
    (0..nr).map(|_| vm.backend().alloc_frames(0).unwrap()).collect()
}

fn free(vm: &Vm, frames: &[Pfn]) {
    for frame in frames {
        vm.backend().free_frames(*frame, 0);
    }
}

#[test]
fn any_size_at_any_alignment_is_refused_or_right() {
    let vm = vm();
    let all = vm.range();
    let kept = vm.vmalloc(3).unwrap();
    for size in EXTREMES {
        for align in EXTREMES {
            let request = Request::new(size).aligned(align);
            let wait = [request, request.huge(), request.zeroed()].map(|request| vm.allocate(&request));
            let nowait = [request.nowait(), request.huge().nowait()].map(|request| vm.allocate(&request));
            let stack = vm.alloc_stack_aligned(size, align);
            let addresses = vm.get_vm_area(size, align);
            let possible = size != 0 && align.is_power_of_two();
            for made in wait.into_iter().chain(nowait).chain([stack]) {
                match made {
                    Ok(area) => {
                        assert!(possible && size < RAM_SIZE && area.va().is_aligned(align));
                        assert_eq!(
                            (area.size(), area.range().size),
                            (size, size.div_ceil(PAGE) * PAGE)
                        );
                        assert!(all.contains(area.range().start) && all.contains(area.range().last()));
                    }
                    Err(error) => assert!(
                        !possible || size > M2 + 1 || align >= 1 << 46,
                        "{size:#x} at {align:#x}: {error}"
                    ),
                }
            }
            match addresses {
                Ok(area) => {
                    assert!(possible && size <= 1 << 46 && area.va().is_aligned(align));
                    assert!(all.contains(area.range().start) && all.contains(area.range().last()));
                }
                Err(error) => assert!(
                    !possible || size >= 1 << 46 || align >= 1 << 46,
                    "addresses, {size:#x} at {align:#x}: {error}"
                ),
            }
            let pa = PhysAddr(align);
            for area in [vm.ioremap(pa, size), vm.ioremap_cache(pa, size)]
                .into_iter()
                .flatten()
            {
                assert!(size != 0 && u128::from(align) + u128::from(size) <= 1 << 48);
                assert_eq!(area.translate(0), Some(pa));
                assert_eq!(area.translate(size - 1), Some(PhysAddr(align + (size - 1))));
                assert_eq!(area.translate(size), None);
                assert_eq!(area.translate(u64::MAX), None);
            }
            a_part_is_refused_or_there(&vm, &kept, align, size);
        }
    }
    drop(kept);
    vm.vm_unmap_aliases();
    assert_empty(&vm);
}

fn a_part_is_refused_or_there(vm: &Vm, area: &VmArea<'_, Machine>, offset: u64, size: u64) {
    let whole = offset == 0 && size == PAGE;
    for result in [
        area.set_memory_ro(offset, size),
        area.set_memory_nx(offset, size),
        area.set_memory_rw(offset, size),
        area.set_memory_valid(offset, size),
    ] {
        assert_eq!(result.is_ok(), whole, "{offset:#x} {size:#x}: {result:?}");
    }
    for va in [VirtAddr(offset), area.va().add(offset)] {
        let raw = vm.raw();
        for result in [
            raw.vfree(va),
            raw.vunmap(va),
            raw.iounmap(va),
            raw.free_vm_area(va),
            raw.vfree_atomic(va),
            raw.vm_unmap_ram(va, size),
            raw.vrealloc(va, size).map(drop),
            raw.set_memory_ro(va, size).map(drop),
            raw.set_memory_invalid(va, size).map(drop),
        ] {
            assert!(result.is_err(), "{va}: a handle has what is there");
        }
        let here = area.range().contains(va);
        assert_eq!(vm.find_vm_area(va).is_some(), here, "{va}");
        assert_eq!(vm.vmalloc_to_pfn(va).is_ok(), here, "{va}");
        assert_eq!(vm.next_vm_area(va).is_some(), va <= area.va(), "{va}");
        assert_eq!(vm.physical_address(va), None);
    }
}

#[test]
fn a_read_at_any_place_of_any_length_stays_in_the_region() {
    let vm = vm();
    let area = vm.vzalloc(2 * PAGE).unwrap();
    let (all, memory) = (vm.range(), area.range());
    let mut buffer = std::vec![0; 3 * PAGE as usize];
    for base in [
        0,
        all.start.0,
        all.end().0,
        u64::MAX,
        1 << 63,
        memory.start.0,
        memory.end().0,
    ] {
        for delta in [-4097i64, -4096, -1, 0, 1, 4095, 4096, 8191] {
            let va = VirtAddr(base.wrapping_add_signed(delta));
            for len in [0usize, 1, 2, 4095, 4096, 4097, 8192, 12288] {
                let end = u128::from(va.0) + len as u128;
                let inside = va >= all.start && end <= u128::from(all.start.0) + u128::from(all.size);
                buffer.fill(0xff);
                let read = vm.vread(va, &mut buffer[..len]);
                assert_eq!(read.is_ok(), inside, "{len} bytes at {va}: {read:?}");
                let Ok(read) = read else {
                    continue;
                };
                let from = va.0.max(memory.start.0);
                let to = (va.0 + len as u64).min(memory.end().0);
                assert_eq!(read as u64, to.saturating_sub(from), "{len} bytes at {va}");
                assert!(
                    buffer[..len].iter().all(|byte| *byte == 0),
                    "all of it is written"
                );
                assert!(
                    buffer[len..].iter().all(|byte| *byte == 0xff),
                    "and nothing beyond"
                );
            }
        }
    }
    drop(area);
    assert_empty(&vm);
}

#[test]
fn a_full_block_leaves_no_translation_behind() {
    let vm = two_cpus();
    let pages = frames(&vm, BLOCK_PAGES);
    let (first, second) = pages.split_at(MAX_SMALL as usize);
    let halves = [first, second].map(|half| vm.vm_map_ram(half).unwrap());
    assert_eq!(
        halves[1].offset_from(halves[0]),
        MAX_SMALL * PAGE,
        "one block, full"
    );
    for page in 0..BLOCK_PAGES {
        assert!((0..2).all(|cpu| access(&vm, cpu, halves[0].add(page * PAGE), Access::Read)));
    }
    for (va, half) in halves.into_iter().zip([first, second]) {
        vm.raw().vm_unmap_ram(va, MAX_SMALL).unwrap();
        for page in 0..MAX_SMALL {
            assert!((0..2).all(|cpu| !access(&vm, cpu, va.add(page * PAGE), Access::Read)));
        }
        vm.vm_unmap_aliases();
        free(&vm, half);
        assert_sound(&vm);
    }
    assert_empty(&vm);
}

#[test]
fn short_mappings_of_every_length_end_by_their_own_length() {
    let vm = vm();
    let pages = frames(&vm, 2 * BLOCK_PAGES + 2);
    assert_eq!(vm.vm_map_ram::<[Pfn]>(&[]), Err(Error::Empty));
    for nr in [1, 2, 31, 32, 33, 63, 64, 65, 127, 128, 129] {
        let va = vm.vm_map_ram(&pages[..nr as usize]).unwrap();
        for wrong in [0, nr - 1, nr + 1, 1 << 40, 1 << 52, u64::MAX] {
            let refused = vm.raw().vm_unmap_ram(va, wrong);
            assert!(
                matches!(refused, Err(Error::WrongLength { .. })),
                "{nr} as {wrong}: {refused:?}"
            );
        }
        for offset in [1, PAGE, nr * PAGE - 1, nr * PAGE, 0u64.wrapping_sub(PAGE)] {
            let refused = vm.raw().vm_unmap_ram(va.add(offset), nr);
            assert!(refused.is_err(), "{nr} from {offset:#x} on");
        }
        for page in 0..nr {
            assert_eq!(vm.vmalloc_to_pfn(va.add(page * PAGE)), Ok(pages[page as usize]));
        }
        vm.raw().vm_unmap_ram(va, nr).unwrap();
        assert!(vm.raw().vm_unmap_ram(va, nr).is_err(), "{nr}, twice");
    }
    free(&vm, &pages);
    vm.vm_unmap_aliases();
    assert_empty(&vm);
}

#[test]
fn each_byte_of_the_last_page_is_the_areas() {
    let vm = vm();
    let areas = [
        vm.vmalloc(3 * PAGE - 7).unwrap(),
        vm.ioremap(PhysAddr(0x900_0123), 2 * PAGE).unwrap(),
        vm.alloc_stack(2 * PAGE).unwrap(),
        vm.vmalloc_huge(M2 + 5).unwrap(),
    ];
    for area in &areas {
        let last = area.range().last();
        for back in [0, 1, 8, PAGE - 1] {
            let byte = VirtAddr(last.0 - back);
            assert_eq!(vm.find_vm_area(byte), Some(area.info()));
            assert!(vm.vmalloc_to_pfn(byte).is_ok());
            assert_eq!(vm.physical_address(byte).is_some(), area.kind() == Kind::Ioremap);
        }
        for byte in [last.add(1), last.add(PAGE)] {
            assert_eq!(vm.find_vm_area(byte), None);
            assert!(vm.vmalloc_to_pfn(byte).is_err());
            assert_eq!(vm.physical_address(byte), None);
        }
    }
    drop(areas);
    assert_empty(&vm);
}

#[test]
fn a_device_is_unmapped_by_its_first_page_alone() {
    let vm = vm();
    for offset in [0, 1, 0x123, 0xfff] {
        for byte in [0, 1, 0x7ff, 0xfff] {
            let area = vm.ioremap(PhysAddr(0x900_0000 + offset), 3 * PAGE).unwrap();
            let page = area.into_raw().align_down(PAGE);
            for other in [PAGE, 2 * PAGE + 5, 4 * PAGE, u64::MAX] {
                assert!(vm.raw().iounmap(page.add(other)).is_err(), "{other:#x}");
            }
            assert!(vm.raw().vunmap(page).is_err() && vm.raw().vfree(page).is_err());
            vm.raw().iounmap(page.add(byte)).unwrap();
            let again = vm.raw().iounmap(page.add(byte));
            assert!(matches!(again, Err(Error::Freed(_))), "{again:?}");
        }
    }
    assert_empty(&vm);
}

#[test]
fn what_is_read_follows_the_size() {
    let vm = vm();
    let mut area = vm.vzalloc(4 * PAGE).unwrap();
    let word = |page: u64| 0x1111 * (page + 1);
    for page in 0..4 {
        let frame = vm.vmalloc_to_pfn(area.va().add(page * PAGE)).unwrap();
        vm.backend().write_word(frame, 0, word(page));
    }
    let assert_read = |area: &VmArea<'_, Machine>, pages: u64| {
        let mut out = std::vec![0xff; 6 * PAGE as usize];
        let read = vm.vread(area.va(), &mut out).unwrap();
        assert_eq!(read as u64, pages * PAGE, "its pages, and neither guard nor more");
        for page in 0..4u64 {
            let at = (page * PAGE) as usize;
            assert_eq!(out[at..at + 8], word(page).to_le_bytes(), "page {page}");
        }
        assert!(out[(pages * PAGE) as usize..].iter().all(|byte| *byte == 0));
    };
    for size in [4 * PAGE, 3 * PAGE + 1, PAGE, 1, 4 * PAGE] {
        let va = area.va();
        area.vrealloc(size).unwrap();
        assert_eq!((area.va(), area.size()), (va, size));
        assert_eq!(area.info().range, area.range());
        assert_read(&area, 4);
    }
    for size in [0, RAM_SIZE + 1, 1 << 46, 1 << 63, u64::MAX] {
        assert!(area.vrealloc(size).is_err(), "{size:#x}");
        assert_read(&area, 4);
    }
    area.vrealloc(4 * PAGE + 1).unwrap();
    assert_read(&area, 5);
    drop(area);
    assert_empty(&vm);
}

#[test]
fn each_kind_of_area_is_global_and_not_for_user_code() {
    const NOT_GLOBAL: u64 = 1 << 11;
    const USER: u64 = 1 << 6;
    const USER_EXECUTE_NEVER: u64 = 1 << 54;
    let vm = vm();
    let pages = frames(&vm, 1);
    let sparse = vm.get_vm_area(PAGE, 1).unwrap();
    sparse.map_pages(0, &pages[..], Attributes::KERNEL_TEXT).unwrap();
    let areas = [
        vm.vmalloc(PAGE).unwrap(),
        vm.vmap(&pages[..]).unwrap(),
        vm.vmap_pfn(&[Pfn(0x9000)][..], Attributes::DEVICE).unwrap(),
        vm.ioremap(PhysAddr(0x900_0000), PAGE).unwrap(),
        vm.ioremap_wc(PhysAddr(0x900_0000), PAGE).unwrap(),
        vm.ioremap_np(PhysAddr(0x900_0000), PAGE).unwrap(),
        vm.ioremap_cache(PhysAddr(0x900_0000), PAGE).unwrap(),
        vm.alloc_stack(PAGE).unwrap(),
        sparse,
    ];
    let short = vm.vm_map_ram(&pages[..]).unwrap();
    for va in areas.iter().map(VmArea::va).chain([short]) {
        let bits = attributes_at(&vm, va).bits();
        assert_eq!(bits & (NOT_GLOBAL | USER), 0, "{va}");
        assert_ne!(bits & USER_EXECUTE_NEVER, 0, "{va}");
    }
    vm.raw().vm_unmap_ram(short, 1).unwrap();
    drop(areas);
    free(&vm, &pages);
    vm.vm_unmap_aliases();
    assert_empty(&vm);
}

#[test]
fn anything_may_be_called_while_areas_are_listed() {
    let vm = vm();
    let areas: Vec<_> = (1..40).map(|i| vm.vmalloc(i * PAGE).unwrap()).collect();
    let mut nr = 0;
    vm.vmallocinfo(|listing| {
        nr += 1;
        let start = listing.info.range.start;
        vm.vread(start, &mut [0; 64]).unwrap();
        assert_eq!(vm.find_vm_area(start), Some(listing.info));
        assert_eq!(vm.next_vm_area(start), Some(listing.info));
        drop(vm.vmalloc(PAGE).unwrap());
        vm.vmallocinfo(|_| {});
        vm.vm_unmap_aliases();
    });
    assert_eq!(nr, areas.len());
    drop(areas);
    assert_empty(&vm);
}

#[test]
fn tables_come_and_go_with_their_last_page() {
    const PAGES: u64 = 1 << 20;
    let vm = vm();
    let tables = vm.backend().model.nr_tables();
    let sparse = vm.get_vm_area(PAGES * PAGE, 1 << 30).unwrap();
    let devices: Vec<_> = (0..700).map(|i| Pfn(0x30_0060 + 2 * i)).collect();
    let mut numbers = Numbers(0x1234_5678_9abc_def1);
    let mut mapped: Vec<(u64, u64)> = Vec::new();
    let unmap = |(at, nr): (u64, u64)| sparse.unmap_pages(at * PAGE, nr * PAGE).map(drop);
    for _ in 0..400 {
        let end = !mapped.is_empty() && (mapped.len() > 12 || numbers.below(3) == 0);
        if end {
            let gone = numbers.below(mapped.len() as u64) as usize;
            unmap(mapped.swap_remove(gone)).unwrap();
        } else {
            let nr = 1 + numbers.below(700);
            let at = numbers.below(PAGES) & !0x3ff;
            let overlaps = |(other, pages): &(u64, u64)| at < other + pages && *other < at + nr;
            if at + nr <= PAGES && !mapped.iter().any(overlaps) {
                let frames = &devices[..nr as usize];
                sparse.map_pages(at * PAGE, frames, Attributes::DEVICE).unwrap();
                mapped.push((at, nr));
            }
        }
        vm.backend().model.assert_clean();
    }
    mapped.into_iter().try_for_each(unmap).unwrap();
    vm.vm_unmap_aliases();
    assert_eq!(
        vm.backend().model.nr_tables(),
        tables + 1,
        "the region's own, below the root, stays"
    );
    drop(sparse);
    assert_empty(&vm);
}

#[test]
fn a_page_of_a_read_only_block_is_writable_again() {
    let vm = vm_with_linear_map(2, Config::default());
    let area = vm.vmalloc_huge(M2).unwrap();
    area.set_memory_ro(0, M2).unwrap();
    area.set_memory_rw(7 * PAGE, PAGE).unwrap();
    for page in [6, 7, 8] {
        let va = area.va().add(page * PAGE);
        let frame = vm.vmalloc_to_pfn(va).unwrap();
        for at in [va, VirtAddr(LINEAR + frame.0 * PAGE)] {
            assert!((0..2).all(|cpu| access(&vm, cpu, at, Access::Write) == (page == 7)));
        }
    }
    drop(area);
    assert_empty(&vm);
}
