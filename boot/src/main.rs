//! The image of vmwalk: Linux arm64 Image header, entry, EL2 to EL1, first tables, MMU on.
//!
//! Two worlds live in this crate, and the border between them is the instruction that turns the MMU
//! on:
//!
//! - [`head`] and [`early`] run at physical addresses, with the MMU and the data cache off. The
//!   image is linked high and never relocated, so there an address is only good when it comes from
//!   `ADR`/`ADRP`. No pointer that the compiler stored somewhere may be used: no formatting, no
//!   vtable, no table of strings, and no path that could panic. Everything there is in the section
//!   `.boot.text`, and `scripts/check-boot-pic.py` proves from the relocations of the linked image
//!   that it refers to nothing by absolute address.
//! - [`high`] runs at linked addresses, under the first tables, and is plain Rust. It finishes what
//!   a [`kernel::BootInfo`] says and calls [`kernel::start`].
#![cfg_attr(target_os = "none", no_std)]
#![cfg_attr(target_os = "none", no_main)]

#[cfg(target_os = "none")]
mod early;
#[cfg(target_os = "none")]
mod head;
#[cfg(target_os = "none")]
mod high;

/// A host build of the image is a mistake of the command line; this says how to build it.
#[cfg(not(target_os = "none"))]
fn main() {
    eprintln!(
        "vmwalk runs on bare metal: cargo build --release -p boot --target aarch64-unknown-none-softfloat"
    );
    std::process::exit(2);
}
