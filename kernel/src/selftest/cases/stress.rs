//! All CPUs at once: random areas, freed by whoever comes by, and permissions that change meanwhile.
//!
//! Every page carries a pattern keyed by its area and its number, verified before the area goes, by its own address and through the linear
//! map. What is in use is counted by the suite before and after, and the tree audited.

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use paging::VirtAddr;
use vmalloc::Request;

use crate::arch::percpu::MAX_CPUS;
use crate::mm::areas::kernel_vmalloc;
use crate::mm::{self, linear_va};
use crate::selftest::context::Context;
use crate::selftest::failure::{Failure, TestResult};
use crate::selftest::source::PAGE;
use crate::selftest::verify::{read, write};
use crate::smp;

/// Operations of each CPU.
const OPERATIONS: u64 = 150;
/// Areas that all CPUs share. Each is an address, or 0; who swaps one out owns it.
const SLOTS: usize = 24;

/// What the CPUs share.
struct Shared {
    slots: [AtomicU64; SLOTS],
    findings: [AtomicU64; MAX_CPUS],
    stop: AtomicBool,
}

impl Shared {
    const fn new() -> Self {
        Self {
            slots: [const { AtomicU64::new(0) }; SLOTS],
            findings: [const { AtomicU64::new(0) }; MAX_CPUS],
            stop: AtomicBool::new(false),
        }
    }

    fn report(&self, cpu: usize, what: &'static &'static str) {
        let what = core::ptr::from_ref(what) as u64;
        let _ = self.findings[cpu].compare_exchange(0, what, Ordering::AcqRel, Ordering::Relaxed);
        self.stop.store(true, Ordering::Release);
    }

