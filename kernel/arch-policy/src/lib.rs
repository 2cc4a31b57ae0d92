//! Decisions of `kernel::arch`, without assembly and registers: tested on the host.
#![no_std]

pub mod el2;
pub mod errata;
pub mod features;
pub mod flush;
pub mod identity;
pub mod pmu;
pub mod windows;
