//! Memory of its own: `vmalloc` and its kin, and stacks.

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

/// A request for memory. [`Vmalloc::vmalloc`] and its kin are the common ones;
/// [`Vmalloc::allocate`] takes any.
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
    /// `size` bytes, readable and writable, with arbitrary contents.
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

    /// The same at a multiple of `align` bytes, a power of two.
    pub const fn aligned(self, align: u64) -> Self {
        Self { align, ..self }
    }

    /// The same, filled with zeros.
    pub const fn zeroed(self) -> Self {
        Self { zero: true, ..self }
    }

    /// The same in blocks as large as there are, not just of the size of a level 2 leaf.
    pub const fn huge(self) -> Self {
        Self { huge: true, ..self }
    }

    /// The same for an interrupt handler, or under a lock that masks interrupts, as Linux's
    /// `GFP_NOWAIT`: it waits for locks, which all mask interrupts, and for nothing else. Nothing
    /// is flushed, purged or won back: where there is nothing it fails with what it lacks.
    pub const fn nowait(self) -> Self {
        Self {
            context: Context::Interrupt,
            ..self
        }
    }

    /// The same for the handler of an exception that may have interrupted the holder of any lock on
    /// this CPU, as Linux's `alloc_pages_nolock`. Every lock is tried once: where one is taken it
    /// fails with [`Error::WouldBlock`], or with what it lacks.
    ///
    /// What a failed one had got so far cannot always be freed without waiting either. It goes
    /// back with a later call, and is counted in [`Usage::deferred`](crate::Usage::deferred) until
    /// then.
    pub const fn nolock(self) -> Self {
        Self {
            context: Context::Exception,
            ..self
        }
    }

    /// The same with these attributes, of the memory type that RAM has: Normal, write-back, inner
    /// shareable. Where they are executable, what the memory holds is
    /// [published](Backend::publish_instructions); that may wait for other CPUs, so it is not for
    /// what [does not wait](Self::nowait).
    pub const fn with_attributes(self, attributes: Attributes) -> Self {
        Self { attributes, ..self }
    }
}

impl<B: Backend> Vmalloc<B> {
    /// Memory of its own for `size` bytes, virtually contiguous, with arbitrary contents: blocks of
    /// frames of up to a level 2 leaf, large ones first, order by order smaller where there are
    /// none, mapped as what they turned out to be.
    ///
    /// [Waiting](crate#contexts); for other contexts see [`Request::nowait`] and
    /// [`Request::nolock`]. Takes the lock of this CPU's shard, or of the common one, for the
    /// addresses. Where memory, tables or addresses have run out it purges what is lazy, and
    /// tries again, twice at most, before it fails.
    ///
    /// # Errors
    /// [`Error::Empty`], [`Error::TooLarge`] for more than all RAM, [`Error::OutOfFrames`],
    /// [`Error::OutOfSpace`], [`Error::OutOfNodes`], [`Error::Map`] (no page for a table).
    #[track_caller]
    #[inline]
    pub fn vmalloc(&self, size: u64) -> Result<VmArea<'_, B>, Error> {
        self.allocate_for(&Request::new(size), Kind::Vmalloc, Location::caller())
    }

    /// The same, filled with zeros.
    ///
    /// # Errors
    /// As [`vmalloc`](Self::vmalloc), in the same contexts.
    #[track_caller]
    pub fn vzalloc(&self, size: u64) -> Result<VmArea<'_, B>, Error> {
        self.allocate_for(&Request::new(size).zeroed(), Kind::Vmalloc, Location::caller())
    }

    /// The same as [`vmalloc`](Self::vmalloc) in the largest blocks that there are.
    ///
    /// # Errors
    /// As [`vmalloc`](Self::vmalloc), in the same contexts.
    #[track_caller]
    pub fn vmalloc_huge(&self, size: u64) -> Result<VmArea<'_, B>, Error> {
        self.allocate_for(&Request::new(size).huge(), Kind::Vmalloc, Location::caller())
    }

    /// Memory as `request` says.
    ///
    /// [Waiting](crate#contexts), as [`vmalloc`](Self::vmalloc), unless the request is not to wait.
    ///
    /// # Errors
    /// As [`vmalloc`](Self::vmalloc), [`Error::BadAlignment`], and [`Error::MemoryType`].
    #[track_caller]
    pub fn allocate(&self, request: &Request) -> Result<VmArea<'_, B>, Error> {
        self.allocate_for(request, Kind::Vmalloc, Location::caller())
    }

    /// Returns a stack of `size` bytes, filled with zeros, with a guard page of its own below and
    /// one above. It grows down from the end of its [`range`](VmArea::range).
    ///
    /// # Errors
    /// As [`vmalloc`](Self::vmalloc), in the same contexts.
    #[track_caller]
    pub fn alloc_stack(&self, size: u64) -> Result<VmArea<'_, B>, Error> {
        self.allocate_for(&Request::new(size).zeroed(), Kind::Stack, Location::caller())
    }

    /// The same at a multiple of `align` bytes, a power of two: where the bits of a stack pointer
    /// tell whether it has left its stack.
    ///
    /// [Waiting](crate#contexts), as [`vmalloc`](Self::vmalloc).
    ///
    /// # Errors
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
            // Not worth asking again, unless a purge comes first.
            max_order = order.saturating_sub(1);
        }
        self.allocate_blocks(request, (fit, align), max_order, &words)
    }

    /// Memory in one block, which is there.
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

    /// Memory in as many blocks as it takes.
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
        area.keep_blocks(blocks);
        Ok(area)
    }

    /// Frames, after a flush of what is lazy if there are none without. More than there are is
    /// refused before any is taken.
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

/// Pages from which on it is worth asking whether there are so many, before any is taken that
/// others may want.
const WORTH_COUNTING: u64 = 16;
