//! Traces of a kernel's vmalloc areas: every area that came and went, in order.
//! `scripts/traces/README.md` describes the form.
//!
//! Nothing in a trace is trusted: it comes from outside, through a loader. [`Trace::parse`] refuses
//! what it cannot perform, and says which line and why; what it returns can be performed
//! without another look at the text. [`Trace::need`] says how much memory that takes.
//!
//! `scripts/lib/replay_trace.py` is the same for the host side, which wants to know before the
//! boot; the files in `scripts/traces/refused/` hold the two against each other.
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
