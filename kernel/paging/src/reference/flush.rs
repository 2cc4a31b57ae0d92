//! TLB invalidation as Linux's arm64 does it for kernel ranges.

use crate::addr::VirtAddr;
use crate::granule::Granule;
use crate::mmu::{Mmu, TlbiRange};

/// The most pages that one flush invalidates by range operations: what SCALE 3, NUM 31 covers.
const MAX_RANGE_PAGES: u64 = 1 << 21;

/// Invalidates last-level entries for `size` bytes from `va` on: Linux's `flush_tlb_kernel_range`.
///
/// With FEAT_TLBIRANGE by range operations up to 2M pages; without it page by page below as many
/// pages as a table has descriptors (512 with 4 KiB pages); everything beyond either limit. The
/// stride is always a page.
pub fn flush_range<G: Granule, M: Mmu>(mmu: &M, va: VirtAddr, size: u64) {
    let pages = size >> G::PAGE_SHIFT;
    let by_range = mmu.has_tlbi_range();
    // The descriptors' stores are complete before the invalidation that relies on them (Arm ARM
    // D8.16.1).
    mmu.dsb_ishst();
    if by_range && pages <= MAX_RANGE_PAGES {
        flush_by_range::<G, M>(mmu, va, pages);
    } else if !by_range && pages < G::ENTRIES as u64 {
        for page in 0..pages {
            mmu.tlbi_vaale1is(va.add(page << G::PAGE_SHIFT));
        }
    } else {
        mmu.tlbi_vmalle1is();
    }
    // The invalidation is complete everywhere, and this CPU uses nothing that it fetched before.
    mmu.dsb_ish();
    mmu.isb();
}

/// The largest SCALE first; a last odd page by VA, because a range operation covers an even number.
fn flush_by_range<G: Granule, M: Mmu>(mmu: &M, mut va: VirtAddr, mut pages: u64) {
    for scale in (0..=3u8).rev() {
        let units = pages >> (5 * u32::from(scale) + 1);
        if units == 0 {
            continue;
        }
        // At most 32: what is above a scale's reach was taken by the next larger one, and SCALE 3
        // reaches the limit.
        let range = TlbiRange {
            start: va,
            scale,
            num: (units - 1) as u8,
        };
        mmu.tlbi_rvaale1is(range);
        va = va.add(range.pages() << G::PAGE_SHIFT);
        pages -= range.pages();
    }
    if pages != 0 {
        mmu.tlbi_vaale1is(va);
    }
}

/// Invalidates what walk caches hold of the table at `va`, which was unlinked: all levels, not the
/// last-level form.
pub(super) fn flush_table<M: Mmu>(mmu: &M, va: VirtAddr) {
    mmu.dsb_ishst();
    mmu.tlbi_vaae1is(va);
    mmu.dsb_ish();
    mmu.isb();
}
