use super::Error;
use super::context::{Context, slices};
use super::flush::flush_range;
use crate::addr::{PhysAddr, VirtAddr, VirtRange};
use crate::descriptor::Descriptor;
use crate::granule::{Granule, LAST_LEVEL, Level};
use crate::mmu::Mmu;
use crate::outcome::{LeafSize, LevelMask};
use crate::tables::Tables;

/// Linux's `vunmap_range`: blocks whole, pages and groups by an exchange per descriptor. Empty
/// tables stay.
///
/// # Errors
/// [`Error::PartialLeaf`] where Linux warns, and unmaps too much or leaves a mixed group; what lies
/// before is unmapped. Those of [`Context::check_range`].
/// before is unmapped. Those of [`Context::check_range`].
pub fn unmap_range<G: Granule, T: Tables, M: Mmu>(
    ctx: &Context<'_, G, T, M>,
    va: VirtAddr,
    size: u64,
) -> Result<LevelMask, Error> {
    ctx.check_range(va, size)?;
    let mut levels = LevelMask::NONE;
    let range = VirtRange::new(va, size);
    let result = unmap_level(ctx, ctx.root, G::ROOT_LEVEL, range, &mut levels);
    flush_range::<G, M>(ctx.mmu, va, size);
    result.map(|()| levels)
}

fn unmap_level<G: Granule, T: Tables, M: Mmu>(
    ctx: &Context<'_, G, T, M>,
    table: PhysAddr,
    level: Level,
    range: VirtRange,
    levels: &mut LevelMask,
) -> Result<(), Error> {
    for slice in slices::<G>(range, level) {
        let va = slice.start;
        let index = G::index(va.0, level);
        let found = Descriptor(ctx.tables.load(table, index));
        if found.is_table(level) {
            let next = found.address::<G>();
            if level + 1 == LAST_LEVEL {
                unmap_last(ctx, next, slice, levels)?;
            } else {
                unmap_level(ctx, next, level + 1, slice, levels)?;
            }
        } else if !found.is_vacant() {
            if slice.size != G::size(level) {
                let leaf = LeafSize::new(level, found.is_contiguous());
                return Err(Error::PartialLeaf { va, leaf });
            }
            ctx.tables.store(table, index, 0);
            levels.insert(level);
        }
    }
    Ok(())
}

fn unmap_last<G: Granule, T: Tables, M: Mmu>(
    ctx: &Context<'_, G, T, M>,
    table: PhysAddr,
    range: VirtRange,
    levels: &mut LevelMask,
) -> Result<(), Error> {
    let group = G::cont_size(LAST_LEVEL);
    let mut done = 0;
    while done < range.size {
        let va = range.start.add(done);
        let index = G::index(va.0, LAST_LEVEL);
        let found = Descriptor(ctx.tables.load(table, index));
        if found.is_valid() && found.is_contiguous() {
            if !va.is_aligned(group) || range.size - done < group {
                let leaf = LeafSize::PAGE_GROUP;
                return Err(Error::PartialLeaf { va, leaf });
            }
            clear_group(ctx, table, index);
            done += group;
        } else {
            exchange(ctx, table, index, found);
            done += G::PAGE_SIZE;
        }
        levels.insert(LAST_LEVEL);
    }
    Ok(())
}

/// Out of line, as Linux's getter for large pages.
#[inline(never)]
fn clear_group<G: Granule, T: Tables, M: Mmu>(ctx: &Context<'_, G, T, M>, table: PhysAddr, index: usize) {
    for i in index..index + G::cont_entries(LAST_LEVEL) {
        exchange(ctx, table, i, Descriptor(ctx.tables.load(table, i)));
    }
}

/// If a CPU has set AF or DBM's bit.
#[inline]
fn exchange<G: Granule, T: Tables, M: Mmu>(
    ctx: &Context<'_, G, T, M>,
    table: PhysAddr,
    index: usize,
    found: Descriptor,
) {
    let mut current = found.0;
    while let Err(now) = ctx.tables.compare_exchange(table, index, current, 0) {
        current = now;
    }
}
