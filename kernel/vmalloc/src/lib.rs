//! Kernel virtual address space: who owns which range, and what is mapped there.
//!
//! `va` reserves ranges of virtual pages. [`Vmalloc`] maps memory there by the one walker of
//! `paging`. Frames, locks and what is RAM come from the kernel's [`Backend`].
//!
//! # The life of an area
//!
//! ```text
//!   reserve VA (congruent to the memory) -> map -> in use
//!   in use -> unmap -> lazy -> flush -> frames, then VA, are free
//! ```
//!
//! Between unmap and flush a TLB may hold translations: frames, tables and addresses are *lazy*
//! (DESIGN rule 6), by [policy](FlushPolicy).
//!
//! # Shards
//!
//! Each CPU has a shard: addresses in pieces of what one last-level table translates, for small
//! areas. The common shard has all others (`shard`). Two CPUs on areas of their own write no common
//! cache line. An area returns to its own shard.
//!
//! # Contexts
//!
//! - *Waiting*: the default. Waits for locks and gates, and purges rather than fail for lack of
//!   memory or addresses. Not in an interrupt handler, nor with interrupts masked for long.
//! - *Interrupt*: [`Request::nowait`]. Waits only for locks, which all mask interrupts.
//! - *Any*: also in a handler that interrupted such a lock's holder. Never waits:
//!   [`Request::nolock`], [`vfree_atomic`](Vmalloc::vfree_atomic), [`VmArea::free_atomic`],
//!   [`is_vmalloc_addr`](Vmalloc::is_vmalloc_addr).
//!
//! # Locks
//!
//! `docs/LOCKING.md` has the order. Memory is never allocated or freed under a shard's lock. One
//! hold accesses at most a last-level table's descriptors, copies a page, or frees 64 areas, with
//! no flush or barrier wait (DESIGN rule 14).
//!
//! An area's holder reads it without a lock. Others find it under its shard's lock, and hold that
//! until done with its tables and frames (`lookup`). Under it an area is retired before its unmap
//! (`unmap`). Tables of live areas are unlinked before a hold of it, which comes before the flush
//! that frees them (`live_batch`).
#![no_std]
#![deny(missing_docs)]
#![forbid(clippy::undocumented_unsafe_blocks)]

#[cfg(test)]
extern crate self as vmalloc;
#[cfg(test)]
extern crate std;

mod alias;
mod area;
mod atomic;
mod backend;
mod block;
mod deferred;
mod drain;
mod error;
mod flush;
mod frames;
mod free;
mod gate;
mod linear;
mod live_batch;
mod lookup;
mod map;
mod map_ram;
mod nolock;
mod owner;
mod permissions;
mod place;
mod policy;
mod purge;
mod ram;
mod read;
mod record;
mod region;
mod request;
mod reserve;
mod resize;
mod shard;
mod sparse;
#[cfg(feature = "spin")]
mod spin_lock;
mod unmap;
mod va;

#[cfg(test)]
mod tests;

/// The README's example runs as a test.
#[cfg(all(doctest, feature = "spin"))]
#[doc = include_str!("../README.md")]
struct Readme;

pub use area::VmArea;
pub use backend::{Backend, Lock, LockClass};
pub use block::{BLOCK_PAGES, MAX_SMALL};
pub use deferred::MAX_DEFERRED_ADDRESSES;
pub use error::Error;
pub use linear::LinearEdit;
pub use policy::{Config, FlushPolicy, ForeignPages};
pub use read::AreaListing;
pub use record::{AreaInfo, Freed, Kind};
pub use region::{Usage, Vmalloc};
pub use request::Request;
#[cfg(feature = "spin")]
pub use spin_lock::{Interrupts, SpinLock, SpinLockGuard};
pub use va::{Census, Error as SpaceError, MAX_CACHED_PAGES, NodePage, NodePages, Violation, Vpn};
