//! Exceptions taken at EL1.
//!
//! No interrupt controller is in use, so every exception here is synchronous or an SError, and one
//! of these:
//!
//! 1. a translation fault on a kernel address that the tables now translate: retried
//!    (`exceptions/spurious.rs`);
//! 2. a fault of an instruction that the exception table names: goes on at its fixup
//!    (`exceptions/extable.rs`);
//! 3. anything else: fatal.
//!
//! Registers are saved on the stack that was in use, or on the CPU's overflow stack when that one
//! has no room left: its guard page is reported by the very handler that would otherwise need the
//! stack.

mod extable;
mod spurious;

use core::arch::global_asm;
use core::mem::offset_of;

use aarch64_cpu::registers::{VBAR_EL1, Writeable};

use super::percpu::PerCpu;
use super::syndrome::Syndrome;
use super::{fatal, interrupts, mmu};

pub use spurious::{BreakWindow, Retry};

/// Registers at the moment of an exception, as the vectors save them.
#[repr(C, align(16))]
#[derive(Debug)]
pub struct Frame {
    /// x0 to x30.
    pub x: [u64; 31],
    /// The stack pointer.
    pub sp: u64,
    /// ELR_EL1.
    pub elr: u64,
    /// SPSR_EL1.
    pub spsr: u64,
    /// ESR_EL1.
    pub esr: u64,
    /// FAR_EL1.
    pub far: u64,
    /// Which of the 16 vectors.
    pub vector: u64,
    /// Keeps the frame record below on 16 bytes.
    _padding: u64,
    /// A frame record, {x29, ELR}: a backtrace goes through the exception.
    pub record: [u64; 2],
}

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

/// Installs the vectors on this CPU and unmasks SError. TPIDR_EL1 must point to its per-CPU data.
pub fn install_vectors() {
    VBAR_EL1.set(&raw const exception_vectors as u64);
    mmu::isb();
    interrupts::unmask_serror();
}

/// What the 16 vectors are, in order. Arm ARM, "Exception vectors".
const VECTORS: [&str; 4] = ["synchronous exception", "IRQ", "FIQ", "SError"];

impl Frame {
    /// ESR_EL1.
    #[must_use]
    pub fn syndrome(&self) -> Syndrome {
        Syndrome(self.esr)
    }

    /// Returns the kind of exception.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        VECTORS[(self.vector & 3) as usize]
    }

    /// Returns whether it came through the vector of synchronous exceptions from EL1 with its own
    /// stack pointer: the only one that can be handled.
    fn is_synchronous(&self) -> bool {
        self.vector == 4
    }
}

/// Called by the vectors, everything masked. Returning means: go on at `frame.elr`.
extern "C" fn handle_exception(frame: &mut Frame) {
    if frame.is_synchronous() && (spurious::retry(frame) || extable::fix_up(frame)) {
        return;
    }
    fatal::exception(frame)
}
