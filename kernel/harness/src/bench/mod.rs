//! `mode=bench`: instructions, table accesses and barriers of each operation, on one CPU with
//! interrupts masked, in fixed order and from fixed seeds: two boots under `-icount` print the
//! same. Costs depend on the state of the frame allocator, so `scripts/bench` boots once for each
//! case. Names are those of Linux's figures.

mod alone;
mod api;
mod backend;
mod counting;
mod cpus;
mod engine;
mod growth;
pub mod lines;
mod loops;
mod pages;
mod report;

use core::cell::Cell;

use kernel::arch::features::Features;
use kernel::arch::mmu::KernelMmu;
use kernel::arch::time;
use kernel::drivers::console;
use kernel::layout;
use kernel::mm::areas::kernel_vmalloc;
use kernel::print;
use paging::{Granule as _, VirtAddr, VirtRange, for_each_walker};

use crate::options::{Options, Planted};
use crate::wrong_walkers::for_each_wrong_walker;
use api::Call;
use engine::{Source, nowhere};
use pages::Pages;

use crate::measure::silicon::{State, silicon};
use crate::measure::{Error, Instrument};

const OURS: &str = "vmwalk";

const LIST: &str = "list";

/// Only figures of a release build are comparable.
const BUILD: &str = match (option_env!("VMWALK_PROFILE"), cfg!(debug_assertions)) {
    (Some(profile), _) => profile,
    (None, true) => "dev",
    (None, false) if cfg!(feature = "trace") => "release with hook points",
    (None, false) => "release",
};

pub struct Bench<'a> {
    instrument: Instrument,
    cases: &'a str,
    walkers: &'a str,
    wrong_walkers: bool,
    mmu: KernelMmu,
    va: VirtAddr,
    /// Set: nothing runs, and it gets whether `cases` selects anything.
    found: Option<&'a Cell<bool>>,
}

const RESERVED: u64 = 256 * GIB;

impl Bench<'_> {
    /// After Ctrl-C none runs.
    fn selects(&self, case: &str) -> bool {
        if let Some(found) = self.found {
            found.set(found.get() || crate::glob::matches(self.cases, case));
            return false;
        }
        if self.cases == LIST {
            report::name(case);
            return false;
        }
        crate::glob::matches(self.cases, case) && !console::interrupted()
    }

    /// No walk may be under way.
    fn prune(&self) {
        let pruned = kernel::mm::kernel_tree().prune(VirtRange::new(self.va, RESERVED));
        assert!(pruned.is_ok(), "{pruned:?}");
    }

    fn region(&self) -> VirtRange {
        VirtRange::new(self.va.add(RESERVED / 2), RESERVED / 2)
    }
}

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// Name, size, and what the physical address is an odd multiple of.
const RANGES: &[(&str, u64, u64)] = &[
    ("range 4K, 4K pa", 4 * KIB, 4 * KIB),
    ("range 64K, 64K pa", 64 * KIB, 64 * KIB),
    ("range 1M, 4K pa", MIB, 4 * KIB),
    ("range 1M, 64K pa", MIB, 64 * KIB),
    ("range 1M, 2M pa", MIB, 2 * MIB),
    ("range 2M, 4K pa", 2 * MIB, 4 * KIB),
    ("range 2M, 64K pa", 2 * MIB, 64 * KIB),
    ("range 2M, 2M pa", 2 * MIB, 2 * MIB),
    ("range 32M, 4K pa", 32 * MIB, 4 * KIB),
    ("range 32M, 64K pa", 32 * MIB, 64 * KIB),
    ("range 32M, 2M pa", 32 * MIB, 2 * MIB),
    ("range 1G, 2M pa", GIB, 2 * MIB),
    ("range 1G, 1G pa", GIB, GIB),
];

const IOREMAPS: &[(&str, u64, u64)] = &[
    ("ioremap 4K, 4K pa", 4 * KIB, 4 * KIB),
    ("ioremap 64K, 64K pa", 64 * KIB, 64 * KIB),
    ("ioremap 1M, 4K pa", MIB, 4 * KIB),
    ("ioremap 1M, 64K pa", MIB, 64 * KIB),
    ("ioremap 1M, 2M pa", MIB, 2 * MIB),
    ("ioremap 2M, 2M pa", 2 * MIB, 2 * MIB),
    ("ioremap 32M, 2M pa", 32 * MIB, 2 * MIB),
    ("ioremap 1G, 1G pa", GIB, GIB),
];