    fn check(&self) -> Result<(), Failure> {
        for (cpu, finding) in self.findings.iter().enumerate() {
            let finding = finding.load(Ordering::Acquire);
            if finding != 0 {
                // SAFETY: it was made from a `&'static &'static str` by `report`.
                let what = unsafe { *core::ptr::with_exposed_provenance::<&'static str>(finding as usize) };
                return Err(Failure::Cpu { cpu, what });
            }
        }
        Ok(())
    }
}

static NO_MEMORY: &str = "was refused an area that there is memory for";
static LOST_DATA: &str = "found other data in an area than were written";
static OTHER_ALIAS: &str = "found other data through the linear map than were written";
static BAD_FREE: &str = "was refused to free an area that is its own";
static NO_CHANGE: &str = "was refused a change of permissions";

fn stamp(va: u64, page: u64) -> u64 {
    (va ^ page << 7).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

fn fill(va: u64, pages: u64) {
    for page in 0..pages {
        write((va + page * PAGE) as usize, stamp(va, page));
    }
}

/// What is wrong with the pages of the area at `va`.
fn verify(va: u64, pages: u64) -> Result<(), &'static &'static str> {
    for page in 0..pages {
        let at = va + page * PAGE;
        if read(at as usize) != stamp(va, page) {
            return Err(&LOST_DATA);
        }
        let alias = mm::vmalloc_to_pfn(VirtAddr(at)).map(|pfn| linear_va(pfn.0 * PAGE));
        if alias.map(read) != Ok(stamp(va, page)) {
            return Err(&OTHER_ALIAS);
        }
    }
    Ok(())
}

fn allocate(rng: &mut fastrand::Rng) -> Result<u64, vmalloc::Error> {
    let pages = match rng.u32(0..8) {
        0 => rng.u64(1..600),
        1 | 2 => rng.u64(1..64),
        _ => rng.u64(1..8),
    };
    let mut request = Request::new(pages * PAGE).aligned(PAGE << rng.u32(0..6));
    if rng.bool() {
        request = request.huge();
    }
    let va = kernel_vmalloc().allocate(&request)?.into_raw();
    fill(va.0, pages);
    Ok(va.0)
}

fn pages_at(va: u64) -> u64 {
    kernel_vmalloc()
        .find_vm_area(VirtAddr(va))
        .map_or(0, |area| area.size.div_ceil(PAGE))
}

fn operate(shared: &Shared, rng: &mut fastrand::Rng) -> Result<(), &'static &'static str> {
    let slot = &shared.slots[rng.usize(0..SLOTS)];
    let va = slot.swap(0, Ordering::AcqRel);
    if va == 0 {
        let va = allocate(rng).map_err(|_| &NO_MEMORY)?;
        // Whoever put one here meanwhile has his taken out in turn.
        let other = slot.swap(va, Ordering::AcqRel);
        return if other == 0 { Ok(()) } else { end(other) };
    }
    let pages = pages_at(va);
    match rng.u32(0..6) {
        0 => {
            let first = rng.u64(0..pages);
            let size = rng.u64(1..=pages - first) * PAGE;
            let vm = kernel_vmalloc();
            vm.set_memory_ro(VirtAddr(va + first * PAGE), size)
                .map_err(|_| &NO_CHANGE)?;
            verify(va, pages)?;
            if rng.bool() {
                vm.set_memory_rw(VirtAddr(va + first * PAGE), size)
                    .map_err(|_| &NO_CHANGE)?;
            }
            end(va)
        }
        1 => {
            verify(va, pages)?;
            let mut out = [0; 64];
            let _ = kernel_vmalloc().vread(VirtAddr(va), &mut out);
            let other = slot.swap(va, Ordering::AcqRel);
            if other == 0 { Ok(()) } else { end(other) }
        }
        2 => {
            kernel_vmalloc().vm_unmap_aliases();
            end(va)
        }
        _ => end(va),
    }
}

/// Verifies the area and frees it: most likely on another CPU than the one that made it.
fn end(va: u64) -> Result<(), &'static &'static str> {
    verify(va, pages_at(va))?;
    mm::vfree(VirtAddr(va)).map_err(|_| &BAD_FREE)
}

fn round(seed: u64) -> Result<(), Failure> {
    let shared = Shared::new();
    smp::on_each_cpu(|cpu| {
        let mut rng = fastrand::Rng::with_seed(seed ^ (cpu as u64) << 40);
        for _ in 0..OPERATIONS {
            if shared.stop.load(Ordering::Acquire) {
                break;
            }
            if let Err(what) = operate(&shared, &mut rng) {
                shared.report(cpu, what);
            }
        }
    });
    for slot in &shared.slots {
        let va = slot.swap(0, Ordering::AcqRel);
        if va != 0
            && let Err(what) = end(va)
        {
            shared.report(0, what);
        }
    }
    shared.check()
}

/// One round, in every run of the suite; `soak=N` makes it N.
pub fn bounded(ctx: &Context) -> TestResult {
    let mut rng = ctx.rng();
    for _ in 0..crate::args().soak {
        round(rng.u64(..))?;
    }
    Ok(())
}

/// CPU 0 changes parts of a block back and forth; the others read all of it meanwhile, through both addresses: each break of a leaf that
/// they run through is waited for, and no other data are read.
pub fn permissions_meanwhile(ctx: &Context) -> TestResult {
    ctx.needs_other_cpus()?;
    let shared = Shared::new();
    let area = mm::vmalloc(2 << 20)?;
    let (va, pages) = (area.va().0, area.range().size / PAGE);
    fill(va, pages);
    let mut rng = ctx.rng();
    let parts: [(u64, u64); 12] = core::array::from_fn(|_| {
        let first = rng.u64(0..pages);
        (first, rng.u64(1..=pages - first))
    });
    smp::on_each_cpu(|cpu| {
        if cpu == 0 {
            for (first, nr) in parts {
                let changed = area
                    .set_memory_ro(first * PAGE, nr * PAGE)
                    .and_then(|_| area.set_memory_rw(first * PAGE, nr * PAGE));
                if changed.is_err() {
                    shared.report(cpu, &NO_CHANGE);
                }
            }
            shared.stop.store(true, Ordering::Release);
        } else {
            while !shared.stop.load(Ordering::Acquire) {
                if let Err(what) = verify(va, pages) {
                    shared.report(cpu, what);
                }
            }
        }
    });
    shared.check()?;
    Ok(())
}
