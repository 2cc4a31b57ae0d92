//! Cases of whole calls: `ioremap`, `vmap`, `vmalloc` and their kin, from the choice of an address to the last barrier, and back.
//!
//! They run in a subsystem of their own, on a region that the kernel's own has reserved for it: the same code on the same tree, but nobody else's areas in it.
//! Warm as all cases are: a page beside the area stays mapped.

use alloc::boxed::Box;
use core::hint::black_box;

use paging::mmu::Counting;
use paging::{Granule4K, Half, Pfn, PhysAddr, Tree, VirtRange};
use vmalloc::va::{NodePage, NodePages};
use vmalloc::{Backend, Config, FlushPolicy, Vmalloc};

use super::counting::{CountingTables, Counts};
use super::engine::{self, NOWHERE, Source};
use super::measure::{Samples, WARM_UP, runs};
use super::report::{Line, Op};
use super::{Bench, OURS};
use crate::arch::mmu::KernelMmu;
use crate::mm::areas::{KernelBackend, KernelVmalloc};
use crate::mm::tables::KernelTables;
use crate::mm::{self, WalkLock};
use crate::sync::IrqSpinLock;

/// What the reference walkers do of such a case.
const WALK_ALONE: &str = "the walk alone: the walker has no more";

/// A call that makes an area.
#[derive(Clone, Copy)]
pub enum Call<'a> {
    /// `ioremap`.
    Ioremap(PhysAddr, u64),
    /// `vmap`.
    Vmap(&'a [Pfn]),
    /// `vmalloc`.
    Vmalloc(u64),
    /// `vmalloc_huge`.
    VmallocHuge(u64),
    /// `get_vm_area`, with an alignment.
    Reserve(u64, u64),
}

impl Call<'_> {
    const fn size(&self) -> u64 {
        match self {
            Self::Vmap(frames) => (frames.len() as u64) << 12,
            Self::Ioremap(_, size)
            | Self::Vmalloc(size)
            | Self::VmallocHuge(size)
            | Self::Reserve(size, _) => *size,
        }
    }

    /// Whether the pages may stay in a TLB until a later purge.
    const fn may_be_lazy(&self) -> bool {
        matches!(self, Self::Ioremap(..) | Self::Vmalloc(_) | Self::VmallocHuge(_))
    }
}

/// A subsystem on `range`, which nobody else maps anything in.
pub fn subsystem(range: VirtRange, flush: FlushPolicy) -> Box<KernelVmalloc> {
    let config = Config {
        flush,
        ..Config::default()
    };
    match Vmalloc::new(range, KernelBackend, config) {
        Ok(vm) => Box::new(vm),
        Err(error) => panic!("a region for the bench: {error}"),
    }
}

/// Never reached by a case: what is withheld stays so until it is asked for.
pub const LAZY: FlushPolicy = FlushPolicy::Lazy {
    areas: usize::MAX,
    pages: u64::MAX,
};

/// Runs one case.
///
/// # Panics
/// If a call fails.
pub fn run(bench: &Bench<'_>, name: &str, call: Call<'_>) {
    if !bench.selects(name) {
        return;
    }
    // Tables that were kept for other cases are none of this one's.
    let pruned = mm::kernel_tree().prune(bench.region());
    assert!(pruned.is_ok(), "{name}: {pruned:?}");
    let vm = subsystem(bench.region(), FlushPolicy::Strict);
    let (map, unmap, outcome) = measure(bench, name, &vm, call);
    drop(vm);
    let counts = counted(bench, name, call);
    let line = |op, samples: &Samples, counts: Option<Counts>| Line {
        case: name,
        walker: OURS,
        op,
        instructions: samples.summary(),
        counts,
        leaves: Some(outcome),
        note: "",
    };
    line(Op::Map, &map, Some(counts.0)).print();
    line(Op::Unmap, &unmap, Some(counts.1)).print();
    if call.may_be_lazy() {
        line(Op::Lazy, &lazy(bench, name, call), None).print();
    }
    let range = VirtRange::new(bench.va, call.size());
    match call {
        Call::Ioremap(pa, size) => engine::walkers(bench, name, range, Source::Range(pa, size), WALK_ALONE),
        Call::Vmap(frames) => engine::walkers(bench, name, range, Source::Pages(frames), WALK_ALONE),
        Call::Vmalloc(_) | Call::VmallocHuge(_) | Call::Reserve(..) => {}
    }
}

