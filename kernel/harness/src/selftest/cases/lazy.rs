use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use arrayvec::ArrayVec;
use kernel::arch::percpu::nr_cpus;
use kernel::arch::probe::probe_read;
use kernel::arch::time;
use kernel::mm::areas::{KernelArea, kernel_vmalloc};
use kernel::mm::frames::fail_page_alloc;
use kernel::mm::{self, frames};
use kernel::smp;
use kernel::sync::IrqSpinLock;
use paging::{Extent, Pfn, VirtAddr, VirtRange};
use vmalloc::{Error, FlushPolicy};

use super::bad_input::AllFrames;
use super::cpus::Meeting;
use crate::selftest::backend::SecondVmalloc;
use crate::selftest::context::Context;
use crate::selftest::failure::{Failure, TestResult, expect, expect_value, go_on};
use crate::selftest::ktap::Report;
use crate::selftest::memory::Chunks;
use crate::selftest::source::{BLOCK_SIZE, PAGE};
use crate::selftest::verify::write;

const PAGES: u64 = 4;

const FAULT: u64 = u64::MAX;

fn mark(page: u64) -> u64 {
    page ^ 0x6d61_726b_0000_0000
}

/// One job per CPU: one that was off in between would have an empty TLB.
pub fn stale_translations_see_lazily_freed_frames(_ctx: &Context) -> TestResult {
    let vm = kernel_vmalloc();
    vm.vm_unmap_aliases();
    let area = mm::vmalloc(PAGES * PAGE)?;
    let va = area.va();
    let at = |page: u64| (va.0 + page * PAGE) as usize;
    (0..PAGES).for_each(|page| write(at(page), mark(page)));
    let frames = (0..PAGES)
        .map(|page| mm::vmalloc_to_pfn(va.add(page * PAGE)))
        .collect::<Result<Vec<Pfn>, _>>()?;
    let area = IrqSpinLock::new("area", Some(area));
    let others = IrqSpinLock::new("others", Vec::with_capacity(64));
    let nr = smp::nr_online();
    let meetings: [Meeting; 4] = core::array::from_fn(|_| Meeting::of(nr));
    let [touched, freed, looked, flushed] = &meetings;
    let stale = AtomicU64::new(0);
    let wrong: Vec<AtomicU64> = (0..nr_cpus()).map(|_| AtomicU64::new(0)).collect();
    let late = AtomicU64::new(0);
    let meet = |meeting: &Meeting| {
        if !meeting.wait() {
            late.store(1, Ordering::Release);
        }
    };
    smp::on_each_cpu(|cpu| {
        let look = |page: u64| probe_read(at(page)).unwrap_or(FAULT);
        let other = (0..PAGES).find(|page| look(*page) != mark(*page));
        meet(touched);
        if cpu == 0 {
            let gone = area.lock().take();
            drop(gone);
            for _ in 0..64 {
                if let Ok(new) = mm::vmalloc(PAGES * PAGE) {
                    (0..PAGES).for_each(|page| write((new.va().0 + page * PAGE) as usize, !mark(page)));
                    others.lock().push(new);
                }
            }
        }
        meet(freed);
        let mut found = other.map_or(0, |page| page + 1);
        for page in 0..PAGES {
            match look(page) {
                FAULT => {}
                seen if seen == mark(page) => {
                    stale.fetch_add(1, Ordering::AcqRel);
                }
                _ => found = page + 1,
            }
        }
        meet(looked);
        if cpu == 0 {
            vm.vm_unmap_aliases();
        }
        meet(flushed);
        if (0..PAGES).any(|page| look(page) != FAULT) {
            found = 1 << 32;
        }
        wrong[cpu].store(found, Ordering::Release);
    });
    let others = core::mem::take(&mut *others.lock());
    expect("a CPU is late", 0, late.into_inner() == 0)?;
    expect("no other memory was to be had", 0, others.len() == 64)?;
    for (cpu, wrong) in wrong.into_iter().map(AtomicU64::into_inner).enumerate() {
        if wrong >> 32 != 0 {
            return Err(Failure::Cpu {
                cpu,
                what: "reaches a freed page after vm_unmap_aliases",
            }
            .into());
        }
        if wrong != 0 {
            return Err(Failure::Cpu {
                cpu,
                what: "reads something else through a freed address than was there",
            }
            .into());
        }
    }
    for other in &others {
        for page in 0..PAGES {
            let frame = mm::vmalloc_to_pfn(other.va().add(page * PAGE))?;
            expect(
                "a frame was handed out before its flush",
                frame.0,
                !frames.contains(&frame),
            )?;
        }
    }
    Report::say(format_args!(
        "lazy purge: {} loads of {} went through a stale translation",
        stale.into_inner(),
        PAGES * nr as u64
    ));
    Ok(())
}

