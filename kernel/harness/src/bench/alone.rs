use core::hint::black_box;

use kernel::layout;
use kernel::mm;
use kernel::mm::tables::KernelTables;
use paging::mmu::Counting;
use paging::{
    Attributes, Extent, Failure, LeafCounts, LeafSet, Mmu, Outcome, Pfn, PhysAddr, Tables, Tree, VirtRange,
    vmap_range_noflush,
};
use vmalloc::{Backend, FlushPolicy, VmArea, Vmalloc};

use super::api::{self, Call};
use super::backend::{counting_subsystem, subsystem};
use super::counting::{CountingTables, Counts};
use super::engine::{self, Source, nowhere};
use super::pages::Pages;
use super::report::{Line, Op};
use super::{Bench, GIB, KIB, MIB, with_pages};
use crate::measure::{Samples, WARM_UP, runs};

/// Name, size, alignment of the physical address.
const GROUPS: &[(&str, u64, u64)] = &[
    ("range 32M, 32M pa", 32 * MIB, 32 * MIB),
    ("range 1G, 32M pa", GIB, 32 * MIB),
];

/// As above, and the part that becomes read-only.
const PROTECTS: &[(&str, u64, u64, (u64, u64))] = &[
    ("protect 4K of 4K", 4 * KIB, 4 * KIB, (0, 4 * KIB)),
    ("protect 1M of 1M, 4K pa", MIB, 4 * KIB, (0, MIB)),
    ("protect 64K of 64K", 64 * KIB, 64 * KIB, (0, 64 * KIB)),
    ("protect 2M of 2M", 2 * MIB, 2 * MIB, (0, 2 * MIB)),
    ("protect 32M of 32M, 32M pa", 32 * MIB, 32 * MIB, (0, 32 * MIB)),
    ("protect 1G of 1G, 32M pa", GIB, 32 * MIB, (0, GIB)),
    ("protect 1G of 1G, 1G pa", GIB, GIB, (0, GIB)),
    ("protect 4K of 64K", 64 * KIB, 64 * KIB, (20 * KIB, 4 * KIB)),
    ("protect 4K of 2M", 2 * MIB, 2 * MIB, (20 * KIB, 4 * KIB)),
    ("protect 64K of 2M", 2 * MIB, 2 * MIB, (64 * KIB, 64 * KIB)),
    (
        "protect 4K of 32M, 32M pa",
        32 * MIB,
        32 * MIB,
        (20 * KIB, 4 * KIB),
    ),
    ("protect 4K of 1G, 1G pa", GIB, GIB, (20 * KIB, 4 * KIB)),
];

/// Its 512 tables go too.
const WHOLE_TABLES: (&str, u64, u64) = ("range 1G, 4K pa", GIB, 4 * KIB);

/// Name, pages, order.
const EXTENTS: &[(&str, usize, u8)] = &[
    ("vmap_extents 16, order 0", 16, 0),
    ("vmap_extents 256, order 4", 256, 4),
    ("vmap_extents 25600, order 0", 25600, 0),
    ("vmap_extents 25600, order 4", 25600, 4),
    ("vmap_extents 25600, order 8", 25600, 8),
    ("vmap_extents 25600, order 9", 25600, 9),
];

/// Of a part of 2 MiB in one block, alias included: name, offset, size, cut before or not.
const SET_MEMORY: &[(&str, u64, u64, bool)] = &[
    ("set_memory_ro 4K of 2M", 20 * KIB, 4 * KIB, false),
    ("set_memory_ro 64K of 2M", 64 * KIB, 64 * KIB, false),
    ("set_memory_ro 2M of 2M", 0, 2 * MIB, false),
    ("set_memory_ro 4K of 2M, cut before", 20 * KIB, 4 * KIB, true),
];

/// Name, offset from 2 MiB, size.
const IOREMAP_INSIDE: &[(&str, u64, u64)] = &[
    ("ioremap 8M, 64K into a block", 64 * KIB, 8 * MIB),
    ("ioremap 8M, 1M into a block", MIB, 8 * MIB),
    ("ioremap 8M - 1, at an odd byte", MIB + 0x235, 8 * MIB - 1),
];

