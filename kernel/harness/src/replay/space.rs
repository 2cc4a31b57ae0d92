use paging::VirtAddr;
use trace_replay::PAGE;
use vmalloc::{Backend, Kind, Vmalloc};

/// The space from the first to the last area in use, cached and lazy ranges included.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Space {
    pub areas: u64,
    pub span: u64,
    pub holes: u64,
    pub hole_bytes: u64,
    pub largest_hole: u64,
    /// With the one behind the last area.
    pub gaps: u64,
    pub largest_gap: u64,
    pub lazy: u64,
    pub kept: u64,
    pub most_gaps: u64,
}

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
