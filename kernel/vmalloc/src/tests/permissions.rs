//! In the area and the linear map, all or nothing, undone at the free.

use super::*;
use paging::Leaf;

fn leaf(vm: &Vm, va: VirtAddr) -> Leaf {
    vm.backend().tree().walk(va).unwrap().leaf.expect("a leaf")
}

fn alias(vm: &Vm, area: &VmArea<'_, Machine>, page: u64) -> Leaf {
    let range = area.range();
    let pa = leaf(vm, range.start.add(page * PAGE)).translate(range.start.add(page * PAGE));
    leaf(vm, VirtAddr(LINEAR + pa.0))
}

fn linear_leaves(vm: &Vm) -> paging::LeafCounts {
    let mut leaves = paging::LeafCounts::default();
    let range = paging::VirtRange::new(VirtAddr(LINEAR + RAM), RAM_SIZE);
    vm.backend()
        .tree()
        .visit(range, |leaf| {
            leaves.add(leaf.size, 1);
            paging::Visit::Continue
        })
        .unwrap();
    leaves
}

fn assert_pages(vm: &Vm, area: &VmArea<'_, Machine>, expected: impl Fn(u64) -> (bool, bool)) {
    for page in 0..area.range().size / PAGE {
        let (writable, valid) = expected(page);
        let own = leaf(vm, area.range().start.add(page * PAGE));
        let other = alias(vm, area, page);
        assert_eq!(
            (own.attributes.is_writable(), own.valid),
            (writable, valid),
            "page {page}"
        );
        assert_eq!(
            (other.attributes.is_writable(), other.valid),
            (writable, valid),
            "alias of page {page}"
        );
        assert!(!other.attributes.is_executable());
    }
}

fn vm() -> Vm {
    vm_with_linear_map(2, Config::default())
}

/// Linux bugs 10 and 11.
#[test]
fn linux_bug_10_and_11_a_slice_of_a_huge_area_changes_whole_and_alone() {
    for (first, nr) in [
        (0, 1),
        (100, 7),
        (16, 16),
        (511, 1),
        (500, 30),
        (0, 512),
        (3, 1020),
        (0, 1024),
    ] {
        let vm = vm();
        let whole = linear_leaves(&vm);
        let area = vm.vmalloc(2 * M2).unwrap();
        area.set_memory_ro(first * PAGE, nr * PAGE).unwrap();
        let inside = |page| (first..first + nr).contains(&page);
        assert_pages(&vm, &area, |page| (!inside(page), true));
        assert_sound(&vm);
        area.set_memory_rw(first * PAGE, nr * PAGE).unwrap();
        assert_pages(&vm, &area, |_| (true, true));
        drop(area);
        assert_empty(&vm);
        assert_eq!(linear_leaves(&vm), whole, "the linear map is folded again");
    }
}

#[test]
fn pages_that_are_invalid_fault_by_both_addresses_and_keep_their_frames() {
    let vm = vm();
    let area = vm.vmalloc(M2).unwrap();
    let frame = vm.vmalloc_to_pfn(area.va().add(33 * PAGE)).unwrap();
    area.set_memory_invalid(33 * PAGE, 3 * PAGE).unwrap();
    assert_pages(&vm, &area, |page| (true, !(33..36).contains(&page)));
    let cpu = vm.backend().model.cpu(0);
    assert!(cpu.access(area.va().add(33 * PAGE), Access::Read).is_err());
    assert!(
        cpu.access(VirtAddr(LINEAR + frame.0 * PAGE), Access::Read)
            .is_err()
    );
    assert!(cpu.access(area.va().add(36 * PAGE), Access::Read).is_ok());
    area.set_memory_valid(33 * PAGE, 3 * PAGE).unwrap();
    assert_pages(&vm, &area, |_| (true, true));
    assert_eq!(vm.vmalloc_to_pfn(area.va().add(33 * PAGE)), Ok(frame));
    area.set_memory_invalid(0, M2).unwrap();
    drop(area);
    assert_empty(&vm);
}

