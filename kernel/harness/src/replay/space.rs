//! How the address space lies when the trace ends and its last areas are still there.

use paging::VirtAddr;
use trace_replay::PAGE;
use vmalloc::{Backend, Kind, Vmalloc};

/// What lies between the first and the last area in use.
///
/// A hole is a range that no area in use has, guards taken off; what is kept for the next area of
/// the same size, or waits for a flush, is in a hole. What lies behind the last area, nearly all of
/// the region, is none: it has never been in use.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Space {
    /// Areas in use, those among them that are not of the trace.
    pub areas: u64,
    /// Bytes from the first to the end of the last.
    pub span: u64,
    /// Holes.
    pub holes: u64,
    /// Bytes in all of them.
    pub hole_bytes: u64,
    /// Bytes of the largest.
    pub largest_hole: u64,
    /// Gaps of the allocator's at that moment, the one behind the last area among them.
    pub gaps: u64,
    /// Bytes of its largest.
    pub largest_gap: u64,
    /// Bytes that wait for a flush.
    pub lazy: u64,
    /// Bytes that are kept for the next area of the same size.
    pub kept: u64,
    /// The most gaps that there were, looked at in 64 places of the trace and at its end.
    pub most_gaps: u64,
}

/// Looks at the whole region.
#[must_use]
pub fn survey<B: Backend>(vm: &Vmalloc<B>) -> Space {
    let usage = vm.usage();
    let mut space = Space {
        lazy: usage.lazy.1 * PAGE,
        kept: usage.cached.1 * PAGE,
        ..Space::default()
    };
    if let Ok(census) = vm.check() {
        space.gaps = census.gaps as u64;
        space.largest_gap = census.largest_gap * PAGE;
    }
    let mut end: Option<VirtAddr> = None;
    let mut from = vm.range().start;
    while let Some(area) = vm.next_vm_area(from) {
        let lead = if area.kind == Kind::Stack { PAGE } else { 0 };
        let start = VirtAddr(area.va.align_down(PAGE).0 - lead);
        let hole = end.map_or(0, |end| start.offset_from(end));
        if hole != 0 {
            space.holes += 1;
            space.hole_bytes += hole;
            space.largest_hole = space.largest_hole.max(hole);
        }
        let pages = area.size.next_multiple_of(PAGE);
        let behind = VirtAddr(area.va.align_down(PAGE).0).add(pages + PAGE);
        space.areas += 1;
        space.span += hole + behind.offset_from(start);
        end = Some(behind);
        from = area.va.add(pages);
    }
    space
}
