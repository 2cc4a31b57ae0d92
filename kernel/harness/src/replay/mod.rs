//! `mode=replay`: what another kernel's vmalloc did (the trace is the initrd), done by this one and
//! verified page by page ([`contents`]). It is performed twice: by the kernel's own subsystem for
//! instructions and peaks, then by a second one for barriers and invalidations. Of several CPUs,
//! each performs its own events ([`order`]), and no instructions are counted.

mod contents;
mod counting;
mod device;
mod failure;
mod frames;
mod kinds;
mod order;
mod pass;
mod report;
mod space;
mod stats;

use core::fmt;

use alloc::boxed::Box;
use crc::{CRC_64_ECMA_182, Crc};
use kernel::BootInfo;
use kernel::arch::features::Features;
use kernel::arch::percpu::MAX_CPUS;
use kernel::mm::areas::kernel_vmalloc;
use kernel::mm::frames::State;
use kernel::mm::layout::PAGE_SIZE;
use kernel::mm::regions::PhysRegion;
use kernel::mm::{self, linear_va, memory_plan};
use kernel::{println, smp};
use paging::DisplaySize;
use trace_replay::{HEAP_PER_LINE, Machine, Need, Trace};
use vmalloc::{FlushPolicy, Vmalloc};

use crate::measure::Instrument;
use crate::options::{Options, ReplayFault};
use counting::counting_backend;
use device::Devices;
use failure::{Finding, What};
use pass::Pass;

const RESERVED: u64 = 8 << 40;

#[derive(Debug)]
pub enum Error {
    NoTrace,
    OutsideRam(PhysRegion),
    Trace(trace_replay::Error<'static>),
    Ram { needed: u64, free: u64 },
    TraceNotKept(u64),
    Addresses(vmalloc::Error),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoTrace => f.write_str("mode=replay takes a trace as the initrd, and there is none"),
            Self::OutsideRam(initrd) => write!(
                f,
                "the trace is an initrd at {initrd}, which does not lie in RAM that the device tree lists"
            ),
            Self::Trace(error) => write!(f, "trace: {error}"),
            Self::Ram { needed, free } => write!(
                f,
                "trace: it takes {} MiB of free RAM to replay it, and {} MiB are free",
                needed.div_ceil(1 << 20),
                free >> 20
            ),
            Self::TraceNotKept(frame) => {
                write!(
                    f,
                    "frame {frame:#x} of the trace is in the hands of the frame allocator"
                )
            }
            Self::Addresses(error) => write!(f, "no addresses for the second pass: {error}"),
        }
    }
}

/// # Errors
/// Why it cannot be replayed. Failures within a replay are in its report.
pub fn run(info: &'static BootInfo, options: &Options<'_>, features: &Features) -> Result<(), Error> {
    let text = text()?;
    let before = checksum(text);
    let lines = text.iter().filter(|byte| **byte == b'\n').count() as u64;
    // The heap has room for every line.
    enough(lines * HEAP_PER_LINE)?;
    let trace = Trace::parse(text, MAX_CPUS as u32).map_err(Error::Trace)?;
    let cpus = smp::nr_online().min(trace.nr_cpus as usize);
    let need = need(&trace, lines, cpus);
    enough(need.free_ram)?;
    println!(
        "replay: {} events of {} areas on {} CPUs, replayed on {cpus}; at most {} areas and {} at once, {} of RAM; it takes {} of free RAM, {} are free",
        trace.events.len(),
        trace.areas.len(),
        trace.nr_cpus,
        need.peak_areas,
        DisplaySize(need.peak_bytes),
        DisplaySize(need.peak_ram),
        DisplaySize(need.free_ram),
        DisplaySize(free())
    );

    let instrument = if cpus == 1 {
        Instrument::new(features).ok()
    } else {
        None
    };
    report::machine(features, cpus, instrument.is_some());
    report::trace(&trace, &need, free());
    let devices = Devices::new(&trace);
    let mut nr_failures = 0;

    let plain = Pass::new(
        info,
        kernel_vmalloc(),
        &trace,
        &devices,
        cpus,
        options.replay_fault,
        instrument.is_some(),
    );
    nr_failures += plain.run(instrument.as_ref());

    let region = kernel_vmalloc()
        .get_vm_area(RESERVED, 1 << 30)
        .map_err(Error::Addresses)?;
    let backend = counting_backend(features);
    let vm = Vmalloc::new(region.range(), backend, *kernel_vmalloc().config()).map_err(Error::Addresses)?;
    let vm = Box::new(vm);
    let counted = Pass::new(info, &*vm, &trace, &devices, cpus, None, false);
    nr_failures += counted.run(None);

    if options.replay_fault == Some(ReplayFault::Trace) {
        let first = text.as_ptr() as usize;
        // SAFETY: a byte of the initrd, in the linear map, that nothing reads at the same time; to
        // spoil it is the fault asked for.
        unsafe { (first as *mut u8).write_volatile(!text[0]) };
    }
    let after = checksum(text);
    if before != after {
        nr_failures += 1;
        report::failure(&Finding::of_all(What::TraceChanged { before, after }));
    }
    report::stats(&plain.stats(), &counted.stats());
    report::peaks(&plain.peaks(), &plain.verified());
    if let Some(space) = plain.space() {
        report::space(&space);
    }
    report::failures(nr_failures);
    println!("vmwalk: done");
    Ok(())
}

fn text() -> Result<&'static [u8], Error> {
    let Some(initrd) = memory_plan().initrd else {
        return Err(kernel::machine().initrd.map_or(Error::NoTrace, Error::OutsideRam));
    };
    let pages = initrd.grow_to_pages(PAGE_SIZE as u64);
    let frames = pages.start / PAGE_SIZE as u64..pages.end / PAGE_SIZE as u64;
    for frame in frames {
        if mm::frames::state(paging::Pfn(frame)) != State::FOREIGN {
            return Err(Error::TraceNotKept(frame));
        }
    }
    // SAFETY: in the linear map, whole, and used by this mode only.
    Ok(unsafe { core::slice::from_raw_parts(linear_va(initrd.start) as *const u8, initrd.size() as usize) })
}

fn checksum(text: &[u8]) -> u64 {
    // From memory, as it is now.
    Crc::<u64>::new(&CRC_64_ECMA_182).checksum(core::hint::black_box(text))
}

fn need(trace: &Trace, lines: u64, cpus: usize) -> Need {
    let lazy = match kernel_vmalloc().config().flush {
        // The maximum on any machine: the script knows it before the boot.
        FlushPolicy::Lazy { .. } => 32 << 20,
        _ => 0,
    };
    trace.need(
        lines,
        Machine {
            cpus: cpus as u32,
            lazy,
        },
    )
}

fn free() -> u64 {
    mm::frames::stats().free * PAGE_SIZE as u64
}

fn enough(needed: u64) -> Result<(), Error> {
    let free = free();
    if free < needed {
        return Err(Error::Ram { needed, free });
    }
    Ok(())
}
