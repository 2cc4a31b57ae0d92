//! What RAM may be mapped as: [`RAM`], which is what the linear map has it as, and nothing else.
//!
//! Two mappings of one place with different memory types are not coherent (Arm ARM B2.8,
//! "Mismatched memory attributes"). A second type would need the linear map's alias to be taken
//! out, and its lines to be cleaned and invalidated, before the new mapping is used, and again
//! before the alias comes back. So it is refused (DESIGN rule 12), by each call that maps frames
//! with attributes of the caller's:
//!
//! | call | what is looked at |
//! |---|---|
//! | `allocate` | the attributes: its frames are RAM |
//! | `ioremap` and its kin | the range |
//! | `vmap_as`, `map_pages`, `vmap_pfn` | [each page](NoRam), as it is handed out to be mapped |
//!
//! `vmap_pfn` refuses RAM with any attributes: that is what it is for. Memory that is to be seen
//! uncached is kept out of the linear map from the start (`no-map` in a device tree): then it is no
//! RAM here, and `ioremap_wc` maps it.

use crate::backend::Backend;
use crate::error::Error;
use paging::{Attributes, Granule, MemoryType, PhysAddr, PhysSource, Run};

/// The memory type of RAM.
const RAM: MemoryType = MemoryType::NORMAL;

/// Returns whether RAM may be mapped with `attributes`.
#[inline(always)]
pub(crate) const fn may_be(attributes: Attributes) -> bool {
    let memory = attributes.memory();
    memory.index() == RAM.index() && memory.shareability() == RAM.shareability()
}

/// The pages of another source, none of which is RAM. Each is looked at when it is handed out, and
/// what was looked at is what is mapped: an array that changes meanwhile gets nothing past it.
pub(crate) struct NoRam<'b, B: Backend, S> {
    backend: &'b B,
    source: S,
    /// The first page of RAM that was met. No page is handed out from there on.
    met: Option<PhysAddr>,
}

impl<'b, B: Backend, S: PhysSource<B::Granule>> NoRam<'b, B, S> {
    pub const fn new(backend: &'b B, source: S) -> Self {
        Self {
            backend,
            source,
            met: None,
        }
    }

    /// Why a map of these pages failed, which has failed with `error`.
    #[cold]
    pub fn refusal(&self, error: Error) -> Error {
        self.met.map_or(error, |pa| Error::Ram {
            pa,
            size: B::Granule::PAGE_SIZE,
        })
    }

    /// As much of `run` as lies before the first page of RAM.
    #[inline]
    fn before_ram(&mut self, run: Run) -> Option<Run> {
        let page = B::Granule::PAGE_SIZE;
        let bytes = run.pages.saturating_mul(page);
        // What is no address of a page, or wraps, is refused by the map, which names it as it was
        // given.
        if !run.pa.is_aligned(page)
            || run.pa.0.checked_add(bytes).is_none()
            || !self.backend.is_ram(run.pa, bytes)
        {
            return Some(run);
        }
        let is_ram = |nr: &u64| self.backend.is_ram(run.pa.add(nr * page), page);
        let pages = (0..run.pages).find(is_ram).unwrap_or(run.pages);
        if pages == 0 {
            self.met = Some(run.pa);
        }
        (pages != 0).then_some(Run { pages, ..run })
    }
}

impl<B: Backend, S: PhysSource<B::Granule>> PhysSource<B::Granule> for NoRam<'_, B, S> {
    const RUNS_ARE_FREE: bool = S::RUNS_ARE_FREE;

    #[inline(always)]
    fn pages(&self) -> u64 {
        self.source.pages()
    }

    #[inline]
    fn run_at(&mut self, page: u64, limit: u64) -> Option<Run> {
        let run = self.source.run_at(page, limit)?;
        self.before_ram(run)
    }

    #[cold]
    fn rewind(&mut self) {
        self.source.rewind();
        self.met = None;
    }
}
