//! Why the subsystem refused.

use crate::record::{AreaInfo, Freed, Kind};
use crate::va;
use core::fmt;
use paging::{Granule, MemoryType, Pfn, PhysAddr, VirtAddr, VirtRange};

/// Why a call failed. Nothing has changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Error {
    /// No bytes, no pages, or only empty extents.
    Empty,
    /// More than there could be.
    TooLarge {
        /// Bytes, saturated.
        size: u64,
        /// The limit.
        limit: u64,
    },
    /// The alignment is not a power of two.
    BadAlignment {
        /// In bytes.
        align: u64,
    },
    /// The range exceeds the physical address space.
    BadPhysical {
        /// Its start.
        pa: PhysAddr,
        /// Its size.
        size: u64,
    },
    /// RAM is cacheable elsewhere (Arm ARM B2.8).
    Ram {
        /// Its start.
        pa: PhysAddr,
        /// Its size.
        size: u64,
    },
    /// RAM does not have this memory type.
    MemoryType(MemoryType),
    /// No range of addresses is left.
    OutOfSpace(va::Error),
    /// No frame is left.
    OutOfFrames {
        /// Bytes.
        size: u64,
    },
    /// Not a single frame, an area's already, or there twice.
    NotToBeTakenOver(Pfn),
    /// No page is left for nodes.
    OutOfNodes,
    /// The walker's error.
    Map(paging::Error),
    /// Not page aligned.
    Misaligned(VirtAddr),
    /// Not in the region.
    Outside(VirtAddr),
    /// Nothing is mapped here.
    NotMapped(VirtAddr),
    /// No area is here, or was recently.
    NoArea(VirtAddr),
    /// Not an area's first address.
    Interior {
        /// Address.
        va: VirtAddr,
        /// Area around it.
        area: AreaInfo,
    },
    /// In a guard page.
    Guard {
        /// Address.
        va: VirtAddr,
        /// Guarded area.
        area: AreaInfo,
    },
    /// A handle frees this area.
    Owned(AreaInfo),
    /// Another call frees this kind.
    WrongKind {
        /// Area.
        area: AreaInfo,
        /// What this call frees.
        expected: Kind,
    },
    /// The area was freed already.
    Freed(Freed),
    /// The mapping has another size.
    WrongLength {
        /// Start.
        va: VirtAddr,
        /// Size.
        size: u64,
        /// Size given.
        expected: u64,
    },
    /// A `set_memory_*` changed the area.
    PermissionsChanged(AreaInfo),
    /// The call does not wait for a taken lock.
    WouldBlock,
    /// No room to defer an address. The area is unchanged.
    TooManyDeferred {
        /// Address.
        va: VirtAddr,
    },
    /// Not within the area.
    OutOfBounds {
        /// Offset.
        offset: u64,
        /// Size.
        size: u64,
        /// Area.
        area: AreaInfo,
    },
}

impl Error {
    #[cold]
    pub(crate) fn of_map<G: Granule>(failure: paging::Failure) -> Self {
        Self::Map(failure.error.of_frames::<G>())
    }

    pub(crate) const fn is_for_want(&self) -> bool {
        matches!(
            self,
            Self::OutOfFrames { .. }
                | Self::OutOfNodes
                | Self::OutOfSpace(_)
                | Self::Map(paging::Error::OutOfTables(_))
        )
    }
}

impl From<paging::Failure> for Error {
    fn from(failure: paging::Failure) -> Self {
        Self::Map(failure.error)
    }
}

impl fmt::Display for AreaInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} area of {:#x} bytes at {}", self.kind, self.size, self.va)?;
        if self.range != VirtRange::new(self.va, self.size) {
            write!(f, " in pages {}..{}", self.range.start, self.range.end())?;
        }
        write!(f, " made by {}", self.caller)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => write!(f, "nothing asked for"),
            Self::TooLarge { size, limit } => {
                write!(f, "{size:#x} bytes are more than {limit:#x}")
            }
            Self::BadAlignment { align } => write!(f, "alignment {align:#x} is no power of two"),
            Self::BadPhysical { pa, size } => {
                write!(f, "{size:#x} bytes at {pa} leave the physical address space")
            }
            Self::Ram { pa, size } => write!(f, "{size:#x} bytes at {pa} hold RAM"),
            Self::MemoryType(memory) => write!(f, "RAM is not mapped as {memory:?}"),
            Self::OutOfSpace(error) => write!(f, "no address space: {error}"),
            Self::OutOfFrames { size } => write!(f, "no frames for {size:#x} bytes"),
            Self::NotToBeTakenOver(frame) => {
                write!(
                    f,
                    "frame {:#x} is no single one that its caller has once",
                    frame.0
                )
            }
            Self::OutOfNodes => write!(f, "no page for areas"),
            Self::Map(error) => write!(f, "{error}"),
            Self::Misaligned(va) => write!(f, "{va} is not a multiple of the page size"),
            Self::Outside(va) => write!(f, "{va} is not a vmalloc address"),
            Self::NotMapped(va) => write!(f, "nothing is mapped at {va}"),
            Self::NoArea(va) => write!(f, "no area at {va}"),
            Self::Interior { va, area } => write!(f, "{va} is inside the {area}"),
            Self::Guard { va, area } => write!(f, "{va} guards the {area}"),
            Self::Owned(area) => write!(f, "the {area} belongs to a handle"),
            Self::WrongKind { area, expected } => write!(f, "the {area} is no {expected:?} area"),
            Self::Freed(freed) => {
                write!(f, "the {} was freed already by {}", freed.area, freed.by)
            }
            Self::WrongLength { va, size, expected } => {
                write!(f, "{size:#x} bytes are mapped at {va}, not {expected:#x}")
            }
            Self::PermissionsChanged(area) => write!(f, "the permissions of the {area} were changed"),
            Self::WouldBlock => write!(f, "a lock is taken"),
            Self::TooManyDeferred { va } => {
                write!(f, "too many addresses wait to be freed for {va} to join them")
            }
            Self::OutOfBounds { offset, size, area } => {
                write!(f, "{size:#x} bytes at {offset:#x} leave the {area}")
            }
        }
    }
}

impl core::error::Error for Error {}
