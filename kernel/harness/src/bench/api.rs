//! Cases of whole calls, in a subsystem of their own. A page beside the area stays mapped, so that
//! tables stay.

use core::hint::black_box;

use kernel::mm::areas::KernelVmalloc;
use paging::{Extent, Pfn, PhysAddr, VirtRange};
use vmalloc::FlushPolicy;

use super::Bench;
use super::backend::{LAZY, counting_subsystem, deferring_subsystem, subsystem};
use super::counting::Counts;
use super::engine::{self, Source, nowhere};
use super::report::{Line, Op};
use crate::measure::silicon::per;
use crate::measure::{Samples, WARM_UP, runs};

const WALK_ALONE: &str = "the walk alone: the walker has no more";

#[derive(Clone, Copy)]
pub enum Call<'a> {
    Ioremap(PhysAddr, u64),
    Vmap(&'a [Pfn]),
    VmapExtents(&'a [Extent], u64),
    Vmalloc(u64),
    VmallocHuge(u64),
    Reserve(u64, u64),
}

impl Call<'_> {
    const fn size(&self) -> u64 {
        match self {
            Self::Vmap(frames) => (frames.len() as u64) << 12,
            Self::Ioremap(_, size)
            | Self::VmapExtents(_, size)
            | Self::Vmalloc(size)
            | Self::VmallocHuge(size)
            | Self::Reserve(size, _) => *size,
        }
    }

    /// The pages may stay in a TLB until a purge.
    const fn may_be_lazy(&self) -> bool {
        matches!(self, Self::Ioremap(..) | Self::Vmalloc(_) | Self::VmallocHuge(_))
    }
}

/// # Panics
/// If a call fails.
pub fn run(bench: &Bench<'_>, name: &str, call: Call<'_>) {
    if !bench.selects(name) {
        return;
    }
    bench.prune();
    let vm = subsystem(bench.region(), FlushPolicy::Strict);
    let (map, unmap, outcome) = measure(bench, name, &vm, call);
    drop(vm);
    let counts = counted(bench, call);
    let line = |op, samples: &Samples| Line::of(name, op, samples).leaves(outcome);
    line(Op::Map, &map).counts(counts.0).print();
    line(Op::Unmap, &unmap).counts(counts.1).print();
    if call.may_be_lazy() {
        line(Op::Lazy, &lazy(bench, name, call)).print();
    }
    let range = VirtRange::new(bench.va, call.size());
    match call {
        Call::Ioremap(pa, size) if (pa.0 | size) % 4096 == 0 => {
            engine::walkers(bench, name, range, Source::Range(pa, size), WALK_ALONE);
        }
        Call::Vmap(frames) => engine::walkers(bench, name, range, Source::Pages(frames), WALK_ALONE),
        Call::Ioremap(..)
        | Call::VmapExtents(..)
        | Call::Vmalloc(_)
        | Call::VmallocHuge(_)
        | Call::Reserve(..) => {}
    }
}

/// The compiler does not know the arguments.
macro_rules! count_call {
    ($bench:expr, $vm:expr, $call:expr) => {{
        let (bench, vm) = ($bench, $vm);
        match black_box($call) {
            Call::Ioremap(pa, size) => bench.instrument.count(|| vm.ioremap(pa, size)),
            Call::Vmap(frames) => bench.instrument.count(|| vm.vmap(frames)),
            Call::VmapExtents(extents, _) => bench.instrument.count(|| vm.vmap_extents(extents)),
            Call::Vmalloc(size) => bench.instrument.count(|| vm.vmalloc(size)),
            Call::VmallocHuge(size) => bench.instrument.count(|| vm.vmalloc_huge(size)),
            Call::Reserve(size, align) => bench.instrument.count(|| vm.get_vm_area(size, align)),
        }
    }};
}

fn measure(
    bench: &Bench<'_>,
    name: &str,
    vm: &KernelVmalloc,
    call: Call<'_>,
) -> (Samples, Samples, paging::LeafCounts) {
    let (mut map, mut unmap) = (Samples::new(), Samples::new());
    let mut leaves = Default::default();
    let mut neighbour = None;
    for run in 0..WARM_UP + runs(call.size()) {
        let (made, map_count) = count_call!(bench, vm, call);
        let area = made.unwrap_or_else(|error| panic!("{name}: {error}"));
        if neighbour.is_none() {
            neighbour = Some(vm.ioremap(nowhere(), 4096));
        }
        leaves = area.outcome().leaves;
        let ((), unmap_count) = bench.instrument.count(|| area.free());
        if run >= WARM_UP {
            map.add(map_count);
            unmap.add(unmap_count);
        }
    }
    (map, unmap, leaves)
}

/// Of a purge.
pub const AREAS: usize = 8;

/// Per area of a purge.
fn lazy(bench: &Bench<'_>, name: &str, call: Call<'_>) -> Samples {
    let vm = subsystem(bench.region(), LAZY);
    let neighbour = vm.ioremap(nowhere(), 4096);
    let mut samples = Samples::new();
    for _ in 0..runs(call.size()) {
        for _ in 0..AREAS {
            let made = count_call!(bench, &vm, call).0;
            drop(made.unwrap_or_else(|error| panic!("{name}: {error}")));
        }
        let ((), purge) = bench.instrument.count(|| vm.vm_unmap_aliases());
        samples.add(per(purge, AREAS as u32));
    }
    drop(neighbour);
    samples
}

