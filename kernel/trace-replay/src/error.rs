//! Why a trace is refused.

use core::fmt;

use crate::row::{HEADER, MAX_BYTES, PAGE};

/// A line that cannot be performed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Error<'a> {
    /// Its number, from 1 on.
    pub line: u32,
    /// What is wrong.
    pub problem: Problem<'a>,
}

/// What is wrong with a line.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Problem<'a> {
    /// The first line is not the header.
    Header(&'a [u8]),
    /// The last line does not end: the file was cut off.
    CutOff,
    /// There are not seven columns, but so many.
    Columns(usize),
    /// A column has no number below 2^64 in it.
    Number {
        /// Its name.
        column: &'static str,
        /// What it has.
        found: &'a [u8],
    },
    /// There is no such operation.
    Op(&'a [u8]),
    /// There is no such kind of area.
    AreaKind(&'a [u8]),
    /// There is no such kind of purge.
    PurgeKind(&'a [u8]),
    /// The size is 0, no multiple of a page, or too large.
    Size(u64),
    /// All of the size is the guard page.
    NothingBesideGuard(u64),
    /// The alignment is no power of two, or too large.
    Align(u64),
    /// There is no room for such a CPU.
    Cpu {
        /// The CPU.
        cpu: u64,
        /// CPUs that there may be.
        limit: u32,
    },
    /// The area was made on this line already; freed or not, an id is used once.
    DuplicateId {
        /// The area.
        id: u64,
        /// The line.
        line: u32,
    },
    /// The area was never made.
    UnknownId(u64),
    /// The area was freed on this line already.
    FreedId {
        /// The area.
        id: u64,
        /// The line.
        line: u32,
    },
    /// An area that lives at the start comes after the first event.
    LatePre,
    /// There are more lines than can be counted.
    TooLong,
}

/// At most this much of a bad field is shown.
const SHOWN: usize = 40;

/// Text from outside: printable, and no longer than a line.
struct Shown<'a>(&'a [u8]);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (shown, rest) = self.0.split_at(self.0.len().min(SHOWN));
        let dots = if rest.is_empty() { "" } else { "..." };
        f.write_str("`")?;
        for byte in shown {
            match byte {
                b' '..=b'~' => write!(f, "{}", char::from(*byte))?,
                _ => write!(f, "<{byte:02x}>")?,
            }
        }
        write!(f, "{dots}`")
    }
}

impl fmt::Display for Problem<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Header(found) => write!(f, "expected the header {HEADER}, found {}", Shown(found)),
            Self::CutOff => f.write_str("the line does not end: the file was cut off"),
            Self::Columns(found) => write!(f, "expected 7 columns, found {found}"),
            Self::Number { column, found } => {
                write!(
                    f,
                    "{column}: expected a number below 2^64, found {}",
                    Shown(found)
                )
            }
            Self::Op(found) => write!(
                f,
                "op: expected pre, alloc, free or purge, found {}",
                Shown(found)
            ),
            Self::AreaKind(found) => write!(f, "kind: there is no area of kind {}", Shown(found)),
            Self::PurgeKind(found) => {
                write!(
                    f,
                    "kind: expected drain, unmap_aliases or reclaim, found {}",
                    Shown(found)
                )
            }
            Self::Size(size) => write!(
                f,
                "size: expected a multiple of {PAGE} from {PAGE} to {MAX_BYTES}, found {size}"
            ),
            Self::NothingBesideGuard(size) => {
                write!(f, "size: {size} bytes are the guard page and nothing else")
            }
            Self::Align(align) => write!(
                f,
                "align: expected a power of two from 1 to {MAX_BYTES}, found {align}"
            ),
            Self::Cpu { cpu, limit } => write!(f, "cpu: expected 0 to {}, found {cpu}", limit - 1),
            Self::DuplicateId { id, line } => write!(f, "id: {id} is that of line {line}"),
            Self::UnknownId(id) => write!(f, "id: {id} was never allocated"),
            Self::FreedId { id, line } => write!(f, "id: {id} was freed on line {line}"),
            Self::LatePre => f.write_str("op: pre comes after the first event"),
            Self::TooLong => f.write_str("there are more lines than can be counted"),
        }
    }
}

impl fmt::Display for Error<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.problem)
    }
}

impl core::error::Error for Error<'_> {}
