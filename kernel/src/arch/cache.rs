//! Cache maintenance, for fetches (Arm ARM B2.7.4, "Concurrent modification and execution of
//! instructions") and for observers without caches. Loops step by the shortest line of all CPUs,
//! and omit only what no CPU needs (DESIGN rule 13).

use core::arch::asm;
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use arch_policy::errata::Errata;
use arch_policy::features::Features;

use super::identity;
use super::mmu::{dsb_ish, dsb_sy, isb};

unsafe extern "C" {
    /// DC CVAU. Returns where it stopped: at or beyond `end`, or at a line that faulted.
    fn clean_to_pou_or_fault(line: usize, end: usize, size: usize) -> usize;
    /// DC CIVAC.
    fn clean_and_invalidate_or_fault(line: usize, end: usize, size: usize) -> usize;
    /// IC IVAU.
    fn invalidate_icache_or_fault(line: usize, end: usize, size: usize) -> usize;
}

const PAGE: usize = 4096;

/// Shortest of all CPUs; 0 before [`init`].
static DCACHE_LINE: AtomicUsize = AtomicUsize::new(0);
static ICACHE_LINE: AtomicUsize = AtomicUsize::new(0);
/// IDC of all CPUs.
static FETCHES_SEE_DATA: AtomicBool = AtomicBool::new(false);
/// DIC of all CPUs.
static FETCHES_SEE_STORES: AtomicBool = AtomicBool::new(false);
static CLEAN_INVALIDATES: AtomicBool = AtomicBool::new(false);

pub fn init(features: &Features, errata: Errata) {
    DCACHE_LINE.store(features.dcache_line, Ordering::Relaxed);
    ICACHE_LINE.store(features.icache_line, Ordering::Relaxed);
    FETCHES_SEE_DATA.store(features.fetches_see_data, Ordering::Relaxed);
    FETCHES_SEE_STORES.store(features.fetches_see_stores, Ordering::Relaxed);
    CLEAN_INVALIDATES.store(errata.clean_invalidates, Ordering::Relaxed);
}

#[must_use]
pub fn dcache_line() -> usize {
    match DCACHE_LINE.load(Ordering::Relaxed) {
        0 => Features::of(&identity::read()).dcache_line,
        line => line,
    }
}

#[must_use]
pub fn clean_invalidates() -> bool {
    CLEAN_INVALIDATES.load(Ordering::Relaxed)
}

/// Cleans and invalidates `size` bytes from `va` to the point of coherency.
pub fn clean_and_invalidate_to_poc(va: usize, size: usize) {
    let line = dcache_line();
    for line in (va & !(line - 1)..va + size).step_by(line) {
        // SAFETY: changes no contents; the caller's address is mapped.
        unsafe { asm!("dc civac, {}", in(reg) line, options(nostack, preserves_flags)) };
    }
    dsb_sy();
}

/// Makes stores what this CPU fetches, and others after a context synchronisation event
/// ([`smp`](crate::smp#code)). Skips pages that fault. Takes no lock.
pub fn publish_instructions(va: usize, size: usize) {
    if !FETCHES_SEE_DATA.load(Ordering::Relaxed) {
        let clean = if clean_invalidates() {
            clean_and_invalidate_or_fault
        } else {
            clean_to_pou_or_fault
        };
        // SAFETY: changes no contents, and a fault ends the call.
        for_each_line(va, size, dcache_line(), |line, end, size| unsafe {
            clean(line, end, size)
        });
    }
    // Stores and cleans complete before fetches miss (Arm ARM B2.7.4).
    dsb_ish();
    if !FETCHES_SEE_STORES.load(Ordering::Relaxed) {
        // SAFETY: changes no memory, and a fault ends the call.
        for_each_line(
            va,
            size,
            ICACHE_LINE.load(Ordering::Relaxed),
            |line, end, size| unsafe { invalidate_icache_or_fault(line, end, size) },
        );
        // Complete on all CPUs before any gets the address (Arm ARM B2.7.4).
        dsb_ish();
    }
    // Discards what this CPU prefetched (Arm ARM B2.7.4).
    isb();
}

/// `each` returns where it stopped; a page that faulted is skipped.
fn for_each_line(va: usize, size: usize, line: usize, each: impl Fn(usize, usize, usize) -> usize) {
    let end = va + size;
    let mut at = va & !(line - 1);
    while at < end {
        at = each(at, end, line);
        if at < end {
            at = (at & !(PAGE - 1)) + PAGE;
        }
    }
}
