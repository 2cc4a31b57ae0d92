//! The device tree that the loader hands to the image: made of what the firmware has, on the host
//! as well.
#![no_std]

extern crate alloc;

pub mod acpi;
pub mod bootargs;
pub mod tree;
