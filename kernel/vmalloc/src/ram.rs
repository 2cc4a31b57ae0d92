//! RAM may only be mapped as the linear map has it ([`RAM`]): mismatched types are not coherent
//! (Arm ARM B2.8, "Mismatched memory attributes"). Another type would require removing the linear
//! alias, and cleaning and invalidating its lines. So it is refused (DESIGN rule 12): `allocate`
//! checks the attributes, `ioremap` and its kin the range, `vmap_as`, `map_pages`, `vmap_pfn` [each
//! page](NoRam).
//!
//! Memory to be mapped uncached is kept out of the linear map (`no-map` in a device tree): it is
//! not RAM here.

use crate::backend::Backend;
use crate::error::Error;
use paging::{Attributes, Granule, MemoryType, PhysAddr, PhysSource, Run};

const RAM: MemoryType = MemoryType::NORMAL;

#[inline(always)]
pub(crate) const fn may_be(attributes: Attributes) -> bool {
    let memory = attributes.memory();
    memory.index() == RAM.index() && memory.shareability() == RAM.shareability()
}

/// What was checked is mapped, even if an array changes.
pub(crate) struct NoRam<'b, B: Backend, S> {
    backend: &'b B,
    source: S,
    /// Where the source ends.
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

    #[cold]
    pub fn refusal(&self, error: Error) -> Error {
        self.met.map_or(error, |pa| Error::Ram {
            pa,
            size: B::Granule::PAGE_SIZE,
        })
    }

    #[inline]
    fn before_ram(&mut self, run: Run) -> Option<Run> {
        let page = B::Granule::PAGE_SIZE;
        let bytes = run.pages.saturating_mul(page);
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

    paging::passed_by_reference!();

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
