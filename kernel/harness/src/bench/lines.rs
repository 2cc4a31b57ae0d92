//! `mode=lines`: what calls cost on several CPUs that instruction counts hide. CPUs take turns, one
//! call at a time, so lines that move are shared by design. An emulator plugin (`scripts/lines`)
//! counts between the [markers](kernel::arch::marker).

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

const WARM: usize = 64;
const ROUNDS: usize = 256;
const PAGES: usize = 16;

#[derive(Clone, Copy)]
enum Call {
    Pair(Make),
    HandedOn(u64),
    ByAddress(u64),
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

struct Own {
    pages: Pages,
    handed: IrqSpinLock<Option<KernelArea>>,
}

/// # Panics
/// If a call fails.
pub fn run(options: &Options<'_>) {
    let nr_cpus = smp::nr_online();
    let own: Vec<Own> = (0..nr_cpus)
        .map(|_| Own {
            pages: Pages::allocate(PAGES, 0).unwrap_or_else(|| panic!("no memory for {PAGES} pages")),
            handed: IrqSpinLock::new("handed area", None),
        })
        .collect();
    populate(options.lines_areas, nr_cpus as u64);
    // As the plugin counts: warm-up and rounds are one each.
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

/// Each CPU its share.
fn populate(nr: u64, nr_cpus: u64) {
    if nr == 0 {
        return;
    }
    let frames = nr_node_frames();
    smp::on_each_cpu(|cpu| {
        let place = smp::online().position(|other| other == cpu).unwrap_or(0) as u64;
        for _ in 0..nr / nr_cpus + u64::from(place < nr % nr_cpus) {
            let made = kernel_vmalloc().get_vm_area(PAGE_SIZE as u64, PAGE_SIZE as u64);
            // Never freed.
            let _ = made
                .unwrap_or_else(|error| panic!("an area to live: {error}"))
                .into_raw();
        }
    });
    let bytes = (nr_node_frames() - frames) * PAGE_SIZE as u64;
    print!("areas {{\"areas\":{nr},\"cpus\":{nr_cpus},\"bytes\":{bytes}}}\n");
}

fn one_case(call: Call, own: &[Own]) {
    let turn = AtomicUsize::new(0);
    // Indices of online CPUs may have gaps.
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

/// Without a device, 1 MiB apart.
fn device(cpu: usize) -> PhysAddr {
    nowhere().add((cpu as u64) << 20)
}
