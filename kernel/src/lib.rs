//! The vmwalk kernel: everything that runs after the MMU is on, but for what it [runs](Init) when
//! it is up.
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

use arch::early_console::MappedUart;
use arch::errata::Errata;
use arch::features::Features;
use arch::identity::Register;
use arch::{cache, identity, mmu, psci};
use bootargs::{BootArgs, Help, PassedOver};
use drivers::console;
use drivers::device_tree::{self, Console, EnableMethod, Machine};
use layout::EARLY_UART_SLOT;
use mm::frames::fail_page_alloc;
use paging::PhysAddr;

pub use boot_info::{BootInfo, DeviceTree, FixedTables, Sections};
pub use init::Init;

/// Bytes of the stack of each CPU but the first.
const CPU_STACK_SIZE: u64 = 64 << 10;

static ARGS: spin::Once<BootArgs> = spin::Once::new();
static MACHINE: spin::Once<Machine> = spin::Once::new();

/// What the boot arguments say.
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

/// What the device tree says.
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

/// The kernel, from the first tables to the power-off. Runs on the boot stack of the first CPU.
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
    // SAFETY: the others are off, and none of what is called here is a site.
    unsafe { mm::apply_alternatives(info, &features, args.masked) };
    report::log_memory(info, machine, args.rodata);
    move_console(machine);
    start_cpus(info, machine, args);
    let _injection = args
        .fail_page_alloc
        .map(|one_in| fail_page_alloc::fail_some(0, one_in));
    init.run(info, &features);
    psci::system_off()
}

/// The CPUs of the device tree but this one that can be turned on, with the numbers that they get,
/// and how.
fn other_cpus(machine: &Machine) -> impl Iterator<Item = (usize, u64, EnableMethod)> {
    (1..)
        .zip(machine.other_cpus())
        .filter_map(|(index, cpu)| Some((index, cpu.mpidr, cpu.method?)))
}

/// What CPU `index` lacks that the kernel cannot do without.
fn missing(args: &BootArgs, index: usize) -> Option<&'static str> {
    identity::cpus(&args.overrides)
        .find(|(cpu, _)| *cpu == index)
        .and_then(|(_, identity)| Features::of(&identity).missing(layout::PAGE_SHIFT))
}

/// What all CPUs have that will run. This one will.
fn common_features(args: &BootArgs) -> Features {
    identity::cpus(&args.overrides)
        .map(|(_, identity)| Features::of(&identity))
        .filter(|features| features.missing(layout::PAGE_SHIFT).is_none())
        .reduce(Features::common)
        .unwrap_or_else(|| Features::of(&identity::read()))
}

/// Has every CPU say what it is. One that does not is reported, and done without.
fn identify_cpus(info: &BootInfo, machine: &Machine) {
    identity::record(0);
    for (index, mpidr, method) in other_cpus(machine) {
        if let Err(error) = smp::identify(info, index, mpidr, method) {
            log::warn!("CPU {index}: {error}");
        }
    }
}

/// Starts all CPUs of the device tree but this one, each on a stack from vmalloc. One that does not
/// come up is reported, and done without.
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
            // Left to the CPU for good, even if it never comes up.
            Ok(area) => area.into_raw().0 as usize,
            Err(error) => {
                log::warn!("CPU {index} has no stack: {error}");
                continue;
            }
        };
        let stack = stack..stack + CPU_STACK_SIZE as usize;
        // SAFETY: a stack of its own, with guard pages, from the tables that the CPU will run
        // under, which map the image.
        if let Err(error) = unsafe { smp::start(info, index, (mpidr, method), stack, mm::kernel_ttbr1()) } {
            log::warn!("CPU {index}: {error}");
        }
    }
    log::info!("{} of {} CPUs are up", smp::nr_online(), machine.nr_cpus());
}

/// From the early UART's fixed slot to an ioremap.
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
            // SAFETY: just mapped, and left to the console for good.
            console::attach(unsafe { MappedUart::new(uart, area.into_raw().0 as usize) });
            mm::slots::unmap(EARLY_UART_SLOT);
        }
        Err(error) => log::warn!("the console stays in its fixed slot: {error}"),
    }
}

fn read_machine(info: &BootInfo) -> &'static Machine {
    let tree = &info.device_tree;
    // SAFETY: the boot crate maps as many bytes as the header says, read-only, in a window that
    // stays.
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

/// Ends a boot that cannot go on: the machine is not what the kernel needs, or what it runs.
pub fn fail(reason: core::fmt::Arguments<'_>) -> ! {
    print!("vmwalk: FATAL: {reason}\n");
    psci::system_off()
}
