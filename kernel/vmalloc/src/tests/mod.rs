mod arrays;
mod bad_input;
mod bounds;
mod broken_callers;
#[path = "../../tests/support/by_address.rs"]
mod by_address;
mod contexts;
mod deferred;
mod every_failure;
mod executable;
mod failures;
mod foreign;
mod guessed;
mod lazy;
mod linux_bugs;
mod locks;
mod machine;
mod map_ram;
mod others_bugs;
mod per_cpu;
mod permissions;
mod pieces;
mod pressure;
mod ram;
mod random;
mod read;
mod resize;
mod whole_api;

use crate::*;
use by_address::ByAddress;
use machine::*;
use mmu_model::{Access, Features};
use paging::{Attributes, Extent, LeafSize, MemoryType, Pfn, PhysAddr, VirtAddr};
use std::string::ToString;
use std::vec::Vec;

fn assert_maps(area: &VmArea<'_, Machine>, vm: &Vm, expected: impl Fn(u64) -> PhysAddr) {
    let range = area.range();
    let model = vm.backend().model;
    for page in 0..range.size / PAGE {
        let va = range.start.add(page * PAGE);
        let found = model.translate(va).map(|found| found.pa);
        assert_eq!(found, Some(expected(page).0), "page {page} of {area:?}");
        let pfn = vm.vmalloc_to_pfn(va).unwrap();
        assert_eq!(pfn.0, expected(page).0 / PAGE);
        assert_eq!(vm.find_vm_area(va.add(PAGE - 1)), Some(area.info()));
    }
    assert!(model.translate(range.end()).is_none(), "the guard page is mapped");
    assert_eq!(vm.vmalloc_to_pfn(range.end()), Err(Error::NotMapped(range.end())));
    assert_eq!(vm.find_vm_area(range.end()), None);
}

fn attributes_at(vm: &Vm, va: VirtAddr) -> Attributes {
    let leaf = vm.backend().tree().translate(va).unwrap();
    leaf.attributes
}

#[test]
fn one_page_comes_and_goes_and_leaves_nothing() {
    let vm = vm();
    let area = vm.vmalloc(1).unwrap();
    assert_eq!((area.va(), area.size(), area.kind()), (REGION, 1, Kind::Vmalloc));
    assert_eq!(vm.usage().areas, 1);
    assert_eq!(vm.usage().pages, 2, "the guard is part of it");
    assert_eq!(vm.backend().ram().used(), 1);
    assert_eq!(attributes_at(&vm, area.va()), Attributes::KERNEL_DATA);
    let pa = area.translate(0).unwrap();
    assert_maps(&area, &vm, |_| pa);
    drop(area);
    assert_empty(&vm);
}

#[test]
fn vmalloc_takes_large_blocks_and_maps_them_large() {
    let vm = vm();
    for (size, leaves) in [
        (PAGE, (0, 0, 1)),
        (15 * PAGE, (0, 0, 15)),
        (K64, (0, 1, 0)),
        (K64 + 1, (0, 1, 1)),
        (M2, (1, 0, 0)),
        (5 * M2 / 2 + PAGE, (2, 16, 1)),
        (3 * M2, (3, 0, 0)),
    ] {
        let area = vm.vmalloc(size).unwrap();
        let got = &area.outcome().leaves;
        let got = (
            got.get(LeafSize::BLOCK2),
            got.get(LeafSize::PAGE_GROUP),
            got.get(LeafSize::PAGE),
        );
        assert_eq!(got, leaves, "{size:#x} bytes");
        assert_eq!(
            vm.backend().ram().used(),
            size.div_ceil(PAGE),
            "exactly what was asked for"
        );
        drop(area);
        assert_empty(&vm);
    }
}

