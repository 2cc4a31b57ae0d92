//! Memory where no lock may be waited for: [`Request::nolock`](crate::Request::nolock).
//!
//! Addresses first, then frames, then the map; each lock is only tried. The area exists from the
//! first step on, so if a later step fails, all that was allocated belongs to an area, whose free
//! is [deferred](crate::deferred).
//!
//! The physical run is not known when the addresses are chosen, and need not be: a block of frames
//! is aligned to its size, so addresses aligned to the largest leaf that fits are congruent to any
//! block.

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

/// What is asked for.
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
                let area = VmArea::new(self, area, words, 0, outcome);
                area.keep_blocks(blocks);
                Ok(area)
            }
            Err(error) => {
                // It has no frames, or some, none of them mapped: a later call unmaps nothing and
                // frees them.
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
                // An empty table is in the way of a block, and cannot be freed here: groups of
                // pages do as well.
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
