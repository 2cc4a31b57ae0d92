//! Device registers: one load or store each, without write-back, so that a hypervisor gets a valid
//! syndrome (Arm ARM, ESR_ELx, "ISS encoding for an exception from a Data Abort", ISV).

use core::arch::asm;

use machine::uart::{Registers, Width};

use super::time::relax;

#[derive(Clone, Copy, Debug)]
pub struct Mmio {
    base: usize,
}

impl Mmio {
    /// Returns the registers at `base`.
    ///
    /// # Safety
    /// They stay mapped as device memory, and no access damages what a Rust reference points to.
    #[must_use]
    pub const unsafe fn new(base: usize) -> Self {
        Self { base }
    }

    #[must_use]
    pub const fn base(&self) -> usize {
        self.base
    }
}

impl Registers for Mmio {
    fn read(&self, offset: usize, width: Width) -> u32 {
        let at = self.base + offset;
        let value: u32;
        // SAFETY: a device register, by the promise of `new`.
        unsafe {
            match width {
                Width::Byte => {
                    asm!("ldrb {:w}, [{}]", out(reg) value, in(reg) at, options(nostack, preserves_flags));
                }
                Width::Half => {
                    asm!("ldrh {:w}, [{}]", out(reg) value, in(reg) at, options(nostack, preserves_flags));
                }
                Width::Word => {
                    asm!("ldr {:w}, [{}]", out(reg) value, in(reg) at, options(nostack, preserves_flags));
                }
            }
        }
        value
    }

    fn write(&self, offset: usize, width: Width, value: u32) {
        let at = self.base + offset;
        // SAFETY: as above.
        unsafe {
            match width {
                Width::Byte => {
                    asm!("strb {:w}, [{}]", in(reg) value, in(reg) at, options(nostack, preserves_flags));
                }
                Width::Half => {
                    asm!("strh {:w}, [{}]", in(reg) value, in(reg) at, options(nostack, preserves_flags));
                }
                Width::Word => {
                    asm!("str {:w}, [{}]", in(reg) value, in(reg) at, options(nostack, preserves_flags));
                }
            }
        }
    }

    fn relax(&self) {
        relax();
    }
}
