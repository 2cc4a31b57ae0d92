use crate::arch::percpu::{MAX_CPUS, this_cpu};

pub use machine::device_tree::*;
pub use machine::uart::Uart;

/// The tree stays mapped.
pub type Machine = machine::device_tree::Machine<'static>;

/// # Errors
/// Why it is unusable.
pub fn read(blob: &'static [u8]) -> Result<Machine, Error<'static>> {
    machine::device_tree::read(blob, this_cpu().mpidr(), MAX_CPUS)
}
