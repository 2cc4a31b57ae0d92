//! The vmwalk kernel, but for what it [runs](Init).
#![no_std]

extern crate alloc;

pub mod arch;
mod boot_info;
pub mod bootargs;
pub mod drivers;
mod init;
pub mod layout;
pub mod mm;
mod report;
pub mod smp;
pub mod sync;

use arch::alternatives::Asked;
use arch::early_console::MappedUart;
use arch::errata::Errata;
use arch::features::Features;
use arch::identity::Register;
use arch::{cache, identity, mmu, psci};
use bootargs::{BootArgs, Help, PassedOver};
use drivers::console;
use drivers::device_tree::{self, Console, EnableMethod, Machine};
use layout::{EARLY_UART_SLOT, Granule};
use mm::frames::fail_page_alloc;
use paging::{Granule as _, PhysAddr};

pub use boot_info::{BootInfo, DeviceTree, FixedTables, Sections};
pub use init::Init;

const CPU_STACK_SIZE: u64 = 64 << 10;

static ARGS: spin::Once<BootArgs> = spin::Once::new();
static MACHINE: spin::Once<Machine> = spin::Once::new();

/// Returns the boot arguments.
///
/// # Panics
/// Before they are read.
#[must_use]
pub fn args() -> &'static BootArgs {
    match ARGS.get() {
        Some(args) => args,
        None => panic!("the boot arguments are asked for before they are read"),
    }
}

/// Returns the device tree's description.
///
/// # Panics
/// Before it is read.
#[must_use]
pub fn machine() -> &'static Machine {
    match MACHINE.get() {
        Some(machine) => machine,
        None => panic!("the device tree is asked for before it is read"),
    }
}

/// Runs from the first tables to power-off, on the boot stack.
pub fn start<I: Init>(info: &'static BootInfo) -> ! {
    let machine = read_machine(info);
    let (args, init) = read_arguments::<I>(machine);
    console::init_log(args.log);
    if let Some(words) = PassedOver::<I>::of(machine.bootargs) {
        log::warn!("no boot arguments of this kernel, passed over: {words} (`help` lists those it has)");
    }
    log::info!(
        "entered at EL{}, image at {:#x}..{:#x}, device tree at {:#x} ({} bytes)",
        info.entry_el,
        info.image.start,
        info.image.end,
        info.device_tree.pa,
        info.device_tree.size
    );
    if let Err(error) = mm::init_early(info, machine) {
        fail(format_args!("{error}"));
    }
    identify_cpus(info, machine);
    if let Some(missing) = missing(args, 0) {
        fail(format_args!("this CPU has no {missing}"));
    }
    let features = common_features(args);
    let errata = identity::cpus(&args.overrides)
        .map(|(_, identity)| Errata::of(identity.get(Register::Midr)))
        .fold(args.errata, Errata::or);
    cache::init(&features, errata);
    mmu::init(errata);
    report::log_cpu(&features, errata, &args.overrides);
    report::log_machine(machine);
    if let Err(error) = mm::init(info, machine, args, &features, errata) {
        fail(format_args!("{error}"));
    }
    let asked = Asked {
        measured: args.masked,
        timed: args.timed,
    };
    // SAFETY: other CPUs are off, and nothing called here is a site.
    unsafe { mm::apply_alternatives(info, &features, asked) };
    report::log_memory(info, machine, args.rodata);
    move_console(machine);
    start_cpus(info, machine, args);
    let _injection = args
        .fail_page_alloc
        .map(|one_in| fail_page_alloc::fail_some(0, one_in));
    init.run(info, &features);
    psci::system_off()
}

fn other_cpus(machine: &Machine) -> impl Iterator<Item = (usize, u64, EnableMethod)> {
    (1..)
        .zip(machine.other_cpus())
        .filter_map(|(index, cpu)| Some((index, cpu.mpidr, cpu.method?)))
}

