//! Physical ranges for `ioremap`: at the upper end of what the CPU can address, where no RAM is.
//! They are mapped, looked up, and never touched.

use alloc::vec::Vec;

use kernel::mm;
use paging::PhysAddr;
use trace_replay::{Kind, PAGE, Trace};

/// Where each `ioremap` of a trace maps: known beforehand, so that it is the same whichever CPU
/// comes first.
pub struct Devices(Vec<PhysAddr>);

impl Devices {
    /// One behind the other from three quarters of the physical address space on, each aligned as
    /// its area asks to be, so that the area can be as well; from the start again where the end is
    /// reached.
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

    /// Returns where area number `area` maps.
    #[must_use]
    pub fn of(&self, area: u32) -> PhysAddr {
        self.0[area as usize]
    }
}
