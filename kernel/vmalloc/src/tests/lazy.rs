//! Lazy purge: one flush for many, and nothing used again before it.

use super::*;

#[test]
fn frames_and_addresses_are_withheld_until_the_flush() {
    let vm = lazy(100, 1 << 20);
    let keep = vm.vmalloc(PAGE).unwrap();
    let area = vm.vmalloc(5 * PAGE).unwrap();
    let va = area.va();
    let nothing = Issued {
        dsb_ishst: 0,
        dsb_ish: 0,
        isb: 0,
        tlbi: 0,
    };
    assert_eq!(issued_by(&vm, || drop(area)), nothing);
    assert_eq!(vm.usage().waiting, (1, 6));
    assert_eq!(vm.backend().ram().used(), 6, "its frames are not free");
    let next = vm.vmalloc(5 * PAGE).unwrap();
    assert_ne!(next.va(), va, "its addresses are not free");
    assert!(matches!(vm.vfree(va), Err(Error::Freed(_))));
    assert_sound(&vm);
    vm.vm_unmap_aliases();
    assert_eq!(vm.usage().waiting, (0, 0));
    assert_eq!(vm.backend().ram().used(), 6);
    drop((keep, next));
    vm.vm_unmap_aliases();
    assert_empty(&vm);
}

#[test]
fn one_flush_covers_all_that_wait() {
    let vm = lazy(8, 1 << 20);
    let keep = vm.vmalloc(PAGE).unwrap();
    let areas: Vec<_> = (0..8).map(|_| vm.vmalloc(PAGE).unwrap()).collect();
    let issued = issued_by(&vm, || drop(areas));
    assert_eq!(vm.usage().waiting, (0, 0), "the eighth was the last straw");
    // The leading barrier waits for what other CPUs took out too, so it is DSB ISH.
    assert_eq!((issued.dsb_ishst, issued.dsb_ish, issued.isb), (0, 2, 1));
    assert_eq!(issued.tlbi, 8, "a page each");
    assert_sound(&vm);
    drop(keep);
    vm.vm_unmap_aliases();
    assert_empty(&vm);
}

#[test]
fn pages_count_as_well_as_areas() {
    let vm = lazy(1000, 64);
    let keep = vm.vmalloc(PAGE).unwrap();
    drop(vm.vmalloc(62 * PAGE).unwrap());
    assert_eq!(vm.usage().waiting, (1, 63));
    drop(vm.vmalloc(PAGE).unwrap());
    assert_eq!(vm.usage().waiting, (0, 0));
    drop(keep);
    vm.vm_unmap_aliases();
    assert_empty(&vm);
}

#[test]
fn what_runs_out_forces_the_flush() {
    let config = Config {
        flush: FlushPolicy::Lazy {
            areas: 1000,
            pages: 1 << 20,
        },
        ..Config::default()
    };
    // Addresses.
    let vm = vm_with(16, Features::default(), config);
    let keep = vm.vmalloc(PAGE).unwrap();
    drop(vm.vmalloc(13 * PAGE).unwrap());
    assert_eq!(vm.usage().waiting.0, 1);
    drop(vm.vmalloc(10 * PAGE).unwrap());
    assert_sound(&vm);
    drop(keep);
    vm.vm_unmap_aliases();
    assert_empty(&vm);
    // Frames.
    let vm = lazy(1000, 1 << 30);
    let keep = vm.vmalloc(PAGE).unwrap();
    drop(vm.vmalloc(RAM_SIZE - M2).unwrap());
    assert_eq!(vm.usage().waiting.0, 1);
    drop(vm.vmalloc(RAM_SIZE - M2).unwrap());
    assert_sound(&vm);
    drop(keep);
    vm.vm_unmap_aliases();
    assert_empty(&vm);
}

/// Two links for one address: the old one in a walk cache, the new one in the table.
#[test]
fn a_table_that_goes_is_flushed_before_another_can_come() {
    let vm = lazy(1000, 1 << 30);
    let area = vm.vmalloc(PAGE).unwrap();
    let issued = issued_by(&vm, || drop(area));
    assert_eq!((issued.dsb_ishst, issued.dsb_ish, issued.isb), (1, 1, 1));
    assert_eq!(vm.usage().waiting, (0, 0));
    drop(vm.vmalloc(PAGE).unwrap());
    assert_empty(&vm);
}

/// Linux lets stale translations of the pages outlive `vunmap`; whoever reuses them must know.
#[test]
fn pages_of_somebody_else_are_flushed_at_once() {
    let vm = lazy(1000, 1 << 30);
    let keep = vm.vmalloc(PAGE).unwrap();
    let owner = vm.backend().alloc_frames(0).unwrap();
    let area = vm.vmap(&[owner][..]).unwrap();
    let issued = issued_by(&vm, || drop(area));
    assert_eq!((issued.tlbi, issued.dsb_ish), (1, 1));
    vm.backend().free_frames(owner, 0);
    assert_sound(&vm);
    let device = vm.ioremap(PhysAddr(0x900_0000), PAGE).unwrap();
    drop(device);
    assert_eq!(vm.usage().waiting.0, 1, "a device is not used for something else");
    drop(keep);
    vm.vm_unmap_aliases();
    assert_empty(&vm);
}
