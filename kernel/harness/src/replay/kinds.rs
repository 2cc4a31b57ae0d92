//! The calls that make and free an area of each kind. Areas go by address, so `into_raw` is counted
//! too.

use kernel::layout;
use paging::{Attributes, Pfn, PhysAddr, VirtAddr};
use trace_replay::{Area, Kind, PAGE};
use vmalloc::{Backend, Request, VmArea, Vmalloc};

use super::failure::What;
use super::stats::{About, Counts, Operation, Stats};
use super::{contents, counting, frames};
use crate::measure::Instrument;

pub struct Meter<'a> {
    pub instrument: Option<&'a Instrument>,
    pub stats: &'a mut Stats,
}

impl Meter<'_> {
    #[inline(always)]
    pub fn call<R>(&mut self, operation: Operation, about: About, call: impl FnOnce() -> R) -> R {
        let before: Counts = counting::of_this_cpu();
        let (result, instructions) = match self.instrument {
            Some(instrument) => {
                let (result, instructions) = instrument.count(call);
                (result, Some(instructions))
            }
            None => (call(), None),
        };
        let counts = counting::of_this_cpu() - before;
        self.stats.add(operation, about, counts, instructions);
        result
    }
}

#[must_use]
pub const fn maps_given_frames(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::Vmap | Kind::Percpu | Kind::VmMapRam | Kind::VmMapRamArea
    )
}

/// Makes `area`. If the replay provides the frames, `given` has room for them.
///
/// # Errors
/// Nothing is left of the area.
pub fn make<B: Backend<Granule = layout::Granule>>(
    vm: &Vmalloc<B>,
    meter: &mut Meter<'_>,
    operation: Operation,
    area: &Area,
    device: PhysAddr,
    given: &mut [Pfn],
) -> Result<VirtAddr, What> {
    let about = About::Area(area.kind);
    let (size, align) = (area.size, area.align);
    if maps_given_frames(area.kind) {
        frames::allocate(area, given)?;
        contents::fill_frames(area, given);
    }
    let given = &*given;
    let made = match area.kind {
        Kind::Vmalloc | Kind::Module | Kind::Execmem | Kind::BpfJit => {
            let request = Request::new(size).aligned(align);
            meter.call(operation, about, || vm.allocate(&request).map(VmArea::into_raw))
        }
        Kind::VmallocHuge => {
            let request = Request::new(size).aligned(align).huge();
            meter.call(operation, about, || vm.allocate(&request).map(VmArea::into_raw))
        }
        Kind::Stack => meter.call(operation, about, || {
            vm.alloc_stack_aligned(size, align).map(VmArea::into_raw)
        }),
        Kind::Vmap => meter.call(operation, about, || vm.vmap(given).map(VmArea::into_raw)),
        Kind::Ioremap => meter.call(operation, about, || {
            vm.ioremap(device, size).map(VmArea::into_raw)
        }),
        Kind::Percpu => meter.call(operation, about, || {
            let area = vm.get_vm_area(size, align)?;
            area.map_pages(0, given, Attributes::KERNEL_DATA)?;
            Ok(area.into_raw())
        }),
        Kind::VmapBlock => meter.call(operation, about, || {
            vm.get_vm_area(size, align).map(VmArea::into_raw)
        }),
        Kind::VmMapRam | Kind::VmMapRamArea => meter.call(operation, about, || vm.vm_map_ram(given)),
    };
    made.map_err(|error| {
        if maps_given_frames(area.kind) {
            frames::free(given);
        }
        What::Refused(error)
    })
}

/// Makes code of `area`: read-only first, so that no page is ever writable and executable.
///
/// # Errors
/// The call that was refused.
pub fn protect<B: Backend>(
    vm: &Vmalloc<B>,
    meter: &mut Meter<'_>,
    area: &Area,
    va: VirtAddr,
) -> Result<(), What> {
    meter.call(Operation::Protect, About::Area(area.kind), || {
        // SAFETY: the replay's own, which writes no more of it.
        unsafe { vm.set_memory_ro(va, area.size) }?;
        // SAFETY: as above.
        unsafe { vm.set_memory_x(va, area.size) }
    })?;
    Ok(())
}

/// Frees `area`, and the frames in `given`.
///
/// # Errors
/// The area stays.
pub fn end<B: Backend<Granule = layout::Granule>>(
    vm: &Vmalloc<B>,
    meter: &mut Meter<'_>,
    operation: Operation,
    area: &Area,
    va: VirtAddr,
    given: &[Pfn],
) -> Result<(), What> {
    let pages = area.size / PAGE;
    meter.call(operation, About::Area(area.kind), || {
        // SAFETY: raw, the replay's own, verified and used no more.
        unsafe {
            match area.kind {
                Kind::Vmalloc
                | Kind::VmallocHuge
                | Kind::Stack
                | Kind::Module
                | Kind::Execmem
                | Kind::BpfJit => vm.vfree(va),
                Kind::Vmap => vm.vunmap(va),
                Kind::Ioremap => vm.iounmap(va),
                Kind::Percpu | Kind::VmapBlock => vm.free_vm_area(va),
                Kind::VmMapRam | Kind::VmMapRamArea => vm.vm_unmap_ram(va, pages),
            }
        }
    })?;
    frames::free(given);
    Ok(())
}

/// Returns whether `va` is aligned as asked. What maps other memory has its phase instead.
#[must_use]
pub fn is_placed(area: &Area, va: VirtAddr) -> bool {
    let align = match area.kind {
        Kind::Vmap | Kind::Ioremap | Kind::VmMapRam | Kind::VmMapRamArea => PAGE,
        _ => area.align.max(PAGE),
    };
    va.is_aligned(align)
}
