use super::*;
use paging::{Outcome, VirtRange};

fn published_by<T>(vm: &Vm, call: impl FnOnce() -> T) -> (T, Vec<VirtRange>) {
    let published = || core::mem::take(&mut *vm.backend().published.lock().unwrap());
    assert_eq!(published(), [], "nothing before");
    let result = call();
    (result, published())
}

fn part(area: &VmArea<'_, Machine>, first: u64, pages: u64) -> VirtRange {
    VirtRange::new(area.range().start.add(first * PAGE), pages * PAGE)
}

#[test]
fn set_memory_publishes_what_it_makes_executable() {
    type Set = for<'v> fn(&VmArea<'v, Machine>, u64, u64) -> Result<Outcome, Error>;
    let vm = vm();
    let area = vm.vmalloc(M2 + 40 * PAGE).unwrap();
    let changes: [(&str, Set, u64, u64, bool); 11] = [
        ("ro", |a, o, s| a.set_memory_ro(o, s), 0, 540, false),
        ("x", |a, o, s| a.set_memory_x(o, s), 3, 530, true),
        ("x again", |a, o, s| a.set_memory_x(o, s), 16, 32, true),
        ("invalid", |a, o, s| a.set_memory_invalid(o, s), 10, 5, false),
        (
            "valid, executable",
            |a, o, s| a.set_memory_valid(o, s),
            8,
            20,
            true,
        ),
        ("nx", |a, o, s| a.set_memory_nx(o, s), 0, 100, false),
        ("invalid data", |a, o, s| a.set_memory_invalid(o, s), 20, 5, false),
        ("valid data", |a, o, s| a.set_memory_valid(o, s), 20, 5, false),
        (
            "invalid at an edge",
            |a, o, s| a.set_memory_invalid(o, s),
            98,
            4,
            false,
        ),
        (
            "valid, in part executable",
            |a, o, s| a.set_memory_valid(o, s),
            98,
            4,
            true,
        ),
        ("rw", |a, o, s| a.set_memory_rw(o, s), 0, 100, false),
    ];
    for (what, set, first, pages, publishes) in changes {
        let (result, published) = published_by(&vm, || set(&area, first * PAGE, pages * PAGE));
        result.unwrap_or_else(|error| panic!("{what}: {error}"));
        let expected = if publishes {
            std::vec![part(&area, first, pages)]
        } else {
            Vec::new()
        };
        assert_eq!(published, expected, "{what}");
        assert_sound(&vm);
    }
    let (refused, published) = published_by(&vm, || area.set_memory_x(0, PAGE));
    assert!(matches!(refused, Err(Error::Map(_))), "{refused:?}");
    assert_eq!(published, []);
    drop(area);
    assert_empty(&vm);
}

#[test]
fn an_invalid_page_is_published_when_it_is_valid_again() {
    let vm = vm();
    let area = vm.vmalloc(4 * PAGE).unwrap();
    area.set_memory_ro(0, 4 * PAGE).unwrap();
    area.set_memory_invalid(PAGE, PAGE).unwrap();
    area.set_memory_x(0, 4 * PAGE).unwrap();
    assert_sound(&vm);
    area.set_memory_valid(PAGE, PAGE).unwrap();
    assert_sound(&vm);
    drop(area);
    assert_empty(&vm);
}

#[test]
fn set_memory_by_address_publishes_too() {
    let vm = vm();
    let area = vm.vmalloc(8 * PAGE).unwrap();
    let all = area.range();
    let va = area.into_raw();
    vm.raw().set_memory_ro(va, 8 * PAGE).unwrap();
    let (result, published) = published_by(&vm, || vm.raw().set_memory_x(va.add(PAGE), 2 * PAGE));
    result.unwrap();
    assert_eq!(published, [VirtRange::new(all.start.add(PAGE), 2 * PAGE)]);
    assert_sound(&vm);
    vm.raw().vfree(va).unwrap();
    assert_empty(&vm);
}

#[test]
fn what_is_mapped_executable_is_published_before_anyone_has_its_address() {
    let vm = vm();
    let frames: Vec<_> = (0..40).map(|_| vm.backend().alloc_frames(0).unwrap()).collect();
    for (attributes, publishes) in [
        (Attributes::KERNEL_TEXT, true),
        (Attributes::KERNEL_DATA, false),
        (Attributes::KERNEL_RODATA, false),
    ] {
        let one = Request::new(PAGE).with_attributes(attributes);
        let many = Request::new(37 * PAGE).with_attributes(attributes);
        let (areas, published) = published_by(&vm, || {
            std::vec![
                vm.allocate(&one).unwrap(),
                vm.allocate(&many).unwrap(),
                vm.vmap_as(&frames[..], attributes).unwrap(),
            ]
        });
        let expected: Vec<_> = areas.iter().map(VmArea::range).filter(|_| publishes).collect();
        assert_eq!(published, expected, "{attributes:?}");
        let sparse = vm.get_vm_area(64 * PAGE, 1).unwrap();
        let (mapped, published) = published_by(&vm, || sparse.map_pages(PAGE, &frames[..], attributes));
        mapped.unwrap();
        let expected: Vec<_> = [part(&sparse, 1, 40)].into_iter().filter(|_| publishes).collect();
        assert_eq!(published, expected, "{attributes:?}");
        let (refused, published) = published_by(&vm, || sparse.map_pages(0, &frames[..2], attributes));
        assert!(matches!(refused, Err(Error::Map(_))));
        assert_eq!(published, []);
        assert_sound(&vm);
    }
    let (refused, published) = published_by(&vm, || {
        vm.vmap_as(&[Some(frames[0]), None][..], Attributes::KERNEL_TEXT)
            .err()
    });
    assert_eq!(refused, Some(Error::Map(paging::Error::NoFrame { page: 1 })));
    assert_eq!(published, []);
    for frame in frames {
        vm.backend().free_frames(frame, 0);
    }
    vm.vm_unmap_aliases();
    assert_empty(&vm);
}

#[test]
fn an_executable_area_that_moves_is_published_where_it_is_then() {
    let vm = vm();
    let request = Request::new(3 * PAGE).with_attributes(Attributes::KERNEL_TEXT);
    let mut area = vm.allocate(&request).unwrap();
    let before = area.range();
    vm.backend().published.lock().unwrap().clear();
    let (result, published) = published_by(&vm, || area.vrealloc(7 * PAGE));
    result.unwrap();
    assert_ne!(area.range(), before);
    assert_eq!(published, [area.range()]);
    assert_sound(&vm);
    drop(area);
    assert_empty(&vm);
}

#[test]
fn who_does_not_wait_gets_nothing_executable() {
    let vm = vm();
    let request = Request::new(PAGE).with_attributes(Attributes::KERNEL_TEXT);
    let (refused, published) = published_by(&vm, || vm.allocate(&request.nowait()).err());
    assert_eq!((refused, published), (Some(Error::WouldBlock), Vec::new()));
    assert_empty(&vm);
}
