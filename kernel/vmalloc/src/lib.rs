//! Kernel virtual address space: who owns which range, and what is mapped there.
//!
//! Two rings. [`va`] decides where: it reserves ranges of virtual pages and finds them again, and knows nothing of tables.
//! What is mapped into a range is the business of the `paging` crate's one walker.
#![no_std]
#![deny(missing_docs)]
#![forbid(clippy::undocumented_unsafe_blocks)]

#[cfg(test)]
extern crate std;

pub mod va;
