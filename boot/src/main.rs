//! The image of vmwalk: Linux arm64 Image header, entry, EL2 to EL1, first tables, MMU on.
//!
//! Two worlds, on either side of the instruction that turns the MMU on:
//!
//! - [`head`] and [`early`] run at physical addresses, with the MMU and the data cache off. The
//!   image is linked high and never relocated, so an address is only good when it comes from
//!   `ADR`/`ADRP`: no pointer that the compiler stored, no formatting, no vtable, and no path that
//!   could panic. `scripts/check-boot-pic.py` proves from the relocations that `.boot.text` refers
//!   to nothing by absolute address.
//! - [`high`] runs at linked addresses, under the first tables, and is plain Rust. It calls
//!   [`kernel::start`].
#![cfg_attr(target_os = "none", no_std)]
#![cfg_attr(target_os = "none", no_main)]

#[cfg(target_os = "none")]
mod early;
#[cfg(target_os = "none")]
mod head;
#[cfg(target_os = "none")]
mod high;

/// A host build of the image is a mistake of the command line.
#[cfg(not(target_os = "none"))]
fn main() {
    eprintln!(
        "vmwalk runs on bare metal: cargo build --release -p boot --target aarch64-unknown-none-softfloat"
    );
    std::process::exit(2);
}
