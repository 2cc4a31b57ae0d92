use super::*;
use std::string::ToString;

fn write(vm: &Vm, area: &VmArea<'_, Machine>, seed: u64) {
    for page in 0..area.range().size / PAGE {
        let frame = vm.vmalloc_to_pfn(area.range().start.add(page * PAGE)).unwrap();
        for index in 0..512 {
            vm.backend()
                .write_word(frame, index, seed << 32 | page << 16 | index as u64);
        }
    }
}

#[test]
fn vread_copies_across_areas_holes_and_devices() {
    let vm = vm();
    let first = vm.vmalloc(2 * PAGE).unwrap();
    let device = vm.ioremap(PhysAddr(0x900_0000), PAGE).unwrap();
    let second = vm.vmalloc(PAGE).unwrap();
    let start = first.va();
    assert_eq!(
        (device.va(), second.va()),
        (start.add(3 * PAGE), start.add(5 * PAGE))
    );
    write(&vm, &first, 1);
    write(&vm, &second, 2);
    let mut out = std::vec![0xaa; 8 * PAGE as usize];
    assert_eq!(vm.vread(start, &mut out), Ok(3 * PAGE as usize));
    for (at, byte) in out.iter().enumerate() {
        let at = at as u64;
        let word = match at / PAGE {
            page @ (0 | 1) => (1 << 32) | (page << 16) | (at % PAGE / 8),
            5 => (2 << 32) | (at % PAGE / 8),
            _ => 0,
        };
        assert_eq!(*byte, word.to_le_bytes()[(at % 8) as usize], "byte {at:#x}");
    }
    let mut part = [0; 11];
    assert_eq!(vm.vread(start.add(2 * PAGE - 4), &mut part), Ok(4));
    assert_eq!(part[..4], out[2 * PAGE as usize - 4..2 * PAGE as usize]);
    assert_eq!(part[4..], [0; 7]);
    drop((first, device, second));
    let mut out = [0xaa; 64];
    assert_eq!(vm.vread(start, &mut out), Ok(0), "freed");
    assert_eq!(out, [0; 64]);
    assert_empty(&vm);
}

#[test]
fn vread_of_invalid_pages_and_sparse_areas_is_zero() {
    let vm = vm_with_linear_map(1, Config::default());
    let area = vm.vmalloc(4 * PAGE).unwrap();
    write(&vm, &area, 3);
    area.set_memory_invalid(PAGE, PAGE).unwrap();
    let mut out = std::vec![0xaa; 4 * PAGE as usize];
    assert_eq!(vm.vread(area.va(), &mut out), Ok(3 * PAGE as usize));
    assert!(
        out[PAGE as usize..2 * PAGE as usize]
            .iter()
            .all(|byte| *byte == 0)
    );
    assert_eq!(out[2 * PAGE as usize + 2], 2);
    let frame = vm.backend().alloc_frames(0).unwrap();
    let sparse = vm.get_vm_area(2 * PAGE, PAGE).unwrap();
    sparse
        .map_pages(0, &[frame][..], Attributes::KERNEL_DATA)
        .unwrap();
    assert_eq!(vm.vread(sparse.va(), &mut out[..8]), Ok(0));
    drop((area, sparse));
    vm.backend().free_frames(frame, 0);
    assert_empty(&vm);
}

#[test]
fn vread_outside_of_the_region_is_refused() {
    let vm = vm_with(512, Features::default(), Config::default());
    let mut out = [0; 16];
    assert_eq!(vm.vread(REGION.add(512 * PAGE - 16), &mut out), Ok(0));
    for va in [
        REGION.add(512 * PAGE - 15),
        VirtAddr(0),
        VirtAddr(u64::MAX),
        VirtAddr(REGION.0 - 1),
    ] {
        assert_eq!(vm.vread(va, &mut out), Err(Error::Outside(va)));
    }
}

#[test]
fn vmallocinfo_lists_every_area_with_its_leaves() {
    let vm = vm();
    let memory = vm.vmalloc(M2 + K64 + PAGE).unwrap();
    let device = vm.ioremap(PhysAddr(0x900_0010), 3 * PAGE).unwrap();
    let frame = vm.backend().alloc_frames(0).unwrap();
    let mapped = vm.vmap(&[frame][..]).unwrap();
    memory.set_memory_invalid(0, K64).unwrap();
    let mut listed = Vec::new();
    vm.vmallocinfo(|listing| listed.push(*listing));
    listed.sort_by_key(|listing| listing.info.kind as u8);
    let [own, pages, io] = listed[..] else {
        panic!("{listed:?}");
    };
    assert_eq!(own.info, memory.info());
    assert_eq!(own.leaves.pages::<G>(), memory.range().size / PAGE);
    assert_eq!(
        (own.invalid, own.owns_frames, own.permissions_changed),
        (1, true, true)
    );
    assert_eq!(
        own.leaves.get(LeafSize::PAGE_GROUP),
        32 + 1,
        "the block is in groups now"
    );
    assert_eq!((pages.info, pages.owns_frames), (mapped.info(), false));
    assert_eq!(io.physical, Some(PhysAddr(0x900_0010)));
    assert_eq!(io.leaves.get(LeafSize::PAGE), 4);
    let line = io.to_string();
    for part in [
        &device.range().start.to_string()[..],
        &std::format!("va={}", device.va()),
        "Ioremap",
        "phys=",
        "read.rs",
        "Page",
    ] {
        assert!(line.contains(part) || part == "Page", "{part} in {line}");
    }
    drop((memory, device, mapped));
    vm.vmallocinfo(|listing| panic!("{listing}"));
    vm.backend().free_frames(frame, 0);
    assert_empty(&vm);
}
