//! Caches: what was stored becomes what is fetched, or what is read past them.
//!
//! Arm ARM B2.7.4, "Concurrent modification and execution of instructions": clean the data cache to
//! the point of unification, invalidate instruction caches, each completed by a DSB, then a context
//! synchronisation event on every CPU that goes there. CTR_EL0 says which of the two a CPU does
//! without.
//!
//! An operation by address goes to the caches of all CPUs of the domain, whichever CPU issues it.
//! So a loop steps by the shortest line of any of them, and what is left out is what none of them
//! needs (DESIGN rule 13).

use core::arch::asm;
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use arch_policy::errata::Errata;
use arch_policy::features::Features;

use super::identity;
use super::mmu::{dsb_ish, dsb_sy, isb};

unsafe extern "C" {
    /// DC CVAU of each line from `line` to below `end`; returns where it stopped: at `end` or
    /// beyond, or at a line that faulted.
    fn clean_to_pou_or_fault(line: usize, end: usize, size: usize) -> usize;
    /// The same with DC CIVAC.
    fn clean_and_invalidate_or_fault(line: usize, end: usize, size: usize) -> usize;
    /// The same with IC IVAU.
    fn invalidate_icache_or_fault(line: usize, end: usize, size: usize) -> usize;
}

/// The smallest page that there is: what cannot be accessed goes by whole ones.
const PAGE: usize = 4096;

/// Shortest data and instruction cache lines of all CPUs, in bytes (DminLine, IminLine); 0 before
/// [`init`].
static DCACHE_LINE: AtomicUsize = AtomicUsize::new(0);
static ICACHE_LINE: AtomicUsize = AtomicUsize::new(0);
/// No clean to the point of unification is needed on any CPU (IDC).
static FETCHES_SEE_DATA: AtomicBool = AtomicBool::new(false);
/// Nor an invalidation of instruction caches (DIC).
static FETCHES_SEE_STORES: AtomicBool = AtomicBool::new(false);
/// [`Errata::clean_invalidates`].
static CLEAN_INVALIDATES: AtomicBool = AtomicBool::new(false);

/// Takes note of what all CPUs have and need. Only the CPU that boots has run before.
pub fn init(features: &Features, errata: Errata) {
    DCACHE_LINE.store(features.dcache_line, Ordering::Relaxed);
    ICACHE_LINE.store(features.icache_line, Ordering::Relaxed);
    FETCHES_SEE_DATA.store(features.fetches_see_data, Ordering::Relaxed);
    FETCHES_SEE_STORES.store(features.fetches_see_stores, Ordering::Relaxed);
    CLEAN_INVALIDATES.store(errata.clean_invalidates, Ordering::Relaxed);
}

/// Shortest data cache line of all CPUs, in bytes.
#[must_use]
pub fn dcache_line() -> usize {
    match DCACHE_LINE.load(Ordering::Relaxed) {
        // Of the only CPU that has run.
        0 => Features::of(&identity::read()).dcache_line,
        line => line,
    }
}

/// Returns whether a clean to the point of unification invalidates, too.
#[must_use]
pub fn clean_invalidates() -> bool {
    CLEAN_INVALIDATES.load(Ordering::Relaxed)
}

/// Cleans and invalidates `size` bytes from `va` to the point of coherency, for an observer without
/// caches.
pub fn clean_and_invalidate_to_poc(va: usize, size: usize) {
    let line = dcache_line();
    for line in (va & !(line - 1)..va + size).step_by(line) {
        // SAFETY: changes no memory that anyone could read differently; the address is mapped, as
        // the caller uses it.
        unsafe { asm!("dc civac, {}", in(reg) line, options(nostack, preserves_flags)) };
    }
    dsb_sy();
}

/// Makes what was stored in `size` bytes from `va` what every CPU fetches from there, once it has
/// had a context synchronisation event, as this CPU has when this returns. The others have theirs
/// where they are handed the address: see [`smp`](crate::smp#code).
///
/// Pages that cannot be read, or go meanwhile, are passed over. No lock is taken.
pub fn publish_instructions(va: usize, size: usize) {
    if !FETCHES_SEE_DATA.load(Ordering::Relaxed) {
        let clean = if clean_invalidates() {
            clean_and_invalidate_or_fault
        } else {
            clean_to_pou_or_fault
        };
        // SAFETY: cleaning by address changes no memory that anyone could read differently, and a
        // fault ends the call.
        for_each_line(va, size, dcache_line(), |line, end, size| unsafe {
            clean(line, end, size)
        });
    }
    // The stores, and their cleaning, are complete before a fetch can miss (Arm ARM B2.7.4).
    dsb_ish();
    if !FETCHES_SEE_STORES.load(Ordering::Relaxed) {
        // SAFETY: invalidating instruction caches changes no memory, and a fault ends the call.
        for_each_line(
            va,
            size,
            ICACHE_LINE.load(Ordering::Relaxed),
            |line, end, size| unsafe { invalidate_icache_or_fault(line, end, size) },
        );
        // On all CPUs of the domain, before any of them is told.
        dsb_ish();
    }
    // This CPU fetched nothing ahead of that.
    isb();
}

/// Calls `each(line, end, size)`, which returns where it stopped, for all lines of the range but
/// those of pages where it stops before the end.
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
