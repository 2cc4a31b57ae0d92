//! `ioremap`, `vmap`, and bare addresses.

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

#[derive(Clone, Copy)]
pub(crate) struct Place {
    pub fit: Fit,
    pub phase: Phase,
    /// Bytes, a power of two, at least a page.
    pub align: u64,
}

const fn io(memory: MemoryType) -> Attributes {
    Attributes::kernel(memory).writable()
}

impl<B: Backend> Vmalloc<B> {
    /// Maps device registers: Device-nGnRE, never executable. `pa` and `size` need no alignment.
    /// [Waiting](crate#contexts); one DSB and one ISB.
    ///
    /// # Errors
    ///
    /// [`Error::Empty`], [`Error::BadPhysical`]; [`Error::Ram`] if those pages have RAM;
    /// [`Error::OutOfSpace`], [`Error::OutOfNodes`], [`Error::TooLarge`], [`Error::Map`].
    #[track_caller]
    pub fn ioremap(&self, pa: PhysAddr, size: u64) -> Result<VmArea<'_, B>, Error> {
        self.ioremap_as(pa, size, MemoryType::DEVICE_NGNRE, Location::caller())
    }

    /// Maps Normal Non-cacheable, for write combining.
    ///
    /// # Errors
    ///
    /// As [`ioremap`](Self::ioremap), in the same contexts.
    #[track_caller]
    pub fn ioremap_wc(&self, pa: PhysAddr, size: u64) -> Result<VmArea<'_, B>, Error> {
        self.ioremap_as(pa, size, MemoryType::NORMAL_NC, Location::caller())
    }

    /// Maps Device-nGnRnE: writes are not posted.
    ///
    /// # Errors
    ///
    /// As [`ioremap`](Self::ioremap), in the same contexts.
    #[track_caller]
    pub fn ioremap_np(&self, pa: PhysAddr, size: u64) -> Result<VmArea<'_, B>, Error> {
        self.ioremap_as(pa, size, MemoryType::DEVICE_NGNRNE, Location::caller())
    }

    /// Maps Normal write-back, RAM too. [Waiting](crate#contexts).
    ///
    /// # Errors
    ///
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

    /// Maps the caller's pages, readable and writable. They stay their owner's, and may repeat.
    /// [Waiting](crate#contexts).
    ///
    /// # Errors
    ///
    /// [`Error::Empty`], [`Error::TooLarge`] for more pages than RAM has, [`Error::OutOfSpace`],
    /// [`Error::OutOfNodes`], [`Error::Map`].
    #[track_caller]
    pub fn vmap<A: FrameArray + ?Sized>(&self, frames: &A) -> Result<VmArea<'_, B>, Error> {
        self.vmap_as(frames, Attributes::KERNEL_DATA)
    }

    /// Maps pages with `attributes`. Executable ones are
    /// [published](Backend::publish_instructions). [Waiting](crate#contexts).
    ///
    /// # Errors
    ///
    /// As [`vmap`](Self::vmap), and [`Error::Ram`] if one is RAM and the attributes are not of its
    /// memory type.
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

    /// Maps pages that the area takes over: it frees each as a single frame.
    /// [Waiting](crate#contexts).
    ///
    /// # Errors
    ///
    /// As [`vmap`](Self::vmap); [`Error::OutOfFrames`] for their list; [`Error::NotToBeTakenOver`]
    /// for one that repeats or is not the caller's single frame, if the
    /// [backend](Backend::take_over) can tell. The pages stay the caller's then.
    ///
    /// # Safety
    ///
    /// 1. Each frame is the caller's, single as of [`alloc_frames`](Backend::alloc_frames), and
    ///    does not repeat: a backend may not be able to tell.
    /// 2. When the area ends, no frame is in use in any other way.
    #[track_caller]
    pub unsafe fn vmap_put_pages<A: FrameArray + ?Sized>(&self, frames: &A) -> Result<VmArea<'_, B>, Error> {
        let caller = Location::caller();
        let nr = frames.nr_frames() as u64;
        let size = self.size_of_ram_pages(nr)?;
        let blocks = self.under_pressure(|| Blocks::of_single_frames(&self.backend, frames, nr))?;
        let area = self.vmap_source(|| blocks.source(nr), size, Attributes::KERNEL_DATA, caller)?;
        blocks.hand_to(area.area());
        Ok(area)
    }

    /// Maps frames that are not RAM. [Waiting](crate#contexts).
    ///
    /// # Errors
    ///
    /// As [`vmap`](Self::vmap), but not limited by RAM, and [`Error::Ram`] if one is RAM.
    #[track_caller]
    pub fn vmap_pfn<A: FrameArray + ?Sized>(
        &self,
        frames: &A,
        attributes: Attributes,
    ) -> Result<VmArea<'_, B>, Error> {
        let limit = self.range().size >> B::Granule::PAGE_SHIFT;
        self.vmap_no_ram(frames, limit, attributes, Location::caller())
    }

    /// Reads each frame once.
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

    /// Maps the caller's physical extents in order.
    ///
    /// # Errors
    ///
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

    /// `source` was not read yet.
    #[inline(always)]
    pub(crate) fn phase_of<S: PhysSource<B::Granule>>(
        &self,
        source: &mut S,
        new: impl FnOnce() -> S,
    ) -> Phase {
        let smallest = LeafSize::PAGE_GROUP.bytes::<B::Granule>() >> B::Granule::PAGE_SHIFT;
        if source.pages() < smallest {
            // Only pages fit: any place is as good.
            Phase::NONE
        } else {
            Phase::of_source(source, self.leaves, new)
        }
    }

    #[inline(always)]
    pub(crate) fn size_of_ram_pages(&self, pages: u64) -> Result<u64, Error> {
        Self::size_of_pages(pages, self.nr_frames)
    }

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
            Ok(ref outcome) => {
                if attributes.is_executable() {
                    self.backend.publish_instructions(range);
                }
                record::set_ready(&area, words);
                Ok(VmArea::new(self, area, range, offset, outcome))
            }
            Err(error) => {
                self.abandon(area);
                Err(error)
            }
        }
    }

    /// Without a lock: nothing else writes its descriptors.
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
            Ok(outcome) => Ok(outcome.copied()),
            Err(failure) => self.map_again(range, source, attributes, failure, context),
        }
    }

    /// Where a table was lacking, or an empty one above the last level was in a block's way.
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
            // The range covers the table's span, where nothing is mapped.
            let tree = self.backend.tree();
            let mut batch = tree.batch();
            Self::unmap_all(tree, range, &mut batch);
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

    /// Reserves addresses for [`map_pages`](VmArea::map_pages), at a multiple of `align` bytes.
    /// Touches no table. [Waiting](crate#contexts).
    ///
    /// # Errors
    ///
    /// [`Error::Empty`], [`Error::BadAlignment`], [`Error::TooLarge`], [`Error::OutOfSpace`],
    /// [`Error::OutOfNodes`].
    #[track_caller]
    pub fn get_vm_area(&self, size: u64, align: u64) -> Result<VmArea<'_, B>, Error> {
        let (pages, align) = self.pages_and_align(size, align)?;
        let words = record::new(Kind::Reserved, size, Location::caller());
        let area = self.reserve(Fit::new(pages), Phase::NONE, align, &words, Context::Waiting)?;
        record::set_ready(&area, &words);
        Ok(VmArea::adopt(self, area))
    }

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
