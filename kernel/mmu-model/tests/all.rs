//! One test program, so that the engine is compiled once.

#[macro_use]
mod common;

mod aliases;
mod break_before_make;
#[path = "exhaustive/main.rs"]
mod exhaustive;
mod groups;
mod lazy_purge;
mod random;
mod sequence_table;
mod tables;
mod tlbi;
mod words;
