use crate::area::VmArea;
use crate::backend::Backend;
use crate::error::Error;
use crate::frames::{Blocks, block_word};
use crate::map::Place;
use crate::nolock::Nolock;
use crate::place::Phase;
use crate::ram;
use crate::record::{self, Kind, WORDS};
use crate::region::{Context, Vmalloc};
use crate::va::Fit;
use core::panic::Location;
use paging::{Attributes, Granule, LeafSize, Pfn, PhysAddr, PhysRange, Run};

/// A request for memory, for [`Vmalloc::allocate`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use = "a request does nothing until Vmalloc::allocate gets it"]
pub struct Request {
    size: u64,
    align: u64,
    zero: bool,
    huge: bool,
    context: Context,
    attributes: Attributes,
}

impl Request {
    /// Requests `size` readable and writable bytes with arbitrary contents.
    pub const fn new(size: u64) -> Self {
        Self {
            size,
            align: 1,
            zero: false,
            huge: false,
            context: Context::Waiting,
            attributes: Attributes::KERNEL_DATA,
        }
    }

    /// Aligns it to `align` bytes, a power of two.
    pub const fn aligned(self, align: u64) -> Self {
        Self { align, ..self }
    }

    /// Fills it with zeros.
    pub const fn zeroed(self) -> Self {
        Self { zero: true, ..self }
    }

    /// Uses blocks beyond a level 2 leaf too.
    pub const fn huge(self) -> Self {
        Self { huge: true, ..self }
    }

    /// Waits for locks only, and does not flush or purge: for interrupt handlers, or under a lock
    /// that masks interrupts (Linux's `GFP_NOWAIT`).
    pub const fn nowait(self) -> Self {
        Self {
            context: Context::Interrupt,
            ..self
        }
    }

    /// Tries every lock once, for a handler that may have interrupted a lock's holder (Linux's
    /// `alloc_pages_nolock`): fails with [`Error::WouldBlock`] or what is lacking. What it cannot
    /// free then is deferred.
    pub const fn nolock(self) -> Self {
        Self {
            context: Context::Exception,
            ..self
        }
    }

    /// Sets attributes, of RAM's memory type. Executable memory is
    /// [published](Backend::publish_instructions): not for requests that [do not
    /// wait](Self::nowait).
    pub const fn with_attributes(self, attributes: Attributes) -> Self {
        Self { attributes, ..self }
    }
}