#[test]
fn executable_is_only_what_is_read_only_and_never_the_alias() {
    let vm = vm();
    let area = vm.vmalloc(M2).unwrap();
    let refused = area.set_memory_x(PAGE, PAGE);
    assert!(
        matches!(refused, Err(Error::Map(paging::Error::WritableExecutable(_)))),
        "{refused:?}"
    );
    area.set_memory_ro(PAGE, PAGE).unwrap();
    area.set_memory_x(PAGE, PAGE).unwrap();
    assert!(leaf(&vm, area.va().add(PAGE)).attributes.is_executable());
    assert!(!leaf(&vm, area.va()).attributes.is_executable());
    assert!(!alias(&vm, &area, 1).attributes.is_executable());
    let refused = area.set_memory_rw(0, 3 * PAGE);
    assert!(
        matches!(refused, Err(Error::Map(paging::Error::WritableExecutable(_)))),
        "{refused:?}"
    );
    assert_pages(&vm, &area, |page| (page != 1, true));
    area.set_memory_nx(PAGE, PAGE).unwrap();
    area.set_memory_rw(0, 3 * PAGE).unwrap();
    assert_pages(&vm, &area, |_| (true, true));
    drop(area);
    assert_empty(&vm);
}

#[test]
fn any_table_may_be_missing_and_neither_area_nor_alias_changes() {
    let mut failed = 0;
    for k in 0.. {
        let vm = vm();
        let whole = linear_leaves(&vm);
        let holes: Vec<_> = (0..6).map(|_| vm.vmalloc(5 * PAGE).unwrap()).collect();
        let mut holes = holes
            .into_iter()
            .enumerate()
            .filter_map(|(i, area)| (i % 2 == 0).then_some(area))
            .collect::<Vec<_>>();
        let area = vm.vmalloc(M2 + 40 * PAGE).unwrap();
        let tables = vm.backend().model.nr_tables();
        vm.backend().model.fail_alloc_after(k);
        let result = area.set_memory_ro(3 * PAGE, M2);
        let hit = !vm.backend().model.cancel_alloc_failure();
        if result.is_ok() {
            assert!(failed != 0 && !hit, "the {k}th table is not asked for");
            drop((area, holes));
            assert_empty(&vm);
            break;
        }
        failed += 1;
        assert!(
            matches!(result, Err(Error::Map(paging::Error::OutOfTables(_)))),
            "{result:?}"
        );
        assert_pages(&vm, &area, |_| (true, true));
        assert_eq!(linear_leaves(&vm), whole, "folded again");
        assert_eq!(vm.backend().model.nr_tables(), tables);
        holes.clear();
        drop(area);
        assert_empty(&vm);
    }
    assert!(failed >= 2, "the linear map and the area are split");
}

/// `VM_FLUSH_RESET_PERMS`.
#[test]
fn a_changed_area_is_freed_at_once_with_its_alias_restored() {
    let config = Config {
        flush: FlushPolicy::Lazy {
            areas: 1000,
            pages: 1 << 30,
        },
        ..Config::default()
    };
    let vm = vm_with_linear_map(2, config);
    let whole = linear_leaves(&vm);
    let area = vm.vmalloc(9 * PAGE).unwrap();
    let frames: Vec<_> = (0..9).map(|page| area.translate(page * PAGE).unwrap()).collect();
    area.set_memory_ro(PAGE, 3 * PAGE).unwrap();
    area.set_memory_x(PAGE, 2 * PAGE).unwrap();
    let used = vm.backend().ram().used();
    drop(area);
    assert_eq!(vm.usage().lazy.0, 0);
    assert!(vm.backend().ram().used() < used, "its frames are free");
    for pa in frames {
        assert_eq!(
            leaf(&vm, VirtAddr(LINEAR + pa.0)).attributes,
            Attributes::KERNEL_DATA
        );
    }
    assert_eq!(linear_leaves(&vm), whole);
    assert_empty(&vm);
}

#[test]
fn raw_areas_are_changed_by_any_address_in_them() {
    let vm = vm();
    let va = vm.vmalloc(20 * PAGE).unwrap().into_raw();
    vm.raw().set_memory_ro(va.add(4 * PAGE), 2 * PAGE).unwrap();
    assert!(!leaf(&vm, va.add(5 * PAGE)).attributes.is_writable());
    assert!(leaf(&vm, va.add(6 * PAGE)).attributes.is_writable());
    assert!(matches!(
        vm.raw().set_memory_ro(va.add(19 * PAGE), 2 * PAGE),
        Err(Error::OutOfBounds { .. })
    ));
    assert!(matches!(vm.raw().set_memory_ro(va, 0), Err(Error::Empty)));
    assert!(matches!(
        vm.raw().set_memory_ro(va.add(8), PAGE),
        Err(Error::Misaligned(_))
    ));
    assert!(matches!(
        vm.raw().set_memory_ro(va.add(20 * PAGE), PAGE),
        Err(Error::Guard { .. })
    ));
    assert!(matches!(
        vm.raw().set_memory_ro(VirtAddr(LINEAR + RAM), PAGE),
        Err(Error::Outside(_))
    ));
    vm.raw().vfree(va).unwrap();
    assert!(matches!(vm.raw().set_memory_ro(va, PAGE), Err(Error::Freed(_))));
    let held = vm.vmalloc(PAGE).unwrap();
    assert!(matches!(
        vm.raw().set_memory_ro(held.va(), PAGE),
        Err(Error::Owned(_))
    ));
    drop(held);
    assert_empty(&vm);
}

