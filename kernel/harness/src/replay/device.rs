//! Ranges for `ioremap` without RAM, never touched.

use alloc::vec::Vec;

use kernel::mm;
use paging::PhysAddr;
use trace_replay::{Kind, PAGE, Trace};

pub struct Devices(Vec<PhysAddr>);

impl Devices {
    /// Returns ranges in the last quarter of the physical address space; wraps at the end.
    #[must_use]
    pub fn new(trace: &Trace) -> Self {
        let limit = 1u64 << mm::kernel_tree().config().pa_bits;
        let base = limit / 4 * 3;
        let mut next = base;
        let place = |area: &trace_replay::Area| {
            if area.kind != Kind::Ioremap {
                return PhysAddr(0);
            }
            let mut start = next.next_multiple_of(area.align.max(PAGE));
            if start + area.size > limit {
                start = base.next_multiple_of(area.align.max(PAGE));
            }
            next = start + area.size;
            PhysAddr(start)
        };
        Self(trace.areas.iter().map(place).collect())
    }

    #[must_use]
    pub fn of(&self, area: u32) -> PhysAddr {
        self.0[area as usize]
    }
}
