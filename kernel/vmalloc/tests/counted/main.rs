mod machine;
#[path = "../../src/tests/ram.rs"]
#[allow(dead_code, reason = "shared with other tests, each of which uses some of it")]
mod ram;
mod locks {
    thread_local! {
        pub static WITHOUT_WAITING: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
    }
}
#[path = "../support/by_address.rs"]
#[allow(dead_code, reason = "shared with other tests, each of which uses some of it")]
mod by_address;

use by_address::ByAddress;
use machine::{
    At, CPUS, Counts, LAZY, PAGE, RAM_SIZE, Vm, beside, contended, counted, lines_of_several_cpus, on_cpu,
    vm, vm_of,
};
use paging::{Attributes, Pfn, PhysAddr};
use std::cell::Cell;
use std::collections::VecDeque;
use std::rc::Rc;
use vmalloc::{Backend, Error, FlushPolicy, Request};

const GIB: u64 = 1 << 30;
const DEVICE: PhysAddr = PhysAddr(1 << 41);
const FOR_EVER: u64 = 100_000;
const TABLE: u64 = 512;
/// Descriptors on the way to a table.
const WAY: u64 = 8;
/// The first descriptor of each group is read again.
const GROUPS: u64 = TABLE / 16;

fn frames(vm: &Vm, nr: usize) -> Vec<Pfn> {
    (0..nr)
        .map(|_| vm.backend().alloc_frames(0).expect("frames suffice"))
        .collect()
}

fn leave_single_frames(vm: &Vm, bytes: u64) {
    let mut taken = frames(vm, (RAM_SIZE / PAGE) as usize);
    taken
        .drain(..(bytes / PAGE) as usize)
        .for_each(|frame| vm.backend().free_frames(frame, 0));
    vm.backend().ram().largest = 0;
}

/// Nowhere are 40 GiB.
fn no_40_gib() -> &'static Vm {
    let vm = vm(64 * GIB, LAZY);
    let low = vm.get_vm_area(32 * GIB, PAGE).unwrap();
    vm.get_vm_area(PAGE, PAGE).unwrap().into_raw();
    vm.get_vm_area(300 * PAGE, PAGE).unwrap().into_raw();
    drop(low);
    vm.vm_unmap_aliases();
    vm
}

#[test]
fn loop_va() {
    let vm = no_40_gib();
    let rounds = Rc::new(Cell::new(0));
    let seen = Rc::clone(&rounds);
    let other = move |at| {
        seen.set(seen.get() + 1);
        if at == At::Gate && seen.get() < FOR_EVER {
            drop(vm.vmalloc(PAGE).unwrap());
        }
    };
    let result = beside(other, || vm.get_vm_area(40 * GIB, PAGE).err());
    assert!(matches!(result, Some(Error::OutOfSpace(_))), "{result:?}");
    assert!(rounds.get() < 100, "{} rounds", rounds.get());
}

/// None is taken, so that another CPU always has one.
#[test]
fn loop_ram() {
    let vm = vm(64 * GIB, LAZY);
    leave_single_frames(vm, 48 << 20);
    let (rounds, failed) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
    let seen = (Rc::clone(&rounds), Rc::clone(&failed));
    let other = move |at| {
        seen.0.set(seen.0.get() + 1);
        if at == At::NoFrame {
            seen.1.set(seen.1.get() + 1);
        } else if seen.0.get() < FOR_EVER {
            drop(vm.ioremap(DEVICE, PAGE).unwrap());
        }
    };
    let size = 64 << 20;
    let mut result = None;
    let (done, _) = counted(|| result = beside(other, || vm.vmalloc(size).err()));
    assert_eq!(result, Some(Error::OutOfFrames { size }));
    assert!(rounds.get() < 100, "{} rounds", rounds.get());
    assert_eq!(
        (done.blocks, failed.get()),
        (0, 0),
        "frames were taken for nothing"
    );
}

