pub mod console;
pub mod device_tree;
pub mod ecam;
