use super::*;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum What {
    Frames,
    Tables,
    Nodes,
}

fn fail(vm: &Vm, what: What, k: Option<u64>) {
    match (what, k) {
        (What::Frames, k) => vm.backend().ram().budget = k,
        (What::Nodes, k) => vm.backend().ram().node_budget = k,
        (What::Tables, Some(k)) => vm.backend().model.fail_alloc_after(k),
        (What::Tables, None) => {
            vm.backend().model.cancel_alloc_failure();
        }
    }
}

/// Kept ranges and empty tables are given back first.
fn everything(vm: &Vm) -> (Vec<AreaListing>, Vec<paging::Leaf>, u64, usize, usize) {
    vm.shrink();
    vm.backend().tree().prune(vm.range()).unwrap();
    let mut areas = Vec::new();
    vm.vmallocinfo(|area| areas.push(*area));
    let mut leaves = Vec::new();
    let tree = vm.backend().tree();
    for range in [
        vm.range(),
        paging::VirtRange::new(VirtAddr(LINEAR + RAM), RAM_SIZE),
    ] {
        tree.visit(range, |leaf| {
            leaves.push(*leaf);
            paging::Visit::Continue
        })
        .unwrap();
    }
    let usage = vm.usage();
    assert_eq!(usage.deferred_addresses, 0);
    (
        areas,
        leaves,
        vm.backend().ram().used(),
        vm.backend().model.nr_tables(),
        usage.areas,
    )
}

/// The k-th allocation and all later ones fail.
fn at_each<S>(
    name: &str,
    what: What,
    setup: impl Fn(&Vm) -> S,
    call: impl Fn(&Vm, &mut S) -> Result<(), Error>,
    end: impl Fn(&Vm, S),
) -> usize {
    for k in 0.. {
        let vm = vm_with_linear_map(1, Config::default());
        let mut state = setup(&vm);
        let before = everything(&vm);
        fail(&vm, what, Some(k));
        let result = call(&vm, &mut state);
        fail(&vm, what, None);
        match result {
            Ok(()) => {
                end(&vm, state);
                assert_empty(&vm);
                return k as usize;
            }
            Err(error) => {
                assert!(
                    everything(&vm) == before,
                    "{name}: failure {k} of {what:?} ({error}) changed something"
                );
                call(&vm, &mut state)
                    .unwrap_or_else(|error| panic!("{name} after failure {k} of {what:?}: {error}"));
                end(&vm, state);
                assert_empty(&vm);
            }
        }
        assert!(k < 3000, "{name} never succeeds");
    }
    unreachable!()
}

fn singles(vm: &Vm, nr: u64) -> Vec<Pfn> {
    (0..nr).map(|_| vm.backend().alloc_frames(0).unwrap()).collect()
}

fn free_singles(vm: &Vm, frames: Vec<Pfn>) {
    frames
        .into_iter()
        .for_each(|frame| vm.backend().free_frames(frame, 0));
}

/// Allocations of each kind that `call` must make.
fn all<S>(
    name: &str,
    least: [usize; 3],
    setup: impl Fn(&Vm) -> S,
    call: impl Fn(&Vm, &mut S) -> Result<(), Error>,
    end: impl Fn(&Vm, S),
) {
    for (what, least) in [What::Frames, What::Tables, What::Nodes].into_iter().zip(least) {
        let nr = at_each(name, what, &setup, &call, &end);
        assert!(nr >= least, "{name} failed for {nr} of {what:?}");
    }
}

fn use_up_nodes(vm: &Vm) -> Vec<VirtAddr> {
    vm.backend().ram().node_budget = Some(0);
    let mut areas = Vec::new();
    for size in [PAGE, M2] {
        while let Ok(area) = vm.get_vm_area(size, PAGE) {
            areas.push(area.into_raw());
        }
    }
    vm.backend().ram().node_budget = None;
    areas
}

fn free_areas(vm: &Vm, areas: Vec<VirtAddr>) {
    areas
        .into_iter()
        .for_each(|va| vm.raw().free_vm_area(va).unwrap());
}

