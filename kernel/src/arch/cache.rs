//! Instruction caches: what was stored becomes what is fetched.
//!
//! Arm ARM B2.7.4, "Concurrent modification and execution of instructions": clean the data cache to the point of unification, invalidate instruction caches,
//! each completed by a DSB, then a context synchronisation event on every CPU that goes there. CTR_EL0 says which of the two a CPU does without.

use core::arch::asm;

use super::mmu::{dsb_ish, isb};

unsafe extern "C" {
    /// DC CVAU of each line from `line` to below `end`; returns where it stopped: at `end` or beyond, or at a line that faulted.
    fn clean_to_pou_or_fault(line: usize, end: usize, size: usize) -> usize;
    /// The same with IC IVAU.
    fn invalidate_icache_or_fault(line: usize, end: usize, size: usize) -> usize;
}

/// The smallest page that there is: what cannot be accessed goes by whole ones.
const PAGE: usize = 4096;

/// What CTR_EL0 says.
struct CacheType {
    /// Smallest lines in bytes (DminLine, IminLine).
    data_line: usize,
    instruction_line: usize,
    /// No clean to the point of unification is needed (IDC).
    fetches_see_data: bool,
    /// No invalidation of instruction caches is needed (DIC).
    fetches_see_stores: bool,
}

impl CacheType {
    fn read() -> Self {
        let ctr: u64;
        // SAFETY: reading an identification register.
        unsafe { asm!("mrs {}, ctr_el0", out(reg) ctr, options(nostack, nomem, preserves_flags)) };
        Self {
            data_line: 4 << (ctr >> 16 & 0xf),
            instruction_line: 4 << (ctr & 0xf),
            fetches_see_data: ctr & 1 << 28 != 0,
            fetches_see_stores: ctr & 1 << 29 != 0,
        }
    }
}

/// Makes what was stored in `size` bytes from `va` what every CPU fetches from there, once it has had a context synchronisation event, as this CPU has when
/// this returns. The others have theirs where they are handed the address: see [`smp`](crate::smp#code).
///
/// Pages that cannot be read, or go meanwhile, are passed over. No lock is taken.
pub fn publish_instructions(va: usize, size: usize) {
    let caches = CacheType::read();
    if !caches.fetches_see_data {
        // SAFETY: cleaning by address changes no memory that anyone could read differently, and a fault ends the call.
        for_each_line(va, size, caches.data_line, |line, end, size| unsafe {
            clean_to_pou_or_fault(line, end, size)
        });
    }
    // The stores, and their cleaning, are complete before a fetch can miss (Arm ARM B2.7.4).
    dsb_ish();
    if !caches.fetches_see_stores {
        // SAFETY: invalidating instruction caches changes no memory, and a fault ends the call.
        for_each_line(va, size, caches.instruction_line, |line, end, size| unsafe {
            invalidate_icache_or_fault(line, end, size)
        });
        // On all CPUs of the domain, before any of them is told.
        dsb_ish();
    }
    // This CPU fetched nothing ahead of that.
    isb();
}

/// Calls `each(line, end, size)`, which returns where it stopped, for all lines of the range but those of pages where it stops before the end.
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
