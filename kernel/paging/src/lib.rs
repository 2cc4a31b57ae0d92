//! AArch64 translation tables: one walker, generic over where the frames come from.
#![no_std]
#![deny(missing_docs)]
#![forbid(clippy::undocumented_unsafe_blocks)]

mod addr;
mod coalesce;
pub mod descriptor;
mod edit;
mod flush;
pub mod granule;
mod leaf;
mod map;
pub mod mmu;
mod outcome;
mod protect;
pub mod reference;
pub mod source;
mod tables;
mod tree;
mod unmap;
mod walk;

pub use addr::{Pfn, PhysAddr, VirtAddr, VirtRange};
pub use descriptor::{Attributes, Descriptor, MemoryType};
pub use flush::{FlushBatch, Pending, PendingRange};
pub use granule::{Granule, Granule4K, Granule16K, Granule64K, LAST_LEVEL, Level, TinyGranule};
pub use leaf::choose_leaf;
pub use map::{vmap_pages_range_noflush_walk, vmap_range_noflush};
pub use mmu::{Mmu, TlbiRange};
pub use outcome::{DisplaySize, Error, Failure, LeafCounts, LeafSet, LeafSize, LevelMask, Outcome};
pub use source::{Extent, Extents, FrameArray, PageArray, PhysRange, PhysSource, Run};
pub use tables::Tables;
pub use tree::{BreakPolicy, Config, Half, Tree};
pub use walk::{Leaf, Step, Visit, Walk};
