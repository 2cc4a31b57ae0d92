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
//! # Contexts
//! - *Any*: also in an exception handler that interrupted the holder of one of these locks. Waits for nothing:
//!   [`vfree_atomic`](Vmalloc::vfree_atomic), [`VmArea::free_atomic`], [`is_vmalloc_addr`](Vmalloc::is_vmalloc_addr).
//! - *Not waiting*: with interrupts masked, under any lock but these, in an interrupt handler; [`Request::nowait`].
//! - *Waiting*: everything else. Waits for the locks below, and purges where it would fail for lack of memory or addresses. Not in an exception handler
//!   that may have interrupted any of them, which a lock that masks interrupts makes sure of for interrupts.
//!
//! # Locks
//! 1. The settling lock: held by whoever gives back what was deferred where nothing could be waited for.
//! 2. The purge lock: held by whoever flushes what was withheld, until all of that is given back. So whoever has waited for both knows
//!    that nothing is on its way back.
//!    Or one of the parts locks, with neither of these two held: by whoever maps or unmaps a part of a sparse area, or changes permissions by address.
//! 3. The walk lock ([`Backend::walks`]): shared around what reads tables, maps or unmaps, exclusive around what gives tables
//!    back.
//! 4. A CPU's lock, one for each of [`NR_CPU_SLOTS`]: the ranges that it keeps for its next areas, the areas that it lets wait, its block of
//!    `vm_map_ram`. A small area that comes and goes takes this one and shares the walk lock, and that is all. Areas may be passed on with it held; never
//!    are two of these held.
//! 5. The state lock, around the address space, and what all CPUs together withhold.
//!
//! They are taken in this order, but neither a CPU's lock nor the state lock while the walk lock is held, or the other way round. Neither is held while
//! tables are read or written, or while memory is asked for: unless it is asked for [without
//! waiting](Backend::without_waiting). The locks of the allocators come last.
//!
//! What is seen of an area under the state lock, while a CPU hands it to its next holder under its own, is in the module `va::node`.
#![no_std]
#![deny(missing_docs)]
#![forbid(clippy::undocumented_unsafe_blocks)]

#[cfg(test)]
extern crate self as vmalloc;
#[cfg(test)]
extern crate std;

mod area;
mod backend;
mod cpu;
mod deferred;
mod error;
mod frames;
mod give_back;
mod linear;
mod lookup;
mod map;
mod map_ram;
mod nowait;
mod parts;
mod permissions;
mod place;
mod ram;
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
pub use cpu::NR_CPU_SLOTS;
pub use deferred::MAX_DEFERRED_ADDRESSES;
pub use error::Error;
pub use give_back::FlushPolicy;
pub use linear::LinearEdit;
pub use map_ram::{BLOCK_PAGES, MAX_SMALL};
pub use read::AreaListing;
pub use record::{AreaInfo, Freed, Kind};
pub use request::Request;
pub use state::{Config, Usage, Vmalloc};
