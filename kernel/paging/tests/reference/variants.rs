//! The worked example, and three wrong walkers.

use super::agreement::agrees_on_random_mappings;
use super::memory::Memory;
use super::overrun::{OVERRUNS, wrong_after_map};
use super::{Counter, VA, on_tree};
use one_by_one::OneByOne;
use paging::reference::{Context, Error, Rewalk, Series, Walker};
use paging::{
    Attributes, FrameArray, Granule, Granule4K, LevelMask, Mmu, Pfn, PhysAddr, Tables, TinyGranule, VirtAddr,
};
use std::panic::{AssertUnwindSafe, catch_unwind};

#[path = "../../examples/walker/one_by_one.rs"]
mod one_by_one;

struct LastIsFirst<'a, A: ?Sized>(&'a A);

impl<A: FrameArray + ?Sized> FrameArray for LastIsFirst<'_, A> {
    fn nr_frames(&self) -> usize {
        self.0.nr_frames()
    }
    fn frame(&self, index: usize) -> Option<Pfn> {
        let last = self.nr_frames() - 1;
        self.0.frame(if index == last { 0 } else { index })
    }
}

macro_rules! wrong_walker {
    ($(#[$doc:meta])* $name:ident, $pages:expr, $unmapped:expr) => {
        $(#[$doc])*
        struct $name;

        impl<G: Granule, T: Tables, M: Mmu> Walker<G, T, M> for $name {
            const NAME: &'static str = stringify!($name);
            fn map_range(
                &self,
                ctx: &Context<'_, G, T, M>,
                va: VirtAddr,
                pa: PhysAddr,
                size: u64,
                attributes: Attributes,
            ) -> Result<LevelMask, Error> {
                Rewalk.map_range(ctx, va, pa, size, attributes)
            }
            fn map_pages<A: FrameArray + ?Sized>(
                &self,
                ctx: &Context<'_, G, T, M>,
                va: VirtAddr,
                frames: &A,
                attributes: Attributes,
            ) -> Result<LevelMask, Error> {
                let pages: fn(&Rewalk, &Context<'_, G, T, M>, VirtAddr, &A, Attributes) -> _ = $pages;
                pages(&Rewalk, ctx, va, frames, attributes)
            }
            fn unmap(&self, ctx: &Context<'_, G, T, M>, va: VirtAddr, size: u64) -> Result<LevelMask, Error> {
                let unmapped: fn(u64) -> u64 = $unmapped;
                Rewalk.unmap(ctx, va, unmapped(size / G::PAGE_SIZE) * G::PAGE_SIZE)
            }
        }
    };
}

wrong_walker! {
    WrongFrame, |walker, ctx, va, frames, data| walker.map_pages(ctx, va, &LastIsFirst(frames), data), |pages| pages
}
wrong_walker! {
    ForgetsAPage, |walker, ctx, va, frames, data| walker.map_pages(ctx, va, frames, data), |pages| (pages - 1).max(1)
}
wrong_walker! {
    /// Reports no level for an array.
    SilentLevels, |walker, ctx, va, frames, data| walker.map_pages(ctx, va, frames, data).map(|_| LevelMask::NONE), |pages| pages
}

fn passes<W>(walker: &W) -> bool
where
    W: Walker<Granule4K, Memory, Counter> + Walker<TinyGranule, Memory, Counter>,
{
    catch_unwind(AssertUnwindSafe(|| {
        for (orders, offset, (_, pages)) in OVERRUNS {
            assert_eq!(wrong_after_map(walker, orders, VA.add(offset)), (0, pages));
        }
        agrees_on_random_mappings::<Granule4K, _>(walker, 0x9e37_79b9_7f4a_7c15, 20, 1 << 14);
        agrees_on_random_mappings::<TinyGranule, _>(walker, 0xbf58_476d_1ce4_e5b9, 100, 64);
    }))
    .is_ok()
}

#[test]
fn the_worked_example_agrees_with_all_others() {
    assert!(passes(&OneByOne));
    on_tree::<Granule4K>(|ctx| {
        let mapped = OneByOne.map_pages(ctx, VirtAddr(0), &[Pfn(7), Pfn(9)][..], Attributes::KERNEL_DATA);
        assert!(mapped.is_ok());
        assert_eq!(
            ctx.translate(VirtAddr(0x1fff)).map(|(pa, _)| pa),
            Some(PhysAddr(0x9fff))
        );
    });
}

#[test]
fn a_wrong_walker_that_is_in_the_list_is_found_out() {
    let mut caught = Vec::new();
    paging::for_each_walker! { @each |walker| {
            caught.push(!passes(&walker));
        }
        WrongFrame,
        ForgetsAPage,
        SilentLevels,
        Series { overrun: true },
    }
    assert_eq!(caught, [true; 4]);
}
