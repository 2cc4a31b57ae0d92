//! What the shapes check: translations as the MMU has them, contents, and leaves as the tables have
//! them.

use kernel::arch::mmu::at_s1e1r;
use kernel::layout;
use kernel::mm::{self, kernel_tree};
use paging::{LeafCounts, LeafSet, LeafSize, Pfn, PhysAddr, VirtAddr, VirtRange, Visit};

use super::{Run, page_at};
use crate::selftest::failure::{Failure, expect, expect_leaves};
use crate::selftest::source::PAGE;
use crate::selftest::verify::read;

/// The pages of `pages` that a run looks at: all, or the first and the last and one in between.
pub(super) fn pages_to_check(run: &mut Run<'_>, pages: u64) -> impl Iterator<Item = u64> + use<> {
    let some = [0, run.rng.u64(0..pages), pages - 1];
    let every = if run.every_page { pages } else { 0 };
    (0..every).chain(some)
}

/// The MMU and the engine both have `pa` at `va`.
///
/// # Errors
/// One of them has another.
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

/// Page `page` of the mapping at `start` is `frame`, which has its number in its first word.
///
/// # Errors
/// It is another.
pub(super) fn is_frame(start: VirtAddr, page: u64, frame: Pfn) -> Result<(), Failure> {
    let va = page_at(start, page);
    translates(va, PhysAddr(frame.0 * PAGE))?;
    expect("a page has other contents", va as u64, read(va) == frame.0)
}

/// The leaves that map `range`.
pub(super) fn leaves_of(range: VirtRange) -> Result<LeafCounts, Failure> {
    let mut leaves = LeafCounts::default();
    let _walk = mm::walk_lock().walk();
    kernel_tree().visit(range, |leaf| {
        leaves.add(leaf.size, 1);
        Visit::Continue
    })?;
    Ok(leaves)
}

/// The leaves of `range` are `expected`.
///
/// # Errors
/// They are not.
pub(super) fn has_leaves(range: VirtRange, expected: LeafCounts) -> Result<(), Failure> {
    expect_leaves(leaves_of(range)?, expected)
}

/// Leaves that are left of `pages` pages, mapped by leaves as large as `allowed` has them below a
/// level 1 block and as aligned as their number, when the leaves that the pages `cut` share with
/// others were cut there and no further (DESIGN rule 8). What is within `cut` is counted only if
/// `kept`.
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
