//! Plain walkers to hold the engine against: in differential tests and in benches, never in a
//! kernel.
//!
//! [`Rewalk`] is what Linux up to 7.3 does, [`Series`] what the 2026 series made of it. Both are
//! written from described behaviour: which levels are tried, how far a step goes, what is checked,
//! where barriers and invalidations stand. Their defects are kept where a measurement or a test is
//! about them, and named there.
//!
//! [`Engine`] is the engine itself behind the same trait, so that lists of walkers have it too.
//!
//! # What they are not
//! They run on **trees of their own**, made by [`Context::new`], one walker to a tree. The engine
//! keeps the number of occupied descriptors of a table in the link to it; these walkers do not keep
//! it, so neither may go on with a tree that the other has changed. They take no lock: one caller
//! at a time. Where one of them fails, what it had written stays; the caller unmaps the range, as
//! Linux's callers do.
//!
//! # A walker of your own
//! Implement [`Walker`] in one file, for every `G`, `T` and `M`, and add one line to the list in
//! [`for_each_walker!`](crate::for_each_walker). From then on it is in all that iterates that list:
//!
//! - `tests/reference/agreement.rs` (`cargo test -p paging reference`): the same random arrays and
//!   ranges as all others, in every granule, page by page
//! - `tests/on_the_model.rs` (`cargo test -p paging on_the_model`): the model of a worst-case TLB:
//!   no rule broken, everything flushed
//! - the kernel's self-tests (`BOOTARGS='selftest=walkers.*' make run`): the live MMU: `AT`, data
//!   by two addresses, and that nothing is left in the TLB
//! - the bench (`make bench`): every case that takes a range or an array; each page is checked
//!   before anything is counted
//!
//! `BENCH_WALKERS=GLOB` selects walkers by name, in the bench and in the self-tests. That each of
//! the four finds a wrong walker out is itself tested, with walkers that are wrong on purpose.
//!
//! [`Context`] offers the steps of a walk, and [`Walker::unmap`] has a default, so that an idea
//! about mapping is all that there is to write. This one is complete; as a file, with a program
//! around it that shows it beside the others, it is in `examples/walker`, and the crate's README
//! tells the way from there into the bench.
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

/// A way to map and unmap a range of kernel addresses.
///
/// Every operation returns the levels at which it wrote a descriptor, links included.
///
/// # Errors
/// All of them: an [`Error`]. What was written before it struck stays.
pub trait Walker<G: Granule, T: Tables, M: Mmu> {
    /// A short name for tables and selections, without blanks.
    const NAME: &'static str;

    /// Maps `size` bytes at `va` to the contiguous physical range that begins at `pa`: what
    /// `ioremap` needs.
    ///
    /// `va`, `pa` and `size` are multiples of the page size, and nothing is mapped there.
    ///
    /// # Errors
    /// See [`Error`].
    fn map_range(
        &self,
        ctx: &Context<'_, G, T, M>,
        va: VirtAddr,
        pa: PhysAddr,
        size: u64,
        attributes: Attributes,
    ) -> Result<LevelMask, Error>;

    /// Maps the pages of `frames`, in order, at `va`: what `vmap` needs. Nothing is known about the
    /// array.
    ///
    /// # Errors
    /// See [`Error`].
    fn map_pages<A: FrameArray + ?Sized>(
        &self,
        ctx: &Context<'_, G, T, M>,
        va: VirtAddr,
        frames: &A,
        attributes: Attributes,
    ) -> Result<LevelMask, Error>;

    /// Maps the pages of `frames` where the caller knows that each chunk of `1 << shift` bytes is
    /// physically contiguous and aligned to its size: what `vmalloc` with large blocks needs.
    /// `shift` is at least the page shift.
    ///
    /// The knowledge is a help, not an order: by default it is not used.
    ///
    /// # Errors
    /// See [`Error`].
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

    /// Unmaps `size` bytes at `va`, holes allowed, and invalidates the TLB. By default
    /// [`unmap_range`], what Linux does.
    ///
    /// # Errors
    /// See [`Error`].
    #[inline]
    fn unmap(&self, ctx: &Context<'_, G, T, M>, va: VirtAddr, size: u64) -> Result<LevelMask, Error> {
        unmap_range(ctx, va, size)
    }
}

/// Runs a block once for each registered [`Walker`], each time with its own type: no dynamic
/// dispatch.
///
/// `for_each_walker!(|walker| { ... })`. To register a walker, add a line to the list below.
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

/// Why a reference walker refused or stopped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Error {
    /// The range is empty.
    Empty(VirtAddr),
    /// An address or size is not a multiple of the page size.
    Misaligned(u64),
    /// A chunk of `1 << shift` bytes is smaller than a page, or no number of bytes at all.
    ChunkShift(u32),
    /// The range leaves what the tree translates.
    OutOfRange(VirtAddr, u64),
    /// The source has no frame for this page of the range.
    NoFrame {
        /// The page, counted from the start of the range.
        page: u64,
    },
    /// No physical address has this frame number.
    BadFrame(Pfn),
    /// Something is mapped here already.
    Occupied {
        /// Where.
        va: VirtAddr,
        /// The level of the descriptor found.
        level: Level,
        /// The descriptor found.
        found: Descriptor,
    },
    /// The range to unmap covers this leaf only in part, and there is no splitting.
    PartialLeaf {
        /// Where the range meets the leaf.
        va: VirtAddr,
        /// The leaf.
        leaf: LeafSize,
    },
    /// No page for a table of this level.
    OutOfTables(Level),
    /// What the engine says, by way of [`Engine`].
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