fn missing(args: &BootArgs, index: usize) -> Option<&'static str> {
    identity::cpus(&args.overrides)
        .find(|(cpu, _)| *cpu == index)
        .and_then(|(_, identity)| Features::of(&identity).missing(layout::PAGE_SHIFT, Granule::VA_BITS))
}

fn common_features(args: &BootArgs) -> Features {
    identity::cpus(&args.overrides)
        .map(|(_, identity)| Features::of(&identity))
        .filter(|features| features.missing(layout::PAGE_SHIFT, Granule::VA_BITS).is_none())
        .reduce(Features::common)
        .unwrap_or_else(|| Features::of(&identity::read()))
}

/// A CPU that does not answer is not used.
fn identify_cpus(info: &BootInfo, machine: &Machine) {
    identity::record(0);
    for (index, mpidr, method) in other_cpus(machine) {
        if let Err(error) = smp::identify(info, index, mpidr, method) {
            log::warn!("CPU {index}: {error}");
        }
    }
}

/// A CPU that does not come up is not used.
fn start_cpus(info: &BootInfo, machine: &Machine, args: &BootArgs) {
    for cpu in machine.other_cpus().filter(|cpu| cpu.method.is_none()) {
        log::warn!(
            "the CPU with MPIDR {:#x} stays off: its enable-method is neither psci nor spin-table",
            cpu.mpidr
        );
    }
    for (index, mpidr, method) in other_cpus(machine) {
        if let Some(missing) = missing(args, index) {
            log::warn!("CPU {index} has no {missing}: it stays off");
            continue;
        }
        let stack = match mm::alloc_stack(CPU_STACK_SIZE) {
            // The CPU's for good, even if it never comes.
            Ok(area) => area.into_raw().0 as usize,
            Err(error) => {
                log::warn!("CPU {index} has no stack: {error}");
                continue;
            }
        };
        let stack = stack..stack + CPU_STACK_SIZE as usize;
        // SAFETY: its own stack, in its tables, which map the image.
        if let Err(error) = unsafe { smp::start(info, index, (mpidr, method), stack, mm::kernel_ttbr1()) } {
            log::warn!("CPU {index}: {error}");
        }
    }
    log::info!("{} of {} CPUs are up", smp::nr_online(), machine.nr_cpus());
}

fn move_console(machine: &Machine) {
    let Some(Console { registers, uart }) = machine.console else {
        return;
    };
    match mm::ioremap(PhysAddr(registers.start), registers.size()) {
        Ok(area) => {
            log::info!(
                "console: {} at {:#x}, ioremap at {}",
                uart.model.name,
                registers.start,
                area.va()
            );
            // SAFETY: mapped, and the console's for good.
            console::attach(unsafe { MappedUart::new(uart, area.into_raw().0 as usize) });
            mm::slots::unmap(EARLY_UART_SLOT);
        }
        Err(error) => log::warn!("the console stays in its fixed slot: {error}"),
    }
}

fn read_machine(info: &BootInfo) -> &'static Machine {
    let tree = &info.device_tree;
    // SAFETY: mapped read-only by the boot crate, for good.
    let blob = unsafe { core::slice::from_raw_parts(tree.va as *const u8, tree.size) };
    match device_tree::read(blob) {
        Ok(machine) => MACHINE.call_once(|| machine),
        Err(error) => fail(format_args!(
            "the device tree at {:#x} is broken: {error}",
            tree.pa
        )),
    }
}

fn read_arguments<I: Init>(machine: &Machine) -> (&'static BootArgs, I) {
    match bootargs::parse(machine.bootargs) {
        Ok(Some((args, init))) => (ARGS.call_once(|| args), init),
        Ok(None) => {
            print!("{}\nvmwalk: done\n", Help::<I>::default());
            psci::system_off()
        }
        Err(bad) => {
            print!("vmwalk: {bad}\n");
            psci::system_off()
        }
    }
}

pub fn fail(reason: core::fmt::Arguments<'_>) -> ! {
    print!("vmwalk: FATAL: {reason}\n");
    psci::system_off()
}
