//! Linux's `vmap_range_noflush`. The step at the last level is an architecture hook.

use super::Error;
use super::context::{Context, slices};
use crate::addr::{Pfn, PhysAddr, VirtAddr, VirtRange};
use crate::descriptor::Attributes;
use crate::granule::{Granule, LAST_LEVEL, Level};
use crate::mmu::Mmu;
use crate::outcome::LevelMask;
use crate::tables::Tables;

pub(super) const ANY_SHIFT: u32 = 63;

pub(super) struct Step {
    pub(super) va: VirtAddr,
    pub(super) pa: PhysAddr,
    /// To the end of the range or of the table.
    pub(super) left: u64,
    pub(super) max_shift: u32,
}

impl Step {
    #[inline]
    pub(super) fn fits_group<G: Granule>(&self) -> bool {
        let group = G::cont_size(LAST_LEVEL);
        G::cont_shift(LAST_LEVEL) != 0
            && self.max_shift >= group.trailing_zeros()
            && self.left >= group
            && (self.va.0 | self.pa.0) & (group - 1) == 0
    }
}

/// `step_size` returns the bytes of one step at the last level.
pub(super) struct RangeWalk<'c, 'a, G, T, M, S> {
    pub(super) ctx: &'c Context<'a, G, T, M>,
    pub(super) attributes: Attributes,
    /// Of the largest leaf allowed.
    pub(super) max_shift: u32,
    pub(super) step_size: S,
}

impl<G: Granule, T: Tables, M: Mmu, S: Fn(&Step) -> u64> RangeWalk<'_, '_, G, T, M, S> {
    pub(super) fn map(&self, range: VirtRange, pa: PhysAddr) -> Result<LevelMask, Error> {
        self.ctx.check_range(range.start, range.size)?;
        if !pa.is_aligned(G::PAGE_SIZE) {
            return Err(Error::Misaligned(pa.0));
        }
        let last = pa.0.saturating_add(range.size - 1);
        self.ctx.output(Some(Pfn(last >> G::PAGE_SHIFT)), 0)?;
        let mut levels = LevelMask::NONE;
        self.fill_level(self.ctx.root, G::ROOT_LEVEL, range, pa, &mut levels)?;
        Ok(levels)
    }

    fn fill_level(
        &self,
        table: PhysAddr,
        level: Level,
        range: VirtRange,
        pa: PhysAddr,
        levels: &mut LevelMask,
    ) -> Result<(), Error> {
        for slice in slices::<G>(range, level) {
            let pa = pa.add(slice.start.offset_from(range.start));
            if self
                .ctx
                .try_block(table, level, slice, pa, self.max_shift, self.attributes)?
            {
                levels.insert(level);
                continue;
            }
            let next = self.ctx.next_table(table, level, slice.start, levels)?;
            if level + 1 == LAST_LEVEL {
                self.fill_last(next, slice, pa, levels)?;
            } else {
                self.fill_level(next, level + 1, slice, pa, levels)?;
            }
        }
        Ok(())
    }

    /// One pair of barriers, on errors too.
    fn fill_last(
        &self,
        table: PhysAddr,
        range: VirtRange,
        pa: PhysAddr,
        levels: &mut LevelMask,
    ) -> Result<(), Error> {
        let mut done = 0;
        let mut result = Ok(());
        while done < range.size {
            let va = range.start.add(done);
            let index = match self.ctx.vacant_page(table, va) {
                Ok(index) => index,
                Err(error) => {
                    result = Err(error);
                    break;
                }
            };
            let step = Step {
                va,
                pa: pa.add(done),
                left: range.size - done,
                max_shift: self.max_shift,
            };
            let size = (self.step_size)(&step);
            self.ctx.store_pages(table, index, step.pa, size, self.attributes);
            done += size;
        }
        if done != 0 {
            self.ctx.publish();
            levels.insert(LAST_LEVEL);
        }
        result
    }
}
