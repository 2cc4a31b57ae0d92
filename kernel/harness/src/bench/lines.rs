//! `mode=lines`: what calls cost that instruction counts hide, on several CPUs.
//!
//! The CPUs take turns, one call at a time, each on areas of its own, so that what one CPU's
//! call finds in a line that another CPU has written is sharing that the design makes, not chance.
//! An emulator plugin counts between the [markers](kernel::arch::marker): cache-line transfers,
//! atomic read-modify-writes, barriers, TLBIs (`scripts/lines`). Nothing is counted here.
//!
//! The cases are those that Linux was measured in (`scripts/bench-data/`), and the read side.

use core::hint::black_box;
use core::sync::atomic::{AtomicUsize, Ordering};

use alloc::vec::Vec;

use kernel::arch::marker;
use kernel::arch::time::relax;
use kernel::mm::areas::{KernelArea, kernel_vmalloc, nr_node_frames};
use kernel::mm::layout::PAGE_SIZE;
use kernel::print;
use kernel::smp;
use kernel::sync::IrqSpinLock;
use paging::{Pfn, PhysAddr, VirtAddr};
use vmalloc::Error;

use super::engine::nowhere;
use super::pages::Pages;
use crate::options::Options;

/// Turns of each CPU before those that count: what is lazily made is there afterwards.
const WARM: usize = 64;
/// Turns of each CPU that count.
const ROUNDS: usize = 256;
/// Pages that `vmap` and `vm_map_ram` map.
const PAGES: usize = 16;

/// What a CPU does in its turn.
#[derive(Clone, Copy)]
enum Call {
    /// An area that its CPU makes and ends at once.
    Pair(Make),
    /// An area that the next CPU in turn ends.
    HandedOn(u64),
    /// An area that its CPU makes, and frees by its address.
    ByAddress(u64),
    /// A lookup in an area that the CPU made before.
    Look(Look),
}

#[derive(Clone, Copy)]
enum Make {
    Vmalloc(u64),
    Vmap,
    MapRam,
    Ioremap,
}

#[derive(Clone, Copy)]
enum Look {
    FindVmArea,
    VmallocToPfn,
    Vread,
}

const CASES: &[(&str, Call)] = &[
    ("vmalloc 1", Call::Pair(Make::Vmalloc(1))),
    ("vmalloc 16", Call::Pair(Make::Vmalloc(16))),
    ("vmalloc 256", Call::Pair(Make::Vmalloc(256))),
    ("vmap 16", Call::Pair(Make::Vmap)),
    ("vm_map_ram 16", Call::Pair(Make::MapRam)),
    ("ioremap 16", Call::Pair(Make::Ioremap)),
    ("vmalloc 1, freed by another", Call::HandedOn(1)),
    ("vmalloc 1, freed by address", Call::ByAddress(1)),
    ("find_vm_area", Call::Look(Look::FindVmArea)),
    ("vmalloc_to_pfn", Call::Look(Look::VmallocToPfn)),
    ("vread of a page", Call::Look(Look::Vread)),
];

/// What each CPU has for itself.
struct Own {
    pages: Pages,
    /// The area that a CPU has handed on and the next has not yet ended.
    handed: IrqSpinLock<Option<KernelArea>>,
}

/// Runs the cases on every CPU that is up, and prints which case each marker began.
///
/// # Panics
/// If a call fails: then nothing was measured.
pub fn run(options: &Options<'_>) {
    let nr_cpus = smp::nr_online();
    let own: Vec<Own> = (0..nr_cpus)
        .map(|_| Own {
            pages: Pages::allocate(PAGES, 0).unwrap_or_else(|| panic!("no memory for {PAGES} pages")),
            handed: IrqSpinLock::new("handed area", None),
        })
        .collect();
    populate(options.lines_areas, nr_cpus as u64);
    // The number of the case that the plugin writes down: one for the warm-up, one for what counts.
    let mut number = 0;
    for (name, call) in CASES {
        if !crate::glob::matches(options.bench, name) {
            continue;
        }
        marker::next_case();
        number += 2;
        one_case(*call, &own);
        print!("lines {{\"number\":{number},\"case\":\"{name}\",\"cpus\":{nr_cpus}}}\n");
    }
}

