use super::syndrome::Syndrome;

/// Registers as the vectors save them.
#[repr(C, align(16))]
#[derive(Debug)]
pub struct Frame {
    pub x: [u64; 31],
    pub sp: u64,
    pub elr: u64,
    pub spsr: u64,
    pub esr: u64,
    pub far: u64,
    pub vector: u64,
    /// Aligns the frame record.
    _padding: u64,
    pub record: [u64; 2],
}

/// Arm ARM, "Exception vectors".
const VECTORS: [&str; 4] = ["synchronous exception", "IRQ", "FIQ", "SError"];

impl Frame {
    #[must_use]
    pub fn syndrome(&self) -> Syndrome {
        Syndrome(self.esr)
    }

    #[must_use]
    pub fn kind(&self) -> &'static str {
        VECTORS[(self.vector & 3) as usize]
    }

    /// From EL1 with SP_EL1: all that can be handled.
    pub(super) fn is_synchronous(&self) -> bool {
        self.vector == 4
    }
}
