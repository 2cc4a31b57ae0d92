//! Bugs that Linux had in this area: tests of the engine are in `paging/tests/linux_bugs.rs`, those
//! of many CPUs in `tests/concurrent`. A test checks this list.
//!
//! - 1: `bug_1_nobody_walks_a_table_that_a_block_replaces`,
//!   `bug_1_the_lock_around_walks_is_never_taken_twice`
//! - 2: `bug_2_the_levels_written_are_reported_when_the_map_fails_half_way`
//! - 3: `bug_3_a_failed_map_leaves_no_barrier_owing`,
//!   `bug_3_an_allocation_that_fails_half_way_owes_no_barrier`
//! - 4: an interrupt defers barriers: `bug_4_a_map_in_an_exception_owes_nothing`
//! - 5: `bug_5_the_array_is_followed_page_by_page_over_leaves_of_all_sizes`,
//!   `bug_5_and_7_each_page_of_a_vmap_is_that_of_the_array`
//! - 6: the cache is flushed from the wrong address; cannot be: AArch64's data caches are
//!   physically tagged, and no mapping here flushes them
//! - 7: `bug_7_no_leaf_reaches_over_the_end_of_its_run`,
//!   `bug_5_and_7_each_page_of_a_vmap_is_that_of_the_array`
//! - 8: `bug_8_an_array_that_falls_back_to_single_pages_is_mapped_by_what_it_holds`,
//!   `bug_8_what_fell_back_half_way_is_mapped_as_what_it_is`
//! - 9: `bug_9_each_page_of_a_huge_area_is_a_page`
//! - 10: `bug_10_a_permission_change_is_all_or_nothing`,
//!   `bug_10_a_slice_of_a_huge_area_changes_whole_or_not_at_all`
//! - 11: `bug_11_rights_change_inside_the_range_and_nowhere_else`,
//!   `bug_11_the_alias_of_the_slice_changes_and_of_nothing_else`
//! - 12: `bug_12_a_block_where_a_table_was_meets_no_stale_link`,
//!   `bug_12_an_area_of_blocks_where_one_of_pages_was_meets_no_stale_link`
//! - 13: `bug_13_blocks_are_met_and_in_place_is_never_a_default`
//! - 14: `bug_14_a_cut_at_the_edge_of_a_leaf_changes_nothing`,
//!   `bug_14_a_slice_that_ends_where_leaves_do_splits_nothing`
//! - 15: `bug_15_every_stage_of_a_split_reads_the_tables_anew`
//! - 16: `bug_16_kept_ranges_are_dropped_and_given_out_on_all_cpus`
//! - 17: `bug_17_unmapping_part_of_a_leaf_leaves_the_rest`,
//!   `bug_17_a_part_of_a_block_goes_and_the_rest_stays`
//! - 18: `bug_18_a_fold_invalidates_every_page_it_replaces`,
//!   `bug_18_the_linear_map_is_folded_without_a_trace`
//! - 19: `bug_19_contiguous_groups_are_on_unless_someone_turns_them_off`,
//!   `bug_19_areas_of_64k_are_groups`

use super::*;
use paging::Leaf;
use std::collections::BTreeMap;
use std::format;
use std::string::{String, ToString};

fn leaf(vm: &Vm, va: VirtAddr) -> Leaf {
    vm.backend().tree().walk(va).unwrap().leaf.expect("a leaf")
}

fn linear() -> Vm {
    vm_with_linear_map(2, Config::default())
}

fn alias(vm: &Vm, area: &VmArea<'_, Machine>, page: u64) -> VirtAddr {
    let frame = vm.vmalloc_to_pfn(area.va().add(page * PAGE)).unwrap();
    VirtAddr(LINEAR + frame.0 * PAGE)
}

/// Bug 1: the lock that keeps walks out was taken inside one that lets them in. Locks here panic if
/// taken twice or out of order.
#[test]
fn bug_1_the_lock_around_walks_is_never_taken_twice() {
    for config in [
        Config::default(),
        Config {
            flush: FlushPolicy::Lazy { areas: 1, pages: 1 },
            ..Config::default()
        },
    ] {
        let vm = vm_with_linear_map(1, config);
        vm.backend().ram().largest = 0;
        drop(vm.allocate(&Request::new(2 * M2).aligned(M2)).unwrap());
        vm.backend().ram().largest = 9;
        let mut area = vm.allocate(&Request::new(2 * M2).aligned(M2)).unwrap();
        area.vrealloc(3 * M2).unwrap();
        area.set_memory_ro(PAGE, PAGE).unwrap();
        vm.vmallocinfo(|_| ());
        vm.vread(area.va(), &mut [0; 8]).unwrap();
        drop(area);
        vm.vm_unmap_aliases();
        assert_empty(&vm);
    }
}

