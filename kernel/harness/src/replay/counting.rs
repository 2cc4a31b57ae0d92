//! Counts barriers and invalidations by CPU.

use core::sync::atomic::{AtomicU64, Ordering};

use kernel::arch::features::Features;
use kernel::arch::mmu::KernelMmu;
use kernel::mm::tables::{KernelTables, LinearMapTables};
use kernel::per_cpu;

use paging::mmu::{MmuEvent, Tracing};

use super::stats::Counts;
use crate::handles::BackendBy;

/// So that CPUs do not contend.
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

pub fn of_this_cpu() -> Counts {
    let shard = SHARD.this();
    Counts {
        tlbi: shard.tlbi.load(Ordering::Relaxed),
        dsb: shard.dsb.load(Ordering::Relaxed),
        isb: shard.isb.load(Ordering::Relaxed),
    }
}

type CountingMmu = Tracing<KernelMmu, fn(MmuEvent)>;

fn count(event: MmuEvent) {
    let shard = SHARD.this();
    let counter = match event {
        MmuEvent::DsbIshst | MmuEvent::DsbIsh => &shard.dsb,
        MmuEvent::Isb => &shard.isb,
        _ => &shard.tlbi,
    };
    counter.fetch_add(1, Ordering::Relaxed);
}

pub type CountingBackend = BackendBy<KernelTables, LinearMapTables, CountingMmu>;

#[must_use]
pub fn counting_backend(features: &Features) -> CountingBackend {
    BackendBy::new(KernelTables, LinearMapTables::new(), || {
        CountingMmu::new(KernelMmu::new(features), count)
    })
}
