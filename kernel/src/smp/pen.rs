//! CPUs in a spin table (Linux, Documentation/arch/arm64/booting.rst), which firmware lets go once
//! and cannot turn off.
//!
//! They go to `pen_entry` of the boot crate and wait there, MMU off, for a call by MPIDR ([`PEN`]),
//! then come as from CPU_ON. The first time, a CPU identifies itself and goes back ([`go_back`]).

use core::sync::atomic::{AtomicU64, Ordering};

use paging::{Attributes, PhysAddr};

use crate::BootInfo;
use crate::arch::cache::clean_and_invalidate_to_poc;
use crate::mm::slots::{self, EARLY_TABLE_SLOTS};

/// Which CPU is called, and with what. Read with caches off, so stores are cleaned to the point of
/// coherency; as large as the largest cache line, so that no neighbour is written back over it.
#[repr(C, align(2048))]
pub struct Pen {
    /// The called CPU's affinity, or [`NO_CPU`].
    mpidr: AtomicU64,
    /// The physical address of its arguments.
    pub context: AtomicU64,
}

const NO_CPU: u64 = u64::MAX;

/// One call at a time.
pub static PEN: Pen = Pen {
    mpidr: AtomicU64::new(NO_CPU),
    context: AtomicU64::new(0),
};

fn store(word: &AtomicU64, value: u64) {
    word.store(value, Ordering::Relaxed);
    // Ends with a DSB: complete before the next store, and before the event.
    clean_and_invalidate_to_poc((&raw const *word) as usize, size_of::<u64>());
}

/// Calls the CPU with affinity `mpidr` to come with `context`, until [`end_call`].
pub(super) fn call(mpidr: u64, context: u64) {
    store(&PEN.context, context);
    store(&PEN.mpidr, mpidr);
    aarch64_cpu::asm::sev();
}

/// Ends the call: a CPU that has not come yet will not.
pub(super) fn end_call() {
    store(&PEN.mpidr, NO_CPU);
}

/// Lets the CPU that polls `release` go to the pen, before the final tables.
pub(super) fn let_go(info: &BootInfo, release: u64) {
    // As the linear map maps RAM, and Linux any such address.
    let slot = EARLY_TABLE_SLOTS.start;
    let va = slots::map(slot, PhysAddr(release), Attributes::KERNEL_DATA);
    // SAFETY: just mapped, aligned by `Machine`, and used by firmware only.
    store(unsafe { AtomicU64::from_ptr(va as *mut u64) }, info.pen_entry);
    slots::unmap(slot);
    aarch64_cpu::asm::sev();
}

/// Goes back to the pen, and stores 1 to `gone` once stack and memory are no longer used.
///
/// # Safety
/// The identity map is on, and `pen_return` is that of [`BootInfo`].
pub(super) unsafe fn go_back(pen_return: u64, gone: &AtomicU64) -> ! {
    // SAFETY: by the promise, the routine has this signature and is executable here.
    let pen_return = unsafe { core::mem::transmute::<u64, extern "C" fn(*mut u64) -> !>(pen_return) };
    pen_return(gone.as_ptr())
}
