//! All CPUs at once make, change, read, resize and free random areas, whose patterns are verified
//! before the free. A [`SecondVmalloc`] with few addresses reuses nothing before its flush and
//! leaves nothing; with one CPU, each TLBI was owed.

mod page;
mod worker;

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use kernel::layout::Granule;
use kernel::mm;
use kernel::mm::areas::{KernelBackend, kernel_vmalloc};
use kernel::mm::frames::fail_page_alloc;
use kernel::smp;
use kernel::sync::IrqSpinLock;
use paging::{Granule as _, PhysAddr, VirtRange};
use vmalloc::{Backend, Error, FlushPolicy, Vmalloc};

use crate::selftest::backend::{SecondVmalloc, TestBackend};
use crate::selftest::context::Context;
use crate::selftest::failure::{Failure, TestResult, expect, expect_value, go_on};
use crate::selftest::ktap::Report;
use crate::selftest::source::{BLOCK_SIZE, PAGE};
use worker::Worker;

const OPERATIONS: u64 = 150;
/// Each TLBI stops all CPUs of a multi-threaded emulator until the host has run each: 4 ms with 8
/// CPUs on 2.
const MOST_OPERATIONS: u64 = 4 * OPERATIONS;
/// Each a word, 0 for none. The CPU that swaps one out owns it.
const SLOTS: usize = 24;
const RAM_SLOTS: usize = 8;
const DEVICE_SIZE: u64 = 2048 * PAGE;

#[derive(Clone, Copy, Debug)]
struct Finding {
    what: &'static str,
    at: u64,
    error: Option<Error>,
}

impl Finding {
    const fn new(what: &'static str, at: u64) -> Self {
        Self {
            what,
            at,
            error: None,
        }
    }

    const fn refused(what: &'static str, at: u64, error: Error) -> Self {
        Self {
            what,
            at,
            error: Some(error),
        }
    }
}

trait Subject: Sync {
    type Backend: Backend;
    fn vm(&self) -> &Vmalloc<Self::Backend>;
    /// Before `range`, the caller's own, is unmapped or changed.
    fn owe(&self, range: VirtRange);
    /// A TLB may still hold a page of `range` as it was.
    fn owes(&self, range: VirtRange) -> bool;
}

struct Own;

impl Subject for Own {
    type Backend = KernelBackend;
    fn vm(&self) -> &Vmalloc<KernelBackend> {
        kernel_vmalloc()
    }
    fn owe(&self, _range: VirtRange) {}
    fn owes(&self, _range: VirtRange) -> bool {
        false
    }
}

impl Subject for SecondVmalloc {
    type Backend = TestBackend;
    fn vm(&self) -> &Vmalloc<TestBackend> {
        SecondVmalloc::vm(self)
    }
    fn owe(&self, range: VirtRange) {
        if let Err(failure) = SecondVmalloc::owe(self, range) {
            panic!("no leaves of {range:?} are found: {failure}");
        }
    }
    fn owes(&self, range: VirtRange) -> bool {
        (0..range.size / PAGE).any(|page| self.ledger().owes(range.start.add(page * PAGE)))
    }
}

#[derive(Clone, Copy, Debug)]
struct Round {
    seed: u64,
    alone: bool,
    scarce: bool,
    permissions: bool,
    device: PhysAddr,
}

struct Shared {
    slots: [AtomicU64; SLOTS],
    ram_slots: [AtomicU64; RAM_SLOTS],
    finding: IrqSpinLock<Option<(usize, Finding)>>,
    stop: AtomicBool,
}

impl Shared {
    const fn new() -> Self {
        Self {
            slots: [const { AtomicU64::new(0) }; SLOTS],
            ram_slots: [const { AtomicU64::new(0) }; RAM_SLOTS],
            finding: IrqSpinLock::new("finding", None),
            stop: AtomicBool::new(false),
        }
    }

    fn note(&self, cpu: usize, result: Result<(), Finding>) {
        if let Err(finding) = result {
            self.finding.lock().get_or_insert((cpu, finding));
            self.stop.store(true, Ordering::Release);
        }
    }

    fn check(&self) -> Result<(), Failure> {
        let Some((cpu, finding)) = *self.finding.lock() else {
            return Ok(());
        };
        let Finding { what, at, error } = finding;
        match error {
            Some(error) => Report::say(format_args!("CPU {cpu} {what}, at {at:#x}: {error}")),
            None => Report::say(format_args!("CPU {cpu} {what}, at {at:#x}")),
        }
        Err(Failure::Cpu { cpu, what })
    }
}

fn stress<S: Subject>(subject: &S, round: Round) -> Result<(), Failure> {
    let shared = Shared::new();
    let operations = OPERATIONS.min(MOST_OPERATIONS / smp::nr_online() as u64).max(1);
    let work = |cpu| {
        let mut worker = Worker::new(subject, &shared, round, cpu);
        for _ in 0..operations {
            if shared.stop.load(Ordering::Acquire) || go_on().is_err() {
                break;
            }
            shared.note(cpu, worker.operate());
        }
    };
    if round.alone {
        work(0);
    } else {
        smp::on_each_cpu(work);
    }
    let mut last = Worker::new(subject, &shared, round, 0);
    for _ in 0..SLOTS + RAM_SLOTS {
        shared.note(0, last.end_any());
    }
    shared.check()?;
    subject.vm().check().map_err(|_| Failure::Claim {
        what: "the address space is unsound",
        at: subject.vm().range().start.0,
    })?;
    go_on()
}

