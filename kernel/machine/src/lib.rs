//! What the kernel is told of the machine, and how its console is driven: no assembly, no address
//! of a register, no global. So it is tested on the host, with the device trees of real machines.
//!
//! - [`device_tree`]: the tree, read once into plain values;
//! - [`regions`]: physical memory as a sorted list of ranges;
//! - [`plan`]: which RAM is whose when the kernel begins;
//! - [`uart`]: UARTs by polling.
#![no_std]

#[cfg(test)]
extern crate std;

pub mod device_tree;
pub mod plan;
pub mod regions;
pub mod uart;

/// Bytes of a page.
const PAGE_SIZE: u64 = <paging::Granule4K as paging::Granule>::PAGE_SIZE;
