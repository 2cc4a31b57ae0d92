use super::*;
use paging::FrameArray;
use std::cell::Cell;

struct Changing<'a> {
    first: &'a [Pfn],
    then: &'a [Pfn],
    reads: Vec<Cell<u32>>,
}

impl<'a> Changing<'a> {
    fn new(first: &'a [Pfn], then: &'a [Pfn]) -> Self {
        assert_eq!(first.len(), then.len());
        Self {
            first,
            then,
            reads: first.iter().map(|_| Cell::new(0)).collect(),
        }
    }

    #[track_caller]
    fn assert_reads(&self, nr: usize, times: u32) {
        for (index, reads) in self.reads.iter().enumerate() {
            let expected = if index < nr { times } else { 0 };
            assert_eq!(reads.get(), expected, "reads of element {index}");
        }
    }
}

impl FrameArray for Changing<'_> {
    fn nr_frames(&self) -> usize {
        self.first.len()
    }
    fn frame(&self, index: usize) -> Option<Pfn> {
        let times = self.reads[index].get();
        self.reads[index].set(times + 1);
        Some(if times == 0 {
            self.first[index]
        } else {
            self.then[index]
        })
    }
}

fn frames_of_ram(vm: &Vm, nr: u64) -> Vec<Pfn> {
    (0..nr).map(|_| vm.backend().alloc_frames(0).unwrap()).collect()
}

fn devices(first: u64, nr: u64) -> Vec<Pfn> {
    let run = first..first + nr;
    run.chain((0..nr).map(|i| 0x2_0001 + 2 * i)).map(Pfn).collect()
}

type MapFrames = for<'v> fn(&'v Vm, &Changing<'_>) -> Result<VmArea<'v, Machine>, Error>;

const CHECKED: [(&str, MapFrames); 3] = [
    ("vmap_pfn", |vm, frames| vm.vmap_pfn(frames, Attributes::DEVICE)),
    ("vmap_as", |vm, frames| vm.vmap_as(frames, Attributes::DEVICE)),
    ("map_pages", |vm, frames| {
        let area = vm.get_vm_area(frames.nr_frames() as u64 * PAGE, 1)?;
        area.map_pages(0, frames, Attributes::DEVICE)?;
        Ok(area)
    }),
];

#[test]
fn what_was_looked_at_is_what_is_mapped() {
    for (what, map) in CHECKED {
        for nr in [1, 8, 16, 31, 40, 300, 512, 700] {
            let vm = vm();
            let ram = vm.backend().alloc_frames(0).unwrap();
            let device = devices(0x10_0000 + nr % 3, nr);
            let then = std::vec![ram; device.len()];
            let array = Changing::new(&device, &then);
            let area = map(&vm, &array).unwrap_or_else(|error| panic!("{what} of {nr}: {error}"));
            array.assert_reads(device.len(), 1);
            assert_maps(&area, &vm, |page| PhysAddr(device[page as usize].0 * PAGE));
            drop(area);
            vm.backend().free_frames(ram, 0);
            assert_empty(&vm);
        }
    }
}

#[test]
fn ram_among_devices_is_named_and_nothing_stays_mapped() {
    for (what, map) in CHECKED {
        for nr in [1, 20, 300] {
            let vm = vm();
            let ram = vm.backend().alloc_frames(0).unwrap();
            let device = devices(0x10_0000, nr);
            for at in (0..device.len()).step_by(1 + device.len() / 40) {
                let mut with_ram = device.clone();
                with_ram[at] = ram;
                let array = Changing::new(&with_ram, &device);
                let expected = Error::Ram {
                    pa: PhysAddr(ram.0 * PAGE),
                    size: PAGE,
                };
                assert_eq!(
                    map(&vm, &array).err(),
                    Some(expected),
                    "{what} of {nr}, RAM at {at}"
                );
                assert!(array.reads.iter().all(|reads| reads.get() <= 1), "{what}");
            }
            vm.backend().free_frames(ram, 0);
            assert_empty(&vm);
        }
    }
}

