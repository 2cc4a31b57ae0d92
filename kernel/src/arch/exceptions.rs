//! Exceptions at EL1: synchronous and SError. A spurious fault is retried
//! (`exceptions/spurious.rs`), one in the exception table continues at its fixup
//! (`exceptions/extable.rs`), others are fatal. Registers are saved on the stack, or if it is full,
//! on the CPU's overflow stack.

mod extable;
mod spurious;

use core::arch::global_asm;
use core::mem::offset_of;

use aarch64_cpu::registers::{VBAR_EL1, Writeable};

use super::percpu::PerCpu;
use super::{fatal, interrupts, mmu};

pub use super::frame::Frame;
pub use spurious::BreakWindow;

global_asm!(
    include_str!("exceptions/vectors.s"),
    stack_low = const offset_of!(PerCpu, stack_low),
    stack_high = const offset_of!(PerCpu, stack_high),
    overflow_low = const offset_of!(PerCpu, overflow_low),
    overflow_high = const offset_of!(PerCpu, overflow_high),
    scratch = const offset_of!(PerCpu, scratch),
    frame_size = const size_of::<Frame>(),
    frame_sp = const offset_of!(Frame, sp),
    frame_elr = const offset_of!(Frame, elr),
    frame_esr = const offset_of!(Frame, esr),
    frame_vector = const offset_of!(Frame, vector),
    frame_record = const offset_of!(Frame, record),
    handle = sym handle_exception,
);

unsafe extern "C" {
    static exception_vectors: u8;
}

/// Installs the vectors, which need TPIDR_EL1, and unmasks SError.
pub fn install_vectors() {
    VBAR_EL1.set(&raw const exception_vectors as u64);
    mmu::isb();
    interrupts::unmask_serror();
}

/// Everything is masked. A return continues at `frame.elr`.
extern "C" fn handle_exception(frame: &mut Frame) {
    if frame.is_synchronous() && (spurious::retry(frame) || extable::fix_up(frame)) {
        return;
    }
    fatal::exception(frame)
}
