//! Kernel virtual address space: who owns which range, and what is mapped there.
//!
//! Two rings. [`va`] decides where: it reserves ranges of virtual pages and finds them again, and knows nothing of tables.
//! [`Vmalloc`] puts memory there: [`ioremap`](Vmalloc::ioremap), [`vmap`](Vmalloc::vmap), [`vmalloc`](Vmalloc::vmalloc) and
//! their kin, each by one call of the one walker of `paging`. What belongs to the kernel around it (frames, locks, what is
//! RAM) comes in through [`Backend`].
//!
//! # The life of an area
//!
//! ```text
//!   reserve VA (congruent to the memory) -> map -> in use
//!   in use -> take out of the tables -> withheld -> flush -> frames, then VA, go back
//! ```
//!
//! Between take-out and flush, a TLB may still hold translations: frames, tables and addresses are withheld until it cannot
//! (DESIGN rule 6). When the flush comes is a [policy](FlushPolicy); that it comes first is not.
//!
//! # Locks
//! 1. The purge lock: held by whoever flushes what was withheld, until all of that is given back. So whoever has waited for it knows
//!    that nothing is on its way back.
//! 2. The walk lock ([`Backend::walks`]): shared around what reads tables, maps or unmaps, exclusive around what gives tables
//!    back.
//! 3. The state lock, around the address space and what is withheld. Never held while memory is asked for, or while tables
//!    are read or written.
//!
//! The purge lock is taken first. Of the others, neither is taken while the other is held.
#![no_std]
#![deny(missing_docs)]
#![forbid(clippy::undocumented_unsafe_blocks)]

#[cfg(test)]
extern crate std;

mod area;
mod backend;
mod deferred;
mod error;
mod frames;
mod give_back;
mod linear;
mod lookup;
mod map;
mod map_ram;
mod nowait;
mod permissions;
mod place;
mod read;
mod record;
mod request;
mod resize;
mod state;
pub mod va;

#[cfg(test)]
mod tests;

pub use area::VmArea;
pub use backend::{Backend, Lock, WalkLock};
pub use deferred::MAX_DEFERRED_ADDRESSES;
pub use error::Error;
pub use give_back::FlushPolicy;
pub use linear::LinearEdit;
pub use map_ram::{BLOCK_PAGES, MAX_SMALL};
pub use read::AreaListing;
pub use record::{AreaInfo, Freed, Kind};
pub use request::Request;
pub use state::{Config, Usage, Vmalloc};
