//! Cases of the walkers alone, each on its own. A page behind the range stays mapped, so that no
//! table that it shares comes and goes.

use core::hint::black_box;

use kernel::arch::mmu::KernelMmu;
use kernel::layout;
use kernel::mm;
use kernel::mm::tables::KernelTables;
use paging::mmu::Counting;
use paging::reference::{Context, Walker};
use paging::{
    Attributes, Extent, Extents, Failure, LeafSet, Mmu, Outcome, Pfn, PhysAddr, Tables, Tree, VirtAddr,
    VirtRange, for_each_walker, vmap_pages_range_noflush_walk, vmap_range_noflush,
};

use super::Bench;
use super::counting::{CountingTables, Counts};
use super::report::{Line, Op};
use crate::measure::{Samples, WARM_UP, runs};
use crate::wrong_walkers::for_each_wrong_walker;

#[derive(Clone, Copy)]
pub enum Source<'a> {
    Range(PhysAddr, u64),
    Pages(&'a [Pfn]),
    /// Chunks of `1 << shift` bytes for the reference walkers; extents for the engine.
    Chunks(&'a [Pfn], u32, &'a [Extent]),
}

impl Source<'_> {
    fn size(&self) -> u64 {
        match self {
            Self::Range(_, size) => *size,
            Self::Pages(frames) | Self::Chunks(frames, ..) => (frames.len() as u64) << 12,
        }
    }

    fn pa(&self, page: u64) -> PhysAddr {
        match self {
            Self::Range(pa, _) => pa.add(page << 12),
            Self::Pages(frames) | Self::Chunks(frames, ..) => PhysAddr(frames[page as usize].0 << 12),
        }
    }

    fn attributes(&self) -> Attributes {
        match self {
            Self::Range(..) => Attributes::DEVICE,
            _ => Attributes::KERNEL_DATA,
        }
    }
}

const fn neighbour(range: VirtRange) -> VirtAddr {
    range.end()
}

/// Returns an address without RAM behind it, a multiple of every leaf.
#[must_use]
pub fn nowhere() -> PhysAddr {
    let pa_bits = mm::kernel_tree().config().pa_bits;
    PhysAddr(1 << (pa_bits - 1).min(40))
}

// Not inlined: the arguments must not become constants.

#[inline(never)]
fn map_live<T: Tables, M: Mmu>(
    tree: &Tree<layout::Granule, T, M>,
    va: VirtAddr,
    source: Source<'_>,
    attributes: Attributes,
) -> Result<Outcome, Failure> {
    match source {
        Source::Range(pa, size) => map_live_range(tree, va, pa, size, attributes),
        Source::Pages(frames) => map_live_pages(tree, va, frames, attributes),
        Source::Chunks(frames, _, extents) => {
            map_live_extents(tree, va, frames.len() as u64, extents, attributes)
        }
    }
}

#[inline(never)]
fn map_live_range<T: Tables, M: Mmu>(
    tree: &Tree<layout::Granule, T, M>,
    va: VirtAddr,
    pa: PhysAddr,
    size: u64,
    attributes: Attributes,
) -> Result<Outcome, Failure> {
    vmap_range_noflush(tree, va, pa, size, attributes, LeafSet::ALL)
}

#[inline(never)]
fn map_live_pages<T: Tables, M: Mmu>(
    tree: &Tree<layout::Granule, T, M>,
    va: VirtAddr,
    frames: &[Pfn],
    attributes: Attributes,
) -> Result<Outcome, Failure> {
    vmap_pages_range_noflush_walk(tree, va, frames, attributes, LeafSet::ALL)
}

#[inline(never)]
fn map_live_extents<T: Tables, M: Mmu>(
    tree: &Tree<layout::Granule, T, M>,
    va: VirtAddr,
    pages: u64,
    extents: &[Extent],
    attributes: Attributes,
) -> Result<Outcome, Failure> {
    let mut source = Extents::new(extents);
    tree.map(
        VirtRange::new(va, pages << 12),
        &mut source,
        attributes,
        LeafSet::ALL,
    )
}

#[inline(never)]
fn unmap_live<T: Tables, M: Mmu>(
    tree: &Tree<layout::Granule, T, M>,
    range: VirtRange,
) -> Result<Outcome, Failure> {
    let mut batch = tree.batch();
    let result = tree.unmap(range, &mut batch);
    batch.flush();
    result
}

#[inline(never)]
fn map_walker<W, T: Tables, M: Mmu>(
    walker: &W,
    ctx: &Context<'_, layout::Granule, T, M>,
    va: VirtAddr,
    source: Source<'_>,
    attributes: Attributes,
) -> bool
where
    W: Walker<layout::Granule, T, M>,
{
    match source {
        Source::Range(pa, size) => walker.map_range(ctx, va, pa, size, attributes),
        Source::Pages(frames) => walker.map_pages(ctx, va, frames, attributes),
        Source::Chunks(frames, shift, _) => walker.map_chunks(ctx, va, frames, shift, attributes),
    }
    .is_ok()
}

