//! The case shapes of Linux's `lib/test_vmalloc.c`, by its numbers: `test_vmalloc=MASK nr_pages=N use_huge=0|1 loops=N threads=N`.
//!
//! Each thread is a CPU. A case says how many of its loops passed, and what one of them takes in instructions, where they can be counted
//! (`-icount`). That the alignments of 2^0 to 2^63 fail at their top is expected, and checked.

use core::sync::atomic::{AtomicU64, Ordering};

use alloc::vec::Vec;
use paging::Pfn;
use vmalloc::{Error, Request};

use crate::arch::pmu::InstructionCounter;
use crate::bootargs::TestVmalloc;
use crate::mm::areas::{KernelArea, kernel_vmalloc};
use crate::mm::{self, frames};
use crate::selftest::context::Context;
use crate::selftest::failure::{Failure, TestResult, expect_value};
use crate::selftest::ktap::Report;
use crate::selftest::source::PAGE;
use crate::selftest::verify::{read, write};
use crate::smp;

/// What a case is given.
struct Run<'a> {
    args: &'a TestVmalloc,
    rng: fastrand::Rng,
    pages: &'a [Pfn],
}

/// Each does its loops, and gives how many passed.
type Body = fn(&mut Run<'_>) -> Result<u64, Error>;

const CASES: &[(u32, &str, Body)] = &[
    (1, "fix_size_alloc", fix_size),
    (2, "full_fit_alloc", full_fit),
    (4, "long_busy_list_alloc", long_busy_list),
    (8, "random_size_alloc", random_size),
    (16, "fix_align_alloc", fix_align),
    (32, "random_size_align_alloc", random_size_align),
    (64, "align_shift_alloc", align_shift),
    (1024, "vm_map_ram", map_ram),
    (4096, "vrealloc", vrealloc),
];

/// A byte is written and read back; then the area goes.
fn touch(area: &KernelArea) -> u64 {
    let at = area.range().start.0 as usize;
    write(at, 1);
    u64::from(read(at) == 1)
}

fn loops(run: &mut Run<'_>, mut each: impl FnMut(&mut Run<'_>) -> Result<u64, Error>) -> Result<u64, Error> {
    let mut passed = 0;
    for _ in 0..run.args.loops {
        passed += each(run)?;
    }
    Ok(passed)
}

fn fix_size(run: &mut Run<'_>) -> Result<u64, Error> {
    loops(run, |run| {
        let request = Request::new(run.args.nr_pages * PAGE);
        let request = if run.args.use_huge {
            request.huge()
        } else {
            request
        };
        kernel_vmalloc().allocate(&request).map(|area| touch(&area))
    })
}

/// Holes of a page, which a page must fit into.
fn full_fit(run: &mut Run<'_>) -> Result<u64, Error> {
    let mut held = Vec::new();
    for hole in 0..1024 {
        let area = mm::vmalloc(PAGE)?;
        if hole % 2 == 0 {
            held.push(area);
        }
    }
    loops(run, |_| mm::vmalloc(PAGE).map(|area| touch(&area)))
}

fn long_busy_list(run: &mut Run<'_>) -> Result<u64, Error> {
    let most = (frames::stats().free / 8 / run.args.threads).min(15_000);
    let held = (0..most)
        .map(|_| mm::vmalloc(PAGE))
        .collect::<Result<Vec<_>, _>>()?;
    let passed = loops(run, |_| {
        let large = mm::vmalloc(100 * PAGE)?;
        let small = mm::vmalloc(PAGE)?;
        Ok(touch(&large) & touch(&small))
    });
    drop(held);
    passed
}

fn random_size(run: &mut Run<'_>) -> Result<u64, Error> {
    loops(run, |run| {
        mm::vmalloc(run.rng.u64(1..=100) * PAGE).map(|area| touch(&area))
    })
}

fn fix_align(run: &mut Run<'_>) -> Result<u64, Error> {
    loops(run, |_| {
        let request = Request::new(5 * PAGE).zeroed().aligned(2 * (16 << 10));
        kernel_vmalloc().allocate(&request).map(|area| touch(&area))
    })
}

