//! The machine's description and its console, tested on the host with real device trees.
#![no_std]

#[cfg(test)]
extern crate std;

pub mod device_tree;
pub mod plan;
pub mod regions;
pub mod uart;