#[test]
fn loop_impossible() {
    let vm = no_40_gib();
    let areas: Vec<_> = (0..200).map(|_| vm.vmalloc(PAGE).unwrap()).collect();
    drop(areas);
    vm.vm_unmap_aliases();
    let kept = vm.usage().cached;
    assert!(kept.0 >= 50, "{kept:?}");
    assert!(matches!(
        vm.get_vm_area(64 * GIB - (1 << 20), PAGE).err(),
        Some(Error::OutOfSpace(_))
    ));
    assert_eq!(vm.usage().cached, kept);
}

#[test]
fn stale_cache() {
    let filled = |flush| {
        let vm = vm(64 * GIB, flush);
        let dead: Vec<_> = (0..600).map(|_| vm.vmalloc(3 * PAGE).unwrap()).collect();
        drop(dead);
        vm
    };
    let vm = filled(FlushPolicy::Strict);
    assert_eq!(vm.usage().cached, (256, 4 * 256), "it is full");
    drop(vm.vmalloc(PAGE).unwrap());
    assert_eq!(vm.usage().cached, (256, 4 * 255 + 2));
    let vm = filled(LAZY);
    vm.vm_unmap_aliases();
    let (nr, pages) = vm.usage().cached;
    assert!(nr >= 100 && pages == 4 * nr as u64, "{nr} {pages}");
    (0..2000).for_each(|_| drop(vm.vmalloc(PAGE).unwrap()));
    let (nr, pages) = vm.usage().cached;
    let dead = (pages - 2 * nr as u64) / 2;
    assert!(dead < 16, "{dead} of {nr} are of the size that is gone");
}

#[test]
fn largecache() {
    let vm = vm(64 * GIB, FlushPolicy::Strict);
    let dead: Vec<_> = (0..300)
        .map(|_| vm.get_vm_area(600 * PAGE, PAGE).unwrap())
        .collect();
    drop(dead);
    assert_eq!(vm.usage().cached, (256, 1024 * 256), "it is full");
    let pair = || drop(vm.get_vm_area(1200 * PAGE, PAGE).unwrap());
    pair();
    assert_eq!(vm.usage().cached, (256, 1024 * 255 + 1536));
    let (done, _) = counted(|| (0..1000).for_each(|_| pair()));
    assert_eq!((done.locks, done.common), (2000, 2000), "one for each end");
}

#[test]
fn bigfree() {
    let vm = vm(64 * GIB, LAZY);
    vm.backend().ram().largest = 0;
    let area = vm.vmalloc(200 << 20).unwrap();
    let (done, most) = counted(|| {
        drop(area);
        vm.vm_unmap_aliases();
    });
    assert!(done.blocks >= (200 << 20) / PAGE, "{done:?}");
    assert_eq!(most.blocks, 0, "{most:?}");
    assert!(most.stores <= TABLE && most.loads <= TABLE, "{most:?}");
}

/// At most a table's descriptors and those on the way.
#[test]
fn holds() {
    let vm = vm(64 * GIB, LAZY);
    let pages = frames(vm, 2000);
    for nr in [300, 511, 512, 1500] {
        vm.backend().ram().largest = 1;
        let (_, most) = counted(|| each_call(vm, &pages[..nr]));
        assert!(most.touched <= TABLE + WAY, "{nr} pages: {most:?}");
        assert!(
            most.loads <= TABLE + GROUPS + WAY && most.stores <= TABLE,
            "{nr} pages: {most:?}"
        );
        assert_eq!(most.blocks, 0, "{nr} pages: {most:?}");
    }
}

fn each_call(vm: &Vm, pages: &[Pfn]) {
    let size = pages.len() as u64 * PAGE;
    let mut area = vm.vmalloc(size).unwrap();
    area.set_memory_ro(PAGE, size - PAGE).unwrap();
    vm.vmallocinfo(|_| ());
    drop(area);
    area = vm.vmalloc(size).unwrap();
    area.vrealloc(2 * size).unwrap();
    drop(area);
    drop(vm.ioremap(DEVICE, size).unwrap());
    drop(vm.vmap(pages).unwrap());
    let sparse = vm.get_vm_area(size, PAGE).unwrap();
    sparse.map_pages(0, pages, Attributes::KERNEL_DATA).unwrap();
    sparse.unmap_pages(PAGE, size - PAGE).unwrap();
    drop(sparse);
    drop(vm.vmalloc(size).unwrap().free_atomic());
    vm.shrink();
}

