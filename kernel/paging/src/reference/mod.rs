//! Plain walkers to hold the engine against in tests and benches, never in a kernel: [`Rewalk`] is
//! Linux up to 7.3, [`Series`] the 2026 series. Defects that a test or a measurement is about are
//! kept, and named. They run on trees of their own ([`Context::new`]), one caller at a time.
//!
//! # A walker of your own
//! Implement [`Walker`] in one file, and add it to [`for_each_walker!`](crate::for_each_walker).
//! Tests, the kernel's self-tests `walkers.*` and the bench then run it. This one is complete, and
//! runs in `examples/walker`:
//!
//! ```
//! use paging::reference::{Context, Error, Walker};
//! use paging::*;
//!
//! /// Every page from the root, one pair of barriers at the end.
//! pub struct OneByOne;
//!
//! impl<G: Granule, T: Tables, M: Mmu> Walker<G, T, M> for OneByOne {
//!     const NAME: &'static str = "one-by-one";
//!
//!     fn map_range(
//!         &self,
//!         ctx: &Context<'_, G, T, M>,
//!         va: VirtAddr,
//!         pa: PhysAddr,
//!         size: u64,
//!         attributes: Attributes,
//!     ) -> Result<LevelMask, Error> {
//!         let frame = |i| Some(Pfn((pa.0 >> G::PAGE_SHIFT) + i));
//!         self.map(ctx, va, size >> G::PAGE_SHIFT, frame, attributes)
//!     }
//!
//!     fn map_pages<A: FrameArray + ?Sized>(
//!         &self,
//!         ctx: &Context<'_, G, T, M>,
//!         va: VirtAddr,
//!         frames: &A,
//!         attributes: Attributes,
//!     ) -> Result<LevelMask, Error> {
//!         let frame = |i| frames.frame(i as usize);
//!         self.map(ctx, va, frames.nr_frames() as u64, frame, attributes)
//!     }
//! }
//!
//! impl OneByOne {
//!     fn map<G: Granule, T: Tables, M: Mmu>(
//!         &self,
//!         ctx: &Context<'_, G, T, M>,
//!         va: VirtAddr,
//!         pages: u64,
//!         frame: impl Fn(u64) -> Option<Pfn>,
//!         attributes: Attributes,
//!     ) -> Result<LevelMask, Error> {
//!         let mut levels = LevelMask::NONE;
//!         for page in 0..pages {
//!             let va = va.add(page << G::PAGE_SHIFT);
//!             let pa = ctx.output(frame(page), page)?;
//!             let table = ctx.table_for(va, LAST_LEVEL, &mut levels)?;
//!             ctx.store_page(table, va, pa, attributes, &mut levels)?;
//!         }
//!         ctx.mmu.dsb_ishst();
//!         ctx.mmu.isb();
//!         Ok(levels)
//!     }
//! }
//! ```

mod context;
mod engine;
mod flush;
mod range;
mod rewalk;
mod series;
mod unmap;

pub use context::Context;
pub use engine::Engine;
pub use flush::flush_range;
pub use rewalk::Rewalk;
pub use series::Series;
pub use unmap::unmap_range;

use crate::addr::{Pfn, PhysAddr, VirtAddr};
use crate::descriptor::{Attributes, Descriptor};
use crate::granule::{Granule, Level};
use crate::mmu::Mmu;
use crate::outcome::{LeafSize, LevelMask};
use crate::source::FrameArray;
use crate::tables::Tables;
use core::fmt;

/// Maps and unmaps kernel addresses. Returns the levels written, links included.
///
/// # Errors
/// An [`Error`]. What was written before stays; the caller unmaps it.
pub trait Walker<G: Granule, T: Tables, M: Mmu> {
    /// For tables and selections, without blanks.
    const NAME: &'static str;

    /// Maps `size` bytes at `va` to the memory from `pa` on, as `ioremap`. Nothing is mapped there.
    ///
    /// # Errors
    /// [`Error`].
    fn map_range(
        &self,
        ctx: &Context<'_, G, T, M>,
        va: VirtAddr,
        pa: PhysAddr,
        size: u64,
        attributes: Attributes,
    ) -> Result<LevelMask, Error>;