/// Whole call, walk alone, pages, order.
const ARRAYS: &[(&str, &str, usize, u8)] = &[
    ("vmap 1, order 0", "vmap 1, order 0/range-only", 1, 0),
    ("vmap 16, order 0", "vmap 16, order 0/range-only", 16, 0),
    ("vmap 16, order 4", "vmap 16, order 4/range-only", 16, 4),
    ("vmap 256, order 0", "vmap 256, order 0/range-only", 256, 0),
    ("vmap 256, order 4", "vmap 256, order 4/range-only", 256, 4),
    ("vmap 256, order 8", "vmap 256, order 8/range-only", 256, 8),
    ("vmap 512, order 9", "vmap 512, order 9/range-only", 512, 9),
    ("vmap 25600, order 0", "vmap 25600, order 0/range-only", 25600, 0),
    ("vmap 25600, order 4", "vmap 25600, order 4/range-only", 25600, 4),
    ("vmap 25600, order 8", "vmap 25600, order 8/range-only", 25600, 8),
    ("vmap 25600, order 9", "vmap 25600, order 9/range-only", 25600, 9),
];

/// Name, pages, order, shift for the reference walkers.
const CHUNKS: &[(&str, usize, u8, u32)] = &[
    ("pages-range 1M, shift 12", 256, 0, 12),
    ("pages-range 1M, shift 16", 256, 4, 16),
    ("pages-range 4M, shift 12", 1024, 0, 12),
    ("pages-range 4M, shift 21", 1024, 9, 21),
    ("pages-range 100M, shift 16", 25600, 4, 16),
    ("pages-range 100M, shift 21", 25600, 9, 21),
];

const MAP_RAM: &[(&str, usize)] = &[("vm_map_ram 1", 1), ("vm_map_ram 16", 16), ("vm_map_ram 32", 32)];

const DEFERRED: (&str, &str) = ("vmap 16, order 0, deferred", "vm_map_ram 16, deferred");

