//! What the kernel is told of the machine, before it drives any of it: no assembly, no register, no
//! global. So it is tested on the host, with the device trees of real machines.
//!
//! - [`device_tree`]: the tree, read once into plain values;
//! - [`regions`]: physical memory as a sorted list of ranges;
//! - [`plan`]: which RAM is whose when the kernel begins.
#![no_std]

pub mod device_tree;
pub mod plan;
pub mod regions;

/// Bytes of a page.
const PAGE_SIZE: u64 = <paging::Granule4K as paging::Granule>::PAGE_SIZE;