#[test]
fn vmalloc_huge_takes_blocks_beyond_2m() {
    let vm = vm();
    let area = vm.vmalloc_huge(33 << 20).unwrap();
    assert_eq!(area.outcome().leaves.get(LeafSize::BLOCK2_GROUP), 1);
    assert_eq!(area.va().0 % (32 << 20), 0);
    drop(area);
    let area = vm.vmalloc(33 << 20).unwrap();
    assert_eq!(area.outcome().leaves.get(LeafSize::BLOCK2), 16);
    assert_eq!(
        vm.backend().ram().used(),
        (33 << 20) / PAGE + 1,
        "and a list of 17 blocks"
    );
    drop(area);
    assert_empty(&vm);
}

#[test]
fn vzalloc_zeroes_every_page_and_vmalloc_none() {
    let vm = vm();
    let zeroed = vm.vzalloc(37 * PAGE).unwrap();
    let plain = vm.vmalloc(37 * PAGE).unwrap();
    for page in 0..37 {
        let pfn = |area: &VmArea<'_, Machine>| vm.vmalloc_to_pfn(area.va().add(page * PAGE)).unwrap();
        assert!(vm.backend().ram().is_zeroed(pfn(&zeroed)));
        assert!(!vm.backend().ram().is_zeroed(pfn(&plain)));
    }
    drop((zeroed, plain));
    assert_empty(&vm);
}

/// Linux bug 8.
#[test]
fn what_fell_back_to_small_blocks_is_mapped_as_what_it_is() {
    for largest in 0..10 {
        let vm = vm();
        vm.backend().ram().largest = largest;
        let area = vm.vmalloc_huge(4 << 20).unwrap();
        let tree = vm.backend().tree();
        let mut frames = Vec::new();
        for page in 0..1024 {
            frames.push(tree.translate(area.va().add(page * PAGE)).unwrap());
        }
        let mut pfns: Vec<_> = (0..1024)
            .map(|page| vm.vmalloc_to_pfn(area.va().add(page * PAGE)).unwrap().0)
            .collect();
        pfns.sort_unstable();
        pfns.dedup();
        assert_eq!(pfns.len(), 1024);
        assert!(pfns.iter().all(|pfn| vm.backend().ram().is_given(Pfn(*pfn))));
        drop(area);
        assert_empty(&vm);
    }
}

#[test]
fn an_order_that_there_is_none_of_is_asked_for_once() {
    let vm = vm();
    vm.backend().ram().largest = 2;
    let area = vm.vmalloc_huge(8 << 20).unwrap();
    assert_eq!(vm.backend().ram().refused, 11 - 2, "order 11 down to 3");
    drop(area);
    assert_empty(&vm);
}

#[test]
fn many_small_blocks_go_to_a_list_and_come_back() {
    let vm = vm();
    vm.backend().ram().largest = 0;
    let pages = 2 * 511 + 9;
    let area = vm.vmalloc(pages * PAGE).unwrap();
    assert_eq!(
        vm.backend().ram().used(),
        pages + 3,
        "1028 blocks in three list pages"
    );
    drop(area);
    assert_empty(&vm);
}

#[test]
fn four_blocks_are_kept_with_the_area_and_three_before_a_list() {
    for pages in 1..8 {
        let vm = vm();
        vm.backend().ram().largest = 0;
        let area = vm.vmalloc(pages * PAGE).unwrap();
        let list = u64::from(pages > 4);
        assert_eq!(vm.backend().ram().used(), pages + list, "{pages} blocks");
        let mut frames: Vec<_> = (0..pages).map(|page| area.translate(page * PAGE)).collect();
        let mut area = area;
        area.vrealloc(9 * PAGE).unwrap();
        assert!((0..pages).all(|page| frames.contains(&area.translate(page * PAGE))));
        drop(area);
        assert_empty(&vm);
        frames = (0..pages)
            .map(|_| vm.backend().alloc_frames(0).map(|frame| PhysAddr(frame.0 * PAGE)))
            .collect();
        let given: Vec<_> = frames.iter().map(|pa| Pfn(pa.unwrap().0 / PAGE)).collect();
        let area = vm.raw().vmap_put_pages(&given[..]).unwrap();
        assert_eq!(vm.backend().ram().used(), pages + 1, "and a list");
        drop(area);
        assert_empty(&vm);
    }
}