#[inline(never)]
fn unmap_walker<W, T: Tables, M: Mmu>(
    walker: &W,
    ctx: &Context<'_, layout::Granule, T, M>,
    range: VirtRange,
) -> bool
where
    W: Walker<layout::Granule, T, M>,
{
    walker.unmap(ctx, range.start, range.size).is_ok()
}

/// # Panics
/// If a map or unmap fails.
pub fn run(bench: &Bench<'_>, name: &str, source: Source<'_>) {
    if !bench.selects(name) {
        return;
    }
    bench.prune();
    let range = VirtRange::new(bench.va, source.size());
    live(bench, name, range, source);
    walkers(bench, name, range, source, "");
}

/// `note` says what of the case the walkers do.
pub fn walkers(bench: &Bench<'_>, name: &str, range: VirtRange, source: Source<'_>, note: &'static str) {
    for_each_walker!(|walker| {
        let walker_name = walker_name(&walker);
        if walker_name != super::OURS && crate::glob::matches(bench.walkers, walker_name) {
            own(bench, name, range, source, &walker, note);
        }
    });
    if bench.wrong_walkers {
        for_each_wrong_walker!(|walker| {
            if crate::glob::matches(bench.walkers, walker_name(&walker)) {
                own(bench, name, range, source, &walker, note);
            }
        });
    }
}

pub fn walker_name<W: Walker<layout::Granule, KernelTables, KernelMmu>>(_: &W) -> &'static str {
    W::NAME
}

fn live(bench: &Bench<'_>, name: &str, range: VirtRange, source: Source<'_>) {
    let tree = mm::kernel_tree();
    let attributes = source.attributes();
    let kept = neighbour(range);
    let keep = vmap_range_noflush(tree, kept, nowhere(), 4096, Attributes::DEVICE, LeafSet::PAGES);
    assert!(keep.is_ok(), "{name}: the neighbour cannot be mapped: {keep:?}");

    let (mut map, mut unmap) = (Samples::new(), Samples::new());
    let mut leaves = Default::default();
    for run in 0..WARM_UP + runs(range.size) {
        let (va, source) = (black_box(range.start), black_box(source));
        let (mapped, map_count) = match source {
            Source::Range(pa, size) => bench
                .instrument
                .count(|| map_live_range(tree, va, pa, size, attributes)),
            Source::Pages(frames) => bench
                .instrument
                .count(|| map_live_pages(tree, va, frames, attributes)),
            Source::Chunks(frames, _, extents) => bench
                .instrument
                .count(|| map_live_extents(tree, va, frames.len() as u64, extents, attributes)),
        };
        let mapped = mapped.unwrap_or_else(|failure| panic!("{name}: {failure}"));
        let range = black_box(range);
        let (unmapped, unmap_count) = bench.instrument.count(|| unmap_live(tree, range));
        assert!(unmapped.is_ok(), "{name}: {unmapped:?}");
        leaves = mapped.leaves;
        if run >= WARM_UP {
            map.add(map_count);
            unmap.add(unmap_count);
        }
    }

    let counted = tree.handle(CountingTables::new(KernelTables), Counting::new(bench.mmu));
    let take = || counted.tables().take(counted.mmu());
    let mapped = map_live(&counted, range.start, source, attributes);
    let map_counts = take();
    let unmapped = unmap_live(&counted, range);
    let unmap_counts = take();
    assert!(
        mapped.is_ok() && unmapped.is_ok(),
        "{name}: not the same when counted"
    );

    let unkept = unmap_live(tree, VirtRange::new(kept, 4096));
    assert!(unkept.is_ok(), "{name}: the neighbour stays");
    let line = |op, samples: &Samples, counts| Line::of(name, op, samples).counts(counts).leaves(leaves);
    line(Op::Map, &map, map_counts).print();
    line(Op::Unmap, &unmap, unmap_counts).print();
}

