//! `lib/test_vmalloc.c`: instructions of the whole test divided by the loops, as Linux's figures.
//! `steady` is the median of the loops alone.

use super::Bench;
use super::backend::{counting_subsystem, kernel_policy, subsystem};
use super::counting::Counts;
use super::pages::Pages;
use super::report::{Line, Op};
use crate::measure::silicon::silicon;
use crate::measure::{Samples, Summary};
use crate::test_vmalloc::{self, Params, Shape};

const ROUNDS: usize = 100;
/// Together as many as Linux's.
pub const LOOPS: usize = 100;
const COUNTED: u64 = 1_000;
/// As Linux leaves on one CPU.
const HOLES: u64 = (32 << 20) / 4096;
/// As in Linux.
const BUSY: u64 = 15_000;
const SEED: u64 = 0x5eed_0002;

/// Linux's name of the figure, the shape, its pages, whether in large blocks.
pub type Case = (&'static str, &'static str, u64, bool);

pub const CASES: &[Case] = &[
    ("test_vmalloc fix_size_alloc, 1 pages", "fix_size_alloc", 1, false),
    (
        "test_vmalloc fix_size_alloc, 16 pages",
        "fix_size_alloc",
        16,
        false,
    ),
    (
        "test_vmalloc fix_size_alloc, 256 pages",
        "fix_size_alloc",
        256,
        false,
    ),
    (
        "test_vmalloc fix_size_alloc, 256 pages, huge",
        "fix_size_alloc",
        256,
        true,
    ),
    (
        "test_vmalloc fix_size_alloc, 512 pages, huge",
        "fix_size_alloc",
        512,
        true,
    ),
    (
        "test_vmalloc fix_size_alloc, 1024 pages, huge",
        "fix_size_alloc",
        1024,
        true,
    ),
    ("test_vmalloc full_fit_alloc, 1 pages", "full_fit_alloc", 1, false),
    (
        "test_vmalloc long_busy_list_alloc, 101 pages",
        "long_busy_list_alloc",
        101,
        false,
    ),
    (
        "test_vmalloc random_size_alloc, 1..100 pages",
        "random_size_alloc",
        1,
        false,
    ),
    (
        "test_vmalloc fix_align_alloc, 5 pages",
        "fix_align_alloc",
        5,
        false,
    ),
    (
        "test_vmalloc random_size_align_alloc, 1..10 pages",
        "random_size_align_alloc",
        1,
        false,
    ),
    ("test_vmalloc no_block_alloc, 1 pages", "no_block_alloc", 1, false),
    ("test_vmalloc vrealloc, 1..4 pages", "vrealloc", 1, false),
    ("test_vmalloc vm_map_ram, 1 pages", "vm_map_ram", 1, false),
    ("test_vmalloc vm_map_ram, 16 pages", "vm_map_ram", 16, false),
    ("test_vmalloc vm_map_ram, 32 pages", "vm_map_ram", 32, false),
];

/// # Panics
/// If a loop fails, or is wrong.
pub fn run(bench: &Bench<'_>, (name, shape, nr_pages, use_huge): Case) {
    if !bench.selects(name) {
        return;
    }
    let pages = Pages::allocate(nr_pages as usize, 0).unwrap_or_else(|| panic!("{name}: no memory"));
    let mut params = Params {
        nr_pages,
        use_huge,
        holes: HOLES,
        busy: BUSY,
        frames: pages.frames(),
        rng: fastrand::Rng::with_seed(SEED),
    };
    let (all, rounds) = measure(bench, name, shape, &mut params);
    if silicon().is_some() {
        // Of what comes before and after them, one sample says nothing.
        Line::of(name, Op::Loop, &rounds).print();
        return;
    }
    let steady = rounds.summary();
    let per_loop = |of_round: u32| of_round.div_ceil(LOOPS as u32);
    let summary = Summary {
        median: u32::try_from(all / (ROUNDS * LOOPS) as u64).unwrap_or(u32::MAX),
        min: per_loop(steady.min),
        max: per_loop(steady.max),
        runs: ROUNDS * LOOPS,
    };
    params.rng = fastrand::Rng::with_seed(SEED);
    let line = Line {
        steady: Some(per_loop(steady.median)),
        counted: COUNTED,
        ..Line::new(name, Op::Loop, summary).counts(counted(bench, name, shape, &mut params))
    };
    line.print();
}

fn shape_of<B: vmalloc::Backend + 'static>(name: &str) -> Shape<B> {
    let found = test_vmalloc::all().into_iter().find(|shape| shape.name == name);
    found.unwrap_or_else(|| panic!("there is no shape {name}"))
}

fn measure(bench: &Bench<'_>, name: &str, shape: &str, params: &mut Params<'_>) -> (u64, Samples) {
    bench.prune();
    let vm = subsystem(bench.region(), kernel_policy());
    let shape = shape_of(shape);
    let (held, before) = bench.instrument.count(|| (shape.prepare)(&vm, params));
    let held = held.unwrap_or_else(|error| panic!("{name}: {error}"));
    let mut all = u64::from(before);
    let mut rounds = Samples::new();
    for _ in 0..ROUNDS {
        let (right, taken) = bench.instrument.count(|| {
            let mut right = 0;
            for _ in 0..LOOPS {
                right += usize::from(matches!((shape.step)(&vm, params), Ok(true)));
            }
            right
        });
        assert!(right == LOOPS, "{name}: {right} of {LOOPS} loops were right");
        all += u64::from(taken);
        rounds.add(taken);
    }
    let ((), after) = bench.instrument.count(|| {
        drop(held);
        vm.vm_unmap_aliases();
    });
    (all + u64::from(after), rounds)
}

fn counted(bench: &Bench<'_>, name: &str, shape: &str, params: &mut Params<'_>) -> Counts {
    let vm = counting_subsystem(bench.region(), kernel_policy(), bench.mmu);
    let shape = shape_of(shape);
    let held = (shape.prepare)(&vm, params).unwrap_or_else(|error| panic!("{name}, counted: {error}"));
    vm.vm_unmap_aliases();
    vm.backend().take();
    for _ in 0..COUNTED {
        let right = (shape.step)(&vm, params);
        assert!(matches!(right, Ok(true)), "{name}, counted: {right:?}");
    }
    vm.vm_unmap_aliases();
    let counts = vm.backend().take();
    drop(held);
    vm.vm_unmap_aliases();
    counts
}
