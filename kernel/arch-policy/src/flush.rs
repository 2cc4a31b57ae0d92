//! Break and invalidate, for the few descriptors that belong to no tree of the engine: the fixed
//! slots, and what tests do by hand. The engine has its own (`paging::flush`).

use paging::{Mmu, VirtAddr};

/// Completes the stores that made the descriptor of the page at `va` invalid, and removes what TLBs
/// and walk caches hold for it, on every CPU.
///
/// `repeat`: an erratum asks for one more TLBI once the first is complete.
#[inline]
pub fn page<M: Mmu>(mmu: &M, va: VirtAddr, repeat: bool) {
    flush(mmu, || mmu.tlbi_vaae1is(va), repeat);
}

/// The same for everything that was made invalid.
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
    // What this CPU translated ahead is forgotten.
    mmu.isb();
}