#[test]
fn an_alignment_is_kept() {
    let vm = vm();
    let first = vm.vmalloc(1).unwrap();
    for shift in 0..30 {
        let area = vm.allocate(&Request::new(3 * PAGE).aligned(1 << shift)).unwrap();
        assert_eq!(area.va().0 % (1 << shift), 0);
    }
    let area = vm.allocate(&Request::new(M2).aligned(1 << 30).zeroed()).unwrap();
    assert_eq!(area.va().0 % (1 << 30), 0);
    assert_eq!(area.outcome().leaves.get(LeafSize::BLOCK2), 1);
    drop((first, area));
    assert_empty(&vm);
}

#[test]
fn a_stack_has_a_guard_page_of_its_own_on_either_side() {
    let vm = vm();
    let below = vm.vmalloc(PAGE).unwrap();
    let stack = vm.alloc_stack(4 * PAGE).unwrap();
    let range = stack.range();
    assert_eq!(stack.kind(), Kind::Stack);
    assert_eq!(
        range.start,
        below.range().end().add(2 * PAGE),
        "its guard and its neighbour's"
    );
    let tree = vm.backend().tree();
    assert!(tree.translate(range.start.add(0u64.wrapping_sub(1))).is_none());
    assert!(tree.translate(range.end()).is_none());
    let pfn = vm.vmalloc_to_pfn(range.last()).unwrap();
    assert!(vm.backend().ram().is_zeroed(pfn));
    let va = stack.into_raw();
    vm.raw().vfree(va).unwrap();
    drop(below);
    assert_empty(&vm);
}

#[test]
fn an_aligned_stack_begins_at_a_multiple_above_its_guard() {
    let vm = vm();
    let below = vm.vmalloc(PAGE).unwrap();
    let stacks = [(); 3].map(|()| vm.alloc_stack_aligned(4 * PAGE, 8 * PAGE).unwrap());
    let tree = vm.backend().tree();
    for stack in &stacks {
        let range = stack.range();
        assert_eq!(range.start.0 % (8 * PAGE), 0);
        assert_eq!((range.size, stack.kind()), (4 * PAGE, Kind::Stack));
        assert!(tree.translate(range.start.add(0u64.wrapping_sub(1))).is_none());
        assert!(tree.translate(range.end()).is_none());
    }
    assert_eq!(
        vm.alloc_stack_aligned(PAGE, 3 * PAGE).err(),
        Some(Error::BadAlignment { align: 3 * PAGE })
    );
    drop((below, stacks));
    assert_empty(&vm);
}

#[test]
fn ioremap_is_congruent_so_that_large_leaves_happen_at_odd_places() {
    let vm = vm();
    let first = vm.vmalloc(1).unwrap();
    // 1 group, 1 block, 2 groups, 1 page.
    let pa = PhysAddr(0x1020_0000 - K64);
    let area = vm.ioremap(pa, K64 + M2 + 2 * K64 + PAGE).unwrap();
    let leaves = &area.outcome().leaves;
    assert_eq!(leaves.get(LeafSize::BLOCK2), 1);
    assert_eq!(leaves.get(LeafSize::PAGE_GROUP), 3);
    assert_eq!(leaves.get(LeafSize::PAGE), 1);
    assert_eq!(attributes_at(&vm, area.va()), Attributes::DEVICE);
    assert_maps(&area, &vm, |page| pa.add(page * PAGE));
    assert_eq!(vm.physical_address(area.va().add(PAGE)), Some(pa));
    drop((area, first));
    assert_empty(&vm);
}