pub fn deferred_areas_are_out_after_a_flush(_ctx: &Context) -> TestResult {
    const ROUNDS: u64 = 100;
    let vm = kernel_vmalloc();
    let done = AtomicBool::new(false);
    let (freed, reached) = (AtomicU64::new(0), AtomicU64::new(0));
    smp::on_each_cpu(|cpu| {
        if cpu != 0 {
            while !done.load(Ordering::Acquire) {
                drop(vm.get_vm_area(PAGE, PAGE));
                time::relax();
            }
            return;
        }
        for _ in 0..ROUNDS {
            let mut at = ArrayVec::<usize, 8>::new();
            while let Ok(area) = mm::vmalloc(PAGE) {
                write(area.va().0 as usize, 1);
                at.push(area.va().0 as usize);
                if area.free_atomic().is_err() || at.is_full() {
                    break;
                }
            }
            vm.vm_unmap_aliases();
            freed.fetch_add(at.len() as u64, Ordering::AcqRel);
            let still = at.iter().filter(|at| probe_read(**at).is_ok()).count();
            reached.fetch_add(still as u64, Ordering::AcqRel);
        }
        done.store(true, Ordering::Release);
    });
    expect_value("areas that were freed", freed.into_inner(), 8 * ROUNDS)?;
    Ok(expect_value(
        "of these, still there after a flush",
        reached.into_inner(),
        0,
    )?)
}

pub fn lazily_freed_frames_are_had_by_everybody(_ctx: &Context) -> TestResult {
    let area = mm::vmalloc(PAGES * PAGE)?;
    let _all = AllFrames::take();
    area.free();
    let none = frames::allocate_no_reclaim(0);
    expect("a frame is free", 0, none.is_none())?;
    let Some(frame) = frames::allocate(0) else {
        return Err(Failure::Claim {
            what: "frames that wait for a flush are not freed",
            at: PAGES,
        }
        .into());
    };
    frames::free(frame, 0);
    Ok(())
}

pub fn idle_cpus_do_deferred_work(ctx: &Context) -> TestResult {
    ctx.needs_other_cpus()?;
    let vm = kernel_vmalloc();
    vm.vm_unmap_aliases();
    let other = smp::online()
        .find(|cpu| *cpu != 0)
        .ok_or(Failure::NotRefused("no other CPU"))?;
    let area = mm::vmalloc(PAGE)?;
    let ended = smp::run_on(other, move || area.free_atomic().is_ok());
    expect("an area of its own is not ended", other as u64, ended == Ok(true))?;
    while vm.usage().deferred.0 != 0 {
        go_on()?;
        time::relax();
    }
    Ok(())
}

pub fn thresholds_bound_what_is_lazy(_ctx: &Context) -> TestResult {
    let vm = kernel_vmalloc();
    let FlushPolicy::Lazy { areas, pages } = vm.config().flush else {
        return Err(Failure::NotRefused("a strict kernel").into());
    };
    vm.vm_unmap_aliases();
    let (mut most_areas, mut most_pages) = (0, 0);
    let mut look = || {
        let waiting = vm.usage().lazy;
        most_areas = most_areas.max(waiting.0);
        most_pages = most_pages.max(waiting.1);
    };
    for _ in 0..2 * areas {
        mm::vmalloc(PAGE)?.free();
        look();
    }
    for _ in 0..20 {
        mm::vmalloc(8 << 20)?.free();
        look();
    }
    expect("nothing was lazy", 0, most_areas > 1)?;
    expect("too many areas wait", most_areas as u64, most_areas < areas)?;
    expect("too many pages wait", most_pages, most_pages < pages)?;
    Ok(())
}

