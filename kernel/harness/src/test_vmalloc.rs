//! Loops of Linux's `lib/test_vmalloc.c`, for bench and self-tests.

use alloc::vec::Vec;
use core::ptr;

use kernel::layout;
use paging::{Granule, Pfn};
use vmalloc::{Backend, Error, Request, VmArea, Vmalloc};

const PAGE: u64 = layout::Granule::PAGE_SIZE;

#[derive(Clone, Debug)]
pub struct Params<'a> {
    pub nr_pages: u64,
    pub use_huge: bool,
    pub holes: u64,
    pub busy: u64,
    pub frames: &'a [Pfn],
    pub rng: fastrand::Rng,
}

pub type Held<'v, B> = Vec<VmArea<'v, B>>;

#[derive(Clone, Copy, Debug)]
pub struct Shape<B: Backend + 'static> {
    pub name: &'static str,
    pub prepare: for<'v> fn(&'v Vmalloc<B>, &Params<'_>) -> Result<Held<'v, B>, Error>,
    pub step: fn(&Vmalloc<B>, &mut Params<'_>) -> Result<bool, Error>,
}

#[must_use]
pub fn all<B: Backend + 'static>() -> [Shape<B>; 9] {
    [
        shape("fix_size_alloc", fix_size),
        Shape {
            prepare: leave_holes,
            ..shape("full_fit_alloc", one_page)
        },
        Shape {
            prepare: hold_areas,
            ..shape("long_busy_list_alloc", hundred_and_one)
        },
        shape("random_size_alloc", random_size),
        shape("fix_align_alloc", fix_align),
        shape("random_size_align_alloc", random_size_align),
        shape("vm_map_ram", map_ram),
        shape("no_block_alloc", no_block),
        shape("vrealloc", vrealloc),
    ]
}

const fn shape<B: Backend + 'static>(
    name: &'static str,
    step: fn(&Vmalloc<B>, &mut Params<'_>) -> Result<bool, Error>,
) -> Shape<B> {
    Shape {
        name,
        prepare: nothing,
        step,
    }
}

fn touch<B: Backend>(area: &VmArea<'_, B>) -> bool {
    let at = area.as_ptr();
    // SAFETY: the first byte of an area of memory that was just allocated, and not used otherwise.
    unsafe { ptr::write_volatile(at, 1) };
    // SAFETY: as above.
    unsafe { ptr::read_volatile(at) == 1 }
}

fn nothing<'v, B: Backend>(_: &'v Vmalloc<B>, _: &Params<'_>) -> Result<Held<'v, B>, Error> {
    Ok(Vec::new())
}

fn leave_holes<'v, B: Backend>(vm: &'v Vmalloc<B>, params: &Params<'_>) -> Result<Held<'v, B>, Error> {
    let nr = params.holes as usize;
    let (mut held, mut gone) = (Vec::with_capacity(nr), Vec::with_capacity(nr));
    for _ in 0..params.holes {
        held.push(vm.vmalloc(PAGE)?);
        gone.push(vm.vmalloc(PAGE)?);
    }
    drop(gone);
    Ok(held)
}

pub fn hold_areas<'v, B: Backend>(vm: &'v Vmalloc<B>, params: &Params<'_>) -> Result<Held<'v, B>, Error> {
    let mut held = Vec::with_capacity(params.busy as usize);
    for _ in 0..params.busy {
        held.push(vm.vmalloc(PAGE)?);
    }
    Ok(held)
}

pub fn fix_size<B: Backend>(vm: &Vmalloc<B>, params: &mut Params<'_>) -> Result<bool, Error> {
    let size = params.nr_pages * PAGE;
    let area = if params.use_huge {
        vm.vmalloc_huge(size)?
    } else {
        vm.vmalloc(size)?
    };
    Ok(touch(&area))
}

pub fn one_page<B: Backend>(vm: &Vmalloc<B>, _: &mut Params<'_>) -> Result<bool, Error> {
    vm.vmalloc(PAGE).map(|area| touch(&area))
}

pub fn hundred_and_one<B: Backend>(vm: &Vmalloc<B>, _: &mut Params<'_>) -> Result<bool, Error> {
    let large = vm.vmalloc(100 * PAGE)?;
    let small = vm.vmalloc(PAGE)?;
    Ok(touch(&large) & touch(&small))
}

pub fn random_size<B: Backend>(vm: &Vmalloc<B>, params: &mut Params<'_>) -> Result<bool, Error> {
    vm.vmalloc(params.rng.u64(1..=100) * PAGE)
        .map(|area| touch(&area))
}

/// `THREAD_ALIGN * 2`: twice the size of a stack in Linux.
pub fn fix_align<B: Backend>(vm: &Vmalloc<B>, _: &mut Params<'_>) -> Result<bool, Error> {
    let request = Request::new(5 * PAGE).zeroed().aligned(2 * (16 << 10));
    let area = vm.allocate(&request)?;
    Ok(touch(&area) && area.va().0.is_multiple_of(2 * (16 << 10)))
}

pub fn random_size_align<B: Backend>(vm: &Vmalloc<B>, params: &mut Params<'_>) -> Result<bool, Error> {
    let align = 1 << params.rng.u32(0..=22);
    let request = Request::new(params.rng.u64(1..=10) * PAGE)
        .zeroed()
        .aligned(align);
    let area = vm.allocate(&request)?;
    Ok(touch(&area) && area.va().0.is_multiple_of(align))
}

pub fn map_ram<B: Backend>(vm: &Vmalloc<B>, params: &mut Params<'_>) -> Result<bool, Error> {
    let va = vm.vm_map_ram(params.frames)?;
    let at = ptr::with_exposed_provenance_mut::<u64>(va.0 as usize);
    let first = params.frames[0];
    // Other CPUs may run the same loop on the same frames: all write the same.
    // SAFETY: just mapped, writable, and the lender leaves the frames' first word to this.
    unsafe { ptr::write_volatile(at, first.0) };
    let same = vm.backend().read_word(first, 0) == first.0;
    // SAFETY: mapped above, and used no more.
    unsafe { vm.vm_unmap_ram(va, params.frames.len() as u64) }?;
    Ok(same)
}

/// # Errors
/// Those of the call, [`Error::WouldBlock`] among them.
pub fn no_block<B: Backend>(vm: &Vmalloc<B>, params: &mut Params<'_>) -> Result<bool, Error> {
    let request = Request::new(params.nr_pages * PAGE).nowait();
    vm.allocate(&request).map(|area| touch(&area))
}

pub fn vrealloc<B: Backend>(vm: &Vmalloc<B>, params: &mut Params<'_>) -> Result<bool, Error> {
    let mut area = vm.vmalloc(PAGE)?;
    let mark = params.rng.u64(..);
    // SAFETY: the first word of an area that was just allocated.
    unsafe { ptr::write_volatile(area.as_ptr().cast::<u64>(), mark) };
    let mut same = true;
    for size in [4 * PAGE, PAGE, PAGE / 2, PAGE] {
        area.vrealloc(size)?;
        // SAFETY: the area still has its first word, wherever it is now.
        same &= unsafe { ptr::read_volatile(area.as_ptr().cast::<u64>()) } == mark && area.size() == size;
    }
    Ok(same)
}
