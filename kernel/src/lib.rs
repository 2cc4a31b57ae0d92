//! The vmwalk kernel: everything that runs after the MMU is on.
#![no_std]

pub mod arch;
mod boot_info;
pub mod mm;
pub mod smp;

pub use boot_info::{BootInfo, DeviceTree, EarlyUart, FixedTables, Sections};

/// The kernel, from the first tables to the power-off. Runs on the boot stack of the first CPU.
#[unsafe(no_mangle)]
pub extern "C" fn kernel_main(info: &'static BootInfo) -> ! {
    arch::early_console::print(format_args!(
        "vmwalk: entered at EL{}, image at {:#x}..{:#x}, device tree at {:#x} ({} bytes)\n",
        info.entry_el, info.image.start, info.image.end, info.device_tree.pa, info.device_tree.size
    ));
    arch::psci::system_off()
}