#[test]
fn ioremap_keeps_the_offset_in_the_page() {
    let vm = vm();
    for (pa, size, pages) in [
        (0x0900_0010, 4, 1),
        (0x0900_0ffc, 4, 1),
        (0x0900_0ffd, 4, 2),
        (0x0900_0fff, 0x1002, 3),
    ] {
        let area = vm.ioremap(PhysAddr(pa), size).unwrap();
        assert_eq!(area.va().0 % PAGE, pa % PAGE);
        assert_eq!(area.range().size, pages * PAGE);
        assert_eq!((area.size(), area.kind()), (size, Kind::Ioremap));
        for offset in [0, size - 1] {
            assert_eq!(area.translate(offset), Some(PhysAddr(pa + offset)));
        }
        assert_eq!(area.translate(size), None);
        let info = area.info();
        assert_eq!((info.va, info.size, info.range), (area.va(), size, area.range()));
        assert_eq!(vm.find_vm_area(area.range().start), Some(info));
        assert_eq!(vm.find_vm_area(area.range().last()), Some(info));
        assert_eq!(vm.next_vm_area(area.va()), Some(info));
        assert_eq!(vm.next_vm_area(area.va().add(1)), None);
        let said = info.to_string();
        assert!(said.contains(&area.va().to_string()), "{said}");
        assert!(said.contains(&area.range().end().to_string()), "{said}");
        let va = area.into_raw();
        vm.raw().iounmap(va).unwrap();
        assert_empty(&vm);
    }
}

#[test]
fn each_ioremap_has_its_memory_type() {
    let vm = vm();
    let pa = PhysAddr(0x0900_0000);
    for (area, memory) in [
        (vm.ioremap(pa, 1), MemoryType::DEVICE_NGNRE),
        (vm.ioremap_wc(pa, 1), MemoryType::NORMAL_NC),
        (vm.ioremap_np(pa, 1), MemoryType::DEVICE_NGNRNE),
        (vm.ioremap_cache(pa, 1), MemoryType::NORMAL),
    ] {
        let attributes = attributes_at(&vm, area.unwrap().va());
        assert_eq!(attributes.memory(), memory);
        assert!(attributes.is_writable() && !attributes.is_executable());
    }
    assert_empty(&vm);
}

#[test]
fn ram_is_refused_unless_cacheable() {
    let vm = vm();
    for (pa, size, has_ram) in [
        (RAM, 1, true),
        (RAM - PAGE, PAGE, false),
        (RAM - PAGE, PAGE + 1, true),
        (RAM - 1, 1, false),
        (RAM - 0x800, 0x801, true),
        (RAM + RAM_SIZE - 1, 2, true),
        (RAM + RAM_SIZE - 1, 1, true),
        (RAM + RAM_SIZE, 1, false),
        (0, RAM + RAM_SIZE + PAGE, true),
    ] {
        let pa = PhysAddr(pa);
        let ram = Error::Ram { pa, size };
        for refused in [
            vm.ioremap(pa, size),
            vm.ioremap_wc(pa, size),
            vm.ioremap_np(pa, size),
        ] {
            assert_eq!(refused.err(), has_ram.then_some(ram), "{pa} + {size:#x}");
        }
        assert!(vm.ioremap_cache(pa, size).is_ok());
    }
    assert_empty(&vm);
}

#[test]
fn vmap_of_a_block_that_begins_inside_2m_still_uses_2m() {
    let vm = vm();
    let first = vm.vmalloc(1).unwrap();
    let start = (RAM + 3 * M2 / 4) / PAGE;
    let frames: Vec<_> = (start..start + 768).map(Pfn).collect();
    let area = vm.vmap(&frames[..]).unwrap();
    assert_eq!(area.outcome().leaves.get(LeafSize::BLOCK2), 1);
    assert_maps(&area, &vm, |page| PhysAddr((start + page) * PAGE));
    let extents = [
        Extent {
            start: Pfn(start),
            pages: 700,
        },
        Extent {
            start: Pfn(start + 700),
            pages: 68,
        },
    ];
    let same = vm.vmap_extents(&extents).unwrap();
    assert_eq!(same.outcome().leaves, area.outcome().leaves);
    assert_maps(&same, &vm, |page| PhysAddr((start + page) * PAGE));
    drop((first, area, same));
    assert_empty(&vm);
}

