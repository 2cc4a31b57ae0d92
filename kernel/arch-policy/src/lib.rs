//! What `kernel::arch` decides and what its CPUs agree on, without the instructions: no assembly,
//! no register, no global. So it is tested on the host.
//!
//! - [`identity`]: what a CPU says of itself;
//! - [`features`], [`errata`]: what is to be made of it, for one CPU and for all of a machine;
//! - [`el2`]: what EL2 can be made to be;
//! - [`flush`]: break and invalidate outside of the engine's trees;
//! - [`windows`]: how a CPU tells a fault in another CPU's break-before-make from a hole.
#![no_std]

pub mod el2;
pub mod errata;
pub mod features;
pub mod flush;
pub mod identity;
pub mod windows;
