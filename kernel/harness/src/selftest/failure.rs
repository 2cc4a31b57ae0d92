use alloc::boxed::Box;
use core::fmt;

use kernel::arch::mmu::Access;
use kernel::arch::probe::FaultInfo;
use kernel::arch::syndrome::FaultStatus;
use kernel::drivers::console;
use kernel::layout;
use paging::{Attributes, CheckError, Descriptor, LeafCounts, PhysAddr, VirtAddr};

pub type TestResult = Result<(), Stop>;

#[derive(Clone, Debug)]
pub enum Stop {
    Fail(Failure),
    Skip(&'static str),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Oracle {
    /// `Tree::translate` and `Tree::walk`.
    Engine,
    /// As read by the test itself.
    Descriptors,
    At(Access),
    Probe(Access),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Alias {
    /// Written through the linear map.
    ReadByMapping,
    ReadByLinear,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PageDefect {
    NotMapped(Oracle),
    StillMapped(Oracle),
    Output {
        oracle: Oracle,
        found: PhysAddr,
        expected: PhysAddr,
    },
    Attributes {
        found: Attributes,
        expected: Attributes,
    },
    /// PAR_EL1's.
    MemoryType {
        found: (u8, u8),
        expected: (u8, u8),
    },
    MixedGroup {
        found: Descriptor,
        expected: Descriptor,
    },
    Permitted(Oracle),
    Refused {
        oracle: Oracle,
        status: FaultStatus,
    },
    Fault {
        oracle: Oracle,
        found: FaultStatus,
        expected: FaultStatus,
    },
    Level {
        descriptors: i8,
        engine: i8,
    },
    Data {
        alias: Alias,
        offset: usize,
        found: u64,
        expected: u64,
    },
}

#[derive(Clone, Debug)]
pub enum Failure {
    Page {
        page: u64,
        va: VirtAddr,
        defect: PageDefect,
    },
    Paging(paging::Error),
    NotRefused(&'static str),
    Leaves {
        found: LeafCounts,
        expected: LeafCounts,
    },
    Audit(CheckError),
    Value {
        what: &'static str,
        found: u64,
        expected: u64,
    },
    Range {
        what: &'static str,
        found: u64,
        least: u64,
        most: u64,
    },
    Leak {
        what: &'static str,
        before: u64,
        after: u64,
    },
    Faulted {
        what: &'static str,
        fault: FaultInfo,
    },
    Claim {
        what: &'static str,
        at: u64,
    },
    NoFrames(u8),
    /// Less than four times as much RAM.
    TooLittleRam(u8),
    Vm(vmalloc::Error),
    Refusal {
        what: &'static str,
        found_and_expected: Box<[vmalloc::Error; 2]>,
    },
    Cpu {
        cpu: usize,
        what: &'static str,
    },
    Interrupted,
}

impl fmt::Display for Oracle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Engine => "the engine's walk",
            Self::Descriptors => "the descriptors",
            Self::At(Access::Read) => "AT S1E1R",
            Self::At(Access::Write) => "AT S1E1W",
            Self::Probe(Access::Read) => "a load",
            Self::Probe(Access::Write) => "a store",
        })
    }
}

