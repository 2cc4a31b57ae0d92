//! Where an area goes: congruent to the memory that it will map.
//!
//! A leaf needs its virtual and its physical address aligned alike. So what matters is not that the virtual address is
//! aligned, but that it is where the memory is, modulo the leaf:
//!
//! ```text
//!   first run                      leaf     the virtual address is
//!   32M or more, at pa             32M      pa modulo 32M
//!   2M + 64K at 2M - 64K           2M       2M - 64K modulo 2M: one 64K group, then the block
//!   1M at pa = 64K * n             64K      0 modulo 64K
//!   15 pages                       -        anything
//! ```

use crate::va::Fit;
use paging::{Granule, LeafSet, LeafSize, Run};

/// The places worth trying for `fit`, best first, where the memory begins with `run` and the caller insists on `align`
/// (bytes, a power of two, at least a page).
pub(crate) fn candidates<G: Granule>(
    fit: Fit,
    run: Option<Run>,
    align: u64,
    allowed: LeafSet,
) -> impl Iterator<Item = Fit> + Clone {
    let pages = |bytes: u64| bytes >> G::PAGE_SHIFT;
    let leaves = LeafSize::ALL.into_iter().filter_map(move |size| {
        let run = run?;
        let bytes = size.bytes::<G>();
        // A leaf below what the caller insists on follows from that, if it can be had at all.
        let wanted = size != LeafSize::PAGE
            && size.exists::<G>()
            && allowed.contains(size)
            && bytes > align
            && run.pa.is_aligned(align)
            && holds::<G>(run, bytes);
        wanted.then(|| fit.congruent(pages(bytes), pages(run.pa.0 & (bytes - 1))))
    });
    leaves.chain(core::iter::once(fit.congruent(pages(align), 0)))
}

/// How long a run it takes to know all that [`candidates`] wants to know for `pages` pages: the largest leaf that could be
/// among them, wherever in it the run begins.
pub(crate) fn run_worth_knowing<G: Granule>(pages: u64) -> u64 {
    let leaf = LeafSize::ALL
        .into_iter()
        .map(|size| size.bytes::<G>() >> G::PAGE_SHIFT)
        .find(|leaf| *leaf <= pages)
        .unwrap_or(1);
    (2 * leaf - 1).min(pages)
}

/// Whether `run` holds an aligned leaf of `bytes`.
fn holds<G: Granule>(run: Run, bytes: u64) -> bool {
    let skip = run.pa.0.wrapping_neg() & (bytes - 1);
    // In pages, since a run may be as long as the physical address space.
    run.pages >= (skip >> G::PAGE_SHIFT) + (bytes >> G::PAGE_SHIFT)
}

#[cfg(test)]
mod tests {
    use super::*;
    use paging::{Granule4K, PhysAddr};
    use std::vec::Vec;

    fn places(pa: u64, pages: u64, align: u64) -> Vec<(u64, u64)> {
        let run = Run {
            pa: PhysAddr(pa),
            pages,
        };
        candidates::<Granule4K>(Fit::new(pages), Some(run), align, LeafSet::ALL)
            .map(|fit| (fit.align, fit.phase))
            .collect()
    }

    #[test]
    fn a_run_without_a_leaf_goes_anywhere() {
        assert_eq!(places(0x1000, 15, 0x1000), [(1, 0)]);
        assert_eq!(
            places(0x1000, 30, 0x1000),
            [(1, 0)],
            "30 pages from page 1: no aligned 16"
        );
        assert_eq!(places(0x1000, 31, 0x1000), [(16, 1), (1, 0)]);
    }

    #[test]
    fn a_run_is_placed_at_its_own_phase_and_then_at_less() {
        assert_eq!(
            places((2 << 20) - 0x1_0000, 512 + 16, 0x1000),
            [(512, 512 - 16), (16, 0), (1, 0)]
        );
        assert_eq!(
            places(1 << 30, 1 << 18, 0x1000),
            [(1 << 18, 0), (1 << 13, 0), (512, 0), (16, 0), (1, 0)]
        );
    }

    #[test]
    fn what_the_caller_insists_on_is_never_given_up() {
        assert_eq!(places(2 << 20, 512, 2 << 20), [(512, 0)]);
        assert_eq!(places(2 << 20, 512, 0x1_0000), [(512, 0), (16, 0)]);
        assert_eq!(
            places(0x1000, 1024, 0x1_0000),
            [(16, 0)],
            "the memory is not so aligned"
        );
    }
}
