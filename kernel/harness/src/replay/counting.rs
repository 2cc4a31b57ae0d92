//! A backend whose barriers and invalidations are counted, CPU by CPU: the kernel's tree, frames
//! and locks, by another handle.
//!
//! The linear map is edited through a counting handle, too, since the aliases of code are a part of
//! what its permissions cost.

use core::sync::atomic::{AtomicU64, Ordering};

use kernel::arch::features::Features;
use kernel::arch::mmu::KernelMmu;
use kernel::mm::tables::{KernelTables, LinearMapTables};
use kernel::per_cpu;
use paging::{Mmu, TlbiRange, VirtAddr};

use super::stats::Counts;
use crate::handles::BackendBy;

/// What one CPU has issued. On lines of its own, so that counting is no contention.
#[repr(align(128))]
struct Shard {
    tlbi: AtomicU64,
    dsb: AtomicU64,
    isb: AtomicU64,
}

per_cpu! {
    static SHARD: Shard = Shard {
        tlbi: AtomicU64::new(0),
        dsb: AtomicU64::new(0),
        isb: AtomicU64::new(0),
    };
}

/// Returns what this CPU has issued so far through any [`CountingMmu`].
pub fn of_this_cpu() -> Counts {
    let shard = SHARD.this();
    Counts {
        tlbi: shard.tlbi.load(Ordering::Relaxed),
        dsb: shard.dsb.load(Ordering::Relaxed),
        isb: shard.isb.load(Ordering::Relaxed),
    }
}

/// Counts what passes through it, and hands it on.
#[derive(Clone, Copy, Debug)]
pub struct CountingMmu(KernelMmu);

fn count(counter: impl FnOnce(&Shard) -> &AtomicU64) {
    counter(SHARD.this()).fetch_add(1, Ordering::Relaxed);
}

impl Mmu for CountingMmu {
    fn dsb_ishst(&self) {
        count(|shard| &shard.dsb);
        self.0.dsb_ishst();
    }
    fn dsb_ish(&self) {
        count(|shard| &shard.dsb);
        self.0.dsb_ish();
    }
    fn isb(&self) {
        count(|shard| &shard.isb);
        self.0.isb();
    }
    fn tlbi_vaale1is(&self, va: VirtAddr) {
        count(|shard| &shard.tlbi);
        self.0.tlbi_vaale1is(va);
    }
    fn tlbi_vaae1is(&self, va: VirtAddr) {
        count(|shard| &shard.tlbi);
        self.0.tlbi_vaae1is(va);
    }
    fn tlbi_rvaale1is(&self, range: TlbiRange) {
        count(|shard| &shard.tlbi);
        self.0.tlbi_rvaale1is(range);
    }
    fn tlbi_rvaae1is(&self, range: TlbiRange) {
        count(|shard| &shard.tlbi);
        self.0.tlbi_rvaae1is(range);
    }
    fn tlbi_vmalle1is(&self) {
        count(|shard| &shard.tlbi);
        self.0.tlbi_vmalle1is();
    }
    fn has_tlbi_range(&self) -> bool {
        self.0.has_tlbi_range()
    }
    fn masked<R>(&self, f: impl FnOnce() -> R) -> R {
        self.0.masked(f)
    }
}

/// The kernel's backend with trees that count.
pub type CountingBackend = BackendBy<KernelTables, LinearMapTables, CountingMmu>;

/// One on the kernel's tables.
#[must_use]
pub fn counting_backend(features: &Features) -> CountingBackend {
    let mmu = CountingMmu(KernelMmu::new(features));
    BackendBy::new(KernelTables, LinearMapTables::new(), || mmu)
}
