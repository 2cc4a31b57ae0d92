//! As Linux's arm64 does it.

use crate::addr::VirtAddr;
use crate::granule::Granule;
use crate::mmu::{Mmu, TlbiRange};

/// SCALE 3, NUM 31.
const MAX_RANGE_PAGES: u64 = 1 << 21;

/// Linux's `flush_tlb_kernel_range`: with FEAT_TLBIRANGE by range up to 2M pages; without it by
/// page, below as many as a table has descriptors; everything beyond.
pub fn flush_range<G: Granule, M: Mmu>(mmu: &M, va: VirtAddr, size: u64) {
    let pages = size >> G::PAGE_SHIFT;
    let by_range = mmu.has_tlbi_range();
    // Descriptors are complete before the invalidation (Arm ARM D8.16.1).
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
    // Invalidation is complete, and this CPU uses nothing fetched before.
    mmu.dsb_ish();
    mmu.isb();
}

fn flush_by_range<G: Granule, M: Mmu>(mmu: &M, mut va: VirtAddr, mut pages: u64) {
    for scale in (0..=3u8).rev() {
        let units = pages >> (5 * u32::from(scale) + 1);
        if units == 0 {
            continue;
        }
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

/// Walk caches may hold the unlinked table.
pub(super) fn flush_table<M: Mmu>(mmu: &M, va: VirtAddr) {
    mmu.dsb_ishst();
    mmu.tlbi_vaae1is(va);
    mmu.dsb_ish();
    mmu.isb();
}