#[test]
fn a_run_that_ends_in_ram_is_refused_at_its_first_page_of_ram() {
    let vm = vm();
    for before in [1, 16, 500, 512, 1000] {
        let frames: Vec<_> = (0..1024).map(|i| Pfn(RAM / PAGE - before + i)).collect();
        for (what, refused) in [
            ("vmap_pfn", vm.vmap_pfn(&frames[..], Attributes::DEVICE).err()),
            ("vmap_as", vm.vmap_as(&frames[..], Attributes::DEVICE).err()),
        ] {
            let expected = Error::Ram {
                pa: PhysAddr(RAM),
                size: PAGE,
            };
            assert_eq!(refused, Some(expected), "{what}, {before} pages before RAM");
        }
    }
    assert_empty(&vm);
}

#[test]
fn what_is_read_for_a_second_try_is_looked_at_for_it() {
    for succeed in 0..2 {
        let vm = lazy(1000, 1 << 20);
        let ram = vm.backend().alloc_frames(0).unwrap();
        let device = devices(0x10_0000, 600);
        let mut then = device.clone();
        then[599] = ram;
        let array = Changing::new(&device, &then);
        drop(vm.vmalloc(PAGE).unwrap());
        vm.backend().model.fail_alloc_after(succeed);
        let expected = Error::Ram {
            pa: PhysAddr(ram.0 * PAGE),
            size: PAGE,
        };
        let refused = vm.vmap_pfn(&array, Attributes::DEVICE).err();
        assert_eq!(refused, Some(expected), "after {succeed} tables");
        vm.backend().free_frames(ram, 0);
        assert_empty(&vm);
    }
}

#[test]
fn pages_that_are_taken_over_are_those_that_are_mapped_and_freed() {
    for nr in [1, 2, 5, 40, 600] {
        let vm = vm();
        let (mine, others) = (frames_of_ram(&vm, nr), frames_of_ram(&vm, nr));
        let array = Changing::new(&mine, &others);
        let area = vm.raw().vmap_put_pages(&array).unwrap();
        array.assert_reads(mine.len(), 1);
        assert_maps(&area, &vm, |page| PhysAddr(mine[page as usize].0 * PAGE));
        drop(area);
        for frame in &mine {
            assert!(!vm.backend().ram().is_given(*frame), "they go with the area");
        }
        for frame in &others {
            vm.backend().free_frames(*frame, 0);
        }
        assert_empty(&vm);
    }
}

struct Unread(usize);

impl FrameArray for Unread {
    fn nr_frames(&self) -> usize {
        self.0
    }
    fn frame(&self, index: usize) -> Option<Pfn> {
        panic!("element {index} of {} is read", self.0)
    }
}

#[test]
fn too_long_an_array_is_refused_unread() {
    let vm = vm();
    let pages = vm.range().size / PAGE;
    for nr in [
        usize::MAX,
        usize::MAX / PAGE as usize,
        1 << 52,
        pages as usize + 1,
    ] {
        let array = Unread(nr);
        let sparse = vm.get_vm_area(PAGE, 1).unwrap();
        for (what, error) in [
            ("vmap", vm.vmap(&array).err()),
            ("vmap_as", vm.vmap_as(&array, Attributes::DEVICE).err()),
            ("vmap_pfn", vm.vmap_pfn(&array, Attributes::DEVICE).err()),
            ("vmap_put_pages", vm.raw().vmap_put_pages(&array).err()),
            ("vm_map_ram", vm.vm_map_ram(&array).err()),
            ("map_pages", sparse.map_pages(0, &array, Attributes::DEVICE).err()),
        ] {
            let refused = matches!(error, Some(Error::TooLarge { .. } | Error::OutOfBounds { .. }));
            assert!(refused, "{what} of {nr}: {error:?}");
        }
    }
    assert_empty(&vm);
}

