//! All instructions and system registers of AArch64.

pub mod alternatives;
pub mod atomic;
pub mod backtrace;
pub mod cache;
pub mod cpu;
pub mod early_console;
pub mod exceptions;
pub mod fatal;
mod frame;
pub mod identity;
pub mod interrupts;
pub mod marker;
pub mod masked;
mod mem;
pub mod mmio;
pub mod mmu;
pub mod percpu;
pub mod pmu;
pub mod probe;
pub mod psci;
pub mod syndrome;
pub mod table_ops;
pub mod time;

pub use arch_policy::{errata, features};
