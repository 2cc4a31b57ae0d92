//! What can go wrong in a replay, with the values that say how.

use core::fmt;

use paging::{CheckError, Pfn, VirtAddr};
use trace_replay::Area;

use super::frames::NoFrame;

/// Which address of a page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Alias {
    /// The area's.
    Area,
    /// The linear map's.
    Linear,
}

impl fmt::Display for Alias {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Area => "the area",
            Self::Linear => "the linear map",
        })
    }
}

/// What is wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum What {
    /// A call was refused.
    Refused(vmalloc::Error),
    /// There is no frame for pages that the replay maps.
    NoFrame,
    /// The area does not begin at a multiple of what was asked for.
    Misplaced(VirtAddr),
    /// The tables map a page to another frame than was given.
    WrongFrame {
        /// The page, by its number in the area.
        page: u64,
        /// The frame given.
        expected: Pfn,
        /// The frame found.
        found: Pfn,
    },
    /// The MMU does not translate a page as the tables do.
    Untranslated {
        /// The page.
        page: u64,
        /// What the tables say.
        expected: Pfn,
    },
    /// A page of a device is not mapped as one.
    NotADevice {
        /// The page.
        page: u64,
        /// The attribute byte.
        attribute: u8,
    },
    /// A word is not what was written.
    Lost {
        /// The page.
        page: u64,
        /// The word in it.
        word: u64,
        /// By which address it was read.
        alias: Alias,
        /// What was written.
        expected: u64,
        /// What is there.
        found: u64,
    },
    /// A page of code can be written.
    Writable {
        /// The page.
        page: u64,
        /// By which address.
        alias: Alias,
    },
    /// A page of code cannot be executed.
    NotExecutable {
        /// The page.
        page: u64,
    },
    /// A guard page is mapped.
    GuardMapped(VirtAddr),
    /// A page is still mapped after the call that takes it away.
    StillMapped(VirtAddr),
    /// As much is not in use afterwards as was before.
    Leak {
        /// Of what.
        what: &'static str,
        /// Before.
        before: u64,
        /// Afterwards.
        after: u64,
    },
    /// The tree is not sound.
    Unsound(CheckError),
    /// The address space is not sound.
    Space(vmalloc::Violation),
    /// The trace is not what it was, so it was not kept.
    TraceChanged {
        /// Its checksum before.
        before: u64,
        /// And now.
        after: u64,
    },
}

impl From<vmalloc::Error> for What {
    fn from(error: vmalloc::Error) -> Self {
        Self::Refused(error)
    }
}

impl From<NoFrame> for What {
    fn from(_: NoFrame) -> Self {
        Self::NoFrame
    }
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(error) => write!(f, "refused: {error}"),
            Self::NoFrame => f.write_str("no frame for the pages to map"),
            Self::Misplaced(va) => write!(f, "begins at {va}, which is not aligned as asked"),
            Self::WrongFrame {
                page,
                expected,
                found,
            } => write!(
                f,
                "page {page} is mapped to frame {:#x}, not {:#x}",
                found.0, expected.0
            ),
            Self::Untranslated { page, expected } => {
                write!(f, "page {page}: the MMU does not give frame {:#x}", expected.0)
            }
            Self::NotADevice { page, attribute } => {
                write!(f, "page {page} of a device has the attribute {attribute:#04x}")
            }
            Self::Lost {
                page,
                word,
                alias,
                expected,
                found,
            } => write!(
                f,
                "word {word} of page {page} by {alias} holds {found:#018x} where {expected:#018x} was written"
            ),
            Self::Writable { page, alias } => write!(f, "page {page} of code is writable by {alias}"),
            Self::NotExecutable { page } => write!(f, "page {page} of code is not executable"),
            Self::GuardMapped(va) => write!(f, "the guard page at {va} is mapped"),
            Self::StillMapped(va) => write!(f, "{va} is still mapped"),
            Self::Leak { what, before, after } => write!(f, "{what}: {before} before and {after} afterwards"),
            Self::Unsound(error) => write!(f, "the tables: {error}"),
            Self::Space(violation) => write!(f, "the address space: {violation}"),
            Self::TraceChanged { before, after } => {
                write!(
                    f,
                    "the trace in RAM has changed: checksum {before:#018x}, now {after:#018x}"
                )
            }
        }
    }
}

/// What is wrong, and where in the trace.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Finding {
    /// The line, or 0 for the replay as a whole.
    pub line: u32,
    /// The area, if it is one's.
    pub area: Option<Area>,
    /// What it is.
    pub what: What,
}

impl Finding {
    /// Of the replay as a whole.
    #[must_use]
    pub const fn of_all(what: What) -> Self {
        Self {
            line: 0,
            area: None,
            what,
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line != 0 {
            write!(f, "line {}: ", self.line)?;
        }
        if let Some(area) = &self.area {
            write!(f, "{} {}: ", area.kind.name(), area.id)?;
        }
        write!(f, "{}", self.what)
    }
}