fn own<W>(bench: &Bench<'_>, name: &str, range: VirtRange, source: Source<'_>, walker: &W, note: &'static str)
where
    W: Walker<layout::Granule, KernelTables, KernelMmu>
        + Walker<layout::Granule, CountingTables<KernelTables>, Counting<KernelMmu>>,
{
    let walker_name = walker_name(walker);
    let attributes = source.attributes();
    let tables = KernelTables;
    let ctx =
        Context::new(&tables, &bench.mmu).unwrap_or_else(|| panic!("{name}, {walker_name}: no root table"));
    assert!(
        map_walker(
            walker,
            &ctx,
            neighbour(range),
            Source::Range(nowhere(), 4096),
            Attributes::DEVICE
        ),
        "{name}, {walker_name}: the neighbour cannot be mapped"
    );
    let (mut map, mut unmap) = (Samples::new(), Samples::new());
    let mut leaves = Default::default();
    for run in 0..WARM_UP + runs(range.size) {
        let (va, source) = (black_box(range.start), black_box(source));
        let (mapped, map_count) = match source {
            Source::Range(pa, size) => bench
                .instrument
                .count(|| map_range_of(walker, &ctx, va, pa, size, attributes)),
            Source::Pages(frames) => bench
                .instrument
                .count(|| map_pages_of(walker, &ctx, va, frames, attributes)),
            Source::Chunks(frames, shift, _) => bench
                .instrument
                .count(|| map_chunks_of(walker, &ctx, va, frames, shift, attributes)),
        };
        assert!(mapped, "{name}, {walker_name}: not mapped");
        if run == 0 {
            leaves = ctx.leaf_counts(range);
            check_every_page(name, walker_name, &ctx, range, source);
        }
        let range = black_box(range);
        let (unmapped, unmap_count) = bench.instrument.count(|| unmap_walker(walker, &ctx, range));
        assert!(unmapped, "{name}, {walker_name}: not unmapped");
        if run == 0 {
            let left = ctx.leaf_counts(range);
            assert!(left.is_empty(), "{name}, {walker_name}: left mapped: {left:?}");
        }
        if run >= WARM_UP {
            map.add(map_count);
            unmap.add(unmap_count);
        }
    }

    let (map_counts, unmap_counts) = counted(walker, &ctx, bench.mmu, range, source);
    ctx.release();
    let line = |op, samples: &Samples, counts| Line {
        walker: walker_name,
        note,
        ..Line::of(name, op, samples).counts(counts).leaves(leaves)
    };
    line(Op::Map, &map, map_counts).print();
    line(Op::Unmap, &unmap, unmap_counts).print();
}

fn check_every_page(
    name: &str,
    walker_name: &str,
    ctx: &Context<'_, layout::Granule, KernelTables, KernelMmu>,
    range: VirtRange,
    source: Source<'_>,
) {
    let mut done = 0;
    while done < range.size {
        let expected = source.pa(done >> 12);
        let found = ctx.translate(range.start.add(done));
        let Some((pa, leaf)) = found.filter(|(pa, _)| *pa == expected) else {
            panic!(
                "{name}, {walker_name}: page {} is {found:?}, not {expected}",
                done >> 12
            );
        };
        let left = leaf.bytes::<layout::Granule>() - (pa.0 & (leaf.bytes::<layout::Granule>() - 1));
        let pages = left.min(range.size - done) >> 12;
        let first = done >> 12;
        for page in 1..pages {
            let expected = source.pa(first + page);
            assert!(
                pa.add(page << 12) == expected,
                "{name}, {walker_name}: page {} is in a leaf of other frames, not {expected}",
                first + page
            );
        }
        done += pages << 12;
    }
}

fn counted<W>(
    walker: &W,
    ctx: &Context<'_, layout::Granule, KernelTables, KernelMmu>,
    mmu: KernelMmu,
    range: VirtRange,
    source: Source<'_>,
) -> (Counts, Counts)
where
    W: Walker<layout::Granule, CountingTables<KernelTables>, Counting<KernelMmu>>,
{
    let tables = CountingTables::new(KernelTables);
    let mmu = Counting::new(mmu);
    let ctx = Context::from_root(ctx.root, &tables, &mmu);
    let mapped = map_walker(walker, &ctx, range.start, source, source.attributes());
    let map_counts = tables.take(&mmu);
    let unmapped = unmap_walker(walker, &ctx, range);
    assert!(mapped && unmapped, "not the same when counted");
    (map_counts, tables.take(&mmu))
}

type Own<'a> = Context<'a, layout::Granule, KernelTables, KernelMmu>;
trait KernelWalker: Walker<layout::Granule, KernelTables, KernelMmu> {}
impl<W: Walker<layout::Granule, KernelTables, KernelMmu>> KernelWalker for W {}

#[inline(never)]
fn map_range_of(
    walker: &impl KernelWalker,
    ctx: &Own<'_>,
    va: VirtAddr,
    pa: PhysAddr,
    size: u64,
    attributes: Attributes,
) -> bool {
    walker.map_range(ctx, va, pa, size, attributes).is_ok()
}

#[inline(never)]
fn map_pages_of(
    walker: &impl KernelWalker,
    ctx: &Own<'_>,
    va: VirtAddr,
    frames: &[Pfn],
    attributes: Attributes,
) -> bool {
    walker.map_pages(ctx, va, frames, attributes).is_ok()
}

#[inline(never)]
fn map_chunks_of(
    walker: &impl KernelWalker,
    ctx: &Own<'_>,
    va: VirtAddr,
    frames: &[Pfn],
    shift: u32,
    attributes: Attributes,
) -> bool {
    walker.map_chunks(ctx, va, frames, shift, attributes).is_ok()
}