/// Makes `nr` areas, addresses of a page each, that stay: each CPU its share. Prints what
/// they take.
fn populate(nr: u64, nr_cpus: u64) {
    if nr == 0 {
        return;
    }
    let frames = nr_node_frames();
    smp::on_each_cpu(|cpu| {
        let place = smp::online().position(|other| other == cpu).unwrap_or(0) as u64;
        for _ in 0..nr / nr_cpus + u64::from(place < nr % nr_cpus) {
            let made = kernel_vmalloc().get_vm_area(PAGE_SIZE as u64, PAGE_SIZE as u64);
            // Left to the end of the machine.
            let _ = made
                .unwrap_or_else(|error| panic!("an area to live: {error}"))
                .into_raw();
        }
    });
    let bytes = (nr_node_frames() - frames) * PAGE_SIZE as u64;
    print!("areas {{\"areas\":{nr},\"cpus\":{nr_cpus},\"bytes\":{bytes}}}\n");
}

/// Every CPU does `call`, one after the other, round after round.
fn one_case(call: Call, own: &[Own]) {
    let turn = AtomicUsize::new(0);
    // CPUs that are up have no gaps in their numbers' order, but may have in the numbers.
    let place = |cpu: usize| smp::online().position(|other| other == cpu).expect("it is up");
    smp::on_each_cpu(|cpu| {
        let (me, nr_cpus) = (place(cpu), own.len());
        let looked_at = kernel_vmalloc().vmalloc(4096).expect("an area to look at");
        for round in 0..WARM + ROUNDS {
            while turn.load(Ordering::Acquire) != round * nr_cpus + me {
                relax();
            }
            if round == WARM && me == 0 {
                marker::next_case();
            }
            one_call(call, own, me, looked_at.va()).unwrap_or_else(|error| panic!("round {round}: {error}"));
            turn.fetch_add(1, Ordering::AcqRel);
        }
    });
    for each in own {
        let left = each.handed.lock().take();
        drop(left);
    }
}

fn one_call(call: Call, own: &[Own], me: usize, looked_at: VirtAddr) -> Result<(), Error> {
    match call {
        Call::Pair(make) => one_pair(make, own[me].pages.frames(), me),
        Call::HandedOn(pages) => {
            let before = own[(me + own.len() - 1) % own.len()].handed.lock().take();
            if let Some(area) = before {
                marker::begin_unmap();
                drop(area);
                marker::end();
            }
            marker::begin_map();
            let area = kernel_vmalloc().vmalloc(pages << 12);
            marker::end();
            *own[me].handed.lock() = Some(area?);
            Ok(())
        }
        Call::ByAddress(pages) => {
            marker::begin_map();
            let va = kernel_vmalloc().vmalloc(pages << 12).map(KernelArea::into_raw);
            marker::end();
            let va = va?;
            marker::begin_unmap();
            // SAFETY: raw, the bench's own, and nothing lies in it.
            let freed = unsafe { kernel_vmalloc().vfree(va) };
            marker::end();
            freed
        }
        Call::Look(look) => one_look(look, looked_at),
    }
}

fn one_pair(make: Make, frames: &[Pfn], me: usize) -> Result<(), Error> {
    if matches!(make, Make::MapRam) {
        marker::begin_map();
        let va = kernel_vmalloc().vm_map_ram(frames);
        marker::end();
        let va = va?;
        marker::begin_unmap();
        // SAFETY: as above.
        let unmapped = unsafe { kernel_vmalloc().vm_unmap_ram(va, frames.len() as u64) };
        marker::end();
        return unmapped;
    }
    marker::begin_map();
    let area = match make {
        Make::Vmalloc(pages) => kernel_vmalloc().vmalloc(pages << 12),
        Make::Vmap | Make::MapRam => kernel_vmalloc().vmap(frames),
        Make::Ioremap => kernel_vmalloc().ioremap(device(me), (PAGES as u64) << 12),
    };
    marker::end();
    let area = area?;
    marker::begin_unmap();
    drop(area);
    marker::end();
    Ok(())
}

fn one_look(look: Look, va: VirtAddr) -> Result<(), Error> {
    let mut page = [0; 4096];
    marker::begin_map();
    let found = match look {
        Look::FindVmArea => {
            black_box(kernel_vmalloc().find_vm_area(va));
            Ok(())
        }
        Look::VmallocToPfn => kernel_vmalloc().vmalloc_to_pfn(va).map(|frame| {
            black_box(frame);
        }),
        Look::Vread => kernel_vmalloc().vread(va, &mut page).map(|nr| {
            black_box(nr);
        }),
    };
    marker::end();
    found
}

/// Registers that no machine has, 1 MiB apart.
fn device(cpu: usize) -> PhysAddr {
    nowhere().add((cpu as u64) << 20)
}