#[test]
fn bug_3_an_allocation_that_fails_half_way_owes_no_barrier() {
    let vm = vm();
    let keep = vm.vmalloc(PAGE).unwrap();
    for hole in [0, 1, 300, 599] {
        let mut frames: Vec<_> = (0..600).map(|i| Some(Pfn(RAM / PAGE + 2 * i))).collect();
        frames[hole] = None;
        let missing = Error::Map(paging::Error::NoFrame { page: hole as u64 });
        assert_eq!(vm.vmap(&frames[..]).err(), Some(missing));
        vm.backend().model.assert_quiescent();
        let issued = issued_by(&vm, || drop(vm.get_vm_area(PAGE, PAGE).unwrap()));
        assert_eq!(
            (issued.dsb_ish, issued.tlbi),
            (0, 0),
            "nothing is left for the next call"
        );
    }
    drop(keep);
    assert_empty(&vm);
}

#[test]
fn bug_4_a_map_in_an_exception_owes_nothing() {
    let vm = vm();
    let keep = vm.vmalloc(PAGE).unwrap();
    let request = Request::new(3 * PAGE).nolock();
    let mut areas = Vec::new();
    let outside = issued_by(&vm, || areas.push(vm.allocate(&request).unwrap()));
    let inside = issued_by(&vm, || {
        in_exception(|| areas.push(vm.allocate(&request).unwrap()));
    });
    assert_eq!(inside, outside);
    vm.backend().model.assert_quiescent();
    let cpu = vm.backend().model.cpu(0);
    cpu.access(areas[1].va(), Access::Write).unwrap();
    drop((areas, keep));
    assert_empty(&vm);
}

/// Chunks of ascending order at an offset that fits none.
#[test]
fn bug_5_and_7_each_page_of_a_vmap_is_that_of_the_array() {
    for orders in [
        &[4, 8, 8, 8][..],
        &[8, 4, 8, 8],
        &[5, 7, 7, 7],
        &[0, 4, 9, 9, 1],
        &[9, 8, 4],
    ] {
        let vm = vm();
        let mut at = RAM / PAGE;
        let mut frames = Vec::new();
        for order in orders {
            at = at.next_multiple_of(1 << order);
            frames.extend((at..at + (1 << order)).map(Pfn));
            at += (1 << order) + 1;
        }
        let area = vm.vmap(&frames[..]).unwrap();
        assert_maps(&area, &vm, |page| PhysAddr(frames[page as usize].0 * PAGE));
        drop(area);
        assert_empty(&vm);
    }
}

#[test]
fn bug_8_what_fell_back_half_way_is_mapped_as_what_it_is() {
    for blocks in 0..4 {
        let vm = vm();
        let mut held: Vec<_> = (0..RAM_SIZE / M2 - blocks)
            .map(|_| vm.backend().alloc_frames(9).unwrap())
            .collect();
        let cut = held.split_off(held.len() - 8);
        for first in &cut {
            vm.backend().free_frames(*first, 9);
        }
        let odd: Vec<_> = (0..8 * 512)
            .filter_map(|_| vm.backend().alloc_frames(0))
            .collect();
        for frame in odd.iter().filter(|frame| frame.0.is_multiple_of(2)) {
            vm.backend().free_frames(*frame, 0);
        }
        let area = vm.vmalloc_huge(3 * M2).unwrap();
        let mut seen = BTreeMap::new();
        for page in 0..area.range().size / PAGE {
            let frame = vm.vmalloc_to_pfn(area.va().add(page * PAGE)).unwrap();
            assert!(
                vm.backend().ram().is_given(frame),
                "page {page} is of memory of its own"
            );
            assert!(
                !odd.contains(&frame) || frame.0.is_multiple_of(2),
                "page {page} is another's"
            );
            assert_eq!(seen.insert(frame.0, page), None, "page {page} is there twice");
        }
        assert_eq!(
            u64::from(area.outcome().leaves.get(LeafSize::BLOCK2)),
            blocks.min(3)
        );
        drop(area);
        for frame in odd.iter().filter(|frame| !frame.0.is_multiple_of(2)) {
            vm.backend().free_frames(*frame, 0);
        }
        for first in held {
            vm.backend().free_frames(first, 9);
        }
        assert_empty(&vm);
    }
}

#[test]
fn bug_9_each_page_of_a_huge_area_is_a_page() {
    let vm = linear();
    let area = vm.vmalloc_huge(M2).unwrap();
    assert_eq!(area.outcome().leaves.get(LeafSize::BLOCK2), 1);
    for page in [0, 1, 15, 16, 255, 511] {
        let frame = vm.vmalloc_to_pfn(area.va().add(page * PAGE)).unwrap();
        let elsewhere = vm.vmap(&[frame][..]).unwrap();
        let cpu = vm.backend().model.cpu(0);
        let there = cpu.access(elsewhere.va().add(8), Access::Write).unwrap();
        let here = cpu.access(area.va().add(page * PAGE + 8), Access::Read).unwrap();
        assert_eq!(there, here, "page {page}");
        drop(elsewhere);
        assert!(vm.backend().ram().is_given(frame), "it is still the area's");
    }
    drop(area);
    assert_empty(&vm);
}