/// One page in each of many spans: none is walked for another. 64 are four full rounds of what is
/// given back at once, after which it ends.
#[test]
fn prune() {
    let vm = vm(64 << 40, LAZY);
    let frame = frames(vm, 1);
    let mut areas: Vec<_> = (0..20_000)
        .map(|_| {
            let area = vm.get_vm_area(PAGE, 2 << 20).unwrap();
            area.map_pages(0, &frame[..], Attributes::KERNEL_DATA).unwrap();
            area
        })
        .collect();
    let (done, most) = counted(|| {
        for i in 0..64 {
            drop(areas.swap_remove(i * 300));
        }
        vm.vm_unmap_aliases();
    });
    assert!(most.loads <= TABLE && most.stores <= TABLE, "{most:?}");
    assert!(done.loads <= 64 * 8 * TABLE, "{done:?}");
    let (done, most) = counted(|| {
        vm.shrink();
    });
    // The way down is read for the leaves, and for the table that goes.
    assert!(most.touched <= TABLE + WAY, "{most:?}");
    assert!(most.loads <= TABLE + 2 * WAY && most.stores <= TABLE, "{most:?}");
    assert!(done.loads >= 64 * TABLE, "no table was pruned: {done:?}");
    assert!(done.loads <= 64 * 2 * TABLE, "{done:?}");
    drop(areas);
}

#[test]
fn nowait() {
    let vm = vm(64 * GIB, LAZY);
    for pair in 0..2 * RAM_SIZE / PAGE {
        let area = vm.allocate(&Request::new(PAGE).nowait());
        let va = area
            .unwrap_or_else(|error| panic!("after {pair} pairs: {error}"))
            .into_raw();
        vm.raw().vfree_atomic(va).unwrap();
    }
    assert!(vm.backend().ram().used() < 512, "{:?}", vm.usage());
}

#[test]
fn wouldblock() {
    let vm = vm(64 * GIB, LAZY);
    for pages in [1, 200, 300] {
        contended(|| {
            for _ in 0..100 {
                let area = vm.allocate(&Request::new(pages * PAGE).nowait());
                drop(area.expect("a lock is waited for").free_atomic());
            }
            let request = Request::new(pages * PAGE).nolock();
            assert_eq!(vm.allocate(&request).err(), Some(Error::WouldBlock));
        });
    }
}

#[test]
fn storm() {
    let nr_frames = RAM_SIZE / PAGE;
    let vm = vm(
        64 * GIB,
        FlushPolicy::lazy_for(machine::CPUS, nr_frames, 1 << 20, 1 << 20),
    );
    let areas: Vec<_> = (0..200).map(|_| vm.vmalloc(38 * PAGE).unwrap()).collect();
    for (i, area) in areas.into_iter().enumerate() {
        on_cpu(i % machine::CPUS, || drop(area));
    }
    let lazy = vm.backend().ram().used();
    assert!(
        lazy <= nr_frames / 64 + nr_frames / 128 + 2 * 38,
        "{lazy} frames are lazy"
    );
    vm.shrink();
    assert_eq!(vm.backend().ram().used(), 0);
}

#[test]
fn frag() {
    let vm = vm(64 << 40, LAZY);
    let pages = frames(vm, 32);
    let mut long = Vec::new();
    for _ in 0..1000 {
        let short = vm.vm_map_ram(&pages[..]).unwrap();
        long.push(vm.vm_map_ram(&pages[..1]).unwrap());
        vm.raw().vm_unmap_ram(short, 32).unwrap();
    }
    let used = vm.usage().pages;
    assert!(used <= 40 * 1000, "{used} pages for 1,000");
    for va in long {
        vm.raw().vm_unmap_ram(va, 1).unwrap();
    }
    vm.shrink();
    assert_eq!(vm.usage().areas, 0);
}

#[test]
fn biglist() {
    let vm = vm(64 << 40, LAZY);
    let _sparse = vm.get_vm_area(16 << 40, PAGE).unwrap();
    let mut listed = 0;
    let (done, most) = counted(|| vm.vmallocinfo(|_| listed += 1));
    assert_eq!(listed, 1);
    assert!(done.locks <= 1000 && most.loads <= TABLE, "{done:?} {most:?}");
}

