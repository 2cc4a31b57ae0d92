//! CPUs in a spin table (Linux, Documentation/arch/arm64/booting.rst), let go once, never off. They
//! wait at `pen_entry` of the boot crate, MMU off, for a call ([`PEN`]) in place of CPU_ON.

use core::sync::atomic::{AtomicU64, Ordering};

use paging::{Attributes, PhysAddr};

use crate::BootInfo;
use crate::arch::cache::clean_and_invalidate_to_poc;
use crate::mm::slots::{self, EARLY_TABLE_SLOTS};

/// Read with caches off: stores are cleaned to the point of coherency, and no neighbour is in its
/// cache line, however large.
#[repr(C, align(2048))]
pub struct Pen {
    mpidr: AtomicU64,
    /// Physical address of the arguments.
    pub context: AtomicU64,
}

const NO_CPU: u64 = u64::MAX;

pub static PEN: Pen = Pen {
    mpidr: AtomicU64::new(NO_CPU),
    context: AtomicU64::new(0),
};

fn store(word: &AtomicU64, value: u64) {
    word.store(value, Ordering::Relaxed);
    // Its DSB completes it before the event.
    clean_and_invalidate_to_poc((&raw const *word) as usize, size_of::<u64>());
}

pub(super) fn call(mpidr: u64, context: u64) {
    store(&PEN.context, context);
    store(&PEN.mpidr, mpidr);
    aarch64_cpu::asm::sev();
}

pub(super) fn end_call() {
    store(&PEN.mpidr, NO_CPU);
}

/// `release` is what the CPU polls.
pub(super) fn let_go(info: &BootInfo, release: u64) {
    // As Linux maps it.
    let slot = EARLY_TABLE_SLOTS.start;
    let va = slots::map(slot, PhysAddr(release), Attributes::KERNEL_DATA);
    // SAFETY: mapped, aligned by `Machine`, otherwise firmware's only.
    store(unsafe { AtomicU64::from_ptr(va as *mut u64) }, info.pen_entry);
    slots::unmap(slot);
    aarch64_cpu::asm::sev();
}

/// Stores 1 to `gone` once stack and memory are unused.
///
/// # Safety
/// The identity map is on, and `pen_return` is [`BootInfo`]'s.
pub(super) unsafe fn go_back(pen_return: u64, gone: &AtomicU64) -> ! {
    // SAFETY: its signature, executable here, by the promise.
    let pen_return = unsafe { core::mem::transmute::<u64, extern "C" fn(*mut u64) -> !>(pen_return) };
    pen_return(gone.as_ptr())
}
