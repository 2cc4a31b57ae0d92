//! PCI Express configuration space through the Enhanced Configuration Access Mechanism.
//!
//! Source: PCI Express Base Specification, "Enhanced Configuration Access Mechanism": 4 KiB for
//! each function, at bus << 20 | device << 15 | function << 12.

use core::ptr::read_volatile;

/// A function of a device on a bus.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Function {
    /// 0 to 255.
    pub bus: u8,
    /// 0 to 31.
    pub device: u8,
    /// 0 to 7.
    pub function: u8,
}

impl Function {
    /// 00:00.0, where a host bridge is.
    pub const HOST_BRIDGE: Self = Self {
        bus: 0,
        device: 0,
        function: 0,
    };

    /// Returns the offset of its 4 KiB in the window.
    #[must_use]
    pub const fn offset(self) -> usize {
        (self.bus as usize) << 20 | (self.device as usize & 31) << 15 | (self.function as usize & 7) << 12
    }
}

/// A window of configuration space that is mapped as device memory.
#[derive(Clone, Copy, Debug)]
pub struct Ecam {
    base: usize,
    size: usize,
}

impl Ecam {
    /// Returns the window of `size` bytes that is mapped at `base`.
    ///
    /// # Safety
    /// It is mapped as device memory for as long as this is used.
    #[must_use]
    pub const unsafe fn new(base: usize, size: usize) -> Self {
        Self { base, size }
    }

    /// Vendor and device id of `function`; `None` where no device answers, or beyond the window.
    #[must_use]
    pub fn vendor_and_device(&self, function: Function) -> Option<(u16, u16)> {
        let offset = function.offset();
        if offset >= self.size {
            return None;
        }
        // SAFETY: in the window, by the check; 4-byte aligned, since functions are 4 KiB apart.
        // Reading an id has no side effect.
        let id = unsafe { read_volatile((self.base + offset) as *const u32) };
        // All ones: no device.
        (id as u16 != 0xffff).then_some((id as u16, (id >> 16) as u16))
    }
}
