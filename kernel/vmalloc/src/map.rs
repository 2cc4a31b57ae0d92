//! Mapping what is there already: `ioremap`, `vmap`, and addresses alone.

use crate::area::VmArea;
use crate::backend::Backend;
use crate::error::Error;
use crate::frames::Blocks;
use crate::place::Phase;
use crate::ram::{self, NoRam};
use crate::record::{self, Kind};
use crate::region::{Context, Vmalloc};
use crate::va::Fit;
use core::panic::Location;
use paging::{
    Attributes, Extent, Extents, Failure, FrameArray, Granule, LeafSize, MemoryType, Outcome, PageArray,
    PhysAddr, PhysRange, PhysSource, Run, VirtRange,
};

/// What a new area asks for.
#[derive(Clone, Copy)]
pub(crate) struct Place {
    pub fit: Fit,
    pub phase: Phase,
    /// What the caller insists on: bytes, a power of two, at least a page.
    pub align: u64,
}

/// Device memory, or memory seen as if it were: readable and writable, never executable.
const fn io(memory: MemoryType) -> Attributes {
    Attributes::kernel(memory).writable()
}

impl<B: Backend> Vmalloc<B> {
    /// Maps device registers: Device-nGnRE, never executable. `pa` and `size` may be anything; the
    /// pages around are mapped.
    ///
    /// [Waiting](crate#contexts). Takes the lock of this CPU's shard, or of the common one, for the
    /// addresses; one DSB and one ISB.
    ///
    /// # Errors
    /// [`Error::Empty`], [`Error::BadPhysical`]; [`Error::Ram`] if there is RAM in those pages;
    /// [`Error::OutOfSpace`], [`Error::OutOfNodes`], [`Error::TooLarge`], [`Error::Map`].
    #[track_caller]
    pub fn ioremap(&self, pa: PhysAddr, size: u64) -> Result<VmArea<'_, B>, Error> {
        self.ioremap_as(pa, size, MemoryType::DEVICE_NGNRE, Location::caller())
    }

    /// The same as Normal memory that is not cached, for write combining: frame buffers.
    ///
    /// # Errors
    /// As [`ioremap`](Self::ioremap), in the same contexts.
    #[track_caller]
    pub fn ioremap_wc(&self, pa: PhysAddr, size: u64) -> Result<VmArea<'_, B>, Error> {
        self.ioremap_as(pa, size, MemoryType::NORMAL_NC, Location::caller())
    }

    /// The same as Device-nGnRnE: writes are not posted (PCI configuration space).
    ///
    /// # Errors
    /// As [`ioremap`](Self::ioremap), in the same contexts.
    #[track_caller]
    pub fn ioremap_np(&self, pa: PhysAddr, size: u64) -> Result<VmArea<'_, B>, Error> {
        self.ioremap_as(pa, size, MemoryType::DEVICE_NGNRNE, Location::caller())
    }

    /// The same as Normal write-back memory. RAM is allowed, being mapped so elsewhere.
    ///
    /// [Waiting](crate#contexts), as [`ioremap`](Self::ioremap).
    ///
    /// # Errors
    /// As [`ioremap`](Self::ioremap), but never [`Error::Ram`].
    #[track_caller]
    pub fn ioremap_cache(&self, pa: PhysAddr, size: u64) -> Result<VmArea<'_, B>, Error> {
        self.ioremap_as(pa, size, MemoryType::NORMAL, Location::caller())
    }

    #[inline(always)]
    fn ioremap_as(
        &self,
        pa: PhysAddr,
        size: u64,
        memory: MemoryType,
        caller: &'static Location<'static>,
    ) -> Result<VmArea<'_, B>, Error> {
        if size == 0 {
            return Err(Error::Empty);
        }
        let page = B::Granule::PAGE_SIZE;
        let offset = pa.0 & (page - 1);
        let first = pa.align_down(page);
        // The end of the last page must still be an address, or the first beyond all.
        let end =
            pa.0.checked_add(size - 1)
                .ok_or(Error::BadPhysical { pa, size })?;
        let pages = ((end - first.0) >> B::Granule::PAGE_SHIFT) + 1;
        let whole = pages << B::Granule::PAGE_SHIFT;
        if end >> self.backend.tree().config().pa_bits != 0 {
            return Err(Error::BadPhysical { pa, size });
        }
        let has_ram = self.backend.is_ram(first, whole);
        if has_ram && !ram::may_be(io(memory)) {
            return Err(Error::Ram { pa, size });
        }
        let mut words = record::new(Kind::Ioremap, size, caller);
        record::set_physical(&mut words, pa, has_ram);
        let run = Run { pa: first, pages };
        let place = Place {
            fit: Fit::new(pages),
            phase: Phase::of_run::<B::Granule>(run, self.leaves),
            align: page,
        };
        let mut source = PhysRange::new(first, pages);
        self.map_new(place, &mut source, io(memory), &words, offset, Context::Waiting)
    }

    /// Maps the caller's pages, contiguous or not, readable and writable. They stay their owner's.
    /// A page may be there more than once.
    ///
    /// [Waiting](crate#contexts), as [`ioremap`](Self::ioremap).
    ///
    /// # Errors
    /// [`Error::Empty`], [`Error::TooLarge`] for more pages than there is RAM,
    /// [`Error::OutOfSpace`], [`Error::OutOfNodes`], [`Error::Map`].
    #[track_caller]
    pub fn vmap<A: FrameArray + ?Sized>(&self, frames: &A) -> Result<VmArea<'_, B>, Error> {
        self.vmap_as(frames, Attributes::KERNEL_DATA)
    }

    /// The same with other attributes. Where they are executable, what the pages hold is
    /// [published](Backend::publish_instructions).
    ///
    /// [Waiting](crate#contexts), as [`vmap`](Self::vmap).
    ///
    /// # Errors
    /// As [`vmap`](Self::vmap), and [`Error::Ram`] if one of them is RAM and the attributes are not
    /// of its memory type.
    #[track_caller]
    pub fn vmap_as<A: FrameArray + ?Sized>(
        &self,
        frames: &A,
        attributes: Attributes,
    ) -> Result<VmArea<'_, B>, Error> {
        let caller = Location::caller();
        if !ram::may_be(attributes) {
            return self.vmap_no_ram(frames, self.nr_frames, attributes, caller);
        }
        let size = self.size_of_ram_pages(frames.nr_frames() as u64)?;
        self.vmap_source(|| PageArray::new(frames), size, attributes, caller)
    }

    /// Maps pages that the area takes over: they are freed with it, each as a single frame, and in
    /// no other way.
    ///
    /// [Waiting](crate#contexts), as [`vmap`](Self::vmap).
    ///
    /// # Errors
    /// As [`vmap`](Self::vmap); [`Error::OutOfFrames`] if there is none to note them in;
    /// [`Error::NotToBeTakenOver`] for one that is there twice, or is not the caller's as a single
    /// one, where the [backend](Backend::take_over) can tell. The pages stay the caller's then.
    ///
    /// # Safety
    /// 1. Each frame is the caller's, as [`alloc_frames`](Backend::alloc_frames) gave it, single,
    ///    and is there once: what a backend cannot tell is not looked at.
    /// 2. When the area ends, no frame is used any more by any other way to it.
    #[track_caller]
    pub unsafe fn vmap_put_pages<A: FrameArray + ?Sized>(&self, frames: &A) -> Result<VmArea<'_, B>, Error> {
        let caller = Location::caller();
        let nr = frames.nr_frames() as u64;
        let size = self.size_of_ram_pages(nr)?;
        let blocks = self.under_pressure(|| Blocks::of_single_frames(&self.backend, frames, nr))?;
        // What was taken over is what is mapped, even if the array says otherwise by now.
        let area = self.vmap_source(|| blocks.source(nr), size, Attributes::KERNEL_DATA, caller)?;
        area.keep_blocks(blocks);
        Ok(area)
    }

    /// Maps page frames that are not RAM, contiguous or not: as many as there are addresses for.
    ///
    /// [Waiting](crate#contexts), as [`vmap`](Self::vmap).
    ///
    /// # Errors
    /// As [`vmap`](Self::vmap), but for more than there is RAM, and [`Error::Ram`] if one of them
    /// is RAM.
    #[track_caller]
    pub fn vmap_pfn<A: FrameArray + ?Sized>(
        &self,
        frames: &A,
        attributes: Attributes,
    ) -> Result<VmArea<'_, B>, Error> {
        // What is not RAM may be larger than all of it.
        let limit = self.range().size >> B::Granule::PAGE_SHIFT;
        self.vmap_no_ram(frames, limit, attributes, Location::caller())
    }

    /// Maps up to `limit` frames, none of which is RAM. Each is read once.
    fn vmap_no_ram<A: FrameArray + ?Sized>(
        &self,
        frames: &A,
        limit: u64,
        attributes: Attributes,
        caller: &'static Location<'static>,
    ) -> Result<VmArea<'_, B>, Error> {
        let nr = frames.nr_frames() as u64;
        let size = Self::size_of_pages(nr, limit)?;
        let mut source = NoRam::new(&self.backend, PageArray::new(frames));
        let place = Place {
            fit: Fit::new(nr),
            phase: Phase::of_first_run(&mut source, nr, self.leaves),
            align: B::Granule::PAGE_SIZE,
        };
        let words = record::new(Kind::Vmap, size, caller);
        self.map_new(place, &mut source, attributes, &words, 0, Context::Waiting)
            .map_err(|error| source.refusal(error))
    }

    /// Maps physical extents of the caller's, one behind the other, readable and writable.
    ///
    /// # Errors
    /// As [`vmap`](Self::vmap), in the same contexts.
    #[track_caller]
    pub fn vmap_extents(&self, extents: &[Extent]) -> Result<VmArea<'_, B>, Error> {
        let source = Extents::new(extents);
        let size = self.size_of_ram_pages(PhysSource::<B::Granule>::pages(&source))?;
        self.vmap_source(
            || Extents::new(extents),
            size,
            Attributes::KERNEL_DATA,
            Location::caller(),
        )
    }

    /// Maps `size` bytes, whole pages, of what `new` makes a source of.
    #[inline(always)]
    fn vmap_source<S: PhysSource<B::Granule>>(
        &self,
        new: impl Fn() -> S,
        size: u64,
        attributes: Attributes,
        caller: &'static Location<'static>,
    ) -> Result<VmArea<'_, B>, Error> {
        let mut source = new();
        let words = record::new(Kind::Vmap, size, caller);
        let place = Place {
            fit: Fit::new(size >> B::Granule::PAGE_SHIFT),
            phase: self.phase_of(&mut source, new),
            align: B::Granule::PAGE_SIZE,
        };
        self.map_new(place, &mut source, attributes, &words, 0, Context::Waiting)
    }

    /// Returns the phase for the memory of `source`, of which nothing was read yet.
    #[inline(always)]
    pub(crate) fn phase_of<S: PhysSource<B::Granule>>(
        &self,
        source: &mut S,
        new: impl FnOnce() -> S,
    ) -> Phase {
        let smallest = LeafSize::PAGE_GROUP.bytes::<B::Granule>() >> B::Granule::PAGE_SHIFT;
        if source.pages() < smallest {
            // No leaf but the page fits into it: anywhere is as good.
            Phase::NONE
        } else {
            Phase::of_source(source, self.leaves, new)
        }
    }

    /// Returns the size of `pages` pages, none of which is there more often than all RAM.
    #[inline(always)]
    pub(crate) fn size_of_ram_pages(&self, pages: u64) -> Result<u64, Error> {
        Self::size_of_pages(pages, self.nr_frames)
    }

    /// Returns the size of `pages` pages, which are no more than `limit`.
    #[inline(always)]
    fn size_of_pages(pages: u64, limit: u64) -> Result<u64, Error> {
        if pages == 0 {
            return Err(Error::Empty);
        }
        if pages > limit {
            return Err(Error::TooLarge {
                size: pages.saturating_mul(B::Granule::PAGE_SIZE),
                limit: limit << B::Granule::PAGE_SHIFT,
            });
        }
        Ok(pages << B::Granule::PAGE_SHIFT)
    }

    /// Reserves what suits `phase`, maps it to the memory of `source`, and makes it known.
    #[inline(always)]
    pub(crate) fn map_new<S: PhysSource<B::Granule>>(
        &self,
        place: Place,
        source: &mut S,
        attributes: Attributes,
        words: &[u64; record::WORDS],
        offset: u64,
        context: Context,
    ) -> Result<VmArea<'_, B>, Error> {
        let area = self.reserve(place.fit, place.phase, place.align, words, context)?;
        let range = record::range::<B::Granule>(&area);
        match self.map(range, source, attributes, context) {
            Ok(outcome) => {
                if attributes.is_executable() {
                    self.backend.publish_instructions(range);
                }
                Ok(VmArea::new(self, area, words, offset, outcome))
            }
            Err(error) => {
                self.abandon(area);
                Err(error)
            }
        }
    }

    /// Maps `range`, which no lock is needed for: its addresses are the caller's alone, and nothing
    /// else writes the descriptors that translate them.
    #[inline(always)]
    pub(crate) fn map<S: PhysSource<B::Granule>>(
        &self,
        range: VirtRange,
        source: &mut S,
        attributes: Attributes,
        context: Context,
    ) -> Result<Outcome, Error> {
        match self
            .backend
            .tree()
            .map(range, source, attributes, self.config.leaves)
        {
            Ok(outcome) => Ok(outcome),
            Err(failure) => self.map_again(range, source, attributes, failure, context),
        }
    }

    /// Maps what failed for lack of a table, or because an empty table above the last level is
    /// linked where a block would go: smaller areas have left it, each of which covered a part of
    /// it.
    #[cold]
    #[inline(never)]
    fn map_again<S: PhysSource<B::Granule>>(
        &self,
        range: VirtRange,
        source: &mut S,
        attributes: Attributes,
        failure: Failure,
        context: Context,
    ) -> Result<Outcome, Error> {
        let mut failed = Some(failure);
        let once = || {
            let failure = match failed.take() {
                Some(failure) => failure,
                None => match self.map_once(range, source, attributes) {
                    Ok(outcome) => return Ok(outcome),
                    Err(failure) => failure,
                },
            };
            if !matches!(failure.error, paging::Error::EmptyTable { .. }) {
                return Err(Error::of_map::<B::Granule>(failure));
            }
            // Where a block goes the range covers all that the table translates, and nothing is
            // mapped yet.
            let mut batch = self.backend.tree().batch();
            self.unmap_all(range, &mut batch);
            batch.flush();
            self.map_once(range, source, attributes)
                .map_err(Error::of_map::<B::Granule>)
        };
        if context == Context::Waiting {
            self.under_pressure(once)
        } else {
            let mut once = once;
            once()
        }
    }

    fn map_once<S: PhysSource<B::Granule>>(
        &self,
        range: VirtRange,
        source: &mut S,
        attributes: Attributes,
    ) -> Result<Outcome, Failure> {
        source.rewind();
        self.backend
            .tree()
            .map(range, source, attributes, self.config.leaves)
    }

    /// Reserves addresses for `size` bytes, at a multiple of `align` bytes, and maps nothing.
    /// [`map_pages`](VmArea::map_pages) does.
    ///
    /// [Waiting](crate#contexts). Takes the lock of this CPU's shard, or of the common one; no
    /// table is touched.
    ///
    /// # Errors
    /// [`Error::Empty`], [`Error::BadAlignment`], [`Error::TooLarge`], [`Error::OutOfSpace`],
    /// [`Error::OutOfNodes`].
    #[track_caller]
    pub fn get_vm_area(&self, size: u64, align: u64) -> Result<VmArea<'_, B>, Error> {
        let (pages, align) = self.pages_and_align(size, align)?;
        let words = record::new(Kind::Reserved, size, Location::caller());
        let area = self.reserve(Fit::new(pages), Phase::NONE, align, &words, Context::Waiting)?;
        Ok(VmArea::new(self, area, &words, 0, Outcome::default()))
    }

    /// `size` in pages, and `align` as at least a page.
    #[inline(always)]
    pub(crate) fn pages_and_align(&self, size: u64, align: u64) -> Result<(u64, u64), Error> {
        if size == 0 {
            return Err(Error::Empty);
        }
        if !align.is_power_of_two() {
            return Err(Error::BadAlignment { align });
        }
        if size > self.range().size {
            return Err(Error::TooLarge {
                size,
                limit: self.range().size,
            });
        }
        let pages = size.div_ceil(B::Granule::PAGE_SIZE);
        Ok((pages, align.max(B::Granule::PAGE_SIZE)))
    }
}