fn random_size_align(run: &mut Run<'_>) -> Result<u64, Error> {
    loops(run, |run| {
        let align = 1 << run.rng.u32(0..=22);
        let request = Request::new(run.rng.u64(1..=10) * PAGE).zeroed().aligned(align);
        let area = kernel_vmalloc().allocate(&request)?;
        Ok(touch(&area) & u64::from(area.va().0.is_multiple_of(align)))
    })
}

/// Alignments that there are many places for succeed, on however many CPUs at once; one of 2^63 never does.
fn align_shift(run: &mut Run<'_>) -> Result<u64, Error> {
    loops(run, |_| {
        let vm = kernel_vmalloc();
        let right = (0..64).all(|shift| {
            let align = 1 << shift;
            match vm.allocate(&Request::new(PAGE).aligned(align)) {
                Ok(area) => area.va().0.is_multiple_of(align),
                // Few places at that alignment, and the other CPUs may have them.
                Err(Error::OutOfSpace(_)) => align > vm.range().size >> 6,
                Err(_) => false,
            }
        });
        let top = vm.allocate(&Request::new(PAGE).aligned(1 << 63));
        Ok(u64::from(right && matches!(top, Err(Error::OutOfSpace(_)))))
    })
}

fn map_ram(run: &mut Run<'_>) -> Result<u64, Error> {
    loops(run, |run| {
        let va = kernel_vmalloc().vm_map_ram(run.pages)?;
        let same = mm::vmalloc_to_pfn(va) == Ok(run.pages[0]);
        kernel_vmalloc().vm_unmap_ram(va, run.pages.len() as u64)?;
        Ok(u64::from(same))
    })
}

/// One page, four, one, half of one, one: with what was in the first.
fn vrealloc(run: &mut Run<'_>) -> Result<u64, Error> {
    loops(run, |run| {
        let mut area = mm::vmalloc(PAGE)?;
        let mark = run.rng.u64(..);
        write(area.va().0 as usize, mark);
        let mut same = true;
        for size in [4 * PAGE, PAGE, PAGE / 2, PAGE] {
            area.vrealloc(size)?;
            same &= read(area.va().0 as usize) == mark && area.size() == size;
        }
        Ok(u64::from(same))
    })
}

/// Runs the cases that `test_vmalloc=` names, or all of them a few times.
pub fn suite(ctx: &Context) -> TestResult {
    let args = &crate::args().test_vmalloc;
    let seed = ctx.rng().u64(..);
    let backing = mm::vmalloc(args.nr_pages * PAGE)?;
    let pages = (0..args.nr_pages)
        .map(|page| mm::vmalloc_to_pfn(backing.va().add(page * PAGE)))
        .collect::<Result<Vec<Pfn>, _>>()?;
    for &(bit, name, body) in CASES {
        if args.mask & bit == 0 {
            continue;
        }
        let (passed, instructions, ran) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
        smp::on_each_cpu(|cpu| {
            if cpu as u64 >= args.threads {
                return;
            }
            let mut run = Run {
                args,
                rng: fastrand::Rng::with_seed(seed ^ cpu as u64),
                pages: &pages,
            };
            let counter = InstructionCounter::start(&ctx.features).ok();
            let before = counter.as_ref().map(InstructionCounter::read);
            let result = body(&mut run);
            if let (Some(counter), Some(before)) = (&counter, before) {
                let taken = u64::from(counter.read().wrapping_sub(before));
                instructions.fetch_add(taken, Ordering::AcqRel);
            }
            passed.fetch_add(result.unwrap_or(0), Ordering::AcqRel);
            ran.fetch_add(1, Ordering::AcqRel);
        });
        let threads = ran.into_inner();
        let (passed, expected) = (passed.into_inner(), threads * args.loops);
        let failed = expected - passed;
        match instructions.into_inner() {
            0 => Report::say(format_args!(
                "test_vmalloc {name}: passed {passed} failed {failed} threads {threads}"
            )),
            counted => Report::say(format_args!(
                "test_vmalloc {name}: passed {passed} failed {failed} threads {threads} instructions/loop {}",
                counted / expected.max(1)
            )),
        }
        expect_value(name, passed, expected)?;
    }
    drop(backing);
    if args.mask & !CASES.iter().fold(0, |all, case| all | case.0) != 0 {
        return Err(Failure::NotRefused("a test_vmalloc case that there is not").into());
    }
    Ok(())
}
