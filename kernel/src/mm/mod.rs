//! Memory management.

pub mod layout;
