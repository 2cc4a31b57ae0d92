//! Those of Linux's `lib/test_vmalloc.c`, with its sizes, alignments and order of events.

use alloc::vec::Vec;

use kernel::mm::areas::{KernelArea, KernelVmalloc, kernel_vmalloc};
use kernel::mm::{self, frames};
use kernel::smp;
use kernel::sync::IrqSpinLock;
use paging::{Attributes, Pfn};
use vmalloc::{Error, Request};

use super::{Run, loops};
use crate::selftest::failure::Failure;
use crate::selftest::source::PAGE;
use crate::selftest::verify::{read, write};
use crate::test_vmalloc::{self, Params};

fn touch(area: &KernelArea) -> bool {
    let at = area.range().start.0 as usize;
    write(at, at as u64);
    read(at) == at as u64
}

fn steps(
    run: &mut Run<'_>,
    step: fn(&KernelVmalloc, &mut Params<'_>) -> Result<bool, Error>,
) -> Result<u64, Failure> {
    let mut params = Params {
        nr_pages: run.nr_pages,
        use_huge: run.use_huge,
        holes: 0,
        busy: 0,
        frames: &run.backing.pages,
        rng: run.rng.fork(),
    };
    loops(run, |_| Ok(step(kernel_vmalloc(), &mut params)?))
}

pub(super) fn fix_size(run: &mut Run<'_>) -> Result<u64, Failure> {
    steps(run, test_vmalloc::fix_size)
}

pub(super) fn full_fit(run: &mut Run<'_>) -> Result<u64, Failure> {
    let vm = kernel_vmalloc();
    let mut held = Vec::new();
    for hole in 0..1024 {
        let area = mm::vmalloc(PAGE)?;
        if hole % 2 == 0 {
            held.push(area);
        }
    }
    let census = || {
        vm.check().map_err(|_| Failure::Claim {
            what: "the address space is unsound",
            at: vm.range().start.0,
        })
    };
    loops(run, |run| {
        // Nor is what an idle CPU is freeing a hole.
        vm.vm_unmap_aliases();
        let before = census()?;
        let area = mm::vmalloc(PAGE)?;
        let after = census()?;
        let fits = after.gaps + after.parked + 1 == before.gaps + before.parked;
        // A purge joins gaps; other threads make and take holes.
        let comparable = run.threads == 1 && after.retired == before.retired;
        Ok(touch(&area) && (fits || !comparable))
    })
}

pub(super) fn long_busy_list(run: &mut Run<'_>) -> Result<u64, Failure> {
    let most = (frames::stats().free / 8 / run.threads).min(15_000);
    let held = (0..most)
        .map(|_| mm::vmalloc(PAGE))
        .collect::<Result<Vec<_>, _>>()?;
    let right = steps(run, test_vmalloc::hundred_and_one);
    drop(held);
    right
}

pub(super) fn random_size(run: &mut Run<'_>) -> Result<u64, Failure> {
    steps(run, test_vmalloc::random_size)
}

pub(super) fn fix_align(run: &mut Run<'_>) -> Result<u64, Failure> {
    steps(run, test_vmalloc::fix_align)
}

pub(super) fn random_size_align(run: &mut Run<'_>) -> Result<u64, Failure> {
    steps(run, test_vmalloc::random_size_align)
}

/// Linux expects the top to fail. Here 2^63 must fail.
pub(super) fn align_shift(run: &mut Run<'_>) -> Result<u64, Failure> {
    loops(run, |_| {
        let vm = kernel_vmalloc();
        let right = (0..64).all(|shift| {
            let align = 1 << shift;
            match vm.allocate(&Request::new(PAGE).aligned(align)) {
                Ok(area) => area.va().0.is_multiple_of(align),
                Err(Error::OutOfSpace(_)) => align > vm.range().size >> 6,
                Err(_) => false,
            }
        });
        let top = vm.allocate(&Request::new(PAGE).aligned(1 << 63));
        Ok(right && matches!(top, Err(Error::OutOfSpace(_))))
    })
}

/// One area for all CPUs' units, with pages under the objects only, as in Linux's per-CPU chunks.
pub(super) fn percpu(run: &mut Run<'_>) -> Result<u64, Failure> {
    const UNIT_PAGES: u64 = 16;
    const OBJECTS: usize = 16;
    let units = smp::nr_online() as u64;
    loops(run, |run| {
        let chunk = kernel_vmalloc().get_vm_area(units * UNIT_PAGES * PAGE, 1)?;
        let (mut offsets, mut end) = ([0; OBJECTS], 0u64);
        for offset in &mut offsets {
            let align = 1u64 << run.rng.u32(3..=11);
            *offset = end.next_multiple_of(align);
            end = *offset + run.rng.u64(8..=PAGE / 4);
        }
        let pages = end.div_ceil(PAGE);
        let mut populated = Vec::new();
        let done = populate(&chunk, units, UNIT_PAGES, pages, &mut populated).map(|()| {
            let at = |unit: u64, offset: u64| (chunk.va().0 + unit * UNIT_PAGES * PAGE + offset) as usize;
            let each = || (0..units).flat_map(|unit| offsets.map(|offset| at(unit, offset)));
            each().for_each(|at| write(at, at as u64 ^ run.nr_pages));
            each().all(|at| read(at) == at as u64 ^ run.nr_pages)
        });
        chunk.free();
        populated.iter().for_each(|frame: &Pfn| frames::free(*frame, 0));
        done
    })
}

fn populate(
    chunk: &KernelArea,
    units: u64,
    unit_pages: u64,
    pages: u64,
    populated: &mut Vec<Pfn>,
) -> Result<(), Failure> {
    for unit in 0..units {
        let from = populated.len();
        for _ in 0..pages {
            populated.push(frames::allocate(0).ok_or(Failure::NoFrames(0))?);
        }
        chunk.map_pages(
            unit * unit_pages * PAGE,
            &populated[from..],
            Attributes::KERNEL_DATA,
        )?;
    }
    Ok(())
}

pub(super) fn map_ram(run: &mut Run<'_>) -> Result<u64, Failure> {
    steps(run, test_vmalloc::map_ram)
}

/// Under a spin lock with interrupts masked. Only other CPUs may make that fail.
pub(super) fn no_block(run: &mut Run<'_>) -> Result<u64, Failure> {
    let lock = IrqSpinLock::new("no_block", ());
    let right = loops(run, |run| {
        let held = lock.lock();
        let area = match mm::vmalloc_nowait(run.nr_pages * PAGE) {
            Ok(area) => area,
            Err(_) if run.threads > 1 => return Ok(true),
            Err(error) => return Err(error.into()),
        };
        let right = touch(&area);
        let va = area.into_raw();
        // SAFETY: raw, the test's own, and nothing lies in it.
        match unsafe { mm::vfree_atomic(va) } {
            Err(Error::TooManyDeferred { .. }) if run.threads > 1 => {
                drop(held);
                // SAFETY: as above: it was not taken.
                unsafe { mm::vfree(va) }?;
            }
            done => done?,
        }
        Ok(right)
    });
    // It drains what was deferred.
    kernel_vmalloc().vm_unmap_aliases();
    right
}

pub(super) fn vrealloc(run: &mut Run<'_>) -> Result<u64, Failure> {
    steps(run, test_vmalloc::vrealloc)
}
