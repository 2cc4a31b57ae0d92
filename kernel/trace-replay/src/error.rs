use core::fmt;

use crate::row::{HEADER, MAX_BYTES, PAGE};

/// A line that is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Error<'a> {
    /// From 1.
    pub line: u32,
    /// Why.
    pub problem: Problem<'a>,
}

/// Why a line is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Problem<'a> {
    /// Not the header.
    Header(&'a [u8]),
    /// No line feed: the file was cut off.
    CutOff,
    /// Not seven columns.
    Columns(usize),
    /// Not a number below 2^64.
    Number {
        /// Its name.
        column: &'static str,
        /// Its text.
        found: &'a [u8],
    },
    /// Unknown operation.
    Op(&'a [u8]),
    /// Unknown kind of area.
    AreaKind(&'a [u8]),
    /// Unknown kind of purge.
    PurgeKind(&'a [u8]),
    /// 0, not whole pages, or too large.
    Size(u64),
    /// Nothing but the guard page.
    NothingBesideGuard(u64),
    /// Not a power of two, or too large.
    Align(u64),
    /// No such CPU.
    Cpu {
        /// The CPU.
        cpu: u64,
        /// The number of CPUs.
        limit: u32,
    },
    /// Used before, freed or not.
    DuplicateId {
        /// The id.
        id: u64,
        /// Its line.
        line: u32,
    },
    /// Never made.
    UnknownId(u64),
    /// Freed before.
    FreedId {
        /// The id.
        id: u64,
        /// The line of its free.
        line: u32,
    },
    /// `pre` after the first event.
    LatePre,
    /// More lines than can be counted.
    TooLong,
}

/// Bytes of a bad field.
const SHOWN: usize = 40;

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
