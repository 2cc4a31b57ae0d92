//! What the kernel knows of the machine, and the few devices that it uses.

pub mod console;
pub mod device_tree;
pub mod ecam;
