//! Why a command was not carried out: one line.

use core::fmt;

use paging::{CheckError, DisplaySize, VirtAddr};

use super::command::Command;

/// Why a command was not carried out. Nothing has changed.
#[derive(Debug)]
pub enum Refusal<'a> {
    /// No command has this name.
    Unknown(&'a str),
    /// Too few words, or too many.
    Usage(&'static Command),
    /// The line is longer than the editor keeps.
    Overlong,
    /// A word is not what it should be.
    Word {
        /// The word.
        word: &'a str,
        /// What it should be.
        expected: &'static str,
    },
    /// The shell holds nothing under this number.
    NoSuchId(u64),
    /// The shell holds as many areas as it may.
    TooManyAreas(usize),
    /// The shell holds as much memory as it may.
    TooMuchMemory {
        /// Bytes asked for.
        size: u64,
        /// Bytes that it may still take.
        left: u64,
    },
    /// More pages than the array of one vmap may have.
    TooManyPages {
        /// Pages asked for.
        pages: u64,
        /// The most.
        limit: u64,
    },
    /// No block of this order is free.
    NoBlock(u8),
    /// The part does not lie in the area.
    OutOfArea {
        /// Where it begins in the area.
        offset: u64,
        /// Its size.
        size: u64,
        /// The size of the area.
        area: u64,
    },
    /// The address is not a multiple of what the access needs.
    Unaligned(VirtAddr, u64),
    /// Not a kernel address, and fetching from elsewhere says nothing.
    NotUpperHalf(VirtAddr),
    /// Devices are never executable here.
    ExecutableDevice,
    /// The subsystem refused.
    Vmalloc(vmalloc::Error),
    /// The engine refused.
    Engine(paging::Error),
    /// The live tree is unsound.
    Unsound(CheckError),
    /// The address space is unsound.
    Addresses(vmalloc::Violation),
    /// No test has a name that matches.
    NoMatch(&'a str),
    /// No bench case for this number of CPUs has a name that matches.
    NoCase(&'a str, usize),
    /// There is not enough free memory, in large enough blocks.
    LittleMemory {
        /// Bytes that are free so.
        free: u64,
        /// Bytes that are needed.
        needed: u64,
    },
    /// Instructions cannot be counted here.
    Bench(crate::measure::Error),
    /// That CPU is not up.
    NotOnline(u64),
    /// The command hands out work to other CPUs, which CPU 0 alone can.
    OnlyOnCpu0(&'static str),
    /// The range has no address.
    NoRange(VirtAddr, u64),
}

impl From<vmalloc::Error> for Refusal<'_> {
    fn from(error: vmalloc::Error) -> Self {
        Self::Vmalloc(error)
    }
}

impl fmt::Display for Refusal<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown(name) => write!(f, "`{name}` is no command: `help` lists them"),
            Self::Usage(command) => write!(f, "usage: {command}"),
            Self::Overlong => write!(
                f,
                "the line is too long: {} characters at most",
                super::line::MAX_LINE
            ),
            Self::Word { word, expected } => write!(f, "`{word}` is not {expected}"),
            Self::NoSuchId(id) => write!(f, "nothing is held as {id}: `areas` shows what is"),
            Self::TooManyAreas(limit) => write!(f, "{limit} areas are held: `free ID` first"),
            Self::TooMuchMemory { size, left } => write!(
                f,
                "{} are more than the {} that the shell may still take",
                DisplaySize(*size),
                DisplaySize(*left)
            ),
            Self::TooManyPages { pages, limit } => write!(f, "{pages} pages are more than {limit}"),
            Self::NoBlock(order) => write!(f, "no block of order {order} is free"),
            Self::OutOfArea { offset, size, area } => {
                write!(
                    f,
                    "{size:#x} bytes at {offset:#x} do not lie in an area of {area:#x}"
                )
            }
            Self::Unaligned(va, align) => write!(f, "{va} is not a multiple of {align}"),
            Self::NotUpperHalf(va) => write!(f, "{va} is not an address of the upper half"),
            Self::ExecutableDevice => write!(f, "device memory is never executable"),
            Self::Vmalloc(error) => write!(f, "{error}"),
            Self::Engine(error) => write!(f, "{error}"),
            Self::Unsound(error) => write!(f, "UNSOUND: {error}"),
            Self::Addresses(error) => write!(f, "UNSOUND: {error}"),
            Self::NoMatch(glob) => write!(f, "nothing has a name that `{glob}` matches"),
            Self::NoCase(glob, 1) => write!(f, "`{glob}` matches no case: `bench list` names them"),
            Self::NoCase(glob, cpus) => write!(
                f,
                "`{glob}` matches no case that runs on {cpus} CPUs: `bench cpus*` does"
            ),
            Self::LittleMemory { free, needed } => write!(
                f,
                "{} are free in large blocks, and {} are needed: `free ID` first",
                DisplaySize(*free),
                DisplaySize(*needed)
            ),
            Self::Bench(error) => write!(f, "{error}"),
            Self::NotOnline(cpu) => write!(f, "CPU {cpu} is not up"),
            Self::OnlyOnCpu0(name) => write!(f, "`{name}` hands out work, which CPU 0 alone can"),
            Self::NoRange(start, size) => {
                write!(f, "{size:#x} bytes at {start} are no range of the upper half")
            }
        }
    }
}