#[test]
fn of_an_allocation() {
    let requests = [
        Request::new(PAGE),
        Request::new(37 * PAGE).zeroed(),
        Request::new(M2 + K64).huge(),
        Request::new(5 * PAGE).aligned(M2),
    ];
    let both_ways = requests.into_iter().flat_map(|request| {
        [
            ("allocate", request),
            ("nowait", request.nowait()),
            ("nolock", request.nolock()),
        ]
    });
    for (name, request) in both_ways {
        let call = |vm: &Vm, made: &mut (Vec<VirtAddr>, Option<VirtAddr>)| {
            made.1 = Some(vm.allocate(&request)?.into_raw());
            Ok(())
        };
        all(
            name,
            [1, 3, 1],
            |vm| (use_up_nodes(vm), None),
            call,
            |vm, made| {
                vm.raw().vfree(made.1.unwrap()).unwrap();
                free_areas(vm, made.0);
            },
        );
    }
    let call = |vm: &Vm, made: &mut (Vec<VirtAddr>, Option<VirtAddr>)| {
        made.1 = Some(vm.alloc_stack(4 * PAGE)?.into_raw());
        Ok(())
    };
    all(
        "alloc_stack",
        [1, 3, 1],
        |vm| (use_up_nodes(vm), None),
        call,
        |vm, made| {
            vm.raw().vfree(made.1.unwrap()).unwrap();
            free_areas(vm, made.0);
        },
    );
}

#[test]
fn of_a_mapping() {
    type Made = (Vec<VirtAddr>, Vec<Pfn>, Option<VirtAddr>);
    let setup = |vm: &Vm| -> Made { (use_up_nodes(vm), singles(vm, 40), None) };
    let end = |unmap: fn(&Vm, VirtAddr)| {
        move |vm: &Vm, made: Made| {
            unmap(vm, made.2.unwrap());
            free_singles(vm, made.1);
            free_areas(vm, made.0);
        }
    };
    let vunmap = end(|vm, va| vm.raw().vunmap(va).unwrap());
    let call = |vm: &Vm, made: &mut Made| {
        made.2 = Some(vm.vmap(&made.1[..])?.into_raw());
        Ok(())
    };
    all("vmap", [0, 3, 1], setup, call, vunmap);
    let call = |vm: &Vm, made: &mut Made| {
        let extents: Vec<_> = made
            .1
            .iter()
            .map(|start| Extent {
                start: *start,
                pages: 1,
            })
            .collect();
        made.2 = Some(vm.vmap_extents(&extents)?.into_raw());
        Ok(())
    };
    all("vmap_extents", [0, 3, 1], setup, call, vunmap);
    let call = |vm: &Vm, made: &mut Made| {
        let frames: Vec<_> = (0x9000..0x9040).map(Pfn).collect();
        let device = Attributes::kernel(MemoryType::DEVICE_NGNRE).writable();
        made.2 = Some(vm.vmap_pfn(&frames[..], device)?.into_raw());
        Ok(())
    };
    all("vmap_pfn", [0, 3, 1], setup, call, vunmap);
    let call = |vm: &Vm, made: &mut Made| {
        made.2 = Some(vm.ioremap(PhysAddr(0x900_0123), 3 * M2)?.into_raw());
        Ok(())
    };
    all(
        "ioremap",
        [0, 3, 1],
        setup,
        call,
        end(|vm, va| vm.raw().iounmap(va).unwrap()),
    );
    let call = |vm: &Vm, made: &mut Made| {
        made.2 = Some(vm.raw().vmap_put_pages(&made.1[..])?.into_raw());
        made.1.clear();
        Ok(())
    };
    all("vmap_put_pages", [1, 3, 1], setup, call, vunmap);
    let call = |vm: &Vm, made: &mut Made| {
        made.2 = Some(vm.vm_map_ram(&made.1[..])?);
        Ok(())
    };
    all(
        "vm_map_ram of many",
        [0, 3, 1],
        setup,
        call,
        end(|vm, va| vm.raw().vm_unmap_ram(va, 40).unwrap()),
    );
    let call = |vm: &Vm, made: &mut Made| {
        made.2 = Some(vm.vm_map_ram(&made.1[..7])?);
        Ok(())
    };
    let unmap = |vm: &Vm, va| {
        vm.raw().vm_unmap_ram(va, 7).unwrap();
        vm.vm_unmap_aliases();
    };
    all("vm_map_ram of a few", [0, 3, 1], setup, call, end(unmap));
}