#[test]
fn bug_10_a_slice_of_a_huge_area_changes_whole_or_not_at_all() {
    let vm = linear();
    let area = vm.vmalloc_huge(2 * M2).unwrap();
    let rights = |vm: &Vm| -> Vec<_> {
        let both = |page| [area.va().add(page * PAGE), alias(vm, &area, page)];
        (0..1024)
            .flat_map(both)
            .map(|va| leaf(vm, va).attributes)
            .collect()
    };
    let before = rights(&vm);
    let mut failures = 0;
    for k in 0.. {
        vm.backend().model.fail_alloc_after(k);
        let result = area.set_memory_ro(M2 - 3 * PAGE, 7 * PAGE);
        let failed = !vm.backend().model.cancel_alloc_failure();
        assert_eq!(result.is_err(), failed);
        if !failed {
            break;
        }
        failures += 1;
        assert_eq!(rights(&vm), before, "table {k} was missing");
        assert_sound(&vm);
    }
    assert!(failures >= 2, "two blocks are cut");
    let changed = rights(&vm);
    let read_only = changed.iter().filter(|rights| !rights.is_writable()).count();
    assert_eq!(read_only, 2 * 7);
    drop(area);
    assert_empty(&vm);
}

#[test]
fn bug_11_the_alias_of_the_slice_changes_and_of_nothing_else() {
    let vm = linear();
    let area = vm.vmalloc_huge(M2).unwrap();
    let beside = vm.vmalloc_huge(M2).unwrap();
    area.set_memory_ro(5 * PAGE, 9 * PAGE).unwrap();
    for page in 0..512 {
        let inside = (5..14).contains(&page);
        let own = leaf(&vm, area.va().add(page * PAGE)).attributes;
        assert_eq!(own.is_writable(), !inside, "page {page}");
        let alias_of_own = leaf(&vm, alias(&vm, &area, page)).attributes;
        assert_eq!(alias_of_own.is_writable(), !inside, "alias of page {page}");
        let other = leaf(&vm, alias(&vm, &beside, page)).attributes;
        assert!(other.is_writable(), "alias of page {page} of the next area");
    }
    drop((area, beside));
    assert_empty(&vm);
}

#[test]
fn bug_12_an_area_of_blocks_where_one_of_pages_was_meets_no_stale_link() {
    for vm in [vm(), lazy(1000, 1 << 30)] {
        vm.backend().ram().largest = 0;
        let request = Request::new(M2).aligned(M2);
        let small = vm.allocate(&request).unwrap();
        let at = small.va();
        let cpu = vm.backend().model.cpu(0);
        cpu.access(at.add(3 * PAGE), Access::Read).unwrap();
        drop(small);
        vm.vm_unmap_aliases();
        vm.backend().ram().largest = 9;
        let block = vm.allocate(&request).unwrap();
        assert_eq!(block.va(), at, "at the same address");
        assert_eq!(block.outcome().leaves.get(LeafSize::BLOCK2), 1);
        let pa = block.translate(3 * PAGE);
        assert_eq!(cpu.access(at.add(3 * PAGE), Access::Read).ok(), pa);
        assert_consistent(&vm);
        drop(block);
        assert_empty(&vm);
    }
}

#[test]
fn bug_14_a_slice_that_ends_where_leaves_do_splits_nothing() {
    let vm = linear();
    let area = vm.vmalloc(K64 * 4).unwrap();
    assert_eq!(area.outcome().leaves.get(LeafSize::PAGE_GROUP), 4);
    let outcome = area.set_memory_ro(K64, 2 * K64).unwrap();
    assert_eq!(outcome.tables_added, 0, "{outcome:?}");
    for group in 0..4 {
        let own = leaf(&vm, area.va().add(group * K64));
        assert_eq!(own.size, LeafSize::PAGE_GROUP);
        assert_eq!(own.attributes.is_writable(), group == 0 || group == 3);
    }
    drop(area);
    assert_empty(&vm);
}

#[test]
fn bug_17_a_part_of_a_block_goes_and_the_rest_stays() {
    let vm = vm();
    let area = vm.get_vm_area(2 * M2, M2).unwrap();
    let frames: Vec<_> = (0..1024).map(|i| Pfn(RAM / PAGE + i)).collect();
    area.map_pages(0, &frames[..], Attributes::KERNEL_DATA).unwrap();
    area.unmap_pages(100 * PAGE, 20 * PAGE).unwrap();
    for page in 0..1024 {
        let found = vm.vmalloc_to_pfn(area.va().add(page * PAGE)).ok();
        let expected = (!(100..120).contains(&page)).then_some(frames[page as usize]);
        assert_eq!(found, expected, "page {page}");
    }
    let va = area.va().add(M2);
    assert_eq!(leaf(&vm, va).size, LeafSize::BLOCK2, "the next block is whole");
    drop(area);
    assert_empty(&vm);
}

