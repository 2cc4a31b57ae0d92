//! Walkers with one usual mistake each, which what checks walkers must find.

use kernel::layout;
use kernel::mm::layout::PAGE_SIZE;
use paging::reference::{Context, Error, Rewalk, Series, Walker};
use paging::{Attributes, FrameArray, LevelMask, Mmu, Pfn, PhysAddr, Tables, VirtAddr};

macro_rules! for_each_wrong_walker {
    (|$walker:ident| $body:block) => {
        paging::for_each_walker! { @each |$walker| $body
            $crate::wrong_walkers::LastIsFirst,
            $crate::wrong_walkers::TrustsTheFirst,
            $crate::wrong_walkers::LeavesTheLast,
        }
    };
}
const PAGE: u64 = PAGE_SIZE as u64;

pub(crate) use for_each_wrong_walker;

macro_rules! wrong_walker {
    ($(#[$doc:meta])* $walker:ident, $name:literal, $maps:expr, $array:expr, $unmapped:expr) => {
        $(#[$doc])*
        pub struct $walker;

        impl<T: Tables, M: Mmu> Walker<layout::Granule, T, M> for $walker {
            const NAME: &'static str = $name;

            fn map_range(
                &self,
                walk: &Context<'_, layout::Granule, T, M>,
                va: VirtAddr,
                pa: PhysAddr,
                size: u64,
                attributes: Attributes,
            ) -> Result<LevelMask, Error> {
                $maps.map_range(walk, va, pa, size, attributes)
            }

            fn map_pages<A: FrameArray + ?Sized>(
                &self,
                walk: &Context<'_, layout::Granule, T, M>,
                va: VirtAddr,
                frames: &A,
                attributes: Attributes,
            ) -> Result<LevelMask, Error> {
                let seen = Seen { frames, frame: $array };
                $maps.map_pages(walk, va, &seen, attributes)
            }

            fn unmap(
                &self,
                walk: &Context<'_, layout::Granule, T, M>,
                va: VirtAddr,
                size: u64,
            ) -> Result<LevelMask, Error> {
                let unmapped: fn(u64) -> u64 = $unmapped;
                $maps.unmap(walk, va, unmapped(size / PAGE) * PAGE)
            }
        }
    };
}

wrong_walker! {
    LastIsFirst, "last-is-first", Rewalk, |frames: &A, page| {
        let last = frames.nr_frames() - 1;
        frames.frame(if page == last { 0 } else { page })
    }, |pages| pages
}

wrong_walker! {
    TrustsTheFirst, "trusts-the-first", Series { overrun: false }, |frames: &A, page| {
        let within = page % PAGES_PER_BLOCK;
        match frames.frame(page - within) {
            Some(Pfn(first)) if first.is_multiple_of(PAGES_PER_BLOCK as u64) => Some(Pfn(first + within as u64)),
            _ => frames.frame(page),
        }
    }, |pages| pages
}

wrong_walker! {
    LeavesTheLast, "leaves-the-last", Rewalk, |frames: &A, page| frames.frame(page), |pages| (pages - 1).max(1)
}

const PAGES_PER_BLOCK: usize = 512;

struct Seen<'a, A: ?Sized, F> {
    frames: &'a A,
    frame: F,
}

impl<A: FrameArray + ?Sized, F: Fn(&A, usize) -> Option<Pfn>> FrameArray for Seen<'_, A, F> {
    fn nr_frames(&self) -> usize {
        self.frames.nr_frames()
    }
    fn frame(&self, index: usize) -> Option<Pfn> {
        (self.frame)(self.frames, index)
    }
}