impl fmt::Display for PageDefect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotMapped(oracle) => write!(f, "not mapped, says {oracle}"),
            Self::StillMapped(Oracle::Probe(access)) => write!(
                f,
                "still mapped: {} after the unmap reached it by a stale translation",
                Oracle::Probe(*access)
            ),
            Self::StillMapped(oracle) => write!(f, "still mapped, says {oracle}"),
            Self::Output {
                oracle,
                found,
                expected,
            } => write!(f, "wrong output address {found} by {oracle}, not {expected}"),
            Self::Attributes { found, expected } => {
                write!(f, "attributes differ: {found:?}, not {expected:?}")
            }
            Self::MemoryType { found, expected } => write!(
                f,
                "PAR_EL1 attribute {:#04x} SH {:#04b}, not {:#04x} SH {:#04b}",
                found.0, found.1, expected.0, expected.1
            ),
            Self::MixedGroup { found, expected } => {
                write!(f, "mixed contiguous group: member {found:?}, not {expected:?}")
            }
            Self::Permitted(oracle) => write!(f, "permitted, and should not be, says {oracle}"),
            Self::Refused { oracle, status } => write!(f, "{status} by {oracle}, and should be permitted"),
            Self::Fault {
                oracle,
                found,
                expected,
            } => write!(f, "{found} by {oracle}, not {expected}"),
            Self::Level { descriptors, engine } => {
                write!(
                    f,
                    "the descriptors end at level {descriptors}, the engine's walk at {engine}"
                )
            }
            Self::Data {
                alias,
                offset,
                found,
                expected,
            } => {
                let way = match alias {
                    Alias::ReadByMapping => "written through the linear map, read through the mapping",
                    Alias::ReadByLinear => "written through the mapping, read through the linear map",
                };
                write!(
                    f,
                    "data differ at offset {offset:#x}: {found:#x}, not {expected:#x} ({way})"
                )
            }
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Page { page, va, defect } => write!(f, "page {page} at {va}: {defect}"),
            Self::Paging(error) => write!(f, "the engine refused: {error}"),
            Self::NotRefused(what) => write!(f, "not refused: {what}"),
            Self::Leaves { found, expected } => write!(
                f,
                "leaves {}, not {}",
                found.display::<layout::Granule>(),
                expected.display::<layout::Granule>()
            ),
            Self::Audit(error) => write!(f, "audit of the live tree: {error}"),
            Self::Value {
                what,
                found,
                expected,
            } => write!(f, "{what}: {found} ({found:#x}), not {expected} ({expected:#x})"),
            Self::Range {
                what,
                found,
                least,
                most,
            } => write!(f, "{what}: {found} is not within {least}..={most}"),
            Self::Leak { what, before, after } => {
                write!(f, "leak of {what}: {before} in use before, {after} after")
            }
            Self::Faulted { what, fault } => write!(f, "{what}: {fault:?}"),
            Self::Claim { what, at } => write!(f, "{what}, at {at:#x}"),
            Self::NoFrames(order) | Self::TooLittleRam(order) => {
                write!(f, "no block of {} pages", 1u64 << order)
            }
            Self::Vm(error) => write!(f, "vmalloc refused: {error}"),
            Self::Refusal {
                what,
                found_and_expected,
            } => {
                let [found, expected] = &**found_and_expected;
                write!(f, "{what}: `{found}`, not `{expected}`")
            }
            Self::Cpu { cpu, what } => write!(f, "CPU {cpu} {what}"),
            Self::Interrupted => write!(f, "interrupted"),
        }
    }
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::TooLittleRam(_) => Self::Skip("RAM is too small for blocks of this granule"),
            failure => Self::Fail(failure),
        }
    }
}

impl From<paging::Error> for Failure {
    fn from(error: paging::Error) -> Self {
        Self::Paging(error)
    }
}

impl From<paging::Failure> for Failure {
    fn from(failure: paging::Failure) -> Self {
        Self::Paging(failure.error)
    }
}

impl From<CheckError> for Failure {
    fn from(error: CheckError) -> Self {
        Self::Audit(error)
    }
}

impl From<vmalloc::Error> for Failure {
    fn from(error: vmalloc::Error) -> Self {
        Self::Vm(error)
    }
}

macro_rules! stop_from {
    ($($error:ty),*) => {
        $(impl From<$error> for Stop {
            fn from(error: $error) -> Self {
                Self::Fail(error.into())
            }
        })*
    };
}
stop_from!(paging::Error, paging::Failure, CheckError, vmalloc::Error);

pub fn go_on() -> Result<(), Failure> {
    if console::interrupted() {
        Err(Failure::Interrupted)
    } else {
        Ok(())
    }
}

pub fn expect_value(what: &'static str, found: u64, expected: u64) -> Result<(), Failure> {
    if found == expected {
        Ok(())
    } else {
        Err(Failure::Value {
            what,
            found,
            expected,
        })
    }
}

pub fn expect_leaves(found: LeafCounts, expected: LeafCounts) -> Result<(), Failure> {
    if found == expected {
        Ok(())
    } else {
        Err(Failure::Leaves { found, expected })
    }
}

pub fn expect(what: &'static str, at: u64, holds: bool) -> Result<(), Failure> {
    if holds {
        Ok(())
    } else {
        Err(Failure::Claim { what, at })
    }
}
