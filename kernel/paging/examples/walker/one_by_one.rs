//! [`OneByOne`]: walks from the root for every page, with one pair of barriers.

use paging::reference::{Context, Error, Walker};
use paging::{Attributes, FrameArray, Granule, LAST_LEVEL, LevelMask, Mmu, Pfn, PhysAddr, Tables, VirtAddr};

/// The least to write: pages only, unmapped as Linux does.
#[derive(Clone, Copy, Debug, Default)]
pub struct OneByOne;

impl<G: Granule, T: Tables, M: Mmu> Walker<G, T, M> for OneByOne {
    const NAME: &'static str = "one-by-one";

    fn map_range(
        &self,
        ctx: &Context<'_, G, T, M>,
        va: VirtAddr,
        pa: PhysAddr,
        size: u64,
        attributes: Attributes,
    ) -> Result<LevelMask, Error> {
        let first = pa.0 >> G::PAGE_SHIFT;
        self.map(
            ctx,
            va,
            size >> G::PAGE_SHIFT,
            |page| Some(Pfn(first + page)),
            attributes,
        )
    }

    fn map_pages<A: FrameArray + ?Sized>(
        &self,
        ctx: &Context<'_, G, T, M>,
        va: VirtAddr,
        frames: &A,
        attributes: Attributes,
    ) -> Result<LevelMask, Error> {
        let pages = frames.nr_frames() as u64;
        self.map(ctx, va, pages, |page| frames.frame(page as usize), attributes)
    }
}

impl OneByOne {
    fn map<G: Granule, T: Tables, M: Mmu>(
        &self,
        ctx: &Context<'_, G, T, M>,
        va: VirtAddr,
        pages: u64,
        frame: impl Fn(u64) -> Option<Pfn>,
        attributes: Attributes,
    ) -> Result<LevelMask, Error> {
        ctx.check_range(va, pages << G::PAGE_SHIFT)?;
        let mut levels = LevelMask::NONE;
        for page in 0..pages {
            let va = va.add(page << G::PAGE_SHIFT);
            let pa = ctx.output(frame(page), page)?;
            let table = ctx.table_for(va, LAST_LEVEL, &mut levels)?;
            ctx.store_page(table, va, pa, attributes, &mut levels)?;
        }
        // Walks see the stores, and this CPU forgets a fault it may have speculated.
        ctx.mmu.dsb_ishst();
        ctx.mmu.isb();
        Ok(levels)
    }
}
