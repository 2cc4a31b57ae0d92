//! The first Rust at linked addresses: finds the console, describes the boot to the kernel, and
//! calls it.

use core::ptr::write_volatile;

use aarch64_cpu::asm::barrier;
use dtoolkit::fdt::Fdt;
use kernel::arch::early_console::{self, MappedUart};
use kernel::arch::{cpu::memory_type, exceptions, fatal, percpu, psci};
use kernel::drivers::device_tree::{self, Uart};
use kernel::mm::layout::{
    DTB_WINDOW, EARLY_UART_SLOT, Granule, IMAGE_BASE, PAGE_SIZE, TABLE_SPAN, fixed_slot,
};
use kernel::{BootInfo, DeviceTree, FixedTables, Sections};
use paging::{Granule as _, PhysAddr};

use crate::early::{Early, GUESSED_PL011, fixed_tables};

unsafe extern "C" {
    static __text_start: u8;
    static __text_end: u8;
    static __rodata_start: u8;
    static __rodata_end: u8;
    static __data_start: u8;
    static __data_end: u8;
    static __bss_start: u8;
    static __bss_end: u8;
    static __boot_stack_guard: u8;
    static __boot_stack_start: u8;
    static __boot_stack_end: u8;
    static __image_end: u8;
    fn secondary_entry();
    fn pen_entry();
    fn pen_return();
}

static BOOT_INFO: spin::Once<BootInfo> = spin::Once::new();

/// That of the device tree, and the guess.
static EARLY_UART: spin::Once<MappedUart> = spin::Once::new();
// SAFETY: used while the slot maps it.
static GUESSED_UART: MappedUart = unsafe { MappedUart::new(Uart::PL011, uart_va(GUESSED_PL011 as u64)) };

/// Goes on from `enable_mmu`, on the boot stack.
///
/// # Safety
///
/// Called once, by the entry code, with what `early_setup` wrote.
pub unsafe extern "C" fn start_high(early: &'static Early) -> ! {
    let sections = sections();
    // SAFETY: the boot stack is in use, this is the first CPU, and this is called once.
    unsafe { percpu::init_boot_cpu(sections.boot_stack.clone()) };
    exceptions::install_vectors();

    // Should the device tree be broken, the guess can say so.
    map_uart(GUESSED_PL011 as u64, &GUESSED_UART);
    let dtb_va = DTB_WINDOW + (early.dtb_pa as usize & (TABLE_SPAN - 1));
    // SAFETY: the first tables map as many bytes as the header says, read-only.
    let blob = unsafe { core::slice::from_raw_parts(dtb_va as *const u8, early.dtb_size as usize) };
    let fdt = match Fdt::new(blob) {
        Ok(fdt) => fdt,
        Err(error) => fatal::stop(format_args!(
            "the device tree at {:#x} is broken: {error}",
            early.dtb_pa
        )),
    };
    early_console::set(None);
    if let Some((pa, uart)) = one_page_console(fdt) {
        // SAFETY: used while the slot maps it.
        let uart = EARLY_UART.call_once(|| unsafe { MappedUart::new(uart, uart_va(pa)) });
        map_uart(pa, uart);
    }

    let conduit = device_tree::psci_conduit(fdt);
    if let Some(conduit) = conduit {
        psci::set_conduit(conduit);
    }

    let image_end = &raw const __image_end as usize;
    let fixed = fixed_tables();
    let to_pa = |va: usize| (va - IMAGE_BASE) as u64 + early.image_pa;
    let info = BOOT_INFO.call_once(|| BootInfo {
        image: early.image_pa..to_pa(image_end),
        sections,
        device_tree: DeviceTree {
            pa: early.dtb_pa,
            size: early.dtb_size as usize,
            va: dtb_va,
        },
        entry_el: early.entry_el as u8,
        psci_conduit: conduit,
        fixed_tables: FixedTables {
            shared_va: fixed.shared.0,
            shared_level: fixed.shared.1,
            l2_pa: to_pa(fixed.l2),
            l3_va: fixed.l3,
            l3_pa: to_pa(fixed.l3),
            dtb_l3_pa: fixed.dtb_l3.map(to_pa),
        },
        ttbr0_identity: early.ttbr0,
        ttbr1_first: early.ttbr1,
        tcr: early.tcr,
        mair: early.mair,
        sctlr: early.sctlr,
        secondary_entry: to_pa(secondary_entry as *const () as usize),
        pen_entry: to_pa(pen_entry as *const () as usize),
        pen_return: to_pa(pen_return as *const () as usize),
    });
    kernel_main(info)
}

#[cfg(feature = "harness")]
type Init = harness::Harness;
#[cfg(not(feature = "harness"))]
type Init = ();

/// A symbol for the debugger to stop at.
#[unsafe(no_mangle)]
extern "C" fn kernel_main(info: &'static BootInfo) -> ! {
    kernel::start::<Init>(info)
}

/// From the linker script.
fn sections() -> Sections {
    macro_rules! range {
        ($start:ident .. $end:ident) => {
            (&raw const $start as usize)..(&raw const $end as usize)
        };
    }
    Sections {
        text: range!(__text_start..__text_end),
        rodata: range!(__rodata_start..__rodata_end),
        data: range!(__data_start..__data_end),
        bss: range!(__bss_start..__bss_end),
        boot_stack_guard: range!(__boot_stack_guard..__boot_stack_start),
        boot_stack: range!(__boot_stack_start..__boot_stack_end),
    }
}

const fn uart_va(pa: u64) -> usize {
    fixed_slot(EARLY_UART_SLOT) + (pa as usize & (PAGE_SIZE - 1))
}

/// And where it is, if the slot has room for its registers.
fn one_page_console(fdt: Fdt<'_>) -> Option<(u64, Uart)> {
    let console = device_tree::console(fdt)?;
    let pa = console.registers.start;
    ((pa as usize & (PAGE_SIZE - 1)) + console.uart.extent() <= PAGE_SIZE).then_some((pa, console.uart))
}

/// And makes it the early console.
fn map_uart(pa: u64, uart: &'static MappedUart) {
    // nGnRE, outer shareable, never executable, EL1 read and write: Arm ARM, "VMSAv8-64 translation
    // table format descriptors".
    const UART: u64 = memory_type::DEVICE_NGNRE << 2 | 0b10 << 8 | 1 << 10 | 1 << 53 | 1 << 54;
    let page = PhysAddr(pa).align_down(PAGE_SIZE as u64);
    let slot = (fixed_tables().l3 as *mut u64).wrapping_add(EARLY_UART_SLOT);
    early_console::set(None);
    // Break before make: the slot may hold the guess (rule 3). SAFETY: a descriptor of the slot
    // table, which nothing else edits yet; the console that used the old mapping is off.
    unsafe { write_volatile(slot, 0) };
    kernel::arch::mmu::flush_page(fixed_slot(EARLY_UART_SLOT));
    // SAFETY: as above; the slot was invalid and nothing else is mapped there.
    unsafe { write_volatile(slot, Granule::encode(page) | UART & Granule::ATTRIBUTES | 0b11) };
    // The store before any walk (rule 2), and the walk's result before the next access.
    kernel::arch::mmu::dsb_ishst();
    barrier::isb(barrier::SY);
    early_console::set(Some(uart));
}