/// Name, pages into a block, pages.
const VMAP_INSIDE: &[(&str, u64, usize)] = &[
    ("vmap 2048, 256 pages into a block", 256, 2048),
    ("vmap 2048, 1 page into a block", 1, 2048),
];

/// # Panics
/// If a case fails.
pub fn run(bench: &Bench<'_>) {
    for (name, size, alignment) in GROUPS {
        engine::run(bench, name, Source::Range(nowhere().add(*alignment), *size));
    }
    for (name, size, alignment, part) in PROTECTS {
        edit(bench, name, *size, *alignment, Some(*part));
    }
    let (name, size, alignment) = WHOLE_TABLES;
    edit(bench, name, size, alignment, None);
    for (name, nr, order) in EXTENTS {
        with_pages(bench, &[name], *nr, *order, |pages| {
            let extents = pages.extents();
            api::run(bench, name, Call::VmapExtents(&extents, (*nr as u64) << 12));
        });
    }
    let whole = [Extent {
        start: Pfn(nowhere().0 >> 12),
        pages: 25600,
    }];
    api::run(
        bench,
        "vmap_extents 25600, 1 extent",
        Call::VmapExtents(&whole, 100 * MIB),
    );
    for (name, offset, size, cut) in SET_MEMORY {
        set_memory(bench, name, *offset, *size, *cut);
    }
    for (name, inside, size) in IOREMAP_INSIDE {
        api::run(bench, name, Call::Ioremap(nowhere().add(*inside), *size));
    }
    for (name, inside, nr) in VMAP_INSIDE {
        if bench.selects(name) {
            let first = (nowhere().0 >> 12) + inside;
            let pages = Pages::elsewhere(*nr, |page| first + page as u64)
                .unwrap_or_else(|| panic!("{name}: no memory"));
            api::run(bench, name, Call::Vmap(pages.frames()));
        }
    }
}

// Not inlined: the arguments must not become constants.

#[inline(never)]
fn map<T: Tables, M: Mmu>(
    tree: &Tree<layout::Granule, T, M>,
    range: VirtRange,
    pa: PhysAddr,
) -> Result<Outcome, Failure> {
    vmap_range_noflush(
        tree,
        range.start,
        pa,
        range.size,
        Attributes::DEVICE,
        LeafSet::ALL,
    )
}

#[inline(never)]
fn make_read_only<T: Tables, M: Mmu>(
    tree: &Tree<layout::Granule, T, M>,
    range: VirtRange,
) -> Result<Outcome, Failure> {
    let mut batch = tree.batch();
    let result = tree.protect(range, |old| old.read_only(), &mut batch);
    batch.flush();
    result
}

#[inline(never)]
fn unmap<T: Tables, M: Mmu>(
    tree: &Tree<layout::Granule, T, M>,
    range: VirtRange,
) -> Result<Outcome, Failure> {
    let mut batch = tree.batch();
    let result = tree.unmap(range, &mut batch);
    batch.flush();
    result
}

struct Measured {
    map: Samples,
    protect: Samples,
    unmap: Samples,
}

impl Measured {
    const fn new() -> Self {
        Self {
            map: Samples::new(),
            protect: Samples::new(),
            unmap: Samples::new(),
        }
    }

    fn print(&self, name: &str, counts: [Counts; 3], leaves: LeafCounts, protects: bool) {
        let [map, protect, unmap] = counts;
        let line = |op, samples: &Samples| Line::of(name, op, samples).leaves(leaves);
        line(Op::Map, &self.map).counts(map).print();
        if protects {
            line(Op::Protect, &self.protect).counts(protect).print();
        }
        line(Op::Unmap, &self.unmap).counts(unmap).print();
    }
}

