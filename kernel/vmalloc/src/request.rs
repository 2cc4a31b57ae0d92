//! Memory of its own: `vmalloc` and its kin, and stacks.

use crate::area::VmArea;
use crate::backend::Backend;
use crate::error::Error;
use crate::frames::{Blocks, block_word};
use crate::map::Place;
use crate::nowait::Nowait;
use crate::place::Phase;
use crate::ram;
use crate::record::{self, Kind, WORDS};
use crate::state::Vmalloc;
use crate::va::Fit;
use core::panic::Location;
use paging::{Attributes, Granule, LeafSize, Pfn, PhysAddr, PhysRange, Run};

/// What memory is asked for. [`Vmalloc::vmalloc`] and its kin are the common ones; [`Vmalloc::allocate`] takes any.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use = "a request does nothing until Vmalloc::allocate gets it"]
pub struct Request {
    size: u64,
    align: u64,
    zero: bool,
    huge: bool,
    wait: bool,
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
            wait: true,
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

    /// The same without waiting for anything, as Linux's `GFP_NOWAIT`: not for a lock, not for memory to be won back. Where it would have to
    /// wait it fails, with [`Error::WouldBlock`] or with what it lacks. May be asked for with any lock held that is not one of
    /// the subsystem's, with interrupts masked, and in an interrupt handler.
    ///
    /// What a failed one had got so far cannot always be given back without waiting either. It goes back with the next call
    /// that can wait, and is counted in [`Usage::deferred`](crate::Usage::deferred) until then.
    pub const fn nowait(self) -> Self {
        Self { wait: false, ..self }
    }

    /// The same with these attributes, of the memory type that RAM has: Normal, write-back, inner shareable. Where they are executable, what the memory
    /// holds is [published](Backend::publish_instructions); that may wait for other CPUs, so it is not for who [does not wait](Self::nowait).
    pub const fn with_attributes(self, attributes: Attributes) -> Self {
        Self { attributes, ..self }
    }
}

impl<B: Backend> Vmalloc<B> {
    /// Memory of its own for `size` bytes, virtually contiguous, with arbitrary contents: blocks of frames of up to a level 2
    /// leaf, large ones first, order by order smaller where there are none, mapped as what they turned out to be.
    ///
    /// [Waiting](crate#contexts); for other contexts see [`Request::nowait`]. Takes this CPU's lock or the state lock for the addresses, and shares the walk lock for the map. Where
    /// memory, tables or addresses have run out it purges what is withheld, and tries again, before it fails.
    ///
    /// # Errors
    /// [`Error::Empty`], [`Error::TooLarge`] for more than all RAM, [`Error::OutOfFrames`], [`Error::OutOfSpace`],
    /// [`Error::OutOfNodes`], [`Error::Map`] (no page for a table).
    #[track_caller]
    #[inline]
    pub fn vmalloc(&self, size: u64) -> Result<VmArea<'_, B>, Error> {
        self.allocate_for(&Request::new(size), Kind::Vmalloc, Location::caller())
    }

    /// The same, filled with zeros.
    ///
    /// [Waiting](crate#contexts), as [`vmalloc`](Self::vmalloc).
    ///
    /// # Errors
    /// As [`vmalloc`](Self::vmalloc).
    #[track_caller]
    pub fn vzalloc(&self, size: u64) -> Result<VmArea<'_, B>, Error> {
        self.allocate_for(&Request::new(size).zeroed(), Kind::Vmalloc, Location::caller())
    }

    /// The same as [`vmalloc`](Self::vmalloc) in the largest blocks that there are.
    ///
    /// [Waiting](crate#contexts), as [`vmalloc`](Self::vmalloc).
    ///
    /// # Errors
    /// As [`vmalloc`](Self::vmalloc).
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

    /// A stack of `size` bytes, filled with zeros, with a guard page of its own below and one above. It grows down from the end
    /// of its [`range`](VmArea::range).
    ///
    /// [Waiting](crate#contexts), as [`vmalloc`](Self::vmalloc).
    ///
    /// # Errors
    /// As [`vmalloc`](Self::vmalloc).
    #[track_caller]
    pub fn alloc_stack(&self, size: u64) -> Result<VmArea<'_, B>, Error> {
        self.allocate_for(&Request::new(size).zeroed(), Kind::Stack, Location::caller())
    }

    /// The same at a multiple of `align` bytes, a power of two: where the bits of a stack pointer tell whether it has left its stack.
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
        let lead = u8::from(kind == Kind::Stack);
        let fit = Fit::new(pages).guarded(lead, 1);
        let mut words = record::new(kind, request.size, caller);
        if !request.wait {
            if request.attributes.is_executable() {
                return Err(Error::WouldBlock);
            }
            let request = Nowait {
                fit,
                align,
                max_order,
                zero: request.zero,
                attributes: request.attributes,
                caller,
            };
            return self.allocate_nowait(&request, &words);
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
        let result = self.map_new(place, &mut source, request.attributes, words, 0);
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
        let blocks = self.frames(fit.pages, max_order, request.zero)?;
        let mut source = blocks.source(fit.pages);
        let place = Place {
            fit,
            phase: self.phase_of(&mut source, || blocks.source(fit.pages)),
            align,
        };
        let area = self.map_new(place, &mut source, request.attributes, words, 0)?;
        area.keep_blocks(blocks);
        Ok(area)
    }

    /// Frames, after a flush of what is withheld if there are none without.
    pub(crate) fn frames(&self, pages: u64, max_order: u32, zero: bool) -> Result<Blocks<'_, B>, Error> {
        loop {
            let purges = self.nr_purges();
            match Blocks::allocate(&self.backend, pages, max_order, zero) {
                // Others may be faster to take what comes back, but each time somebody has got on.
                Err(Error::OutOfFrames { .. }) if self.purge_and_prune(purges) => {}
                done => return done,
            }
        }
    }
}
