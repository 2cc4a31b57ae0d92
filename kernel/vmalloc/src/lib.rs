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
//! # Shards
//! The address space is divided. Each CPU has a shard, with addresses in pieces of what one last-level table translates, from which its small areas come; all
//! other addresses, and large areas, which have whole such spans, are the common shard's (`shard`). So two CPUs that work on areas of their own write no
//! common cache line: neither a lock, nor a list, nor a table. An area goes back to the shard that it came from, whichever CPU ends it.
//!
//! # Contexts
//! - *Waiting*: any call that does not say otherwise. It waits for locks and gates, and purges where it would fail for lack of memory or addresses. Not in an
//!   interrupt handler, nor with interrupts masked for long.
//! - *Interrupt*: [`Request::nowait`]. It waits for locks, which all mask interrupts, and for nothing else. So it may be called in an interrupt handler, or
//!   under a lock of the kernel's that is never taken inside one of these.
//! - *Any*: also in the handler of an exception that interrupted the holder of one of these locks. It tries locks, and waits for nothing: [`Request::nolock`],
//!   [`vfree_atomic`](Vmalloc::vfree_atomic), [`VmArea::free_atomic`], [`is_vmalloc_addr`](Vmalloc::is_vmalloc_addr).
//!
//! # Locks
//! In this order; what is held together is taken downwards, and never two of one line:
//! 1. A shard's purge gate: entered by what flushes the shard, until all of that is given back. A gate is held with interrupts enabled, first come, first served.
//! 2. The busy bit of an area: one call at a time changes parts of it, or its permissions. Held with interrupts enabled.
//! 3. The linear map's gate: around edits of the linear map, from the first cut to the last fold.
//! 4. A CPU's shard: a lock that masks interrupts, as the next one.
//! 5. The common shard.
//! 6. The kernel's: frames, and what [`Tables::free_table`](paging::Tables::free_table) takes.
//!
//! Memory is asked for, and given back, with no shard's lock held. Under one hold at most a last-level table's descriptors are written or read, a page copied,
//! or 64 areas given back, whatever is asked for: neither a flush nor a barrier.
//!
//! # What keeps a table or a frame from being reused under a reader
//! An area's holder reads its own area with no lock: nothing of it ends before the holder does. Everything else finds an area in use under its shard's lock, and holds that
//! until it is done with its tables and frames (`lookup`). An area stops being in use before that lock was had by what unmaps it (`end`); tables of a live
//! area are unlinked under it (`parts`), and so are those of a piece that goes back (`purge`). They are freed after a flush, which comes later.
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
mod end;
mod error;
mod frames;
mod gate;
mod linear;
mod lookup;
mod map;
mod map_ram;
mod nolock;
mod owner;
mod parts;
mod permissions;
mod place;
mod purge;
mod ram;
mod read;
mod record;
mod region;
mod request;
mod reserve;
mod resize;
mod shard;
pub mod va;

#[cfg(test)]
mod tests;

pub use area::VmArea;
pub use backend::{Backend, Lock, LockClass};
pub use deferred::MAX_DEFERRED_ADDRESSES;
pub use error::Error;
pub use linear::LinearEdit;
pub use map_ram::{BLOCK_PAGES, MAX_SMALL};
pub use purge::FlushPolicy;
pub use read::AreaListing;
pub use record::{AreaInfo, Freed, Kind};
pub use region::{Config, Usage, Vmalloc};
pub use request::Request;
