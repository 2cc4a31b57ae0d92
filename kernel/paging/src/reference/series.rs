//! The 2026 series "mm/vmalloc: speed up ioremap, vmalloc and vmap with contiguous memory", as of
//! July.

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

/// 2M with 4 KiB pages.
const BLOCK_LEVEL: Level = LAST_LEVEL - 1;

/// What the 2026 series does.
///
/// - A contiguous range: as [`Rewalk`](super::Rewalk), but a step at the last level writes many
///   groups: the largest power of two left in the table, at most half of it.
/// - An array in chunks: one walk, with level 2 blocks, groups and pages.
/// - An array (`vmap`): scanned for chunks; equal neighbours share a walk. From the first single
///   page on, all is mapped in pages. Each scan goes along the whole physical run.
#[derive(Clone, Copy, Debug, Default)]
pub struct Series {
    /// Keep a defect of July: in the walk for arrays, a step that begins at an offset in a chunk
    /// runs past its end and **maps pages to wrong frames**, without an error.
    pub overrun: bool,
}

#[inline]
fn step_size<G: Granule>(step: &Step) -> u64 {
    if !step.fits_group::<G>() {
        return G::PAGE_SIZE;
    }
    let most = step.left.min(1 << step.max_shift).min(G::size(BLOCK_LEVEL) / 2);
    1 << most.ilog2()
}

impl<G: Granule, T: Tables, M: Mmu> Walker<G, T, M> for Series {
    const NAME: &'static str = "series";

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
        let pages = frames.nr_frames() as u64;
        ctx.check_range(va, pages << G::PAGE_SHIFT)?;
        let mut walk = ArrayWalk {
            ctx,
            frames,
            va,
            shift: G::PAGE_SHIFT,
            attributes,
            overrun: self.overrun,
        };
        let mut levels = LevelMask::NONE;
        // They wait to be mapped, in chunks of `walk.shift`.
        let mut pending = 0;
        let mut page = 0;
        while page < pages {
            let shift = G::PAGE_SHIFT + batch_order::<G, A>(frames, page);
            if shift != walk.shift {
                levels.merge(walk.map(pending, page)?);
                pending = page;
                walk.shift = shift;
            }
            if shift == G::PAGE_SHIFT {
                break;
            }
            page += 1 << (shift - G::PAGE_SHIFT);
        }
        levels.merge(walk.map(pending, pages)?);
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
        let pages = frames.nr_frames() as u64;
        ctx.check_range(va, pages << G::PAGE_SHIFT)?;
        if !(G::PAGE_SHIFT..=ANY_SHIFT).contains(&shift) {
            return Err(Error::ChunkShift(shift));
        }
        ArrayWalk {
            ctx,
            frames,
            va,
            shift,
            attributes,
            overrun: self.overrun,
        }
        .map(0, pages)
    }
}

/// 0 if not worth it.
fn batch_order<G: Granule, A: FrameArray + ?Sized>(frames: &A, page: u64) -> u32 {
    let Some(first) = frames.frame(page as usize) else {
        return 0;
    };
    let run = (page as usize..frames.nr_frames())
        .zip(first.0..)
        .take_while(|(i, n)| frames.frame(*i).is_some_and(|frame| frame.0 == *n))
        .count();
    let order = run.ilog2().min(first.0.trailing_zeros());
    let group = G::cont_shift(LAST_LEVEL);
    let worth_it = (group != 0 && order >= group) || (G::leaf_allowed(BLOCK_LEVEL) && order >= G::INDEX_BITS);
    if worth_it { order } else { 0 }
}

struct ArrayWalk<'c, 'a, G, T, M, A: ?Sized> {
    ctx: &'c Context<'a, G, T, M>,
    frames: &'c A,
    va: VirtAddr,
    shift: u32,
    attributes: Attributes,
    overrun: bool,
}

impl<G: Granule, T: Tables, M: Mmu, A: FrameArray + ?Sized> ArrayWalk<'_, '_, G, T, M, A> {
    fn map(&self, from: u64, to: u64) -> Result<LevelMask, Error> {
        let mut levels = LevelMask::NONE;
        if from != to {
            let start = self.va.add(from << G::PAGE_SHIFT);
            let range = VirtRange::new(start, (to - from) << G::PAGE_SHIFT);
            self.fill_level(self.ctx.root, G::ROOT_LEVEL, range, &mut levels)?;
        }
        Ok(levels)
    }

    #[inline]
    fn output(&self, va: VirtAddr) -> Result<PhysAddr, Error> {
        let page = va.offset_from(self.va) >> G::PAGE_SHIFT;
        self.ctx.output(self.frames.frame(page as usize), page)
    }

    fn fill_level(
        &self,
        table: PhysAddr,
        level: Level,
        range: VirtRange,
        levels: &mut LevelMask,
    ) -> Result<(), Error> {
        for slice in slices::<G>(range, level) {
            if level < BLOCK_LEVEL {
                let next = self.ctx.next_table(table, level, slice.start, levels)?;
                self.fill_level(next, level + 1, slice, levels)?;
                continue;
            }
            if self.shift >= G::shift(level) {
                let pa = self.output(slice.start)?;
                if self
                    .ctx
                    .try_block(table, level, slice, pa, self.shift, self.attributes)?
                {
                    levels.insert(level);
                    continue;
                }
            }
            let next = self.ctx.next_table(table, level, slice.start, levels)?;
            self.fill_last(next, slice, levels)?;
        }
        Ok(())
    }

    fn fill_last(&self, table: PhysAddr, range: VirtRange, levels: &mut LevelMask) -> Result<(), Error> {
        let mut result = Ok(());
        let mut done = 0;
        while done < range.size {
            match self.fill_step(table, range.start.add(done), range.size - done) {
                Ok(size) => done += size,
                Err(error) => {
                    result = Err(error);
                    break;
                }
            }
        }
        if done != 0 {
            self.ctx.publish();
            levels.insert(LAST_LEVEL);
        }
        result
    }

    #[inline]
    fn fill_step(&self, table: PhysAddr, va: VirtAddr, left: u64) -> Result<u64, Error> {
        let index = self.ctx.vacant_page(table, va)?;
        let pa = self.output(va)?;
        let mut size = step_size::<G>(&Step {
            va,
            pa,
            left,
            max_shift: self.shift,
        });
        if !self.overrun && pa.0 != 0 {
            size = size.min(1 << pa.0.trailing_zeros());
        }
        self.ctx.store_pages(table, index, pa, size, self.attributes);
        Ok(size)
    }
}
