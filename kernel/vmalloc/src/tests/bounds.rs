//! Work under one hold of a lock has a bound.

use super::*;

const TABLE: u64 = 512;
/// Read once more: the first of each group, and what is on the way to a table.
const AGAIN: u64 = TABLE / 16 + 8;

/// The machine itself checks that frames are never allocated or freed under a lock.
#[track_caller]
fn bounded(what: &str, vm: &Vm, f: impl FnOnce()) {
    let most = most_under_a_hold(vm, f);
    assert!(
        most.loads <= TABLE + AGAIN && most.stores <= TABLE,
        "{what}: {most:?}"
    );
    assert_eq!(most.waits, 0, "{what}: a barrier or a TLBI under a lock");
}

fn each_call(vm: &Vm, size: u64) {
    let pages = size / PAGE;
    let mut area = None;
    bounded("an allocation", vm, || {
        area = Some(vm.allocate(&Request::new(size).zeroed()).unwrap());
    });
    let area = area.unwrap();
    let va = area.va();
    bounded("reads", vm, || {
        vm.find_vm_area(va).unwrap();
        vm.vmalloc_to_pfn(va).unwrap();
        let mut out = std::vec![0; 3 * PAGE as usize];
        vm.vread(va, &mut out).unwrap();
        vm.vmallocinfo(|_| ());
    });
    bounded("a change of permissions", vm, || {
        area.set_memory_ro(0, size).unwrap();
        area.set_memory_rw(0, size).unwrap();
    });
    bounded("the end of a changed area", vm, || drop(area));
    let raw = vm.vmalloc(size).unwrap().into_raw();
    bounded("a free by address", vm, || vm.raw().vfree(raw).unwrap());
    let area = vm.vmalloc(size).unwrap();
    bounded("a free where nothing is waited for", vm, || {
        area.free_atomic().unwrap();
        vm.vm_unmap_aliases();
    });
    let mut area = vm.vmalloc(size / 2).unwrap();
    bounded("an area that grows", vm, || area.vrealloc(size).unwrap());
    drop(area);
    let device = vm.ioremap(PhysAddr(0x900_0000), size).unwrap();
    bounded("an iounmap", vm, || drop(device));
    let frames = std::vec![Pfn(RAM / PAGE); pages as usize];
    let mut mapped = None;
    bounded("a vmap", vm, || mapped = Some(vm.vmap(&frames[..]).unwrap()));
    bounded("a vunmap", vm, || drop(mapped));
    let sparse = vm.get_vm_area(size, PAGE).unwrap();
    bounded("parts", vm, || {
        sparse.map_pages(0, &frames[..], Attributes::KERNEL_DATA).unwrap();
        sparse.unmap_pages(PAGE, size - PAGE).unwrap();
    });
    bounded("the end of a sparse area", vm, || drop(sparse));
    bounded("a purge", vm, || vm.vm_unmap_aliases());
}

#[test]
fn no_call_does_more_under_a_lock_than_a_table_has_descriptors() {
    for vm in [
        vm_with_linear_map(2, Config::default()),
        lazy_on(2, 1 << 20, 1 << 40),
    ] {
        vm.backend().ram().largest = 3;
        for size in [4 * PAGE, 300 * PAGE, 700 * PAGE, 16 * M2] {
            each_call(&vm, size);
        }
        bounded("all that is kept", &vm, || vm.shrink());
        assert_empty(&vm);
    }
}

#[test]
fn a_flush_of_many_areas_holds_no_lock_while_it_frees() {
    let vm = lazy_on(1, 1 << 20, 1 << 40);
    vm.backend().ram().largest = 0;
    let areas: Vec<_> = (0..500)
        .map(|i| vm.vmalloc((1 + i % 7) * PAGE).unwrap())
        .collect();
    drop(areas);
    drop(vm.vmalloc(64 << 20).unwrap());
    assert_eq!(vm.usage().lazy.0, 501);
    bounded("a flush", &vm, || vm.vm_unmap_aliases());
    assert_eq!(vm.usage().lazy.0, 0);
    assert_empty(&vm);
}

#[test]
#[should_panic = "a walk of all pages: Hold"]
fn a_hold_that_does_too_much_is_noticed() {
    let vm = vm_with_linear_map(1, Config::default());
    let area = vm.vmalloc(3 * TABLE * PAGE).unwrap();
    let lock = HostLock::new(LockClass::Shard, ());
    bounded("a walk of all pages", &vm, || {
        let _held = lock.lock();
        (0..3 * TABLE).for_each(|page| assert!(area.translate(page * PAGE).is_some()));
    });
}
