//! The device tree of this machine: the crate `machine` reads it.

use crate::arch::percpu::{MAX_CPUS, this_cpu};

pub use machine::device_tree::*;
pub use machine::uart::Uart;

/// What the device tree says of this machine. The tree stays mapped.
pub type Machine = machine::device_tree::Machine<'static>;

/// Reads what `blob`, a whole device tree, says to the CPU that runs this.
///
/// # Errors
/// Why it is of no use.
pub fn read(blob: &'static [u8]) -> Result<Machine, Error<'static>> {
    machine::device_tree::read(blob, this_cpu().mpidr(), MAX_CPUS)
}
