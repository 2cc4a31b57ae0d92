//! What the vectors save of an exception.

use super::syndrome::Syndrome;

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
    pub(super) fn is_synchronous(&self) -> bool {
        self.vector == 4
    }
}
