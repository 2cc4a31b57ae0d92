use super::context::{Context, slices};
use super::range::{ANY_SHIFT, RangeWalk, Step};
use super::{Error, Walker};
use crate::addr::{PhysAddr, VirtAddr, VirtRange};
use crate::descriptor::Attributes;
use crate::granule::{Granule, LAST_LEVEL, Level};
use crate::mmu::Mmu;
use crate::outcome::LevelMask;
use crate::source::FrameArray;
use crate::tables::Tables;

/// Linux up to 7.3.
///
/// - A contiguous range: one walk; blocks where the slice is exactly one, groups one by one, pages.
/// - An array (`vmap`): one walk, pages only.
/// - An array in chunks (`vmalloc` with large blocks): a walk from the root for every chunk.
///
/// DSB ISHST and ISB for every last-level table visited, and for every block or link.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rewalk;

#[inline]
fn step_size<G: Granule>(step: &Step) -> u64 {
    if step.fits_group::<G>() {
        G::cont_size(LAST_LEVEL)
    } else {
        G::PAGE_SIZE
    }
}

impl<G: Granule, T: Tables, M: Mmu> Walker<G, T, M> for Rewalk {
    const NAME: &'static str = "rewalk";

    fn map_range(
        &self,
        ctx: &Context<'_, G, T, M>,
        va: VirtAddr,
        pa: PhysAddr,
        size: u64,
        attributes: Attributes,
    ) -> Result<LevelMask, Error> {
        RangeWalk {
            ctx,
            attributes,
            max_shift: ANY_SHIFT,
            step_size: step_size::<G>,
        }
        .map(VirtRange::new(va, size), pa)
    }

    fn map_pages<A: FrameArray + ?Sized>(
        &self,
        ctx: &Context<'_, G, T, M>,
        va: VirtAddr,
        frames: &A,
        attributes: Attributes,
    ) -> Result<LevelMask, Error> {
        let size = (frames.nr_frames() as u64) << G::PAGE_SHIFT;
        ctx.check_range(va, size)?;
        let walk = PagesWalk {
            ctx,
            frames,
            va,
            attributes,
        };
        let mut levels = LevelMask::NONE;
        let range = VirtRange::new(va, size);
        walk.fill_level(ctx.root, G::ROOT_LEVEL, range, &mut levels)?;
        Ok(levels)
    }

    fn map_chunks<A: FrameArray + ?Sized>(
        &self,
        ctx: &Context<'_, G, T, M>,
        va: VirtAddr,
        frames: &A,
        shift: u32,
        attributes: Attributes,
    ) -> Result<LevelMask, Error> {
        if shift == G::PAGE_SHIFT {
            return self.map_pages(ctx, va, frames, attributes);
        }
        let total = (frames.nr_frames() as u64) << G::PAGE_SHIFT;
        ctx.check_range(va, total)?;
        if !(G::PAGE_SHIFT..=ANY_SHIFT).contains(&shift) {
            return Err(Error::ChunkShift(shift));
        }
        let walk = RangeWalk {
            ctx,
            attributes,
            max_shift: shift,
            step_size: step_size::<G>,
        };
        let mut levels = LevelMask::NONE;
        let mut done = 0;
        while done < total {
            // The first frame stands for the chunk.
            let page = done >> G::PAGE_SHIFT;
            let pa = ctx.output(frames.frame(page as usize), page)?;
            let size = (total - done).min(1 << shift);
            levels.merge(walk.map(VirtRange::new(va.add(done), size), pa)?);
            done += size;
        }
        Ok(levels)
    }
}

struct PagesWalk<'c, 'a, G, T, M, A: ?Sized> {
    ctx: &'c Context<'a, G, T, M>,
    frames: &'c A,
    va: VirtAddr,
    attributes: Attributes,
}

impl<G: Granule, T: Tables, M: Mmu, A: FrameArray + ?Sized> PagesWalk<'_, '_, G, T, M, A> {
    fn fill_level(
        &self,
        table: PhysAddr,
        level: Level,
        range: VirtRange,
        levels: &mut LevelMask,
    ) -> Result<(), Error> {
        for slice in slices::<G>(range, level) {
            let next = self.ctx.next_table(table, level, slice.start, levels)?;
            if level + 1 == LAST_LEVEL {
                self.fill_last(next, slice, levels)?;
            } else {
                self.fill_level(next, level + 1, slice, levels)?;
            }
        }
        Ok(())
    }

    fn fill_last(&self, table: PhysAddr, range: VirtRange, levels: &mut LevelMask) -> Result<(), Error> {
        let mut page = range.start.offset_from(self.va) >> G::PAGE_SHIFT;
        let mut result = Ok(());
        let mut done = 0;
        while done < range.size {
            result = self.fill_page(table, range.start.add(done), page);
            if result.is_err() {
                break;
            }
            page += 1;
            done += G::PAGE_SIZE;
        }
        if done != 0 {
            self.ctx.publish();
            levels.insert(LAST_LEVEL);
        }
        result
    }

    #[inline]
    fn fill_page(&self, table: PhysAddr, va: VirtAddr, page: u64) -> Result<(), Error> {
        let index = self.ctx.vacant_page(table, va)?;
        let pa = self.ctx.output(self.frames.frame(page as usize), page)?;
        self.ctx
            .store_pages(table, index, pa, G::PAGE_SIZE, self.attributes);
        Ok(())
    }
}
