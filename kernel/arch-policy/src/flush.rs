//! Invalidates for descriptors outside the engine's trees.

use paging::{Mmu, VirtAddr};

/// Invalidates the page at `va`, whose descriptor was made invalid; twice with `repeat`, for an
/// erratum.
#[inline]
pub fn page<M: Mmu>(mmu: &M, va: VirtAddr, repeat: bool) {
    flush(mmu, || mmu.tlbi_vaae1is(va), repeat);
}

#[inline]
pub fn all<M: Mmu>(mmu: &M, repeat: bool) {
    flush(mmu, || mmu.tlbi_vmalle1is(), repeat);
}

#[inline]
fn flush<M: Mmu>(mmu: &M, tlbi: impl Fn(), repeat: bool) {
    // DESIGN rule 3: invalid, complete, invalidated, complete (Arm ARM D8.16.1).
    mmu.dsb_ishst();
    tlbi();
    mmu.dsb_ish();
    if repeat {
        tlbi();
        mmu.dsb_ish();
    }
    // Discards what this CPU prefetched.
    mmu.isb();
}
