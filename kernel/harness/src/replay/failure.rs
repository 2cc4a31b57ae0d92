use core::fmt;

use paging::{CheckError, Pfn, VirtAddr};
use trace_replay::Area;

use super::frames::NoFrame;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Alias {
    Area,
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

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum What {
    Refused(vmalloc::Error),
    NoFrame,
    Misplaced(VirtAddr),
    WrongFrame {
        page: u64,
        expected: Pfn,
        found: Pfn,
    },
    Untranslated {
        page: u64,
        expected: Pfn,
    },
    NotADevice {
        page: u64,
        attribute: u8,
    },
    Lost {
        page: u64,
        word: u64,
        alias: Alias,
        expected: u64,
        found: u64,
    },
    Writable {
        page: u64,
        alias: Alias,
    },
    NotExecutable {
        page: u64,
    },
    GuardMapped(VirtAddr),
    StillMapped(VirtAddr),
    Leak {
        what: &'static str,
        before: u64,
        after: u64,
    },
    Unsound(CheckError),
    Space(vmalloc::Violation),
    TraceChanged {
        before: u64,
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

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Finding {
    pub line: u32,
    pub area: Option<Area>,
    pub what: What,
}

impl Finding {
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