/// Counts the instructions of a call; the arguments are none that the compiler knows.
macro_rules! count_call {
    ($bench:expr, $vm:expr, $call:expr) => {{
        let (bench, vm) = ($bench, $vm);
        match black_box($call) {
            Call::Ioremap(pa, size) => bench.instrument.count(|| vm.ioremap(pa, size)),
            Call::Vmap(frames) => bench.instrument.count(|| vm.vmap(frames)),
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
            neighbour = Some(vm.ioremap(NOWHERE, 4096));
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

/// What a purge owes for each call: that of several areas that were given back, divided by their number.
fn lazy(bench: &Bench<'_>, name: &str, call: Call<'_>) -> Samples {
    const AREAS: usize = 8;
    let vm = subsystem(bench.region(), LAZY);
    let neighbour = vm.ioremap(NOWHERE, 4096);
    let mut samples = Samples::new();
    for _ in 0..runs(call.size()) {
        for _ in 0..AREAS {
            let made = count_call!(bench, &vm, call).0;
            drop(made.unwrap_or_else(|error| panic!("{name}: {error}")));
        }
        let ((), purge) = bench.instrument.count(|| vm.vm_unmap_aliases());
        samples.add(purge / AREAS as u32);
    }
    drop(neighbour);
    samples
}

/// Runs a case of `vm_map_ram` and `vm_unmap_ram`, which go by address.
///
/// # Panics
/// If a call fails.
pub fn run_map_ram(bench: &Bench<'_>, name: &str, frames: &[Pfn]) {
    if !bench.selects(name) {
        return;
    }
    let pruned = mm::kernel_tree().prune(bench.region());
    assert!(pruned.is_ok(), "{name}: {pruned:?}");
    let nr = frames.len() as u64;
    let vm = subsystem(bench.region(), FlushPolicy::Strict);
    // Beside it, so that what it lies in stays.
    let kept = vm.vm_map_ram(&frames[..1]);
    assert!(kept.is_ok(), "{name}: {kept:?}");
    let (mut map, mut unmap) = (Samples::new(), Samples::new());
    for run in 0..WARM_UP + runs(nr << 12) {
        let frames = black_box(frames);
        let (mapped, map_count) = bench.instrument.count(|| vm.vm_map_ram(frames));
        let va = mapped.unwrap_or_else(|error| panic!("{name}: {error}"));
        let (va, nr) = black_box((va, nr));
        let (unmapped, unmap_count) = bench.instrument.count(|| vm.vm_unmap_ram(va, nr));
        assert!(unmapped.is_ok(), "{name}: {unmapped:?}");
        if run >= WARM_UP {
            map.add(map_count);
            unmap.add(unmap_count);
        }
    }
    if let Ok(va) = kept {
        assert!(vm.vm_unmap_ram(va, 1).is_ok(), "{name}: the neighbour stays");
    }
    for (op, samples) in [(Op::Map, &map), (Op::Unmap, &unmap)] {
        let line = Line {
            case: name,
            walker: OURS,
            op,
            instructions: samples.summary(),
            counts: None,
            leaves: None,
            note: "",
        };
        line.print();
    }
}

fn counted(bench: &Bench<'_>, name: &str, call: Call<'_>) -> (Counts, Counts) {
    let vm = Vmalloc::new(bench.region(), CountingBackend::new(bench.mmu), Config::default());
    let vm = Box::new(vm.unwrap_or_else(|error| panic!("{name}: {error}")));
    let take = || {
        let tree = vm.backend().tree();
        tree.tables().take(tree.mmu())
    };
    let make = || match call {
        Call::Ioremap(pa, size) => vm.ioremap(pa, size),
        Call::Vmap(frames) => vm.vmap(frames),
        Call::Vmalloc(size) => vm.vmalloc(size),
        Call::VmallocHuge(size) => vm.vmalloc_huge(size),
        Call::Reserve(size, align) => vm.get_vm_area(size, align),
    };
    let warm = make();
    let neighbour = vm.ioremap(NOWHERE, 4096);
    drop(warm);
    take();
    let area = make();
    let map = take();
    drop(area);
    let unmap = take();
    drop(neighbour);
    (map, unmap)
}

/// The kernel's backend with a tree that counts.
struct CountingBackend {
    tree: Tree<Granule4K, CountingTables<KernelTables>, Counting<KernelMmu>>,
}

impl CountingBackend {
    fn new(mmu: KernelMmu) -> Self {
        let tree = mm::kernel_tree();
        Self {
            tree: Tree::new(
                tree.root(),
                Half::High,
                CountingTables::new(KernelTables),
                Counting::new(mmu),
                *tree.config(),
            ),
        }
    }
}

impl NodePages for CountingBackend {
    fn node_page(&self) -> Option<&'static mut NodePage> {
        KernelBackend.node_page()
    }
}

// SAFETY: the kernel's backend keeps the promises; the tree is the kernel's, by another handle.
unsafe impl Backend for CountingBackend {
    type Granule = Granule4K;
    type Tables = CountingTables<KernelTables>;
    type Mmu = Counting<KernelMmu>;
    type Lock<T: Send> = IrqSpinLock<T>;
    type WalkLock = WalkLock;

    fn tree(&self) -> &Tree<Granule4K, CountingTables<KernelTables>, Counting<KernelMmu>> {
        &self.tree
    }
    fn walks(&self) -> &WalkLock {
        mm::walk_lock()
    }
    fn alloc_frames(&self, order: u32) -> Option<Pfn> {
        KernelBackend.alloc_frames(order)
    }
    fn free_frames(&self, first: Pfn, order: u32) {
        KernelBackend.free_frames(first, order);
    }
    fn max_order(&self) -> u32 {
        KernelBackend.max_order()
    }
    fn nr_frames(&self) -> u64 {
        KernelBackend.nr_frames()
    }
    fn zero_frames(&self, first: Pfn, order: u32) {
        KernelBackend.zero_frames(first, order);
    }
    fn read_word(&self, frame: Pfn, index: usize) -> u64 {
        KernelBackend.read_word(frame, index)
    }
    fn write_word(&self, frame: Pfn, index: usize, value: u64) {
        KernelBackend.write_word(frame, index, value);
    }
    fn without_waiting<R>(&self, f: impl FnOnce() -> R) -> R {
        KernelBackend.without_waiting(f)
    }
    fn is_ram(&self, start: PhysAddr, size: u64) -> bool {
        KernelBackend.is_ram(start, size)
    }
}