#[test]
fn of_a_part_of_a_sparse_area() {
    type Made = (Pfn, Vec<Pfn>, VirtAddr);
    let setup = |vm: &Vm| -> Made {
        let block = vm.backend().alloc_frames(9).unwrap();
        let frames: Vec<_> = (0..512).map(|i| Pfn(block.0 + i)).collect();
        (block, frames, vm.get_vm_area(2 * M2, M2).unwrap().into_raw())
    };
    let end = |vm: &Vm, made: Made| {
        vm.raw().free_vm_area(made.2).unwrap();
        vm.backend().free_frames(made.0, 9);
    };
    let call = |vm: &Vm, made: &mut Made| {
        let area = adopted(vm, made.2);
        let result = area
            .map_pages(K64, &made.1[..], Attributes::KERNEL_DATA)
            .map(drop);
        area.into_raw();
        result
    };
    all("map_pages", [0, 3, 0], setup, call, end);
    let setup_mapped = |vm: &Vm| -> Made {
        let made = setup(vm);
        let area = adopted(vm, made.2);
        area.map_pages(0, &made.1[..], Attributes::KERNEL_DATA).unwrap();
        area.into_raw();
        made
    };
    let call = |vm: &Vm, made: &mut Made| {
        let area = adopted(vm, made.2);
        let result = area.unmap_pages(M2 - PAGE, 2 * PAGE).map(drop);
        area.into_raw();
        result
    };
    all("unmap_pages", [0, 1, 0], setup_mapped, call, end);
}

fn adopted(vm: &Vm, va: VirtAddr) -> VmArea<'_, Machine> {
    let claimed = Vm::claim(&mut vm.shard_at(Vm::page_of(va)).unwrap().1, va, Kind::Reserved);
    VmArea::adopt(vm, claimed.unwrap())
}

#[test]
fn of_a_change() {
    type Change = fn(&Vm, VirtAddr) -> Result<(), Error>;
    let changes: [(&str, usize, Change); 5] = [
        ("ro of the last page", 2, |vm, va| {
            vm.raw().set_memory_ro(va.add(M2 - PAGE), PAGE).map(drop)
        }),
        ("ro of a page inside", 2, |vm, va| {
            vm.raw().set_memory_ro(va.add(5 * PAGE), PAGE).map(drop)
        }),
        ("invalid around the end of a block", 2, |vm, va| {
            vm.raw().set_memory_invalid(va.add(M2 - PAGE), 2 * PAGE).map(drop)
        }),
        ("nx of a few", 1, |vm, va| {
            vm.raw().set_memory_nx(va.add(K64 + PAGE), 3 * PAGE).map(drop)
        }),
        ("ro and x of a few, at once or not", 2, |vm, va| {
            let (at, size) = (va.add(K64 + PAGE), 3 * PAGE);
            vm.raw().set_memory_ro(at, size)?;
            let executable = vm.raw().set_memory_x(at, size).map(drop);
            executable.inspect_err(|error| panic!("{error}"))
        }),
    ];
    for (name, tables, change) in changes {
        let setup = |vm: &Vm| vm.vmalloc(2 * M2 + K64).unwrap().into_raw();
        all(
            name,
            [0, tables, 0],
            setup,
            |vm, va| change(vm, *va),
            |vm, va| vm.raw().vfree(va).unwrap(),
        );
    }
}

#[test]
fn of_an_area_that_grows() {
    type Made = (Vec<VirtAddr>, VirtAddr);
    let setup = |vm: &Vm| -> Made {
        vm.backend().ram().largest = 1;
        let va = vm.vmalloc(7 * PAGE).unwrap().into_raw();
        (use_up_nodes(vm), va)
    };
    let call = |vm: &Vm, made: &mut Made| {
        made.1 = vm.raw().vrealloc(made.1, 30 * PAGE)?;
        Ok(())
    };
    all("vrealloc", [3, 0, 1], setup, call, |vm, made| {
        vm.raw().vfree(made.1).unwrap();
        free_areas(vm, made.0);
    });
}