pub fn pressure_on_frames_forces_it(_ctx: &Context) -> TestResult {
    let vm = kernel_vmalloc();
    vm.vm_unmap_aliases();
    let size = 2 * PAGES * PAGE;
    let mut grows = mm::vmalloc(PAGE)?;
    let (a, b) = (mm::vmalloc(size)?, mm::vmalloc(size)?);
    let mut all = AllFrames::take();
    all.free(4);
    a.free();
    expect_value("areas that wait", vm.usage().lazy.0 as u64, 1)?;
    let again = mm::vmalloc(size)?;
    expect_value("areas that wait", vm.usage().lazy.0 as u64, 0)?;
    b.free();
    expect_value("areas that wait", vm.usage().lazy.0 as u64, 1)?;
    grows.vrealloc(size)?;
    let none = Error::OutOfFrames { size };
    expect(
        "memory is had that there is not",
        size,
        mm::vmalloc(size).err() == Some(none),
    )?;
    drop((again, grows, all));
    Ok(())
}

pub fn pressure_on_tables_forces_it(ctx: &Context) -> TestResult {
    let vm = kernel_vmalloc();
    let chunks = Chunks::allocate(ctx, &[8, 4, 8, 0, 7, 6])?;
    let (extents, pages) = (chunks.extents(), chunks.frames());
    let device = ctx.untouched(700 * PAGE, PAGE, 0)?;
    type Make<'a> = &'a dyn Fn() -> Result<KernelArea, Error>;
    let make: [(&str, Make<'_>); 5] = [
        ("vmalloc", &|| mm::vmalloc(1023 * PAGE)),
        ("a stack", &|| mm::alloc_stack(600 * PAGE)),
        ("vmap of extents", &|| vm.vmap_extents(&extents)),
        ("vmap", &|| mm::vmap(&pages[..])),
        ("ioremap", &|| mm::ioremap(device, 700 * PAGE)),
    ];
    for (what, make) in make {
        let mut k = 1;
        loop {
            vm.vm_unmap_aliases();
            mm::vmalloc(PAGE)?.free();
            let injection = fail_page_alloc::fail_nth(k);
            let made = make();
            let fired = injection.fired();
            drop(injection);
            match made {
                Ok(area) => maps(&area, what, &extents)?,
                Err(error) => {
                    Report::say(format_args!("{what}: without allocation {k}: {error}"));
                    return Err(error.into());
                }
            }
            if !fired {
                break;
            }
            k += 1;
        }
    }
    Ok(())
}

fn maps(area: &KernelArea, what: &str, extents: &[Extent]) -> Result<(), Failure> {
    if !what.starts_with("vmap") {
        return Ok(());
    }
    let frames = extents
        .iter()
        .flat_map(|extent| extent.start.0..extent.start.0 + extent.pages);
    for (page, frame) in (0..).zip(frames) {
        let va = area.va().add(page * PAGE);
        expect_value("frame of a page", mm::vmalloc_to_pfn(va)?.0, frame)?;
    }
    Ok(())
}

pub fn pressure_on_addresses_forces_it(_ctx: &Context) -> TestResult {
    let lazy = FlushPolicy::Lazy {
        areas: 1 << 20,
        pages: 1 << 40,
    };
    let second = SecondVmalloc::new(8 * BLOCK_SIZE, lazy)?;
    let vm = second.vm();
    let full = |expected: usize| -> Result<Vec<VirtAddr>, Failure> {
        let mut held = Vec::with_capacity(expected.max(512));
        while let Ok(area) = vm.vmalloc(15 * PAGE) {
            held.push(area.into_raw());
        }
        Ok(held)
    };
    let held = full(0)?;
    expect("nothing fits", held.len() as u64, held.len() > 100)?;
    for va in &held {
        second.owe(VirtRange::new(*va, 15 * PAGE))?;
        // SAFETY: raw, the test's own, and nothing lies in it.
        unsafe { vm.vfree(*va) }?;
    }
    expect_value("areas that wait", vm.usage().lazy.0 as u64, held.len() as u64)?;
    let again = full(held.len())?;
    expect_value("areas that fit", again.len() as u64, held.len() as u64)?;
    for va in &again {
        second.owe(VirtRange::new(*va, 15 * PAGE))?;
        // SAFETY: raw, the test's own, and nothing lies in it.
        unsafe { vm.vfree(*va) }?;
    }
    second.check_empty().map_err(Failure::into)
}
