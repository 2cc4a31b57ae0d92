#[allow(
    dead_code,
    unused_imports,
    reason = "shared with other tests, each of which uses some of it"
)]
mod support;

use paging::{Attributes, LeafSet, LeafSize, Pfn, PhysAddr, VirtAddr, VirtRange};
use support::{Area, ByAddress, PAGE, Plant, Rig, Scenario};
use vmalloc::{Backend, Config, Error, FlushPolicy, ForeignPages};

const STRICT: Config = Config {
    leaves: LeafSet::ALL,
    flush: FlushPolicy::Strict,
    cached_areas: 2,
    foreign: ForeignPages::Flush,
};

const fn scenario(schedules: usize, body: fn(&Rig)) -> Scenario {
    Scenario {
        config: STRICT,
        schedules,
        body,
    }
}

fn block_of(rig: &Rig, order: u32) -> (Pfn, Vec<Pfn>) {
    let first = rig.machine().alloc_frames(order).expect("memory suffices");
    (first, (0..1 << order).map(|i| Pfn(first.0 + i)).collect())
}

fn unmap_parts_of_one_leaf(rig: &Rig, order: u32, parts: [VirtRange; 2]) {
    let (first, frames) = block_of(rig, order);
    let size = PAGE << order;
    let area = Area::from(rig.vm.get_vm_area(size, size).expect("addresses suffice"));
    let mapped = area.map_pages(0, &frames[..], Attributes::KERNEL_DATA);
    let leaves = mapped.expect("tables suffice").leaves;
    let nr: u32 = LeafSize::ALL.iter().map(|size| leaves.get(*size)).sum();
    assert_eq!(nr, 1, "{leaves:?}");
    let unmap = |part: VirtRange| {
        area.unmap_pages(part.start.0, part.size)
            .expect("it is in the area");
    };
    rig.at_once(&[&|_| unmap(parts[0]), &|_| unmap(parts[1])]);
    for (page, frame) in (0..).zip(&frames) {
        let gone = parts.iter().any(|part| part.contains(VirtAddr(page * PAGE)));
        let expected = (!gone).then_some(PhysAddr(frame.0 * PAGE));
        assert_eq!(
            area.translate(page * PAGE),
            expected,
            "page {page} of {}",
            frames.len()
        );
    }
    drop(area);
    rig.machine().free_frames(first, order);
}

const fn pages(first: u64, nr: u64) -> VirtRange {
    VirtRange::new(VirtAddr(first * PAGE), nr * PAGE)
}

#[test]
fn two_cpus_take_parts_out_of_one_block() {
    scenario(1500, |rig| {
        unmap_parts_of_one_leaf(rig, 3, [pages(0, 3), pages(5, 3)])
    })
    .holds();
}

#[test]
fn two_cpus_take_parts_out_of_one_group() {
    scenario(1500, |rig| {
        unmap_parts_of_one_leaf(rig, 1, [pages(0, 1), pages(1, 1)])
    })
    .holds();
}

#[test]
fn parts_of_one_block_whose_flush_does_nothing_are_noticed() {
    scenario(500, |rig| {
        unmap_parts_of_one_leaf(rig, 3, [pages(0, 3), pages(5, 3)])
    })
    .catches(
        Plant::NoTlbi,
        &["FrameReused", "VaReused", "StaleAccess", "Break"],
    );
}

const SAME_PAGES: Scenario = scenario(1500, |rig| {
    let frames = [0, 1].map(|_| rig.machine().alloc_frames(0).expect("memory suffices"));
    let area = Area::from(rig.vm.get_vm_area(4 * PAGE, PAGE).expect("addresses suffice"));
    let results = std::sync::Mutex::new(Vec::new());
    let map = |frame: Pfn| {
        let mapped = area.map_pages(PAGE, &[frame; 2][..], Attributes::KERNEL_DATA);
        results.lock().expect("no panic under this lock").push(mapped);
    };
    rig.at_once(&[&|_| map(frames[0]), &|_| map(frames[1])]);
    let mapped = std::mem::take(&mut *results.lock().expect("no panic under this lock"));
    assert_eq!(
        mapped.iter().filter(|mapped| mapped.is_ok()).count(),
        1,
        "{mapped:?}"
    );
    let told = |mapped: &Result<_, _>| matches!(mapped, Err(Error::Map(paging::Error::Occupied { .. })));
    assert!(mapped.iter().any(told), "{mapped:?}");
    assert_eq!(
        area.translate(PAGE),
        area.translate(2 * PAGE),
        "one of the two, whole"
    );
    let unmap = || {
        let unmapped = area.unmap_pages(PAGE, 2 * PAGE);
        results.lock().expect("no panic under this lock").push(unmapped);
    };
    rig.at_once(&[&|_| unmap(), &|_| unmap()]);
    let taken = results
        .lock()
        .expect("no panic under this lock")
        .iter()
        .map(|unmapped| match unmapped {
            Ok(outcome) => outcome.leaves.get(LeafSize::PAGE),
            Err(error) => panic!("{error}"),
        })
        .sum::<u32>();
    assert_eq!(taken, 2, "each page once");
    drop(area);
    for frame in frames {
        rig.machine().free_frames(frame, 0);
    }
});

#[test]
fn of_two_cpus_that_map_the_same_pages_one_does_and_each_page_is_taken_out_once() {
    SAME_PAGES.holds();
}

const READ_BESIDE_UNMAP: Scenario = scenario(1500, |rig| {
    let frame = rig.machine().alloc_frames(0).expect("memory suffices");
    let va = rig.vm.vm_map_ram(&[frame][..]).expect("memory suffices");
    rig.machine().store(va, 77);
    let reader = |rig: &Rig| {
        let mut word = [0xff; 8];
        let copied = rig.vm.vread(va, &mut word).expect("in the region");
        let found = u64::from_le_bytes(word);
        let expected = if copied == 0 { 0 } else { 77 };
        assert_eq!(found, expected, "never what came after");
    };
    let owner = |rig: &Rig| {
        rig.vm.raw().vm_unmap_ram(va, 1).expect("mapped");
        rig.machine().store(rig.machine().alias(frame), 55);
    };
    rig.at_once(&[&reader, &owner]);
    rig.machine().free_frames(frame, 0);
});

#[test]
fn vread_never_gives_what_came_after_a_short_mapping() {
    READ_BESIDE_UNMAP.holds();
}

const PERMISSIONS_BY_ADDRESS: Scenario = scenario(1000, |rig| {
    let va = rig.vm.vmalloc(4 * PAGE).expect("memory suffices").into_raw();
    let change = |page: u64| {
        let at = va.add(page * PAGE);
        rig.vm.raw().set_memory_ro(at, PAGE).expect("it is raw memory");
    };
    rig.at_once(&[&|_| change(0), &|_| change(3)]);
    for page in 0..4 {
        let leaf = rig
            .machine()
            .tree()
            .translate(va.add(page * PAGE))
            .expect("mapped");
        assert_eq!(
            leaf.attributes.is_writable(),
            page == 1 || page == 2,
            "page {page}"
        );
    }
    rig.vm.raw().vfree(va).expect("it is raw");
});

#[test]
fn two_cpus_change_pages_of_one_area_by_address() {
    PERMISSIONS_BY_ADDRESS.holds();
}