#[test]
fn vmap_takes_shuffled_and_repeated_pages_and_leaves_them_to_their_owner() {
    let vm = vm();
    let mut numbers = Numbers(11);
    let frames: Vec<_> = (0..300).map(|_| Pfn(RAM / PAGE + numbers.below(200))).collect();
    let area = vm.vmap(&frames[..]).unwrap();
    assert_maps(&area, &vm, |page| PhysAddr(frames[page as usize].0 * PAGE));
    let va = area.into_raw();
    vm.raw().vunmap(va).unwrap();
    let read_only = vm.vmap_as(&frames[..1], Attributes::KERNEL_RODATA).unwrap();
    assert!(!attributes_at(&vm, read_only.va()).is_writable());
    drop(read_only);
    assert_empty(&vm);
}

#[test]
fn mixed_orders_are_mapped_page_by_page_right() {
    let lists: [&[u32]; 7] = [
        &[8, 8, 8, 8],
        &[4, 8, 8, 8],
        &[8, 4, 8, 8],
        &[4, 9, 9],
        &[5, 7, 7, 7, 7, 7, 7, 7, 7],
        &[9, 8, 4],
        &[8, 8, 4, 4, 0],
    ];
    for orders in lists {
        let vm = vm();
        let mut blocks = Vec::new();
        let mut frames = Vec::new();
        for order in orders {
            let first = vm.backend().alloc_frames(*order).unwrap();
            let hole = vm.backend().alloc_frames(*order).unwrap();
            vm.backend().free_frames(hole, *order);
            blocks.push((first, *order));
            frames.extend((0..1 << order).map(|i| Pfn(first.0 + i)));
        }
        let area = vm.vmap(&frames[..]).unwrap();
        assert_maps(&area, &vm, |page| PhysAddr(frames[page as usize].0 * PAGE));
        assert_eq!(
            area.outcome().leaves.get(LeafSize::PAGE),
            frames.len() as u32 % 16
        );
        drop(area);
        for (first, order) in blocks {
            vm.backend().free_frames(first, order);
        }
        assert_empty(&vm);
    }
}

#[test]
fn a_reserved_area_is_mapped_and_unmapped_in_parts() {
    let vm = vm();
    let area = vm.get_vm_area(8 * M2, M2).unwrap();
    let model = vm.backend().model;
    assert!(vm.find_vm_area(area.va()).is_some());
    assert!(vm.backend().tree().translate(area.va()).is_none());
    let frames: Vec<_> = (0..1024).map(|i| Pfn(RAM / PAGE + i)).collect();
    let outcome = area
        .map_pages(2 * M2, &frames[..], Attributes::KERNEL_DATA)
        .unwrap();
    assert_eq!(outcome.leaves.get(LeafSize::BLOCK2), 2);
    // Linux bug 17: the rest of the block stays.
    area.unmap_pages(2 * M2 + 5 * PAGE, PAGE).unwrap();
    for page in 0..1024 {
        let va = area.va().add(2 * M2 + page * PAGE);
        let found = model.translate(va).map(|found| found.pa);
        assert_eq!(found, (page != 5).then_some(RAM + page * PAGE), "page {page}");
    }
    let taken = area.map_pages(2 * M2, &frames[..1], Attributes::KERNEL_DATA);
    assert!(matches!(taken, Err(Error::Map(paging::Error::Occupied { .. }))));
    let info = area.info();
    for (offset, size) in [
        (0, 8 * M2 + PAGE),
        (8 * M2, PAGE),
        (u64::MAX - PAGE + 1, PAGE),
        (PAGE, 8 * M2),
    ] {
        assert_eq!(
            area.unmap_pages(offset, size),
            Err(Error::OutOfBounds {
                offset,
                size,
                area: info
            })
        );
    }
    assert_eq!(area.unmap_pages(0, 0), Err(Error::Empty));
    assert!(matches!(area.unmap_pages(1, PAGE), Err(Error::Misaligned(_))));
    assert!(matches!(area.unmap_pages(0, 1), Err(Error::Misaligned(_))));
    assert_sound(&vm);
    let va = area.into_raw();
    vm.raw().free_vm_area(va).unwrap();
    assert_empty(&vm);
}