const ALLOCATIONS: &[(&str, Call<'_>)] = &[
    ("vmalloc_huge 64K", Call::VmallocHuge(64 * KIB)),
    ("vmalloc_huge 1M", Call::VmallocHuge(MIB)),
    ("vmalloc_huge 2M", Call::VmallocHuge(2 * MIB)),
    ("vmalloc_huge 4M", Call::VmallocHuge(4 * MIB)),
    ("vmalloc 4M", Call::Vmalloc(4 * MIB)),
    ("vmalloc 1 page", Call::Vmalloc(4 * KIB)),
    ("vmalloc 16 pages", Call::Vmalloc(64 * KIB)),
    ("vmalloc 256 pages", Call::Vmalloc(MIB)),
    ("get_vm_area 1 page", Call::Reserve(4 * KIB, 4 * KIB)),
    ("get_vm_area 1M", Call::Reserve(MIB, 4 * KIB)),
    // As for an ioremap whose memory is not known yet.
    ("get_vm_area 1M ioremap", Call::Reserve(MIB, MIB)),
    ("get_vm_area 100M", Call::Reserve(100 * MIB, 4 * KIB)),
];

/// # Errors
/// Instructions cannot be counted.
///
/// # Panics
/// If a case fails.
pub fn run(options: &Options<'_>, features: &Features) -> Result<(), Error> {
    check_page_size()?;
    if only_several_cpus(options.bench) {
        cpus::run(options, features);
        print!("vmwalk: done\n");
        return Ok(());
    }
    let since_reset = time::since_reset().as_nanos();
    with_bench(options, features, None, |bench| {
        print!(
            "bench {{\"machine\":{{\"build\":\"{BUILD}\",\"midr\":{},\"tlbi_range\":{},\"zva\":{}",
            features.midr, features.tlbi_range, features.zva_size
        );
        match silicon() {
            None => print!(
                ",\"empty_pair\":{},\"boot_instructions\":{since_reset}",
                bench.instrument.empty()
            ),
            Some(silicon) => report::counters(silicon, options.evict),
        }
        print!("}}}}\n");
        run_selected(bench);
        if let Some(silicon) = silicon()
            && options.bench != LIST
        {
            silicon.set(State::Cold);
            run_selected(bench);
            silicon.set(State::Warm);
        }
    })?;
    if options.bench == LIST {
        cpus::list();
    }
    print!("vmwalk: done\n");
    Ok(())
}

/// Returns whether [`run`] would do anything.
///
/// # Errors
/// Instructions cannot be counted.
pub fn selects(options: &Options<'_>, features: &Features) -> Result<bool, Error> {
    check_page_size()?;
    if only_several_cpus(options.bench) {
        return Ok(cpus::selects(options.bench));
    }
    let found = Cell::new(options.bench == LIST);
    with_bench(options, features, Some(&found), run_selected)?;
    Ok(found.get())
}

fn only_several_cpus(cases: &str) -> bool {
    cases != LIST && (kernel::smp::nr_online() > 1 || cpus::selects(cases) && cases != "*")
}

fn with_bench(
    options: &Options<'_>,
    features: &Features,
    found: Option<&Cell<bool>>,
    f: impl FnOnce(&Bench<'_>),
) -> Result<(), Error> {
    let reserved = kernel_vmalloc()
        .get_vm_area(RESERVED, GIB)
        .unwrap_or_else(|error| panic!("addresses for the bench: {error}"));
    f(&Bench {
        instrument: Instrument::chosen(options, features)?,
        cases: options.bench,
        walkers: options.bench_walkers,
        wrong_walkers: options.planted == Some(Planted::WrongWalker),
        mmu: KernelMmu::new(features),
        va: reserved.va(),
        found,
    });
    Ok(())
}

/// # Errors
/// Pages are not of 4 KiB, as in Linux's figures.
pub fn check_page_size() -> Result<(), Error> {
    if layout::PAGE_SHIFT == 12 && layout::Granule::VA_BITS == 48 {
        Ok(())
    } else {
        Err(Error::PageSize)
    }
}

fn run_selected(bench: &Bench<'_>) {
    for (name, size, alignment) in RANGES {
        engine::run(bench, name, Source::Range(nowhere().add(*alignment), *size));
    }
    for (name, size, alignment) in IOREMAPS {
        api::run(bench, name, Call::Ioremap(nowhere().add(*alignment), *size));
    }
    for (name, alone, nr, order) in ARRAYS {
        with_pages(bench, &[name, alone], *nr, *order, |pages| {
            api::run(bench, name, Call::Vmap(pages.frames()));
            engine::run(bench, alone, Source::Pages(pages.frames()));
        });
    }
    for (name, nr, order, shift) in CHUNKS {
        with_pages(bench, &[name], *nr, *order, |pages| {
            let extents = pages.extents();
            // Of single pages, nothing is known.
            let source = if *order == 0 {
                Source::Pages(pages.frames())
            } else {
                Source::Chunks(pages.frames(), *shift, &extents)
            };
            engine::run(bench, name, source);
        });
    }
    for (name, nr) in MAP_RAM {
        with_pages(bench, &[name], *nr, 0, |pages| {
            api::run_map_ram(bench, name, pages.frames())
        });
    }
    with_pages(bench, &[DEFERRED.0, DEFERRED.1], 16, 0, |pages| {
        api::run_deferred(bench, DEFERRED, pages.frames());
    });
    for (name, call) in ALLOCATIONS {
        api::run(bench, name, *call);
    }
    // Of many loops all but the first are warm.
    if silicon().is_none_or(|silicon| silicon.state() == State::Warm) {
        for case in loops::CASES {
            loops::run(bench, *case);
        }
    }
    alone::run(bench);
    // A point is one sample, of instructions.
    if silicon().is_none() {
        growth::run(bench);
    }
}

/// Returns whether `glob` selects a walker, or is `none`.
#[must_use]
pub fn knows_walker(glob: &str, wrong_too: bool) -> bool {
    let mut known = glob == "none";
    for_each_name(wrong_too, |name| known |= crate::glob::matches(glob, name));
    known
}

pub fn for_each_name(wrong_too: bool, mut f: impl FnMut(&'static str)) {
    for_each_walker!(|walker| { f(engine::walker_name(&walker)) });
    if wrong_too {
        for_each_wrong_walker!(|walker| { f(engine::walker_name(&walker)) });
    }
}

fn with_pages(bench: &Bench<'_>, names: &[&str], nr: usize, order: u8, f: impl FnOnce(&Pages)) {
    // Not `any`, which would stop at the first.
    if names.iter().filter(|name| bench.selects(name)).count() > 0 {
        let pages =
            Pages::allocate(nr, order).unwrap_or_else(|| panic!("no memory for {nr} pages of order {order}"));
        f(&pages);
    }
}