/// # Panics
/// If a call fails.
pub fn run_map_ram(bench: &Bench<'_>, name: &str, frames: &[Pfn]) {
    if !bench.selects(name) {
        return;
    }
    bench.prune();
    let vm = subsystem(bench.region(), FlushPolicy::Strict);
    let (map, unmap) = measure_map_ram(bench, name, &vm, frames);
    drop(vm);
    let counts = counted_map_ram(bench, name, frames);
    for (op, samples, counts) in [(Op::Map, &map, counts.0), (Op::Unmap, &unmap, counts.1)] {
        Line::of(name, op, samples).counts(counts).print();
    }
}

/// The flush of unmaps is deferred, as in Linux.
///
/// # Panics
/// If a call fails.
pub fn run_deferred(bench: &Bench<'_>, names: (&str, &str), frames: &[Pfn]) {
    if bench.selects(names.0) {
        bench.prune();
        let vm = deferring_subsystem(bench.region());
        let (map, unmap, leaves) = measure(bench, names.0, &vm, Call::Vmap(frames));
        for (op, samples) in [(Op::Map, &map), (Op::Unmap, &unmap)] {
            Line::of(names.0, op, samples).leaves(leaves).print();
        }
    }
    if bench.selects(names.1) {
        bench.prune();
        let vm = deferring_subsystem(bench.region());
        let (map, unmap) = measure_map_ram(bench, names.1, &vm, frames);
        for (op, samples) in [(Op::Map, &map), (Op::Unmap, &unmap)] {
            Line::of(names.1, op, samples).print();
        }
    }
}

fn measure_map_ram(bench: &Bench<'_>, name: &str, vm: &KernelVmalloc, frames: &[Pfn]) -> (Samples, Samples) {
    let nr = frames.len() as u64;
    // A neighbour, so that the block stays.
    let kept = vm.vm_map_ram(&frames[..1]);
    assert!(kept.is_ok(), "{name}: {kept:?}");
    let (mut map, mut unmap) = (Samples::new(), Samples::new());
    for run in 0..WARM_UP + runs(nr << 12) {
        let frames = black_box(frames);
        let (mapped, map_count) = bench.instrument.count(|| vm.vm_map_ram(frames));
        let va = mapped.unwrap_or_else(|error| panic!("{name}: {error}"));
        let (va, nr) = black_box((va, nr));
        // SAFETY: the bench's own mapping, and nothing lies in it.
        let (unmapped, unmap_count) = bench.instrument.count(|| unsafe { vm.vm_unmap_ram(va, nr) });
        assert!(unmapped.is_ok(), "{name}: {unmapped:?}");
        if run >= WARM_UP {
            map.add(map_count);
            unmap.add(unmap_count);
        }
    }
    if let Ok(va) = kept {
        // SAFETY: as above.
        let unmapped = unsafe { vm.vm_unmap_ram(va, 1) };
        assert!(unmapped.is_ok(), "{name}: the neighbour stays");
    }
    (map, unmap)
}

fn counted_map_ram(bench: &Bench<'_>, name: &str, frames: &[Pfn]) -> (Counts, Counts) {
    let vm = counting_subsystem(bench.region(), FlushPolicy::Strict, bench.mmu);
    let kept = vm.vm_map_ram(&frames[..1]);
    let mut counts = Default::default();
    for _ in 0..=WARM_UP {
        vm.backend().take();
        let mapped = vm.vm_map_ram(frames);
        let map = vm.backend().take();
        let va = mapped.unwrap_or_else(|error| panic!("{name}, counted: {error}"));
        // SAFETY: the bench's own mapping, and nothing lies in it.
        let unmapped = unsafe { vm.vm_unmap_ram(va, frames.len() as u64) };
        assert!(unmapped.is_ok(), "{name}, counted: {unmapped:?}");
        counts = (map, vm.backend().take());
    }
    // SAFETY: as above.
    let unkept = kept.and_then(|va| unsafe { vm.vm_unmap_ram(va, 1) });
    assert!(unkept.is_ok(), "{name}, counted: {unkept:?}");
    counts
}

fn counted(bench: &Bench<'_>, call: Call<'_>) -> (Counts, Counts) {
    let vm = counting_subsystem(bench.region(), FlushPolicy::Strict, bench.mmu);
    let take = || vm.backend().take();
    let make = || match call {
        Call::Ioremap(pa, size) => vm.ioremap(pa, size),
        Call::Vmap(frames) => vm.vmap(frames),
        Call::VmapExtents(extents, _) => vm.vmap_extents(extents),
        Call::Vmalloc(size) => vm.vmalloc(size),
        Call::VmallocHuge(size) => vm.vmalloc_huge(size),
        Call::Reserve(size, align) => vm.get_vm_area(size, align),
    };
    let warm = make();
    let neighbour = vm.ioremap(nowhere(), 4096);
    drop(warm);
    take();
    let area = make();
    let map = take();
    drop(area);
    let unmap = take();
    drop(neighbour);
    (map, unmap)
}
