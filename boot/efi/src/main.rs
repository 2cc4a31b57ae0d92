//! A UEFI application that carries the image, and enters it as a loader of the arm64 boot
//! protocol does. It makes the device tree: the firmware's own or one of ACPI's tables, with the
//! RAM that its memory map leaves, and with the boot arguments of the load options or of
//! `bootargs.txt` beside the application.
#![cfg_attr(target_os = "none", no_std)]
#![cfg_attr(target_os = "none", no_main)]

#[cfg(target_os = "none")]
extern crate alloc;

#[cfg(target_os = "none")]
mod loader;

/// A host build of the loader is a mistake of the command line.
#[cfg(not(target_os = "none"))]
fn main() {
    eprintln!("the loader runs under UEFI: make efi");
    std::process::exit(2);
}
