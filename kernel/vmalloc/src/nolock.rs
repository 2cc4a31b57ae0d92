//! [`Request::nolock`](crate::Request::nolock): memory without waiting for a lock.
//!
//! Addresses come first: if a later step fails, frames belong to an area, whose free is
//! [deferred](crate::deferred). A block of frames is aligned to its size, so addresses aligned to
//! the largest leaf fit any.

use crate::area::VmArea;
use crate::backend::Backend;
use crate::error::Error;
use crate::frames::Blocks;
use crate::place::Phase;
use crate::record::{self, Area, WORDS};
use crate::region::{Context, Vmalloc};
use crate::va::Fit;
use core::panic::Location;
use paging::{Attributes, LeafSize, Outcome, PhysAddr, PhysSource, Run};

pub(crate) struct Nolock {
    pub fit: Fit,
    pub align: u64,
    pub max_order: u32,
    pub zero: bool,
    pub attributes: Attributes,
    pub caller: &'static Location<'static>,
}

impl<B: Backend> Vmalloc<B> {
    pub(crate) fn allocate_nolock(
        &self,
        request: &Nolock,
        words: &[u64; WORDS],
    ) -> Result<VmArea<'_, B>, Error> {
        let blocks = Run {
            pa: PhysAddr(0),
            pages: request.fit.pages.min(1 << request.max_order),
        };
        let phase = Phase::of_run::<B::Granule>(blocks, self.leaves);
        let area = self.reserve_once(request.fit, phase, request.align, words, Context::Exception)?;
        let mut blocks = Blocks::new(&self.backend);
        match self.back_nolock(request, &area, &mut blocks) {
            Ok(outcome) => {
                record::set_ready(&area, words);
                let range = record::range::<B::Granule>(&area);
                let area = VmArea::new(self, area, range, 0, &outcome);
                blocks.hand_to(area.area());
                Ok(area)
            }
            Err(error) => {
                // Without frames, or with unmapped ones: a later call frees them.
                blocks.hand_to(&area);
                self.defer(area, request.caller);
                Err(error)
            }
        }
    }

    fn back_nolock(
        &self,
        request: &Nolock,
        area: &Area,
        blocks: &mut Blocks<'_, B>,
    ) -> Result<Outcome, Error> {
        let pages = request.fit.pages;
        self.backend
            .without_waiting(|| blocks.fill(pages, request.max_order, request.zero))?;
        let range = record::range::<B::Granule>(area);
        let mut source = blocks.source(pages);
        let tree = self.backend.tree();
        self.backend.without_waiting(|| {
            match tree.map(range, &mut source, request.attributes, self.leaves) {
                // An empty table cannot be freed here, so pages and groups must do.
                Err(failure) if matches!(failure.error, paging::Error::EmptyTable { .. }) => {
                    PhysSource::<B::Granule>::rewind(&mut source);
                    let leaves = self.leaves.at_most(LeafSize::PAGE_GROUP);
                    Ok(tree.map(range, &mut source, request.attributes, leaves)?)
                }
                mapped => Ok(mapped?),
            }
        })
    }
}
