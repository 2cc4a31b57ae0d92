//! CPUs that no firmware turns on and off: each waits in a spin table until it is let go, once.
//!
//! It is let go to `pen_entry` of the boot crate, where it waits with its MMU off for a call by its
//! number ([`PEN`]), and comes as PSCI's CPU_ON would have it come. The first time it only says
//! what it is, and goes back ([`go_back`]).
//!
//! Source: Linux, Documentation/arch/arm64/booting.rst, for the spin table.

use core::sync::atomic::{AtomicU64, Ordering};

use paging::{Attributes, PhysAddr};

use crate::BootInfo;
use crate::arch::cache::clean_and_invalidate_to_poc;
use crate::mm::slots::{self, EARLY_TABLE_SLOTS};

/// Who is called, and with what. CPUs read it with their caches off, so each store is cleaned to
/// the point of coherency; and it fills what a cache line may be at most, so that nothing beside it
/// is written back over it.
#[repr(C, align(2048))]
pub struct Pen {
    /// The affinity fields of the MPIDR_EL1 of the CPU that is called, or [`NO_CPU`].
    mpidr: AtomicU64,
    /// The physical address of its arguments.
    pub context: AtomicU64,
}

/// No CPU's.
const NO_CPU: u64 = u64::MAX;

/// The one call at a time that there is.
pub static PEN: Pen = Pen {
    mpidr: AtomicU64::new(NO_CPU),
    context: AtomicU64::new(0),
};

fn store(word: &AtomicU64, value: u64) {
    word.store(value, Ordering::Relaxed);
    // It ends with a DSB: complete before the next store, and before the event.
    clean_and_invalidate_to_poc((&raw const *word) as usize, size_of::<u64>());
}

/// Calls the CPU with affinity `mpidr` to come with `context`, until [`end_call`].
pub(super) fn call(mpidr: u64, context: u64) {
    store(&PEN.context, context);
    store(&PEN.mpidr, mpidr);
    aarch64_cpu::asm::sev();
}

/// A CPU that has not come by now does not come.
pub(super) fn end_call() {
    store(&PEN.mpidr, NO_CPU);
}

/// Lets the CPU go that looks at physical address `release`, to the pen. For the time before the
/// final tables.
pub(super) fn let_go(info: &BootInfo, release: u64) {
    // Mapped as the linear map will map it, where it is RAM; Linux maps it so anywhere.
    let slot = EARLY_TABLE_SLOTS.start;
    let va = slots::map(slot, PhysAddr(release), Attributes::KERNEL_DATA);
    // SAFETY: aligned, as `Machine` has it, in the page that was just mapped; the address is where
    // firmware looks, and nothing else uses it.
    store(unsafe { AtomicU64::from_ptr(va as *mut u64) }, info.pen_entry);
    slots::unmap(slot);
    aarch64_cpu::asm::sev();
}

/// Goes back to the pen, and stores 1 to `gone` once neither stack nor memory is used any more.
///
/// # Safety
/// The identity map is on, and `pen_return` is that of [`BootInfo`].
pub(super) unsafe fn go_back(pen_return: u64, gone: &AtomicU64) -> ! {
    // SAFETY: the routine has this signature, and is executable at this address, by the promise.
    let pen_return = unsafe { core::mem::transmute::<u64, extern "C" fn(*mut u64) -> !>(pen_return) };
    pen_return(gone.as_ptr())
}
