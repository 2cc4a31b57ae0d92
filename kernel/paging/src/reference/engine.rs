//! The engine as a walker.

use super::context::Context;
use super::{Error, Walker};
use crate::addr::{PhysAddr, VirtAddr, VirtRange};
use crate::descriptor::Attributes;
use crate::granule::Granule;
use crate::mmu::Mmu;
use crate::outcome::{Failure, LeafSet, LevelMask};
use crate::source::{FrameArray, PageArray, PhysRange, PhysSource};
use crate::tables::Tables;
use crate::tree::{Config, Half, Tree};

/// [`Tree`] with default policy, for any address of the granule. It undoes what failed and splits
/// leaves.
#[derive(Clone, Copy, Debug, Default)]
pub struct Engine;

#[inline]
fn tree<'a, G: Granule, T: Tables, M: Mmu>(
    ctx: &Context<'a, G, T, M>,
    va: VirtAddr,
) -> Tree<G, &'a T, &'a M> {
    let half = if va.0 >> 63 == 0 { Half::Low } else { Half::High };
    let config = Config {
        pa_bits: G::PA_BITS,
        ..Config::default()
    };
    Tree::new(ctx.root, half, ctx.tables, ctx.mmu, config)
}

/// Its one caller lets tables go at once.
#[inline]
fn map<G: Granule, T: Tables, M: Mmu, S: PhysSource<G>>(
    ctx: &Context<'_, G, T, M>,
    range: VirtRange,
    source: &mut S,
    attributes: Attributes,
) -> Result<LevelMask, Error> {
    let tree = tree(ctx, range.start);
    match tree.map(range, source, attributes, LeafSet::ALL) {
        Ok(outcome) => Ok(outcome.levels),
        Err(failure) => after_a_failure(&tree, range, source, attributes, failure),
    }
}

#[cold]
fn after_a_failure<G: Granule, T: Tables, M: Mmu, S: PhysSource<G>>(
    tree: &Tree<G, T, M>,
    range: VirtRange,
    source: &mut S,
    attributes: Attributes,
    failure: Failure,
) -> Result<LevelMask, Error> {
    let engine = |failure: Failure| Error::Engine(failure.error);
    if failure.tables_left != 0 || matches!(failure.error, crate::Error::EmptyTable { .. }) {
        tree.prune(range).map_err(engine)?;
    }
    if !matches!(failure.error, crate::Error::EmptyTable { .. }) {
        return Err(engine(failure));
    }
    source.rewind();
    let mapped = tree.map(range, source, attributes, LeafSet::ALL);
    mapped.map(|outcome| outcome.levels).map_err(engine)
}

impl<G: Granule, T: Tables, M: Mmu> Walker<G, T, M> for Engine {
    const NAME: &'static str = "vmwalk";

    #[inline]
    fn map_range(
        &self,
        ctx: &Context<'_, G, T, M>,
        va: VirtAddr,
        pa: PhysAddr,
        size: u64,
        attributes: Attributes,
    ) -> Result<LevelMask, Error> {
        let mut source = PhysRange::new(pa, size >> G::PAGE_SHIFT);
        map(ctx, VirtRange::new(va, size), &mut source, attributes)
    }

    #[inline]
    fn map_pages<A: FrameArray + ?Sized>(
        &self,
        ctx: &Context<'_, G, T, M>,
        va: VirtAddr,
        frames: &A,
        attributes: Attributes,
    ) -> Result<LevelMask, Error> {
        let size = (frames.nr_frames() as u64) << G::PAGE_SHIFT;
        let mut source = PageArray::new(frames);
        map(ctx, VirtRange::new(va, size), &mut source, attributes)
    }

    #[inline]
    fn unmap(&self, ctx: &Context<'_, G, T, M>, va: VirtAddr, size: u64) -> Result<LevelMask, Error> {
        let tree = tree(ctx, va);
        let mut batch = tree.batch();
        let result = tree.unmap(VirtRange::new(va, size), &mut batch);
        batch.flush();
        result
            .map(|outcome| outcome.levels)
            .map_err(|failure| Error::Engine(failure.error))
    }
}
