//! [`Engine`]: the engine behind the trait of the reference walkers, so that it stands in every list beside them.

use super::context::Context;
use super::{Error, Walker};
use crate::addr::{PhysAddr, VirtAddr, VirtRange};
use crate::descriptor::Attributes;
use crate::granule::Granule;
use crate::mmu::Mmu;
use crate::outcome::{Failure, LeafSet, LevelMask, Outcome};
use crate::source::{FrameArray, PageArray, PhysRange};
use crate::tables::Tables;
use crate::tree::{Config, Half, Tree};

/// The engine, [`Tree`], with every leaf size allowed and no policy that is not the default.
///
/// It keeps its counts in the links, so it must be the only walker of its tree. Unlike the others it leaves nothing behind
/// when it fails, gives emptied tables back, and splits what an unmap covers in part.
#[derive(Clone, Copy, Debug, Default)]
pub struct Engine;

/// The context's tree, in the half that `va` lies in.
#[inline(always)]
fn tree<'a, G: Granule, T: Tables, M: Mmu>(
    ctx: &Context<'a, G, T, M>,
    va: VirtAddr,
) -> Tree<G, &'a T, &'a M> {
    let half = if va.0 >> 63 == 0 { Half::Low } else { Half::High };
    Tree::new(ctx.root, half, ctx.tables, ctx.mmu, Config::default())
}

/// What a map says. The tree is this walker's alone, so that nobody is in the tables of one that failed.
#[inline(always)]
fn levels<G: Granule, T: Tables, M: Mmu>(
    tree: &Tree<G, T, M>,
    result: Result<Outcome, Failure>,
) -> Result<LevelMask, Error> {
    tree.reclaim();
    result
        .map(|outcome| outcome.levels)
        .map_err(|failure| Error::Engine(failure.error))
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
        let tree = tree(ctx, va);
        let result = tree.map(VirtRange::new(va, size), &mut source, attributes, LeafSet::ALL);
        levels(&tree, result)
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
        let tree = tree(ctx, va);
        let result = tree.map(VirtRange::new(va, size), &mut source, attributes, LeafSet::ALL);
        levels(&tree, result)
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