#[test]
fn only_reserved_areas_are_mapped_in_parts() {
    let vm = vm();
    let area = vm.vmalloc(M2).unwrap();
    let expected = Error::WrongKind {
        area: area.info(),
        expected: Kind::Reserved,
    };
    assert_eq!(area.unmap_pages(0, PAGE), Err(expected));
    drop(area);
    assert_empty(&vm);
}

#[test]
fn a_strict_free_is_one_flush() {
    for (size, tlbi) in [(PAGE, 1), (8 * PAGE, 8), (K64, 16), (M2, 1)] {
        let vm = vm();
        let beside = vm.get_vm_area(4 * M2, M2).unwrap();
        beside
            .map_pages(0, &[Pfn(RAM / PAGE)][..], Attributes::KERNEL_DATA)
            .unwrap();
        let area = vm.vmalloc(size).unwrap();
        let keep = vm.vmalloc(PAGE).unwrap();
        let expected = Issued {
            dsb_ishst: 1,
            dsb_ish: 1,
            isb: 1,
            tlbi,
        };
        assert_eq!(issued_by(&vm, || drop(area)), expected, "{size:#x} bytes");
        drop((beside, keep));
        assert_empty(&vm);
    }
}

#[test]
fn a_map_is_one_barrier_of_each_kind_and_no_invalidation() {
    let vm = vm();
    let mut area = None;
    let issued = issued_by(&vm, || area = Some(vm.vmalloc(100 * PAGE).unwrap()));
    assert_eq!(
        issued,
        Issued {
            dsb_ishst: 1,
            dsb_ish: 0,
            isb: 1,
            tlbi: 0
        }
    );
    drop(area);
    assert_empty(&vm);
}

#[test]
fn an_access_reaches_what_is_mapped_and_faults_afterwards() {
    let vm = vm();
    let area = vm.vmalloc(3 * PAGE).unwrap();
    let cpu = vm.backend().model.cpu(0);
    for page in 0..3 {
        let va = area.va().add(page * PAGE);
        cpu.access(va, Access::Write).unwrap();
        assert!(cpu.access(va, Access::Execute).is_err());
    }
    let va = area.va();
    drop(area);
    assert!(cpu.access(va, Access::Read).is_err());
    assert_empty(&vm);
}

#[test]
fn listing_goes_from_area_to_area() {
    let vm = vm();
    let areas: Vec<_> = (1..6).map(|pages| vm.vmalloc(pages * PAGE).unwrap()).collect();
    let mut listed = Vec::new();
    let mut at = VirtAddr(0);
    while let Some(area) = vm.next_vm_area(at) {
        listed.push(area);
        at = area.va.add(1);
    }
    assert!(listed.iter().copied().eq(areas.iter().map(VmArea::info)));
    assert!(
        listed
            .iter()
            .all(|area| area.caller.file().ends_with("tests/mod.rs"))
    );
    assert!(vm.next_vm_area(vm.range().end()).is_none());
    drop(areas);
    assert_empty(&vm);
}

#[test]
fn the_region_is_what_is_vmalloc() {
    let vm = vm_with(512, Features::default(), Config::default());
    assert!(vm.is_vmalloc_addr(REGION) && vm.is_vmalloc_addr(REGION.add(512 * PAGE - 1)));
    assert!(!vm.is_vmalloc_addr(REGION.add(512 * PAGE)) && !vm.is_vmalloc_addr(VirtAddr(REGION.0 - 1)));
    let outside = REGION.add(512 * PAGE);
    assert_eq!(vm.vmalloc_to_pfn(outside), Err(Error::Outside(outside)));
}
