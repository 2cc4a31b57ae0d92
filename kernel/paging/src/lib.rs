//! AArch64 translation tables: one walker, generic over where the frames come from.
#![no_std]
#![deny(missing_docs)]
#![forbid(clippy::undocumented_unsafe_blocks)]

mod addr;
pub mod descriptor;
pub mod granule;
mod leaf;
pub mod mmu;
mod outcome;
pub mod reference;
pub mod source;
mod tables;

pub use addr::{Pfn, PhysAddr, VirtAddr, VirtRange};
pub use descriptor::{Attributes, Descriptor, MemoryType};
pub use granule::{Granule, Granule4K, Granule16K, Granule64K, LAST_LEVEL, Level, TinyGranule};
pub use leaf::choose_leaf;
pub use mmu::{Mmu, TlbiRange};
pub use outcome::{
    DisplaySize, Error, Failure, LeafCounts, LeafSet, LeafSize, LevelMask, Outcome,
};
pub use source::{Extent, Extents, FrameArray, PageArray, PhysRange, PhysSource, Run};
pub use tables::Tables;
