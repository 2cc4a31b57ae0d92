use crate::support;

use paging::mmu::{Counting, NoMmu};
use paging::{
    Attributes, Config, Descriptor, DisplaySize, Error, Failure, FrameArray, Granule4K, Half, LeafSet,
    LevelMask, MemoryType, Mmu, PageArray, Pfn, PhysAddr, PhysRange, PhysSource, Tables, Tree, VirtAddr,
    VirtRange,
};
use support::{Host, Shape, tree};

#[test]
fn an_error_says_where_and_what() {
    let va = VirtAddr(0xffff_8000_0000_1000);
    let found = Descriptor(0x703);
    for (error, wanted) in [
        (Error::Empty(va), "empty range at 0xffff800000001000"),
        (
            Error::Misaligned(0x1801),
            "0x1801 is not a multiple of the page size",
        ),
        (
            Error::NonCanonical(va, 0x2000),
            "0x2000 bytes at 0xffff800000001000 leave this half of the address space",
        ),
        (
            Error::PhysicalRange(PhysAddr(1 << 48)),
            "physical address 0x0001000000000000 is not implemented",
        ),
        (Error::NoFrame { page: 7 }, "no frame for page 7 of the range"),
        (
            Error::Occupied { va, level: 3, found },
            "0xffff800000001000 is taken by level 3 descriptor 0x0000000000000703",
        ),
        (Error::NotMapped(va), "nothing is mapped at 0xffff800000001000"),
        (
            Error::WritableExecutable(va),
            "0xffff800000001000 would be writable and executable at once",
        ),
        (Error::OutOfTables(2), "no page for a level 2 table"),
    ] {
        assert_eq!(error.to_string(), wanted);
        let failure = Failure::from(error);
        assert_eq!(failure.to_string(), wanted, "a failure says its error");
        assert_eq!(failure.levels, LevelMask::NONE);
    }
}

#[test]
fn addresses_and_ranges_show_themselves() {
    assert_eq!(
        format!("{:?} {0} {0:x}", VirtAddr(0x5000)),
        "va:0x5000 0x0000000000005000 5000"
    );
    assert_eq!(
        format!("{:?} {0} {0:x}", PhysAddr(0x5000)),
        "pa:0x5000 0x0000000000005000 5000"
    );
    let range = VirtRange::new(VirtAddr(0x5000), 0x3000);
    assert_eq!(format!("{range:?}"), "va:0x5000+0x3000");
    assert_eq!((range.last(), range.end()), (VirtAddr(0x7fff), VirtAddr(0x8000)));
    assert!(
        range.contains(VirtAddr(0x7fff))
            && !range.contains(VirtAddr(0x8000))
            && !range.contains(VirtAddr(0x4fff))
    );
    assert!(
        range.overlaps(VirtRange::new(VirtAddr(0x7000), 0x9000))
            && !range.overlaps(VirtRange::new(VirtAddr(0x8000), 1))
    );
    assert!(
        !range.overlaps(VirtRange::new(VirtAddr(0x6000), 0)),
        "an empty range overlaps nothing"
    );
}

#[test]
fn sizes_are_shown_in_the_largest_unit_that_divides_them() {
    for (size, wanted) in [
        (0, "0"),
        (1, "1"),
        (1000, "1000"),
        (4096, "4K"),
        (3 << 20, "3M"),
        ((1 << 30) + (1 << 20), "1025M"),
        (16 << 30, "16G"),
        (5 << 40, "5T"),
    ] {
        assert_eq!(DisplaySize(size).to_string(), wanted);
    }
}

#[test]
fn a_walk_shows_every_level_down_to_what_it_found() {
    let tree = tree::<Granule4K>(Config::default(), false);
    let at = tree.range().start.add(1 << 46);
    Shape::Range(1 << 20, 16)
        .map(&tree, at, Attributes::KERNEL_DATA, LeafSet::ALL)
        .expect("vacant");
    let va = at.add(0x5123);
    let walk = tree.walk(va).expect("in range");
    assert_eq!(walk.level(), 3);
    let levels: Vec<_> = walk.steps().map(|step| (step.level, step.index)).collect();
    assert_eq!(levels, [(0, 128), (1, 0), (2, 0), (3, 5)]);
    assert_eq!(walk.steps().next().map(|step| step.table), Some(tree.root()));
    let leaf = walk.leaf.expect("mapped");
    assert_eq!(leaf.translate(va), PhysAddr((1 << 32) + 0x5123));
    let walk = tree.walk(at.add(3 << 30)).expect("in range");
    assert_eq!((walk.level(), walk.leaf), (1, None));
    assert_eq!(
        tree.walk(VirtAddr(0)),
        Err(Error::NonCanonical(VirtAddr(0), 4096))
    );
}