#[test]
fn what_does_not_own_its_frames_is_not_changed() {
    let vm = vm();
    let device = vm.ioremap(PhysAddr(0x900_0000), PAGE).unwrap();
    assert!(matches!(
        device.set_memory_ro(0, PAGE),
        Err(Error::WrongKind { .. })
    ));
    let frame = vm.backend().alloc_frames(0).unwrap();
    let mapped = vm.vmap(&[frame][..]).unwrap();
    assert!(matches!(
        mapped.set_memory_x(0, PAGE),
        Err(Error::WrongKind { .. })
    ));
    drop((device, mapped));
    vm.backend().free_frames(frame, 0);
    assert_empty(&vm);
}

#[test]
fn random_changes_equal_a_page_model() {
    let vm = vm_with_linear_map(3, Config::default());
    let whole = linear_leaves(&vm);
    let mut numbers = Numbers(11);
    let area = vm.vmalloc_huge(3 * M2 + 77 * PAGE).unwrap();
    let pages = area.range().size / PAGE;
    let mut model: Vec<(bool, bool)> = std::vec![(true, true); pages as usize];
    for step in 0..60 {
        vm.backend().go_to(numbers.below(3) as usize);
        let first = numbers.below(pages);
        let nr = (1 + numbers.below(600)).min(pages - first);
        let range = first as usize..(first + nr) as usize;
        let (offset, size) = (first * PAGE, nr * PAGE);
        match numbers.below(4) {
            0 => {
                area.set_memory_ro(offset, size).unwrap();
                model[range].iter_mut().for_each(|page| page.0 = false);
            }
            1 => {
                area.set_memory_rw(offset, size).unwrap();
                model[range].iter_mut().for_each(|page| page.0 = true);
            }
            2 => {
                area.set_memory_invalid(offset, size).unwrap();
                model[range].iter_mut().for_each(|page| page.1 = false);
            }
            _ => {
                area.set_memory_valid(offset, size).unwrap();
                model[range].iter_mut().for_each(|page| page.1 = true);
            }
        }
        if step % 10 == 0 {
            assert_pages(&vm, &area, |page| model[page as usize]);
        }
        assert_sound(&vm);
    }
    assert_pages(&vm, &area, |page| model[page as usize]);
    drop(area);
    assert_empty(&vm);
    assert_eq!(linear_leaves(&vm), whole);
}

#[test]
fn whatever_order_areas_end_in_the_linear_map_is_whole_again() {
    for seed in 1..=6 {
        let vm = vm_with_linear_map(2, Config::default());
        let whole = linear_leaves(&vm);
        let mut numbers = Numbers(seed);
        let mut areas = Vec::new();
        for _ in 0..40 {
            if numbers.below(3) == 0 && !areas.is_empty() {
                let at = numbers.below(areas.len() as u64) as usize;
                drop(areas.swap_remove(at));
            }
            let pages = [1, 2, 7, 16, 33, 100, 512, 700][numbers.below(8) as usize];
            let area = vm.vmalloc_huge(pages * PAGE).unwrap();
            for _ in 0..numbers.below(3) {
                let first = numbers.below(pages);
                let size = (1 + numbers.below(pages - first)) * PAGE;
                match numbers.below(3) {
                    0 => area.set_memory_invalid(first * PAGE, size).unwrap(),
                    1 => area.set_memory_rw(first * PAGE, size).unwrap(),
                    _ => area.set_memory_ro(first * PAGE, size).unwrap(),
                };
            }
            areas.push(area);
        }
        while !areas.is_empty() {
            let at = numbers.below(areas.len() as u64) as usize;
            drop(areas.swap_remove(at));
            assert_sound(&vm);
        }
        assert_eq!(linear_leaves(&vm), whole, "seed {seed}");
        assert_empty(&vm);
    }
}
