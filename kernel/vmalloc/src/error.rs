//! Why the subsystem refused.

use crate::record::{self, Area, AreaInfo, Freed, Kind};
use crate::va;
use core::fmt;
use paging::{Granule, MemoryType, Pfn, PhysAddr, VirtAddr, VirtRange};

/// Why a call failed. Nothing has changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No bytes, no pages, or only empty extents.
    #[error("nothing asked for")]
    Empty,
    /// More than there could be.
    #[error("{size:#x} bytes are more than {limit:#x}")]
    TooLarge {
        /// Bytes, saturated.
        size: u64,
        /// The limit.
        limit: u64,
    },
    /// The alignment is not a power of two.
    #[error("alignment {align:#x} is no power of two")]
    BadAlignment {
        /// In bytes.
        align: u64,
    },
    /// The range exceeds the physical address space.
    #[error("{size:#x} bytes at {pa} leave the physical address space")]
    BadPhysical {
        /// Its start.
        pa: PhysAddr,
        /// Its size.
        size: u64,
    },
    /// RAM is cacheable elsewhere (Arm ARM B2.8).
    #[error("{size:#x} bytes at {pa} hold RAM")]
    Ram {
        /// Its start.
        pa: PhysAddr,
        /// Its size.
        size: u64,
    },
    /// RAM does not have this memory type.
    #[error("RAM is not mapped as {0:?}")]
    MemoryType(MemoryType),
    /// No range of addresses is left.
    #[error("no address space: {0}")]
    OutOfSpace(va::Error),
    /// No frame is left.
    #[error("no frames for {size:#x} bytes")]
    OutOfFrames {
        /// Bytes.
        size: u64,
    },
    /// Not a single frame, an area's already, or there twice.
    #[error("frame {:#x} is no single one that its caller has once", .0.0)]
    NotToBeTakenOver(Pfn),
    /// No page is left for nodes.
    #[error("no page for areas")]
    OutOfNodes,
    /// The walker's error.
    #[error("{0}")]
    Map(paging::Error),
    /// Not page aligned.
    #[error("{0} is not a multiple of the page size")]
    Misaligned(VirtAddr),
    /// Not in the region.
    #[error("{0} is not a vmalloc address")]
    Outside(VirtAddr),
    /// Nothing is mapped here.
    #[error("nothing is mapped at {0}")]
    NotMapped(VirtAddr),
    /// No area is here, or was recently.
    #[error("no area at {0}")]
    NoArea(VirtAddr),
    /// Not an area's first address.
    #[error("{va} is inside the {area}")]
    Interior {
        /// Address.
        va: VirtAddr,
        /// Area around it.
        area: AreaInfo,
    },
    /// In a guard page.
    #[error("{va} guards the {area}")]
    Guard {
        /// Address.
        va: VirtAddr,
        /// Guarded area.
        area: AreaInfo,
    },
    /// A handle frees this area.
    #[error("the {0} belongs to a handle")]
    Owned(AreaInfo),
    /// Another call frees this kind.
    #[error("the {area} is no {expected:?} area")]
    WrongKind {
        /// Area.
        area: AreaInfo,
        /// What this call frees.
        expected: Kind,
    },
    /// The area was freed already.
    #[error("the {} was freed already by {}", .0.area, .0.by)]
    Freed(Freed),
    /// The mapping has another size.
    #[error("{size:#x} bytes are mapped at {va}, not {expected:#x}")]
    WrongLength {
        /// Start.
        va: VirtAddr,
        /// Size.
        size: u64,
        /// Size given.
        expected: u64,
    },
    /// A `set_memory_*` changed the area.
    #[error("the permissions of the {0} were changed")]
    PermissionsChanged(AreaInfo),
    /// The call does not wait for a taken lock.
    #[error("a lock is taken")]
    WouldBlock,
    /// No room to defer an address. The area is unchanged.
    #[error("too many addresses wait to be freed for {va} to join them")]
    TooManyDeferred {
        /// Address.
        va: VirtAddr,
    },
    /// Not within the area.
    #[error("{size:#x} bytes at {offset:#x} leave the {area}")]
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

    #[cold]
    pub(crate) fn wrong_kind<G: Granule>(area: &Area, expected: Kind) -> Self {
        match record::info::<G>(area) {
            Some(area) => Self::WrongKind { area, expected },
            None => Self::NoArea(record::range::<G>(area).start),
        }
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
