use core::fmt;

use paging::{CheckError, DisplaySize, VirtAddr};

use super::command::Command;

#[derive(Debug)]
pub enum Refusal<'a> {
    Unknown(&'a str),
    Usage(&'static Command),
    Overlong,
    Word { word: &'a str, expected: &'static str },
    NoSuchId(u64),
    TooManyAreas(usize),
    TooMuchMemory { size: u64, left: u64 },
    TooManyPages { pages: u64, limit: u64 },
    NoBlock(u8),
    OutOfArea { offset: u64, size: u64, area: u64 },
    Unaligned(VirtAddr, u64),
    NotUpperHalf(VirtAddr),
    ExecutableDevice,
    Vmalloc(vmalloc::Error),
    Engine(paging::Error),
    Unsound(CheckError),
    Addresses(vmalloc::Violation),
    NoMatch(&'a str),
    NoCase(&'a str, usize),
    LittleMemory { free: u64, needed: u64 },
    Bench(crate::measure::Error),
    NotOnline(u64),
    OnlyOnCpu0(&'static str),
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