impl<B: Backend> Vmalloc<B> {
    /// Allocates `size` bytes with arbitrary contents, in the largest blocks up to a level 2 leaf.
    /// [Waiting](crate#contexts).
    ///
    /// # Errors
    ///
    /// [`Error::Empty`], [`Error::TooLarge`] for more than all RAM, [`Error::OutOfFrames`],
    /// [`Error::OutOfSpace`], [`Error::OutOfNodes`], [`Error::Map`] (no page for a table).
    #[track_caller]
    #[inline]
    pub fn vmalloc(&self, size: u64) -> Result<VmArea<'_, B>, Error> {
        self.allocate_for(&Request::new(size), Kind::Vmalloc, Location::caller())
    }

    /// Allocates zeroed memory.
    ///
    /// # Errors
    ///
    /// As [`vmalloc`](Self::vmalloc), in the same contexts.
    #[track_caller]
    pub fn vzalloc(&self, size: u64) -> Result<VmArea<'_, B>, Error> {
        self.allocate_for(&Request::new(size).zeroed(), Kind::Vmalloc, Location::caller())
    }

    /// Allocates in the largest blocks that there are.
    ///
    /// # Errors
    ///
    /// As [`vmalloc`](Self::vmalloc), in the same contexts.
    #[track_caller]
    pub fn vmalloc_huge(&self, size: u64) -> Result<VmArea<'_, B>, Error> {
        self.allocate_for(&Request::new(size).huge(), Kind::Vmalloc, Location::caller())
    }

    /// Allocates as `request` says. [Waiting](crate#contexts) unless it says otherwise.
    ///
    /// # Errors
    ///
    /// As [`vmalloc`](Self::vmalloc), [`Error::BadAlignment`], and [`Error::MemoryType`].
    #[track_caller]
    pub fn allocate(&self, request: &Request) -> Result<VmArea<'_, B>, Error> {
        self.allocate_for(request, Kind::Vmalloc, Location::caller())
    }

    /// Returns a zeroed stack between guard pages. It grows down from the end of its
    /// [`range`](VmArea::range).
    ///
    /// # Errors
    ///
    /// As [`vmalloc`](Self::vmalloc), in the same contexts.
    #[track_caller]
    pub fn alloc_stack(&self, size: u64) -> Result<VmArea<'_, B>, Error> {
        self.allocate_for(&Request::new(size).zeroed(), Kind::Stack, Location::caller())
    }

    /// Returns a stack at a multiple of `align`, a power of two, so that its pointer's bits show an
    /// overflow.
    ///
    /// # Errors
    ///
    /// As [`alloc_stack`](Self::alloc_stack), and [`Error::BadAlignment`].
    #[track_caller]
    pub fn alloc_stack_aligned(&self, size: u64, align: u64) -> Result<VmArea<'_, B>, Error> {
        let request = Request::new(size).zeroed().aligned(align);
        self.allocate_for(&request, Kind::Stack, Location::caller())
    }

    #[inline(always)]
    fn allocate_for(
        &self,
        request: &Request,
        kind: Kind,
        caller: &'static Location<'static>,
    ) -> Result<VmArea<'_, B>, Error> {
        if !ram::may_be(request.attributes) {
            return Err(Error::MemoryType(request.attributes.memory()));
        }
        let (pages, align) = self.pages_and_align(request.size, request.align)?;
        self.size_of_ram_pages(pages)?;
        let block2 = LeafSize::BLOCK2.bytes::<B::Granule>();
        let usual = (block2 >> B::Granule::PAGE_SHIFT).ilog2();
        let max_order = if request.huge {
            self.backend.max_order()
        } else {
            self.backend.max_order().min(usual)
        };
        let lead = u16::from(kind == Kind::Stack);
        let fit = Fit::new(pages).guarded(lead, 1);
        let mut words = record::new(kind, request.size, caller);
        if request.context != Context::Waiting && request.attributes.is_executable() {
            return Err(Error::WouldBlock);
        }
        if request.context == Context::Exception {
            let request = Nolock {
                fit,
                align,
                max_order,
                zero: request.zero,
                attributes: request.attributes,
                caller,
            };
            return self.allocate_nolock(&request, &words);
        }
        let order = pages.trailing_zeros();
        let mut max_order = max_order;
        if pages.is_power_of_two() && order <= max_order {
            if let Some(first) = self.backend.alloc_frames(order) {
                return self.allocate_block(request, (fit, align), first, order, &mut words);
            }
            max_order = order.saturating_sub(1);
        }
        self.allocate_blocks(request, (fit, align), max_order, &words)
    }

    #[inline(always)]
    fn allocate_block(
        &self,
        request: &Request,
        (fit, align): (Fit, u64),
        first: Pfn,
        order: u32,
        words: &mut [u64; WORDS],
    ) -> Result<VmArea<'_, B>, Error> {
        if request.zero {
            self.backend.zero_frames(first, order);
        }
        record::set_one_block(words, block_word(first, order));
        let run = Run {
            pa: PhysAddr(first.0 << B::Granule::PAGE_SHIFT),
            pages: fit.pages,
        };
        let place = Place {
            fit,
            phase: Phase::of_run::<B::Granule>(run, self.leaves),
            align,
        };
        let mut source = PhysRange::new(run.pa, run.pages);
        let result = self.map_new(place, &mut source, request.attributes, words, 0, request.context);
        if result.is_err() {
            self.backend.free_frames(first, order);
        }
        result
    }

    #[inline(never)]
    fn allocate_blocks(
        &self,
        request: &Request,
        (fit, align): (Fit, u64),
        max_order: u32,
        words: &[u64; WORDS],
    ) -> Result<VmArea<'_, B>, Error> {
        let blocks = self.frames(fit.pages, max_order, request.zero, request.context)?;
        let mut source = blocks.source(fit.pages);
        let place = Place {
            fit,
            phase: self.phase_of(&mut source, || blocks.source(fit.pages)),
            align,
        };
        let area = self.map_new(place, &mut source, request.attributes, words, 0, request.context)?;
        blocks.hand_to(area.area());
        Ok(area)
    }

    /// More than there are is refused before any is taken.
    pub(crate) fn frames(
        &self,
        pages: u64,
        max_order: u32,
        zero: bool,
        context: Context,
    ) -> Result<Blocks<'_, B>, Error> {
        let once = || {
            if pages >= WORTH_COUNTING && !self.backend.has_free_frames(pages) {
                return Err(Error::OutOfFrames {
                    size: pages << B::Granule::PAGE_SHIFT,
                });
            }
            Blocks::allocate(&self.backend, pages, max_order, zero)
        };
        if context == Context::Waiting {
            self.under_pressure(once)
        } else {
            once()
        }
    }
}

const WORTH_COUNTING: u64 = 16;