/// A long soak is not taken for dead.
fn say_round(nr: u64) {
    let all = crate::options().soak;
    if all > 1 {
        Report::say(format_args!("round {} of {all}", nr + 1));
    }
}

fn round_of(ctx: &Context, seed: u64) -> Result<Round, Failure> {
    Ok(Round {
        seed,
        alone: false,
        scarce: false,
        permissions: true,
        device: ctx.untouched(DEVICE_SIZE, BLOCK_SIZE, 0)?,
    })
}

pub fn own(ctx: &Context) -> TestResult {
    let mut rng = ctx.rng();
    for nr in 0..crate::options().soak {
        say_round(nr);
        stress(&Own, round_of(ctx, rng.u64(..))?)?;
    }
    Ok(())
}

pub fn own_with_faults(ctx: &Context) -> TestResult {
    let mut rng = ctx.rng();
    for nr in 0..crate::options().soak {
        say_round(nr);
        let round = Round {
            scarce: true,
            ..round_of(ctx, rng.u64(..))?
        };
        let injection = fail_page_alloc::fail_some(rng.u64(..), 20);
        let result = stress(&Own, round);
        let fired = injection.fired();
        drop(injection);
        result?;
        expect("no allocation has failed", round.seed, fired)?;
    }
    Ok(())
}

pub fn second(ctx: &Context) -> TestResult {
    let mut rng = ctx.rng();
    for nr in 0..crate::options().soak {
        say_round(nr);
        for flush in [
            FlushPolicy::Lazy {
                areas: 32,
                pages: 1024,
            },
            FlushPolicy::Strict,
        ] {
            let second = SecondVmalloc::new(16 * BLOCK_SIZE, flush)?;
            let round = Round {
                scarce: true,
                ..round_of(ctx, rng.u64(..))?
            };
            let injection = fail_page_alloc::fail_some(rng.u64(..), 40);
            let result = stress(&second, round);
            drop(injection);
            result?;
            second.check_empty()?;
            let paid = second.ledger().nr_paid();
            expect("nothing was owed", paid, paid != 0)?;
        }
    }
    Ok(())
}

pub fn every_tlbi_is_owed(ctx: &Context) -> TestResult {
    let mut rng = ctx.rng();
    // Of more areas, ranges would be joined, and what lies between, perhaps another shard's,
    // invalidated too.
    let shards = KernelBackend.nr_cpus() + 1;
    for flush in [
        FlushPolicy::Strict,
        FlushPolicy::Lazy {
            areas: 2 * shards,
            pages: 1 << 20,
        },
    ] {
        let second = SecondVmalloc::new(512 * BLOCK_SIZE, flush)?;
        let round = Round {
            alone: true,
            permissions: false,
            ..round_of(ctx, rng.u64(..))?
        };
        stress(&second, round)?;
        second.check_empty()?;
        let paid = second.ledger().nr_paid();
        expect("nothing was owed", paid, paid != 0)?;
        // Between joined ranges may be guards, which cost nothing by range. With TCR_EL1.DS, pages
        // before a multiple of 64 KiB go one by one.
        let by_range = ctx.features.tlbi_range && !Granule::DS;
        if flush == FlushPolicy::Strict || by_range {
            expect_value("TLBIs that invalidated nothing", second.ledger().idle(), 0)?;
        }
    }
    Ok(())
}

pub fn permissions_meanwhile(ctx: &Context) -> TestResult {
    ctx.needs_other_cpus()?;
    let shared = Shared::new();
    let area = mm::vmalloc(2 << 20)?;
    let (va, pages) = (area.va(), area.range().size / PAGE);
    page::fill(va, 0..pages, 1);
    let mut rng = ctx.rng();
    let parts: [(u64, u64); 12] = core::array::from_fn(|_| {
        let first = rng.u64(0..pages);
        (first, rng.u64(1..=pages - first))
    });
    // CPUs share the few of the emulator's host.
    let parts = &parts[..(32 / smp::nr_online()).clamp(3, parts.len())];
    smp::on_each_cpu(|cpu| {
        if cpu == 0 {
            for &(first, nr) in parts {
                let changed = area
                    .set_memory_ro(first * PAGE, nr * PAGE)
                    .and_then(|_| area.set_memory_rw(first * PAGE, nr * PAGE));
                let found = changed
                    .map(drop)
                    .map_err(|error| Finding::refused("was refused a change of permissions", va.0, error));
                shared.note(cpu, found);
            }
            shared.stop.store(true, Ordering::Release);
        } else {
            while !shared.stop.load(Ordering::Acquire) {
                shared.note(cpu, page::verify(kernel_vmalloc(), va, pages, 1));
            }
        }
    });
    shared.check()?;
    Ok(())
}
