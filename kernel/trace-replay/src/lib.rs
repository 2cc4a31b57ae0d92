//! Traces of a kernel's vmalloc areas (`scripts/traces/README.md`). They come from outside:
//! [`Trace::parse`] says which line cannot be performed and why. `scripts/lib/replay_trace.py` does
//! the same on the host.
#![no_std]
#![deny(missing_docs)]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

mod error;
mod need;
mod row;
mod trace;

#[cfg(test)]
mod tests;

pub use error::{Error, Problem};
pub use need::{Machine, Need, WINDOW};
pub use row::{HEADER, Kind, MAX_BYTES, Op, PAGE, PurgeKind, Row};
pub use trace::{Action, Area, Event, HEAP_PER_LINE, Trace};