/// Nothing beside it stays mapped, so tables come and go.
fn edit(bench: &Bench<'_>, name: &str, size: u64, alignment: u64, part: Option<(u64, u64)>) {
    if !bench.selects(name) {
        return;
    }
    bench.prune();
    let tree = mm::kernel_tree();
    let (range, pa) = (VirtRange::new(bench.va, size), nowhere().add(alignment));
    let part = part.map(|(offset, size)| VirtRange::new(bench.va.add(offset), size));
    let mut measured = Measured::new();
    let mut leaves = LeafCounts::default();
    for run in 0..WARM_UP + runs(size) {
        let (range, pa, part) = black_box((range, pa, part));
        let (mapped, map_count) = bench.instrument.count(|| map(tree, range, pa));
        leaves = mapped
            .unwrap_or_else(|failure| panic!("{name}: {failure}"))
            .leaves;
        if let Some(part) = part {
            let (changed, count) = bench.instrument.count(|| make_read_only(tree, part));
            assert!(changed.is_ok(), "{name}: {changed:?}");
            if run >= WARM_UP {
                measured.protect.add(count);
            }
        }
        let (unmapped, unmap_count) = bench.instrument.count(|| unmap(tree, range));
        assert!(unmapped.is_ok(), "{name}: {unmapped:?}");
        if run >= WARM_UP {
            measured.map.add(map_count);
            measured.unmap.add(unmap_count);
        }
    }
    let counted = tree.handle(CountingTables::new(KernelTables), Counting::new(bench.mmu));
    let take = |result: Result<Outcome, Failure>| {
        assert!(result.is_ok(), "{name}, counted: {result:?}");
        counted.tables().take(counted.mmu())
    };
    let counts = [
        take(map(&counted, range, pa)),
        part.map_or(Counts::default(), |part| take(make_read_only(&counted, part))),
        take(unmap(&counted, range)),
    ];
    measured.print(name, counts, leaves, part.is_some());
}

/// Area and alias each lie in a block. Both are cut; the free folds the alias.
fn set_memory(bench: &Bench<'_>, name: &str, offset: u64, size: u64, cut_before: bool) {
    if !bench.selects(name) {
        return;
    }
    bench.prune();
    let vm = subsystem(bench.region(), FlushPolicy::Strict);
    let neighbour = vm.ioremap(nowhere(), 4096);
    let mut measured = Measured::new();
    let mut leaves = LeafCounts::default();
    for run in 0..WARM_UP + runs(2 * MIB) {
        let (offset, size) = black_box((offset, size));
        let (area, map_count) = bench.instrument.count(|| vm.vmalloc_huge(2 * MIB));
        let area = area.unwrap_or_else(|error| panic!("{name}: {error}"));
        leaves = area.outcome().leaves;
        prepare(&area, offset, size, cut_before);
        let (changed, count) = bench.instrument.count(|| area.set_memory_ro(offset, size));
        assert!(changed.is_ok(), "{name}: {changed:?}");
        let ((), unmap_count) = bench.instrument.count(|| area.free());
        if run >= WARM_UP {
            measured.map.add(map_count);
            measured.protect.add(count);
            measured.unmap.add(unmap_count);
        }
    }
    drop(neighbour);
    drop(vm);
    let vm = counting_subsystem(bench.region(), FlushPolicy::Strict, bench.mmu);
    measured.print(
        name,
        counted_set_memory(&vm, name, offset, size, cut_before),
        leaves,
        true,
    );
}

fn prepare<B: Backend>(area: &VmArea<'_, B>, offset: u64, size: u64, cut_before: bool) {
    if cut_before {
        let done = area
            .set_memory_ro(offset, size)
            .and_then(|_| area.set_memory_rw(offset, size));
        assert!(done.is_ok(), "cutting beforehand: {done:?}");
    }
}

fn counted_set_memory(
    vm: &Vmalloc<super::backend::CountingBackend>,
    name: &str,
    offset: u64,
    size: u64,
    cut_before: bool,
) -> [Counts; 3] {
    let neighbour = vm.ioremap(nowhere(), 4096);
    let take = || vm.backend().take();
    drop(vm.vmalloc_huge(2 * MIB));
    take();
    let area = vm.vmalloc_huge(2 * MIB);
    let map = take();
    let area = area.unwrap_or_else(|error| panic!("{name}, counted: {error}"));
    prepare(&area, offset, size, cut_before);
    take();
    let changed = area.set_memory_ro(offset, size);
    let protect = take();
    assert!(changed.is_ok(), "{name}, counted: {changed:?}");
    drop(area);
    let unmap = take();
    drop(neighbour);
    [map, protect, unmap]
}
