//! PCI Express configuration space (PCI Express Base Specification, "Enhanced Configuration Access
//! Mechanism").

use core::ptr::read_volatile;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Function {
    pub bus: u8,
    /// 0 to 31.
    pub device: u8,
    /// 0 to 7.
    pub function: u8,
}

impl Function {
    pub const HOST_BRIDGE: Self = Self {
        bus: 0,
        device: 0,
        function: 0,
    };

    #[must_use]
    pub const fn offset(self) -> usize {
        (self.bus as usize) << 20 | (self.device as usize & 31) << 15 | (self.function as usize & 7) << 12
    }
}

#[derive(Clone, Copy, Debug)]
pub struct Ecam {
    base: usize,
    size: usize,
}

impl Ecam {
    /// # Safety
    /// `size` bytes at `base` stay mapped as device memory.
    #[must_use]
    pub const unsafe fn new(base: usize, size: usize) -> Self {
        Self { base, size }
    }

    /// Returns `None` without a device, or beyond the window.
    #[must_use]
    pub fn vendor_and_device(&self, function: Function) -> Option<(u16, u16)> {
        let offset = function.offset();
        if offset >= self.size {
            return None;
        }
        // SAFETY: in the window, aligned; an id has no side effects.
        let id = unsafe { read_volatile((self.base + offset) as *const u32) };
        // All ones: no device.
        (id as u16 != 0xffff).then_some((id as u16, (id >> 16) as u16))
    }
}
