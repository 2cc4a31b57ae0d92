use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};

use kernel::arch::cache::publish_instructions;
use kernel::arch::mmu::isb;
use kernel::arch::percpu::nr_cpus;
use kernel::arch::probe::probe_write;
use kernel::mm::areas::{KernelArea, kernel_vmalloc};
use kernel::mm::{self, linear_va};
use kernel::smp;
use kernel::sync::IrqSpinLock;
use paging::{Attributes, Pfn, VirtAddr};
use vmalloc::Request;

use super::cpus::Meeting;
use crate::selftest::context::Context;
use crate::selftest::failure::{Failure, TestResult, expect, expect_value};
use crate::selftest::source::PAGE;
use crate::selftest::verify::write;

const ROUNDS: usize = 24;

/// MOVZ W0, #value; RET.
const fn returns(value: u16) -> u64 {
    const MOVZ_W0: u64 = 0x5280_0000;
    const RET: u64 = 0xd65f_03c0;
    RET << 32 | MOVZ_W0 | (value as u64) << 5
}

/// # Safety
/// [`returns`] made the function, it is published, and this CPU has had a context synchronisation
/// event since.
unsafe fn call(va: VirtAddr) -> u64 {
    // SAFETY: the caller's promise: executable, and by the procedure call standard.
    let function: extern "C" fn() -> u64 = unsafe { core::mem::transmute(va.0 as usize) };
    function()
}

fn make_code(area: &KernelArea, value: u16) -> Result<(), Failure> {
    let range = area.range();
    for page in 0..range.size / PAGE {
        write(
            (range.start.0 + page * PAGE) as usize,
            returns(value + page as u16),
        );
    }
    area.set_memory_ro(0, range.size)?;
    area.set_memory_x(0, range.size)?;
    Ok(())
}

pub fn runs_as_it_was_written(_ctx: &Context) -> TestResult {
    const PAGES: u64 = 3;
    let area = mm::vmalloc(PAGES * PAGE)?;
    for round in 0..ROUNDS {
        let value = 100 * (round as u16 + 1);
        make_code(&area, value)?;
        for cpu in smp::online() {
            for page in 0..PAGES {
                let at = area.va().add(page * PAGE);
                // SAFETY: published by `set_memory_x`; a job begins with an ISB.
                let returned = smp::run_on(cpu, move || unsafe { call(at) });
                let returned = returned.map_err(|_| Failure::Cpu {
                    cpu,
                    what: "is not up any more",
                })?;
                expect_value("what the code returns", returned, u64::from(value) + page)?;
            }
        }
        // SAFETY: the test's own memory; read-only, if the store faults.
        let stored = unsafe { probe_write(area.va().0 as usize, 0) };
        expect("code can be written", area.va().0, stored.is_err())?;
        area.set_memory_nx(0, PAGES * PAGE)?;
        area.set_memory_rw(0, PAGES * PAGE)?;
    }
    Ok(())
}

/// Within one job, and by memory alone, so they make the ISB.
pub fn reaches_cpus_that_run(_ctx: &Context) -> TestResult {
    let nr = smp::nr_online();
    let published = AtomicU64::new(0);
    let handed: [Meeting; ROUNDS] = core::array::from_fn(|_| Meeting::of(nr));
    let called: [Meeting; ROUNDS] = core::array::from_fn(|_| Meeting::of(nr));
    let wrong: Vec<AtomicU64> = (0..nr_cpus()).map(|_| AtomicU64::new(0)).collect();
    let result = IrqSpinLock::new("result", Ok(()));
    smp::on_each_cpu(|cpu| {
        let mut area = None;
        for round in 0..ROUNDS {
            let value = 7 + 11 * round as u16;
            if cpu == 0 {
                area = None;
                match mm::vmalloc(PAGE).map_err(Failure::from).and_then(|new| {
                    make_code(&new, value)?;
                    Ok(new)
                }) {
                    Ok(new) => {
                        published.store(new.va().0, Ordering::Release);
                        area = Some(new);
                    }
                    Err(error) => {
                        published.store(0, Ordering::Release);
                        *result.lock() = Err(error);
                    }
                }
            }
            let mut late = !handed[round].wait();
            let va = VirtAddr(published.load(Ordering::Acquire));
            isb();
            if va.0 == 0 {
                return;
            }
            // SAFETY: published before its address was stored; this CPU had its event.
            let returned = if late { 0 } else { unsafe { call(va) } };
            late |= !called[round].wait();
            if late || returned != u64::from(value) {
                let _ = wrong[cpu].compare_exchange(0, 1 + returned, Ordering::AcqRel, Ordering::Relaxed);
                return;
            }
        }
        drop(area);
    });
    let result = result.lock().clone();
    result?;
    for (cpu, wrong) in wrong.into_iter().map(AtomicU64::into_inner).enumerate() {
        if wrong != 0 {
            return Err(Failure::Cpu {
                cpu,
                what: "ran other code than was published, or was not there in time",
            }
            .into());
        }
    }
    Ok(())
}

pub fn mapped_executable(_ctx: &Context) -> TestResult {
    let vm = kernel_vmalloc();
    let owner = mm::vmalloc(2 * PAGE)?;
    let frames = [
        mm::vmalloc_to_pfn(owner.va())?,
        mm::vmalloc_to_pfn(owner.va().add(PAGE))?,
    ];
    let alias = |frame: Pfn| linear_va(frame.0 * PAGE);
    for round in 0..ROUNDS as u16 {
        for frame in frames {
            write(alias(frame), returns(round));
        }
        let area = vm.vmap_as(&frames[..], Attributes::KERNEL_TEXT)?;
        // SAFETY: published by the map; the same CPU.
        let returned = unsafe { call(area.va()) };
        expect_value("what the code returns", returned, u64::from(round))?;
        write(alias(frames[0]), returns(round + 1000));
        publish_instructions(area.va().0 as usize, PAGE as usize);
        // SAFETY: published just now; the same CPU.
        let returned = unsafe { call(area.va()) };
        expect_value("what the code returns", returned, u64::from(round) + 1000)?;
        let sparse = vm.get_vm_area(4 * PAGE, PAGE)?;
        sparse.map_pages(PAGE, &frames[1..], Attributes::KERNEL_TEXT)?;
        // SAFETY: as above.
        let returned = unsafe { call(sparse.va().add(PAGE)) };
        expect_value("what the code returns", returned, u64::from(round))?;
    }
    let text = Request::new(PAGE).with_attributes(Attributes::KERNEL_TEXT);
    let area = vm.allocate(&text)?;
    write(alias(mm::vmalloc_to_pfn(area.va())?), returns(1));
    publish_instructions(area.va().0 as usize, PAGE as usize);
    // SAFETY: as above.
    expect_value("what the code returns", unsafe { call(area.va()) }, 1)?;
    let sparse = vm.get_vm_area(8 * PAGE, PAGE)?;
    sparse.map_pages(3 * PAGE, &frames[..1], Attributes::KERNEL_TEXT)?;
    let range = sparse.range();
    publish_instructions(range.start.0 as usize + 5, range.size as usize - 9);
    Ok(())
}
