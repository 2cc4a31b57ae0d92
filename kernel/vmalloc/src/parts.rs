//! Parts of an area: sparse areas, which are mapped and unmapped by parts, and who may change what of an area at once.
//!
//! Tables are changed beside others' changes because everybody changes leaves that are his alone. Of one area that is not so: two calls may
//! want parts of one leaf, which only one of them can split, or the same pages. So one call at a time changes parts of an area: under the area's
//! parts lock, one of a few that all areas share.

use crate::area::VmArea;
use crate::backend::{Backend, Lock};
use crate::error::Error;
use crate::ram::{self, NoRam};
use crate::record::{self, Kind};
use crate::state::Vmalloc;
use paging::{Attributes, FrameArray, Granule, Outcome, PageArray, PhysSource, VirtAddr, VirtRange};

/// Parts locks. A fixed number: areas that share one wait for each other, and that is all.
const NR_PARTS_LOCKS: usize = 16;

/// What a parts lock guards: that nobody else changes parts of the areas that it is for.
pub(crate) struct Parts;

/// All parts locks.
pub(crate) struct PartsLocks<B: Backend>([B::Lock<Parts>; NR_PARTS_LOCKS]);

impl<B: Backend> PartsLocks<B> {
    pub fn new() -> Self {
        Self(core::array::from_fn(|_| B::Lock::new(Parts)))
    }

    /// The lock of the area whose first page is at `start`.
    pub fn of(&self, start: VirtAddr) -> &B::Lock<Parts> {
        // The upper half of a product with the golden ratio: areas side by side, and at large strides, are spread alike.
        let page = start.0 >> B::Granule::PAGE_SHIFT;
        let spread = page.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        &self.0[spread as usize % NR_PARTS_LOCKS]
    }
}

impl<B: Backend> VmArea<'_, B> {
    /// The pages from `offset` on, `size` bytes, if they lie in a reserved area.
    fn part(&self, offset: u64, size: u64) -> Result<VirtRange, Error> {
        if self.kind() != Kind::Reserved {
            return Err(Error::WrongKind {
                area: self.info(),
                expected: Kind::Reserved,
            });
        }
        self.pages_at(offset, size)
    }

    /// Maps `frames` at `offset` in a reserved area: Linux's `vm_area_map_pages`. Where the attributes are executable, what the pages hold is
    /// [published](Backend::publish_instructions).
    ///
    /// [Waiting](crate#contexts): for the area's parts lock; shares the walk lock.
    ///
    /// # Errors
    /// [`Error::WrongKind`] for another kind of area, [`Error::Misaligned`], [`Error::Empty`], [`Error::OutOfBounds`];
    /// [`Error::Ram`] if one of them is RAM and the attributes are not of its memory type; or [`Error::Map`].
    pub fn map_pages<A: FrameArray + ?Sized>(
        &self,
        offset: u64,
        frames: &A,
        attributes: Attributes,
    ) -> Result<Outcome, Error> {
        let most = u64::MAX >> B::Granule::PAGE_SHIFT;
        let size = (frames.nr_frames() as u64).min(most) << B::Granule::PAGE_SHIFT;
        let range = self.part(offset, size)?;
        let vm = self.manager();
        let result = vm.under_pressure(|| {
            let _parts = vm.parts.of(self.range().start).lock();
            record::set_pages_mapped(self.area());
            let mut source = PageArray::new(frames);
            if ram::may_be(attributes) {
                return vm.map_part(range, &mut source, attributes);
            }
            let mut source = NoRam::new(&vm.backend, source);
            vm.map_part(range, &mut source, attributes)
                .map_err(|error| source.refusal(error))
        });
        if result.is_ok() && attributes.is_executable() {
            vm.backend.publish_instructions(range);
        }
        result
    }

    /// Unmaps the pages at `offset` in a reserved area, and flushes: Linux's `vm_area_unmap_pages`. Holes are passed over;
    /// a larger leaf that the part cuts is split.
    ///
    /// [Waiting](crate#contexts): for the area's parts lock; shares the walk lock, and flushes before it returns.
    ///
    /// # Errors
    /// As [`map_pages`](Self::map_pages).
    pub fn unmap_pages(&self, offset: u64, size: u64) -> Result<Outcome, Error> {
        let range = self.part(offset, size)?;
        let vm = self.manager();
        vm.under_pressure(|| {
            let _parts = vm.parts.of(self.range().start).lock();
            let mut batch = vm.backend.tree().batch();
            let outcome = vm.unmap(range, &mut batch)?;
            vm.flush(&mut batch);
            Ok(outcome)
        })
    }
}

impl<B: Backend> Vmalloc<B> {
    /// Maps `range`, part of an area whose parts lock is held. Nothing is given back where there is no table: that is for whoever holds no lock.
    fn map_part<S: PhysSource<B::Granule>>(
        &self,
        range: VirtRange,
        source: &mut S,
        attributes: Attributes,
    ) -> Result<Outcome, Error> {
        let mut tries = 0;
        loop {
            let mapped = self.map_once(range, source, attributes);
            let Err(failure) = mapped else {
                return mapped.map_err(Error::of_map::<B::Granule>);
            };
            let in_the_way = matches!(failure.error, paging::Error::EmptyTable { .. });
            if in_the_way || failure.tables_left != 0 {
                self.prune(range);
            }
            if !in_the_way || tries != 0 {
                return Err(Error::of_map::<B::Granule>(failure));
            }
            tries += 1;
            source.rewind();
        }
    }

    /// Calls `once`, with no lock held, until it succeeds, or fails for something else than memory, or there was nothing to give back that
    /// was withheld.
    #[inline(always)]
    pub(crate) fn under_pressure<R>(&self, mut once: impl FnMut() -> Result<R, Error>) -> Result<R, Error> {
        loop {
            let purges = self.nr_purges();
            match once() {
                Err(error) if error.is_for_memory() && self.purge_and_prune(purges) => {}
                done => return done,
            }
        }
    }
}
