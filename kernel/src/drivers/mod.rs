//! The machine's description and the few devices in use.

pub mod console;
pub mod device_tree;
pub mod ecam;
