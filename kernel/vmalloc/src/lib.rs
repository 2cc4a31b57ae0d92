//! Kernel virtual address space: who owns which range, and what is mapped there.
//!
//! Two rings. `va` decides where: it reserves ranges of virtual pages and finds them again, and
//! knows nothing of tables. [`Vmalloc`] puts memory there: [`ioremap`](Vmalloc::ioremap),
//! [`vmap`](Vmalloc::vmap), [`vmalloc`](Vmalloc::vmalloc) and their kin, each by one call of the
//! one walker of `paging`. Frames, locks, and what is RAM come from the kernel, through
//! [`Backend`].
//!
//! # The life of an area
//!
//! ```text
//!   reserve VA (congruent to the memory) -> map -> in use
//!   in use -> unmap -> lazy -> flush -> frames, then VA, are free
//! ```
//!
//! Between unmap and flush a TLB may still hold translations, so frames, tables and addresses are
//! not free yet (DESIGN rule 6): they are *lazy*. When the flush comes is a [policy](FlushPolicy);
//! that it comes first is not.
//!
//! # Shards
//! Each CPU has a shard: addresses in pieces of what one last-level table translates, from which
//! its small areas come. All other addresses are the common shard's; a large area has whole such
//! spans (`shard`). So two CPUs that work on areas of their own write no common cache line: no
//! lock, no list, no table. An area returns to the shard that it came from, whichever CPU frees it.
//!
//! # Contexts
//! - *Waiting*: any call that does not say otherwise. It waits for locks and gates, and purges
//!   where it would fail for lack of memory or addresses. Not in an interrupt handler, nor with
//!   interrupts masked for long.
//! - *Interrupt*: [`Request::nowait`]. It waits only for locks, which all mask interrupts. It may
//!   be called in an interrupt handler, or under a lock of the kernel's that is never taken inside
//!   one of these.
//! - *Any*: also in the handler of an exception that interrupted the holder of one of these locks.
//!   It tries locks and never waits: [`Request::nolock`], [`vfree_atomic`](Vmalloc::vfree_atomic),
//!   [`VmArea::free_atomic`], [`is_vmalloc_addr`](Vmalloc::is_vmalloc_addr).
//!
//! # Locks
//! The order, with the levels of the project's `docs/LOCKING.md`. A holder may take those further
//! down, and never two of one level:
//! 1. A shard's purge gate: entered to flush the shard, until all of that is freed. A gate is held
//!    with interrupts enabled, first come, first served.
//! 2. The busy bit of an area: one call at a time changes parts of it, or its permissions. Held
//!    with interrupts enabled.
//! 3. The linear map's gate: around edits of the linear map, from the first split to the last fold.
//! 4. The lock in a gate, held for a few instructions.
//! 5. A CPU's shard: a lock that masks interrupts, as the next one.
//! 6. The common shard.
//! 7. And below: the kernel's own, as those of frames, and what
//!    [`Tables::free_table`](paging::Tables::free_table) takes.
//!
//! Memory is allocated and freed with no shard's lock held. Under one hold at most a last-level
//! table's descriptors are written or read, a page is copied, or 64 areas are freed (DESIGN rule
//! 14); no flush and no barrier is waited for.
//!
//! # What keeps a table or a frame from being reused under a reader
//! The holder of an area reads it without a lock: nothing of it is freed before the holder frees
//! it. All others find an area in use under its shard's lock, and hold that until they are done
//! with its tables and frames (`lookup`). An area is retired under that lock before it is unmapped
//! (`free`); tables of a live area are unlinked under it (`sparse`), and so are those of a piece
//! that goes back (`purge`). They are freed after a flush, which comes later.
//!
//! # What is public
//! - [`Vmalloc`] and its policy: [`Config`], [`FlushPolicy`], [`ForeignPages`]. Its calls are the
//!   table of the crate's README.
//! - What they take and give: [`Request`]; [`VmArea`], which frees its area when it is dropped;
//!   [`Error`], [`SpaceError`], [`AreaInfo`], [`Kind`], [`Freed`], [`AreaListing`], [`Usage`].
//! - What a kernel brings: [`Backend`], [`NodePages`] with [`NodePage`], [`Lock`] with
//!   [`LockClass`]; [`LinearEdit`], where it has a linear map. With the feature `spin` there is a
//!   ready-made lock, `SpinLock`, which wants only `Interrupts`.
//! - Bounds: [`MAX_DEFERRED_ADDRESSES`], [`MAX_CACHED_PAGES`], [`BLOCK_PAGES`], [`MAX_SMALL`].
//! - For tests, what [`Vmalloc::check`] gives: [`Census`], [`Violation`], [`Vpn`].
//!
//! Errors and policies may get variants: they are `#[non_exhaustive]`.
#![no_std]
#![deny(missing_docs)]
#![forbid(clippy::undocumented_unsafe_blocks)]

#[cfg(test)]
extern crate self as vmalloc;
#[cfg(test)]
extern crate std;

mod area;
mod backend;
mod deferred;
mod drain;
mod error;
mod frames;
mod free;
mod gate;
mod linear;
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
mod va;

#[cfg(test)]
mod tests;

/// The example in the README runs as a test.
#[cfg(all(doctest, feature = "spin"))]
#[doc = include_str!("../README.md")]
struct Readme;

pub use area::VmArea;
pub use backend::{Backend, Lock, LockClass};
pub use deferred::MAX_DEFERRED_ADDRESSES;
pub use error::Error;
pub use linear::LinearEdit;
pub use map_ram::{BLOCK_PAGES, MAX_SMALL};
pub use policy::{Config, FlushPolicy, ForeignPages};
pub use read::AreaListing;
pub use record::{AreaInfo, Freed, Kind};
pub use region::{Usage, Vmalloc};
pub use request::Request;
#[cfg(feature = "spin")]
pub use spin_lock::{Interrupts, SpinLock, SpinLockGuard};
pub use va::{Census, Error as SpaceError, MAX_CACHED_PAGES, NodePage, NodePages, Violation, Vpn};
