//! Why a test did not pass, with the values that a person needs.

use alloc::boxed::Box;
use core::fmt;

use kernel::arch::mmu::Access;
use kernel::arch::probe::FaultInfo;
use kernel::arch::syndrome::FaultStatus;
use kernel::drivers::console;
use kernel::layout;
use paging::{Attributes, CheckError, Descriptor, LeafCounts, PhysAddr, VirtAddr};

/// What a test returns.
pub type TestResult = Result<(), Stop>;

/// A test that ends before its end.
#[derive(Clone, Debug)]
pub enum Stop {
    /// It has failed.
    Fail(Failure),
    /// This machine lacks what it is about.
    Skip(&'static str),
}

/// Who says what an address translates to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Oracle {
    /// `Tree::translate` and `Tree::walk`.
    Engine,
    /// The descriptors themselves, read by the test.
    Descriptors,
    /// An address translation instruction.
    At(Access),
    /// A load or store that may fault.
    Probe(Access),
}

/// Which alias of a frame an access went through.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Alias {
    /// Written through the linear map, read through the mapping.
    ReadByMapping,
    /// Written through the mapping, read through the linear map.
    ReadByLinear,
}

/// What is wrong with a page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PageDefect {
    /// It is not mapped, and should be.
    NotMapped(Oracle),
    /// It is still mapped, and should not be.
    StillMapped(Oracle),
    /// It has the wrong output address.
    Output {
        /// Who says so.
        oracle: Oracle,
        /// The address found.
        found: PhysAddr,
        /// The right one.
        expected: PhysAddr,
    },
    /// It has other attributes than it was mapped with.
    Attributes {
        /// Those found.
        found: Attributes,
        /// Those that it was mapped with.
        expected: Attributes,
    },
    /// PAR_EL1 has another attribute byte or shareability than the memory type.
    MemoryType {
        /// Attribute byte and SH as PAR_EL1 has them.
        found: (u8, u8),
        /// What MAIR_EL1 and the descriptor should give.
        expected: (u8, u8),
    },
    /// A member of a contiguous group does not go with the others.
    MixedGroup {
        /// The descriptor.
        found: Descriptor,
        /// What the first of the group makes it.
        expected: Descriptor,
    },
    /// The access is permitted, and should not be.
    Permitted(Oracle),
    /// The access is refused, and should not be.
    Refused {
        /// Who says so.
        oracle: Oracle,
        /// Why.
        status: FaultStatus,
    },
    /// The access is refused for another reason than expected.
    Fault {
        /// Who says so.
        oracle: Oracle,
        /// The reason given.
        found: FaultStatus,
        /// The right one.
        expected: FaultStatus,
    },
    /// The walks disagree on the level at which the translation ends.
    Level {
        /// The level that the descriptors give.
        descriptors: u8,
        /// The level that the engine gives.
        engine: u8,
    },
    /// Other data than was written.
    Data {
        /// By which way round.
        alias: Alias,
        /// Offset in the page.
        offset: usize,
        /// What was read.
        found: u64,
        /// What was written.
        expected: u64,
    },
}

/// Why a test has failed.
#[derive(Clone, Debug)]
pub enum Failure {
    /// A page is wrong.
    Page {
        /// Its number in the mapping.
        page: u64,
        /// Its address.
        va: VirtAddr,
        /// What is wrong.
        defect: PageDefect,
    },
    /// The engine refused.
    Paging(paging::Error),
    /// The engine should have refused.
    NotRefused(&'static str),
    /// Other leaves than the addresses allow.
    Leaves {
        /// Those found.
        found: LeafCounts,
        /// The largest that are legal.
        expected: LeafCounts,
    },
    /// The audit of the live tree.
    Audit(CheckError),
    /// A value is not what it should be.
    Value {
        /// Of what.
        what: &'static str,
        /// As found.
        found: u64,
        /// As it should be.
        expected: u64,
    },
    /// A value is not in the range that it should be in.
    Range {
        /// Of what.
        what: &'static str,
        /// As found.
        found: u64,
        /// The least that it may be.
        least: u64,
        /// The most.
        most: u64,
    },
    /// Something is in use after the test that was not before, or the other way round.
    Leak {
        /// Of what.
        what: &'static str,
        /// In use before.
        before: u64,
        /// In use after.
        after: u64,
    },
    /// An access faulted that should not have.
    Faulted {
        /// The access.
        what: &'static str,
        /// The fault.
        fault: FaultInfo,
    },
    /// A claim does not hold, and there is no value to show beyond an address.
    Claim {
        /// The claim.
        what: &'static str,
        /// Where.
        at: u64,
    },
    /// No block of this order.
    NoFrames(u8),
    /// There is no such block, and not four times as much RAM as it takes.
    TooLittleRam(u8),
    /// The vmalloc subsystem refused.
    Vm(vmalloc::Error),
    /// The vmalloc subsystem refused for another reason than the one that there is.
    Refusal {
        /// What was asked for.
        what: &'static str,
        /// The reason given, and the right one.
        found_and_expected: Box<[vmalloc::Error; 2]>,
    },
    /// Another CPU did not do its part in time, or is not up.
    Cpu {
        /// Its number.
        cpu: usize,
        /// What it did not do.
        what: &'static str,
    },
    /// Ctrl-C was typed: see [`go_on`].
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

/// Whether a test may go on. Long loops ask where they can stop.
///
/// # Errors
/// Ctrl-C was typed in the shell.
pub fn go_on() -> Result<(), Failure> {
    if console::interrupted() {
        Err(Failure::Interrupted)
    } else {
        Ok(())
    }
}

/// `found` is `expected`.
///
/// # Errors
/// It is not.
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

/// `found` are the leaves expected.
///
/// # Errors
/// They are not.
pub fn expect_leaves(found: LeafCounts, expected: LeafCounts) -> Result<(), Failure> {
    if found == expected {
        Ok(())
    } else {
        Err(Failure::Leaves { found, expected })
    }
}

/// `holds`.
///
/// # Errors
/// It does not.
pub fn expect(what: &'static str, at: u64, holds: bool) -> Result<(), Failure> {
    if holds {
        Ok(())
    } else {
        Err(Failure::Claim { what, at })
    }
}