#[test]
fn a_tree_says_what_it_was_made_with() {
    let tables = Host::<Granule4K>::new();
    let root = tables.alloc_table().expect("memory");
    let config = Config {
        pa_bits: 44,
        ..Config::default()
    };
    let tree = Tree::<Granule4K, _, _>::new(root, Half::Low, tables, Counting::new(NoMmu::default()), config);
    assert_eq!((tree.root(), *tree.config()), (root, config));
    tree.mmu().dsb_ish();
    assert_eq!((tree.mmu().counts().dsb, tree.mmu().counts().dsb_ishst), (1, 0));
    assert_eq!(tree.mmu().take().dsb, 1);
    assert_eq!(tree.mmu().counts().dsb, 0);
    let device = MemoryType::DEVICE_NGNRE;
    assert_eq!((device.index(), device.shareability()), (1, 0b10));
    assert_eq!(Attributes::DEVICE.memory(), device);
}

#[test]
#[should_panic(expected = "49 physical address bits")]
fn more_physical_address_bits_than_are_built_are_refused() {
    let config = Config {
        pa_bits: 49,
        ..Config::default()
    };
    tree::<Granule4K>(config, false);
}

#[test]
#[should_panic(expected = "no TLBI by address")]
fn a_threshold_under_which_there_is_no_tlbi_is_refused() {
    let config = Config {
        flush_all_above: 0,
        ..Config::default()
    };
    tree::<Granule4K>(config, false);
}

struct ZeroPage;

impl PhysSource<Granule4K> for ZeroPage {
    const RUNS_ARE_FREE: bool = false;

    paging::passed_by_reference!();

    fn pages(&self) -> u64 {
        u64::MAX
    }

    fn run_at(&mut self, _page: u64, _limit: u64) -> Option<paging::Run> {
        Some(paging::Run {
            pa: PhysAddr(0x7000),
            pages: 1,
        })
    }
}

#[test]
fn a_source_of_ones_own_is_a_source_like_any_other() {
    let tree = tree::<Granule4K>(Config::default(), false);
    let range = VirtRange::new(tree.range().start.add(3 << 12), 1000 << 12);
    let outcome = tree
        .map(range, &mut ZeroPage, Attributes::KERNEL_RODATA, LeafSet::ALL)
        .expect("vacant");
    assert_eq!(outcome.leaves.get(paging::LeafSize::PAGE), 1000);
    for page in [0, 1, 511, 999] {
        let leaf = tree.translate(range.start.add(page << 12)).expect("mapped");
        assert_eq!(leaf.pa, PhysAddr(0x7000));
    }
}

#[test]
fn frame_numbers_may_be_kept_in_any_of_four_ways() {
    fn mapped<A: FrameArray + ?Sized>(frames: &A) -> Vec<(u64, u64, paging::LeafSize)> {
        let tree = tree::<Granule4K>(Config::default(), false);
        let at = tree.range().start;
        let range = VirtRange::new(at, (frames.nr_frames() as u64) << 12);
        tree.map(
            range,
            &mut PageArray::new(frames),
            Attributes::KERNEL_DATA,
            LeafSet::ALL,
        )
        .expect("vacant");
        support::leaves_in(&tree, range)
            .iter()
            .map(|leaf| (leaf.va.0, leaf.pa.0, leaf.size))
            .collect()
    }
    for numbers in [
        (0x1000u32..0x1200)
            .chain([9, 7, 8])
            .chain(0x2003..0x2100)
            .collect::<Vec<_>>(),
        vec![1],
        (0..700).map(|i| 5 + 2 * i).collect(),
    ] {
        let wide: Vec<u64> = numbers.iter().map(|n| u64::from(*n)).collect();
        let pfns: Vec<Pfn> = wide.iter().map(|n| Pfn(*n)).collect();
        let some: Vec<Option<Pfn>> = pfns.iter().copied().map(Some).collect();
        let wanted: Vec<_> =
            support::expected_leaves::<Granule4K>(VirtAddr(0xffff_0000_0000_0000), &wide, LeafSet::ALL);
        assert_eq!(mapped(numbers.as_slice()), wanted);
        assert_eq!(mapped(wide.as_slice()), wanted);
        assert_eq!(mapped(pfns.as_slice()), wanted);
        assert_eq!(mapped(some.as_slice()), wanted);
    }
    let past: &[u64] = &[1, 2];
    assert_eq!(past.frame(2), None, "behind the end there is no frame");
    let mut range = PhysRange::new(PhysAddr(0x5000), 2);
    assert_eq!(PhysSource::<Granule4K>::run_at(&mut range, 2, 1), None);
}
