//! Memory for whoever cannot wait: [`Request::nowait`](crate::Request::nowait).
//!
//! Addresses first, frames then, the map last; each lock is only tried. The area exists from the first step on, so that
//! whatever a later one fails for, all that was got belongs to an area: it is [deferred](crate::deferred), which waits for nothing either.
//!
//! The physical run is not known when the addresses are chosen, and need not be: a block of frames is aligned to its size, so addresses
//! aligned to the largest leaf that fits are congruent to any blocks that come.

use crate::area::VmArea;
use crate::backend::{Backend, Lock, WalkLock};
use crate::error::Error;
use crate::frames::Blocks;
use crate::place::{self, Phase};
use crate::record::{self, Area, WORDS};
use crate::state::Vmalloc;
use crate::va::{self, Fit};
use core::panic::Location;
use paging::{Attributes, LeafSize, Outcome, PhysAddr, Run};

/// What is asked for.
pub(crate) struct Nowait {
    pub fit: Fit,
    pub align: u64,
    pub max_order: u32,
    pub zero: bool,
    pub attributes: Attributes,
    pub caller: &'static Location<'static>,
}

impl<B: Backend> Vmalloc<B> {
    pub(crate) fn allocate_nowait(
        &self,
        request: &Nowait,
        words: &[u64; WORDS],
    ) -> Result<VmArea<'_, B>, Error> {
        let area = self.reserve_nowait(request, words)?;
        let mut blocks = Blocks::none(&self.backend);
        let result = self.back_nowait(request, &area, &mut blocks);
        match result {
            Ok(outcome) => {
                let area = VmArea::new(self, area, words, 0, outcome);
                area.keep_blocks(blocks);
                Ok(area)
            }
            Err(error) => {
                // It has no frames, or some, none of them mapped: whoever can wait unmaps nothing and frees them.
                blocks.leave_to(&area);
                self.defer(area, request.caller);
                Err(error)
            }
        }
    }

    /// Addresses.
    fn reserve_nowait(&self, request: &Nowait, words: &[u64; WORDS]) -> Result<Area, Error> {
        let blocks = Run {
            pa: PhysAddr(0),
            pages: request.fit.pages.min(1 << request.max_order),
        };
        let phase = Phase::of_run::<B::Granule>(blocks, self.leaves);
        let places = || place::candidates::<B::Granule>(request.fit, phase, request.align, self.leaves);
        if let Some(mut cpu) = self.this_cpu().state.try_lock() {
            // The best place only: what is kept is of the last of its size.
            if let Some(area) = places().next().and_then(|fit| cpu.cache.take(&fit, words)) {
                return Ok(area);
            }
        }
        let mut state = self.state.try_lock().ok_or(Error::WouldBlock)?;
        let mut refused = Error::Empty;
        for fit in places() {
            let reserved = match state.reserve(&fit, words) {
                Err(va::Error::NoNodes) => {
                    // Here it is asked for with the lock held, which nobody waits for meanwhile: nor does it.
                    let page = self.backend.without_waiting(|| self.backend.node_page());
                    state.space.feed(page.ok_or(Error::OutOfNodes)?);
                    state.reserve(&fit, words)
                }
                done => done,
            };
            match reserved {
                Ok(area) => return Ok(area),
                Err(error) => refused = Self::refusal(error),
            }
        }
        Err(refused)
    }

    fn back_nowait(
        &self,
        request: &Nowait,
        area: &Area,
        blocks: &mut Blocks<'_, B>,
    ) -> Result<Outcome, Error> {
        let pages = request.fit.pages;
        self.backend
            .without_waiting(|| blocks.fill(pages, request.max_order, request.zero))?;
        let range = record::range::<B::Granule>(area);
        let _walk = self.backend.walks().try_walk().ok_or(Error::WouldBlock)?;
        let tree = self.backend.tree();
        let map = |leaves| {
            let mut source = blocks.source(pages);
            self.backend
                .without_waiting(|| tree.map(range, &mut source, request.attributes, leaves))
        };
        match map(self.leaves) {
            Err(failure) if matches!(failure.error, paging::Error::EmptyTable { .. }) => {
                // It is taken out with all walks kept out, by a call that can wait. Here no block is mapped.
                Ok(map(self.leaves.at_most(LeafSize::PAGE_GROUP))?)
            }
            done => Ok(done?),
        }
    }
}