#[test]
fn vreadmr() {
    let vm = vm(64 * GIB, LAZY);
    let va = vm.vm_map_ram(&frames(vm, 32)[..]).unwrap();
    let mut out = vec![0; 32 * PAGE as usize];
    let (done, most) = counted(|| assert!(vm.vread(va, &mut out).is_ok()));
    assert!(out.iter().all(|byte| *byte == 1));
    assert!(done.locks <= 2 * 32 && done.common == 0, "{done:?}");
    assert!(most.loads <= 8, "{most:?}");
}

#[test]
fn emptied() {
    for flush in [FlushPolicy::Strict, LAZY] {
        let vm = vm(64 * GIB, flush);
        let pages = frames(vm, 16);
        let pairs = || -> Counts {
            let pair = || {
                let va = vm.vm_map_ram(&pages[..]).unwrap();
                vm.raw().vm_unmap_ram(va, 16).unwrap();
            };
            (0..100).for_each(|_| pair());
            counted(|| (0..1000).for_each(|_| pair())).0
        };
        let alone = pairs();
        let beside = vm.vm_map_ram(&pages[..]).unwrap();
        let with = pairs();
        assert_eq!((alone.locks, alone.common), (with.locks, 0));
        vm.raw().vm_unmap_ram(beside, 16).unwrap();
    }
}

#[test]
fn million() {
    let vm = vm(64 << 40, LAZY);
    let nr = 1_000_000;
    let before = vm.backend().nr_node_pages();
    let areas: Vec<_> = (0..nr)
        .map(|_| vm.get_vm_area(PAGE, PAGE).unwrap().into_raw())
        .collect();
    let pages = vm.backend().nr_node_pages() - before;
    let each = pages as f64 * PAGE as f64 / f64::from(nr);
    assert!(each < 120.0, "{each} bytes an area");
    for va in areas {
        vm.raw().free_vm_area(va).unwrap();
    }
    let again: Vec<_> = (0..nr / 2).map(|_| vm.get_vm_area(PAGE, PAGE).unwrap()).collect();
    assert_eq!(vm.backend().nr_node_pages() - before, pages);
    drop(again);
}

/// Calls for small areas, and the locks that each pair takes when it flushes at once.
fn each_small_call(vm: &Vm, mut test: impl FnMut(&str, u64, &dyn Fn())) {
    let pages = &frames(vm, 16)[..];
    let calls: [(&str, u64, &dyn Fn()); 10] = [
        ("vmalloc 1", 3, &|| drop(vm.vmalloc(PAGE).unwrap())),
        ("vmalloc 1 by address", 3, &|| {
            let va = vm.vmalloc(PAGE).unwrap().into_raw();
            vm.raw().vfree(va).unwrap();
        }),
        ("vmalloc 16", 3, &|| drop(vm.vmalloc(16 * PAGE).unwrap())),
        ("vmalloc 256", 3, &|| drop(vm.vmalloc(256 * PAGE).unwrap())),
        ("nowait 1", 3, &|| {
            drop(vm.allocate(&Request::new(PAGE).nowait()).unwrap());
        }),
        ("vmap 4", 3, &|| drop(vm.vmap(&pages[..4]).unwrap())),
        ("vmap 16", 3, &|| drop(vm.vmap(pages).unwrap())),
        ("vm_map_ram 16", 3, &|| {
            let va = vm.vm_map_ram(pages).unwrap();
            vm.raw().vm_unmap_ram(va, 16).unwrap();
        }),
        ("ioremap 16", 3, &|| drop(vm.ioremap(DEVICE, 16 * PAGE).unwrap())),
        ("get_vm_area", 2, &|| drop(vm.get_vm_area(PAGE, PAGE).unwrap())),
    ];
    for (what, locks, call) in calls {
        test(what, locks, call);
    }
}

