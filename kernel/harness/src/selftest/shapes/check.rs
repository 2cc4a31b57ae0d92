use kernel::arch::mmu::at_s1e1r;
use kernel::layout;
use kernel::mm::{self, kernel_tree};
use paging::{LeafCounts, LeafSet, LeafSize, Pfn, PhysAddr, VirtAddr, VirtRange, Visit};

use super::{Run, page_at};
use crate::selftest::failure::{Failure, expect, expect_leaves};
use crate::selftest::source::PAGE;
use crate::selftest::verify::read;

pub(super) fn pages_to_check(run: &mut Run<'_>, pages: u64) -> impl Iterator<Item = u64> + use<> {
    let some = [0, run.rng.u64(0..pages), pages - 1];
    let every = if run.every_page { pages } else { 0 };
    (0..every).chain(some)
}

pub(super) fn translates(va: usize, pa: PhysAddr) -> Result<(), Failure> {
    let by_mmu = at_s1e1r(va).map_or(u64::MAX, |translation| translation.pa);
    expect("the MMU has another frame, or none", va as u64, by_mmu == pa.0)?;
    let by_engine = mm::translate(va);
    expect(
        "the engine has another frame, or none",
        va as u64,
        by_engine == Some(pa),
    )
}

pub(super) fn is_frame(start: VirtAddr, page: u64, frame: Pfn) -> Result<(), Failure> {
    let va = page_at(start, page);
    translates(va, PhysAddr(frame.0 * PAGE))?;
    expect("a page has other contents", va as u64, read(va) == frame.0)
}

pub(super) fn leaves_of(range: VirtRange) -> Result<LeafCounts, Failure> {
    let mut leaves = LeafCounts::default();
    let _walk = mm::walk_lock().walk();
    kernel_tree().visit(range, |leaf| {
        leaves.add(leaf.size, 1);
        Visit::Continue
    })?;
    Ok(leaves)
}

pub(super) fn has_leaves(range: VirtRange, expected: LeafCounts) -> Result<(), Failure> {
    expect_leaves(leaves_of(range)?, expected)
}

/// Returns the leaves of `pages` pages, at most level 2 blocks, after those that `cut` shares were
/// cut there and no further (DESIGN rule 8). Leaves within `cut` count if `kept`.
pub(super) fn after_cut(pages: u64, cut: core::ops::Range<u64>, kept: bool, allowed: LeafSet) -> LeafCounts {
    let mut leaves = LeafCounts::default();
    let mut page = 0;
    while page < pages {
        let fits = |size: &LeafSize| {
            let nr = size.bytes::<layout::Granule>() / PAGE;
            let (first, end) = (page, page + nr);
            let outside = end <= cut.start || cut.end <= first;
            let inside = cut.start <= first && end <= cut.end;
            allowed.contains(*size) && page.is_multiple_of(nr) && end <= pages && (outside || inside)
        };
        let sizes = [LeafSize::BLOCK2, LeafSize::PAGE_GROUP];
        let size = sizes.into_iter().find(fits).unwrap_or(LeafSize::PAGE);
        if kept || !cut.contains(&page) {
            leaves.add(size, 1);
        }
        page += size.bytes::<layout::Granule>() / PAGE;
    }
    leaves
}
