//! Which calls make and end an area of each kind.
//!
//! | kind | made by | ended by |
//! |---|---|---|
//! | vmalloc | `allocate`, aligned as asked | `vfree` |
//! | vmalloc_huge | the same in the largest blocks | `vfree` |
//! | stack | `alloc_stack_aligned`: a guard below, too | `vfree` |
//! | module, execmem, bpf_jit | `allocate`; written; `set_memory_ro`, `set_memory_x` | `vfree` |
//! | vmap | `vmap` of [frames](super::frames) of the replay's | `vunmap` |
//! | ioremap | `ioremap` of a [range](super::device) without RAM | `iounmap` |
//! | percpu | `get_vm_area`, and `map_pages` of single frames of the replay's | `free_vm_area` |
//! | vm_map_ram, vm_map_ram_area | `vm_map_ram` of frames of the replay's | `vm_unmap_ram` |
//! | vmap_block | `get_vm_area`: addresses alone | `free_vm_area` |
//!
//! Areas go by address, as in the kernel that the trace is of: `into_raw` is part of what is
//! counted.

use kernel::layout;
use paging::{Attributes, Pfn, PhysAddr, VirtAddr};
use trace_replay::{Area, Kind, PAGE};
use vmalloc::{Backend, Request, VmArea, Vmalloc};

use super::failure::What;
use super::stats::{About, Counts, Operation, Stats};
use super::{contents, counting, frames};
use crate::measure::Instrument;

/// Calls that are counted.
pub struct Meter<'a> {
    /// Counts instructions, where they are counted.
    pub instrument: Option<&'a Instrument>,
    /// Where they go.
    pub stats: &'a mut Stats,
}

impl Meter<'_> {
    /// Makes a call, and counts what it takes.
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

/// Returns whether an area of this kind maps frames of the replay's own.
#[must_use]
pub const fn maps_given_frames(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::Vmap | Kind::Percpu | Kind::VmMapRam | Kind::VmMapRamArea
    )
}

/// Makes `area`. `given` has room for its pages if it maps frames of the replay's, and has them
/// afterwards.
///
/// # Errors
/// What is wrong. Nothing is left of the area then.
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

/// Makes code of `area`, which has been written: read-only first, then executable, so that no page
/// ever is both.
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

/// Ends `area`. The frames that were given to it, in `given`, are free afterwards.
///
/// # Errors
/// The call was refused. The area is left as it is.
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
        // SAFETY: raw, the replay's own, which has verified it and is done with it.
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

/// Returns whether `va` is where an area that asked for `area.align` may begin. What maps other
/// memory goes by where that lies.
#[must_use]
pub fn is_placed(area: &Area, va: VirtAddr) -> bool {
    let align = match area.kind {
        Kind::Vmap | Kind::Ioremap | Kind::VmMapRam | Kind::VmMapRamArea => PAGE,
        _ => area.align.max(PAGE),
    };
    va.is_aligned(align)
}