/// A small area takes two or three locks, its own shard's, and links no table.
#[test]
fn atomics() {
    for flush in [FlushPolicy::Strict, LAZY] {
        let vm = vm(64 * GIB, flush);
        each_small_call(vm, |what, locks, call| {
            (0..1000).for_each(|_| call());
            let (done, _) = counted(|| (0..1000).for_each(|_| call()));
            assert_eq!((done.common, done.exchanges), (0, 0), "{what}: {done:?}");
            assert!(done.locks <= 1000 * locks, "{what}: {done:?}");
            if flush == FlushPolicy::Strict {
                assert_eq!(done.locks, 1000 * locks, "{what}");
            }
        });
    }
}

/// CPUs on areas of their own write no common line of a lock or table.
#[test]
fn scale() {
    let vm = vm(64 * GIB, LAZY);
    each_small_call(vm, |what, _, call| {
        let by_turns = |nr| (0..nr).for_each(|turn| on_cpu(turn % CPUS, call));
        by_turns(10_000);
        let lines = lines_of_several_cpus(|| by_turns(1000));
        assert_eq!(lines, 0, "{what}");
    });
}

/// A pair takes no common lock, and its own shard's at most two and a half times, for all sizes and
/// whichever CPU ends the area.
#[test]
fn rates() {
    let nr = 10_000;
    for (what, makers, distance, most) in [
        ("each its own", 4, 0, 1),
        ("each its own, up to 16 pages", 4, 0, 16),
        ("0 for 1", 1, 1, 1),
        ("two for two", 2, 2, 1),
        ("two for two, up to 16 pages", 2, 2, 16),
    ] {
        let vm = vm(64 * GIB, LAZY);
        let mut held = [const { VecDeque::new() }; CPUS];
        let mut pair = |i: u64| {
            let maker = (i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as usize % makers;
            let pages = 1 + (i.wrapping_mul(0xd1b5_4a32_d192_ed03) >> 40) % most;
            held[maker].push_back(on_cpu(maker, || vm.vmalloc(pages * PAGE).unwrap()));
            if held[maker].len() > 4 {
                on_cpu(maker + distance, || drop(held[maker].pop_front()));
            }
        };
        (0..nr).for_each(&mut pair);
        let (done, _) = counted(|| (0..nr).for_each(&mut pair));
        assert_eq!((done.common, done.exchanges), (0, 0), "{what}: {done:?}");
        assert!(2 * done.locks <= 5 * nr, "{what}: {done:?}");
    }
}

/// A cache full of a dead size costs others nothing, beside areas that keep the table.
#[test]
fn clean() {
    let [clean, polluted] = [false, true].map(|polluted| {
        let vm = vm(64 * GIB, LAZY);
        if polluted {
            let dead: Vec<_> = (0..600).map(|_| vm.vmalloc(3 * PAGE).unwrap()).collect();
            drop(dead);
            vm.vm_unmap_aliases();
        }
        let _beside: Vec<_> = (0..400).map(|_| vm.vmalloc(2 * PAGE).unwrap()).collect();
        let pair = || drop(vm.vmalloc(PAGE).unwrap());
        (0..2000).for_each(|_| pair());
        counted(|| (0..10_000).for_each(|_| pair())).0
    });
    assert_eq!(clean, polluted);
    assert_eq!(clean.common, 0, "{clean:?}");
}

/// 500 CPUs have tables and locks of their own.
#[test]
fn slotshare() {
    let cpus = 500;
    let vm = vm_of(cpus, 64 * GIB, LAZY);
    let pair = |cpu| on_cpu(cpu, || drop(vm.vmalloc(PAGE).unwrap()));
    (0..cpus).for_each(pair);
    assert_eq!(lines_of_several_cpus(|| (0..cpus).for_each(pair)), 0);
}

/// Safe code cannot end an area by its address: where it can, `by_address` does not compile, with
/// an `unsafe` that is unused.
#[test]
fn misc() {
    let vm = vm(64 * GIB, FlushPolicy::Strict);
    let va = vm.vmalloc(PAGE).unwrap().into_raw();
    vm.raw().vfree(va).unwrap();
    assert!(matches!(vm.raw().vfree(va), Err(Error::Freed(freed)) if freed.area.va == va));
}