#[test]
fn a_frame_number_beyond_all_addresses_is_named_as_it_was_given() {
    let vm = vm();
    let ram = vm.backend().alloc_frames(0).unwrap();
    for high in [1u64 << 52, 1 << 56, 1 << 63, 0xfff << 52] {
        for low in [0x9000, ram.0] {
            let frame = Pfn(high | low);
            let frames = &[Pfn(0x9000), frame][..];
            let extent = Extent {
                start: frame,
                pages: 1,
            };
            let sparse = vm.get_vm_area(2 * PAGE, 1).unwrap();
            let expected = Error::Map(paging::Error::FrameRange(frame));
            assert!(expected.to_string().contains(&std::format!("{:#x}", frame.0)));
            for (what, error) in [
                ("vmap", vm.vmap(frames).err()),
                ("vmap_as", vm.vmap_as(frames, Attributes::DEVICE).err()),
                ("vmap_pfn", vm.vmap_pfn(frames, Attributes::DEVICE).err()),
                ("vmap_extents", vm.vmap_extents(&[extent]).err()),
                ("vm_map_ram", vm.vm_map_ram(frames).err()),
                ("map_pages", sparse.map_pages(0, frames, Attributes::DEVICE).err()),
            ] {
                assert_eq!(error, Some(expected), "{what}");
            }
            let taken = vm.raw().vmap_put_pages(&[frame][..]).err();
            assert_eq!(taken, Some(Error::NotToBeTakenOver(frame)));
        }
    }
    vm.vm_unmap_aliases();
    vm.backend().free_frames(ram, 0);
    assert_empty(&vm);
}

#[test]
fn a_hole_at_every_page_is_named_by_each_call() {
    let vm = vm();
    for (nr, first) in [(40, 3), (512, 0), (513, 511), (600, 16), (1100, 0)] {
        let first = RAM / PAGE + first;
        for hole in 0..nr {
            let frames: Vec<_> = (0..nr)
                .map(|page| (page != hole).then_some(Pfn(first + page)))
                .collect();
            let expected = Some(Error::Map(paging::Error::NoFrame { page: hole }));
            assert_eq!(vm.vmap(&frames[..]).err(), expected, "{hole} of {nr}");
            if hole % 7 == 0 {
                let devices: Vec<_> = frames
                    .iter()
                    .map(|frame| frame.map(|frame| Pfn(frame.0 << 4)))
                    .collect();
                let device = Attributes::DEVICE;
                assert_eq!(
                    vm.vmap_pfn(&devices[..], device).err(),
                    expected,
                    "{hole} of {nr}"
                );
            }
        }
    }
    assert_empty(&vm);
}

#[test]
fn the_last_frame_numbers_of_all_are_refused() {
    let vm = vm();
    let device = Attributes::DEVICE;
    const ADDRESSES: u64 = 1 << 48;
    const LAST: u64 = ADDRESSES / PAGE - 1;
    for frame in [LAST, LAST + 1, (1 << 52) - 1, u64::MAX] {
        let mapped = vm.vmap_pfn(&[Pfn(frame)][..], device);
        assert_eq!(mapped.is_ok(), frame <= LAST, "{frame:#x}: {mapped:?}");
    }
    for pair in [[u64::MAX, 0], [LAST, LAST + 1], [(1 << 52) - 1, 1 << 52]] {
        let pair = pair.map(Pfn);
        assert!(vm.vmap_pfn(&pair[..], device).is_err(), "{pair:?}");
        let extent = Extent {
            start: pair[0],
            pages: 2,
        };
        assert!(vm.vmap_extents(&[extent]).is_err(), "{pair:?}");
    }
    let all = [u64::MAX, 2].map(|pages| Extent { start: Pfn(0), pages });
    assert!(matches!(vm.vmap_extents(&all), Err(Error::TooLarge { .. })));
    let last = PhysAddr(ADDRESSES - PAGE);
    assert!(matches!(
        vm.ioremap(last, PAGE + 1),
        Err(Error::BadPhysical { .. })
    ));
    drop(vm.ioremap(last, PAGE).unwrap());
    assert_empty(&vm);
}