    /// Maps the pages of `frames` at `va`, as `vmap`.
    ///
    /// # Errors
    /// [`Error`].
    fn map_pages<A: FrameArray + ?Sized>(
        &self,
        ctx: &Context<'_, G, T, M>,
        va: VirtAddr,
        frames: &A,
        attributes: Attributes,
    ) -> Result<LevelMask, Error>;

    /// Maps `frames` whose chunks of `1 << shift` bytes are contiguous and aligned, as `vmalloc`
    /// with large blocks.
    ///
    /// # Errors
    /// [`Error`].
    #[inline]
    fn map_chunks<A: FrameArray + ?Sized>(
        &self,
        ctx: &Context<'_, G, T, M>,
        va: VirtAddr,
        frames: &A,
        shift: u32,
        attributes: Attributes,
    ) -> Result<LevelMask, Error> {
        let _ = shift;
        self.map_pages(ctx, va, frames, attributes)
    }

    /// Unmaps `size` bytes at `va`, holes allowed, and invalidates the TLB.
    ///
    /// # Errors
    /// [`Error`].
    #[inline]
    fn unmap(&self, ctx: &Context<'_, G, T, M>, va: VirtAddr, size: u64) -> Result<LevelMask, Error> {
        unmap_range(ctx, va, size)
    }
}

/// Runs a block for each registered [`Walker`]: `for_each_walker!(|walker| { ... })`.
#[macro_export]
macro_rules! for_each_walker {
    (|$walker:ident| $body:block) => {
        $crate::for_each_walker! { @each |$walker| $body
            $crate::reference::Engine,
            $crate::reference::Rewalk,
            $crate::reference::Series { overrun: false },
        }
    };
    (@each |$walker:ident| $body:block $($registered:expr,)+) => {
        $({
            let $walker = $registered;
            $body
        })+
    };
}

/// Why a walker refused or stopped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Error {
    /// The range is empty.
    Empty(VirtAddr),
    /// An address or size is not a multiple of the page size.
    Misaligned(u64),
    /// Smaller than a page, or too large.
    ChunkShift(u32),
    /// The range leaves what the tree translates.
    OutOfRange(VirtAddr, u64),
    /// The source lacks a frame.
    NoFrame {
        /// From the start of the range.
        page: u64,
    },
    /// No address has this number.
    BadFrame(Pfn),
    /// Something is mapped here already.
    Occupied {
        /// Where.
        va: VirtAddr,
        /// Of the descriptor.
        level: Level,
        /// The descriptor.
        found: Descriptor,
    },
    /// Covered in part.
    PartialLeaf {
        /// Where the range meets it.
        va: VirtAddr,
        /// The leaf.
        leaf: LeafSize,
    },
    /// No page for a table of this level.
    OutOfTables(Level),
    /// Of [`Engine`].
    Engine(crate::Error),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Empty(va) => write!(f, "empty range at {va}"),
            Self::Misaligned(value) => write!(f, "{value:#x} is not a multiple of the page size"),
            Self::ChunkShift(shift) => write!(f, "chunks cannot be 1 << {shift} bytes"),
            Self::OutOfRange(va, size) => write!(f, "{size:#x} bytes at {va} leave the tree"),
            Self::NoFrame { page } => write!(f, "no frame for page {page} of the range"),
            Self::BadFrame(Pfn(n)) => write!(f, "no physical address has frame number {n:#x}"),
            Self::Occupied { va, level, found } => {
                write!(f, "{va} is taken by level {level} descriptor {found:?}")
            }
            Self::PartialLeaf { va, leaf } => {
                write!(f, "only a part of the {leaf:?} leaf at {va} would be unmapped")
            }
            Self::OutOfTables(level) => write!(f, "no page for a level {level} table"),
            Self::Engine(error) => fmt::Display::fmt(&error, f),
        }
    }
}

impl core::error::Error for Error {}
