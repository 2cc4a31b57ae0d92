//! What `kernel::arch` decides and what its CPUs agree on, without the instructions: no assembly,
//! no register, no global. So it is tested on the host.
//!
//! - [`windows`]: how a CPU tells a fault in another CPU's break-before-make from a hole.
#![no_std]

pub mod windows;
