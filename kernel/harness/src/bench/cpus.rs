//! The same work on all CPUs at once: instructions per operation, or waits for locks
//! (`scripts/bench-data/README.md`, "Several CPUs"). Under `-icount` one host thread runs all CPUs
//! in turn, each until it yields after an operation: the counter counts for all, and no lock is
//! contended.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use kernel::arch::features::Features;
use kernel::arch::pmu::InstructionCounter;
use kernel::arch::time::{self, relax};
use kernel::drivers::console;
use kernel::mm::areas::kernel_vmalloc;
use kernel::print;
use kernel::{smp, sync};
use paging::{Pfn, PhysAddr};
use vmalloc::Error;

use super::engine::nowhere;
use super::pages::Pages;
use super::report;
use crate::options::{CountedBy, Options};

const COUNTED: u64 = 1_000;
/// Of all CPUs where nothing is counted: each TLBI waits for every host thread.
const UNCOUNTED: u64 = 4_000;
const SEED: u64 = 0x5eed_0004;

struct Hands<'a> {
    rng: fastrand::Rng,
    frames: &'a [Pfn],
    device: PhysAddr,
}

type Operation = fn(&mut Hands<'_>) -> Result<(), Error>;

const WORK: &[(&str, Operation)] = &[
    ("cpus: vmalloc 1 page", |_| {
        kernel_vmalloc().vmalloc(4096).map(drop)
    }),
    ("cpus: vmalloc 1 to 100 pages", |hands| {
        kernel_vmalloc().vmalloc(hands.rng.u64(1..=100) << 12).map(drop)
    }),
    ("cpus: ioremap 64K", |hands| {
        kernel_vmalloc().ioremap(hands.device, 64 << 10).map(drop)
    }),
    ("cpus: vmap 16, order 0", |hands| {
        kernel_vmalloc().vmap(hands.frames).map(drop)
    }),
    ("cpus: vm_map_ram 16", |hands| {
        let va = kernel_vmalloc().vm_map_ram(hands.frames)?;
        // SAFETY: the bench's own mapping, and nothing lies in it.
        unsafe { kernel_vmalloc().vm_unmap_ram(va, hands.frames.len() as u64) }
    }),
];

pub fn selects(cases: &str) -> bool {
    WORK.iter().any(|(name, _)| crate::glob::matches(cases, name))
}

pub fn list() {
    WORK.iter().for_each(|(name, _)| report::name(name));
}

/// # Panics
/// If an operation fails.
pub fn run(options: &Options<'_>, features: &Features) {
    let pages = Pages::allocate(16, 0).unwrap_or_else(|| panic!("no memory for 16 pages"));
    let counter = InstructionCounter::start(features).ok();
    for (name, operation) in WORK {
        if !crate::glob::matches(options.bench, name) || console::interrupted() {
            continue;
        }
        let each = if counter.is_some() {
            COUNTED
        } else {
            UNCOUNTED / smp::nr_online() as u64
        };
        work(pages.frames(), *operation, if counter.is_some() { 2 } else { 0 });
        let waits = sync::nr_waits();
        let before = counter.as_ref().map(InstructionCounter::read);
        let began = time::ticks();
        let (cpus, done) = work(pages.frames(), *operation, each);
        let ticks = time::ticks() - began;
        let after = counter.as_ref().map(InstructionCounter::read);
        let waits = sync::nr_waits() - waits;
        assert!(
            done == each * u64::from(cpus),
            "{name}: {done} of {} operations on {cpus} CPUs",
            each * u64::from(cpus)
        );
        print!("bench {{\"work\":\"{name}\",\"cpus\":{cpus},\"operations\":{done},\"waits\":{waits}");
        if let (Some(before), Some(after)) = (before, after) {
            print!(",\"instructions\":{}", after.wrapping_sub(before));
        }
        if options.counters == CountedBy::Pmu {
            print!(",\"ns\":{}", ticks * 1_000_000_000 / time::frequency());
        }
        print!("}}\n");
    }
}

/// And of operations that succeeded.
fn work(frames: &[Pfn], operation: Operation, nr: u64) -> (u32, u64) {
    let expected = smp::nr_online() as u32;
    let (ready, done) = (AtomicU32::new(0), AtomicU64::new(0));
    smp::on_each_cpu(|cpu| {
        let mut hands = Hands {
            rng: fastrand::Rng::with_seed(SEED + cpu as u64),
            frames,
            device: nowhere(),
        };
        ready.fetch_add(1, Ordering::AcqRel);
        while ready.load(Ordering::Acquire) < expected {
            relax();
        }
        let mut succeeded = 0;
        for _ in 0..nr {
            succeeded += u64::from(operation(&mut hands).is_ok());
            relax();
        }
        done.fetch_add(succeeded, Ordering::AcqRel);
    });
    (ready.into_inner(), done.into_inner())
}