#[test]
fn bug_18_the_linear_map_is_folded_without_a_trace() {
    let vm = linear();
    let area = vm.vmalloc_huge(M2).unwrap();
    let cpu = vm.backend().model.cpu(0);
    let at = alias(&vm, &area, 0);
    let whole = leaf(&vm, at).size;
    area.set_memory_ro(7 * PAGE, PAGE).unwrap();
    assert_ne!(leaf(&vm, at).size, whole, "it is cut");
    for page in 0..512 {
        cpu.access(at.add(page * PAGE), Access::Read).unwrap();
    }
    drop(area);
    assert_eq!(leaf(&vm, at).size, whole, "it is folded");
    for page in 0..512 {
        cpu.access(at.add(page * PAGE), Access::Write).unwrap();
    }
    vm.backend().model.assert_quiescent();
    assert_empty(&vm);
}

#[test]
fn bug_19_areas_of_64k_are_groups() {
    let vm = vm();
    for size in [K64, 3 * K64, 16 * K64] {
        let area = vm.vmalloc(size).unwrap();
        let leaves = area.outcome().leaves;
        assert_eq!(u64::from(leaves.get(LeafSize::PAGE_GROUP)), size / K64);
        assert_eq!(leaves.get(LeafSize::PAGE), 0);
        drop(area);
    }
    assert_empty(&vm);
}

const FILES: [&str; 3] = [
    "src/tests/linux_bugs.rs",
    "tests/concurrent",
    "../paging/tests/linux_bugs.rs",
];

fn source(file: &str) -> String {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    let read = |path: &std::path::Path| {
        std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    };
    match path.read_dir() {
        Ok(entries) => entries
            .map(|entry| entry.expect("a readable directory").path())
            .filter(|path| path.is_file())
            .map(|path| read(&path))
            .collect(),
        Err(_) => read(&path),
    }
}

fn rows(list: &str) -> Vec<(u32, String)> {
    let mut rows: Vec<(u32, String)> = Vec::new();
    let mut is_item = false;
    for line in list.lines() {
        if let Some((number, text)) = line.strip_prefix("//! - ").and_then(|item| item.split_once(": ")) {
            let number = number.parse().ok();
            is_item = number.is_some();
            rows.extend(number.map(|number| (number, text.to_string())));
        } else if let (true, Some(text), Some((_, row))) =
            (is_item, line.strip_prefix("//!   "), rows.last_mut())
        {
            row.push(' ');
            row.push_str(text);
        } else {
            is_item = false;
        }
    }
    rows
}

fn defects(table: &str, tests: &str) -> Vec<String> {
    let rows = rows(table);
    let numbers: Vec<_> = rows.iter().map(|(number, _)| *number).collect();
    let mut defects = Vec::new();
    if numbers != (1..=19).collect::<Vec<_>>() {
        defects.push(format!("the rows are {numbers:?}"));
    }
    let mut named = Vec::new();
    for (number, kept_by) in &rows {
        let names: Vec<_> = kept_by.split('`').skip(1).step_by(2).collect();
        if names.is_empty() && !kept_by.contains("cannot be: ") {
            defects.push(format!("bug {number} has neither a test nor a reason"));
        }
        for name in names {
            if !tests.contains(&format!("#[test]\nfn {name}()")) {
                defects.push(format!("bug {number}: there is no test {name}"));
            }
            named.push(name);
        }
    }
    for name in tests.split("#[test]\nfn bug_").skip(1) {
        let name = format!("bug_{}", name.split('(').next().unwrap_or(name));
        if !named.contains(&&name[..]) {
            defects.push(format!("{name} is in no row"));
        }
    }
    defects
}

#[test]
fn every_bug_of_the_list_has_its_tests_or_a_reason() {
    let table = source(FILES[0]);
    let tests: String = FILES.iter().map(|file| source(file)).collect();
    assert_eq!(defects(&table, &tests), [""; 0]);
    let without = table.replacen("//! - 16: ", "//! - sixteen: ", 1);
    assert_eq!(defects(&without, &tests).len(), 2, "no row, and a test in no row");
    let without = tests.replacen("fn bug_9_", "fn bug_nine_", 1);
    assert_eq!(defects(&table, &without).len(), 2, "no test, and one in no row");
    let without = table.replacen("; cannot be: ", "; ", 1);
    assert_eq!(
        defects(&without, &tests),
        ["bug 6 has neither a test nor a reason"]
    );
}
