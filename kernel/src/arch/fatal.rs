//! The end of a run by an exception or a panic.

use core::fmt;
use core::panic::PanicInfo;
use core::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

use aarch64_cpu::registers::{Readable, SCTLR_EL1, TCR_EL1, TPIDR_EL1, TTBR1_EL1};

use super::early_console::print;
use super::frame::Frame;
use super::percpu::{self, this_cpu};
use super::syndrome::class;
use super::{backtrace, interrupts, psci};

/// Prints an address's walk in a broken kernel: no locks, no allocation, tables by
/// [`probe_read`](super::probe::probe_read).
pub type DumpWalk = fn(va: usize, print: &mut dyn FnMut(fmt::Arguments<'_>));

static DUMP_WALK: AtomicPtr<()> = AtomicPtr::new(core::ptr::null_mut());

pub fn set_dump_walk(dump: DumpWalk) {
    DUMP_WALK.store(dump as *mut (), Ordering::Release);
}

fn dump_walk(va: usize) {
    let dump = DUMP_WALK.load(Ordering::Acquire);
    if dump.is_null() {
        return;
    }
    // SAFETY: only `set_dump_walk` stores here.
    let dump = unsafe { core::mem::transmute::<*mut (), DumpWalk>(dump) };
    dump(va, &mut |args| print(args));
}

const NOBODY: usize = usize::MAX;
/// It alone reports.
static FAILED: AtomicUsize = AtomicUsize::new(NOBODY);

pub(super) fn failed_cpu() -> Option<usize> {
    Some(FAILED.load(Ordering::Acquire)).filter(|cpu| *cpu != NOBODY)
}

static NR_AGAIN: AtomicUsize = AtomicUsize::new(0);

/// The report failed: prints; then turns off the console; then stops this CPU.
fn again(why: fmt::Arguments<'_>) -> ! {
    match NR_AGAIN.fetch_add(1, Ordering::Relaxed) {
        0 => print(format_args!("\nvmwalk: FATAL: {why} while reporting\n")),
        1 => super::early_console::switch_off(),
        _ => psci::park(),
    }
    psci::system_off()
}

fn enter() {
    let _masked = core::mem::ManuallyDrop::new(interrupts::mask());
    let this = percpu::cpu_index();
    match FAILED.compare_exchange(NOBODY, this, Ordering::AcqRel, Ordering::Acquire) {
        Ok(_) => {}
        Err(first) if first == this => again(format_args!("panicked")),
        Err(_) => psci::park(),
    }
}

pub(super) fn exception(frame: &Frame) -> ! {
    if failed_cpu() == Some(percpu::cpu_index()) {
        again(format_args!(
            "{}, {}, ELR {:#x} FAR {:#x}",
            frame.kind(),
            frame.syndrome(),
            frame.elr,
            frame.far
        ));
    }
    enter();
    let syndrome = frame.syndrome();
    let stack = this_cpu().stack();
    let sp = frame.sp as usize;
    print(format_args!(
        "\nvmwalk: FATAL: {} on CPU {}",
        frame.kind(),
        percpu::cpu_index()
    ));
    if frame.vector & 3 == 0 || frame.vector & 3 == 3 {
        print(format_args!(": {syndrome}"));
    }
    if syndrome.far_valid() {
        print(format_args!(" at {:#018x}", frame.far));
    }
    print(format_args!("\n"));
    if sp < stack.start + size_of::<Frame>() || sp > stack.end {
        print(format_args!(
            "the stack pointer is off the stack {:#x}..{:#x}",
            stack.start, stack.end
        ));
        let below = stack.start.wrapping_sub(sp.min(frame.far as usize));
        if below < 64 << 10 || (sp >= stack.start && sp < stack.end) {
            print(format_args!(": stack overflow"));
        }
        print(format_args!("\n"));
    }
    dump_frame(frame);
    if syndrome.far_valid() {
        dump_walk(frame.far as usize);
    }
    if syndrome.class() == class::INSTRUCTION_ABORT && frame.elr != frame.far {
        dump_walk(frame.elr as usize);
    }
    backtrace::dump(&raw const frame.record as usize);
    psci::system_off()
}

fn dump_frame(frame: &Frame) {
    let esr = frame.syndrome();
    print(format_args!(
        "ESR {:#018x} EC {:#04x} ISS {:#09x}",
        esr.0,
        esr.class(),
        esr.0 & 0x1ff_ffff
    ));
    if let Some(status) = esr.fault_status() {
        print(format_args!(" FSC {:#04x} ({status})", esr.0 & 0x3f));
    }
    if esr.class() == class::DATA_ABORT {
        print(format_args!(" WnR {}", u8::from(esr.is_write())));
    }
    print(format_args!(
        "\nFAR {:#018x}{}\n",
        frame.far,
        if esr.far_valid() { "" } else { " (not valid)" }
    ));
    print(format_args!(
        "ELR {:#018x} SPSR {:#010x} SP {:#018x}\n",
        frame.elr, frame.spsr, frame.sp
    ));
    for (i, x) in frame.x.iter().enumerate() {
        print(format_args!(
            "x{i:<2} {x:#018x}{}",
            if i % 4 == 3 { "\n" } else { "  " }
        ));
    }
    print(format_args!(
        "\nTTBR1 {:#018x} TCR {:#018x} SCTLR {:#018x} TPIDR {:#018x}\n",
        TTBR1_EL1.get(),
        TCR_EL1.get(),
        SCTLR_EL1.get(),
        TPIDR_EL1.get()
    ));
}

/// Ends the run and blames machine or loader.
pub fn stop(why: fmt::Arguments<'_>) -> ! {
    enter();
    print(format_args!("\nvmwalk: FATAL: {why}\n"));
    psci::system_off()
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    enter();
    print(format_args!(
        "\nvmwalk: FATAL: CPU {} panicked",
        percpu::cpu_index()
    ));
    if let Some(location) = info.location() {
        print(format_args!(" at {location}"));
    }
    print(format_args!(": {}\n", info.message()));
    backtrace::dump(backtrace::frame_pointer());
    psci::system_off()
}
