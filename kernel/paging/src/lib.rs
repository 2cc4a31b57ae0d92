//! AArch64 translation tables: one walker, generic over where the frames come from.
//!
//! A [`Tree`] maps a contiguous range ([`PhysRange`]), an array of pages ([`PageArray`]) or a list
//! of runs ([`Extents`]) with the largest leaves that the addresses allow, splits them where a part
//! is unmapped or protected, and folds them. A kernel brings table memory ([`Tables`]) and barriers
//! ([`Mmu`]).
//!
//! ```
//! use paging::mmu::NoMmu;
//! use paging::{Attributes, Config, Granule4K, Half, LeafSet, LeafSize, LinearTables, PhysAddr};
//! use paging::{Tables, Tree, VirtAddr};
//! # use paging::TablePages;
//! # struct Heap;
//! # // SAFETY: pages from the global allocator, aligned, never freed here.
//! # unsafe impl TablePages for Heap {
//! #     fn alloc(&self) -> Option<PhysAddr> {
//! #         #[repr(align(4096))]
//! #         struct Page([u8; 4096]);
//! #         let page = Box::leak(Box::new(Page([0; 4096])));
//! #         Some(PhysAddr(page.0.as_mut_ptr().expose_provenance() as u64))
//! #     }
//! #     fn free(&self, _page: PhysAddr) {}
//! # }
//! // On a host, tables are plain memory at their own address and no CPU walks them.
//! // SAFETY: `Heap`'s pages are mapped at offset 0 and used for nothing else.
//! let tables = unsafe { LinearTables::<Granule4K, _>::new(0, Heap) };
//! let root = tables.alloc_table().ok_or("no memory")?;
//! let config = Config::default();
//! let tree = Tree::<Granule4K, _, _>::new(root, Half::High, tables, NoMmu::default(), config);
//!
//! // 3 MiB of device registers at an odd 64 KiB: VA and PA agree modulo 2 MiB, so a block fits.
//! let va = VirtAddr(0xffff_8000_001f_0000);
//! let (pa, size) = (PhysAddr(0x1_001f_0000), 0x30_0000);
//! let outcome =
//!     paging::vmap_range_noflush(&tree, va, pa, size, Attributes::DEVICE, LeafSet::ALL)?;
//! assert_eq!(outcome.leaves.get(LeafSize::BLOCK2), 1);
//! assert_eq!(outcome.leaves.get(LeafSize::PAGE_GROUP), 16);
//!
//! // A page in the middle of the block is unmapped: the block is split no further than needed, and
//! // one flush covers all.
//! let mut batch = tree.batch();
//! tree.unmap(paging::VirtRange::new(VirtAddr(0xffff_8000_0030_0000), 0x1000), &mut batch)?;
//! batch.flush();
//! assert!(tree.translate(VirtAddr(0xffff_8000_0030_0000)).is_none());
//! let leaf = tree.translate(VirtAddr(0xffff_8000_0030_1000)).ok_or("still mapped")?;
//! assert_eq!(leaf.size, LeafSize::PAGE);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! [`vmap_range_noflush`] and [`vmap_pages_range_noflush_walk`] are [`Tree::map`] by Linux's names.
#![no_std]
#![deny(missing_docs)]
#![forbid(clippy::undocumented_unsafe_blocks)]

// Walkers from outside move into `reference` unchanged.
extern crate self as paging;

mod addr;
mod check;
mod coalesce;
pub mod descriptor;
mod dump;
mod edit;
mod fill;
mod flush;
pub mod granule;
pub mod leaf;
mod map;
mod memory;
pub mod mmu;
mod outcome;
mod protect;
mod prune;
pub mod reference;
pub mod source;
mod tables;
pub mod trace;
mod tree;
mod unmap;
mod walk;

pub use addr::{Pfn, PhysAddr, VirtAddr, VirtRange};
pub use check::{CheckError, Report};
pub use descriptor::{Attributes, Descriptor, MemoryType};
pub use dump::{Dump, DumpRun};
pub use flush::{FlushBatch, Pending, PendingRange};
pub use granule::{
    Granule, Granule4K, Granule4K39, Granule4K52, Granule16K, Granule16K47, Granule16K52, Granule64K,
    Granule64K42, Granule64K52, LAST_LEVEL, Level, TinyGranule,
};
pub use leaf::Leaves;
pub use map::{vmap_pages_range_noflush_walk, vmap_range_noflush};
pub use memory::{LinearTables, TablePages};
pub use mmu::{Mmu, TlbiRange};
pub use outcome::{DisplaySize, Error, Failure, LeafCounts, LeafSet, LeafSize, LevelMask, Outcome};
pub use source::{Extent, Extents, FrameArray, PageArray, PhysRange, PhysSource, Piece, Run};
pub use tables::{Groups, Tables};
pub use tree::{BreakPolicy, Config, Half, Tree};
pub use walk::{Leaf, Step, Visit, Walk};

/// Runs the README's example.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
