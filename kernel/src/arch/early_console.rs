//! A polled console, for early boot and panics. It takes no lock, whose holder may have died. The
//! last output is also in memory: `x/s &kernel::arch::early_console::KEPT` in gdb.

use core::fmt::{self, Write};
use core::ptr;
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU8, AtomicUsize, Ordering};

use machine::uart::Uart;

use super::mmio::Mmio;

#[derive(Clone, Copy, Debug)]
pub struct MappedUart {
    uart: Uart,
    registers: Mmio,
}

impl MappedUart {
    /// Returns the UART at `va`.
    ///
    /// # Safety
    /// Its registers stay mapped as device memory.
    #[must_use]
    pub const unsafe fn new(uart: Uart, va: usize) -> Self {
        Self {
            uart,
            // SAFETY: the caller's promise; a UART does not access memory.
            registers: unsafe { Mmio::new(va) },
        }
    }

    #[must_use]
    pub fn base(&self) -> usize {
        self.registers.base()
    }

    pub fn send(&self, text: &str) {
        for byte in text.bytes() {
            if byte == b'\n' {
                self.uart.send(&self.registers, b'\r');
            }
            self.uart.send(&self.registers, byte);
        }
    }

    #[must_use]
    pub fn receive(&self) -> Option<u8> {
        self.uart.receive(&self.registers)
    }
}

/// Null for none.
static DEVICE: AtomicPtr<MappedUart> = AtomicPtr::new(ptr::null_mut());

static OFF: AtomicBool = AtomicBool::new(false);

/// Prints to `device` from now on, or to memory only.
pub fn set(device: Option<&'static MappedUart>) {
    let device = device.map_or(ptr::null_mut(), |device| ptr::from_ref(device).cast_mut());
    DEVICE.store(device, Ordering::Release);
}

/// Prints no more: the console is what fails.
pub fn switch_off() {
    OFF.store(true, Ordering::Relaxed);
}

#[must_use]
pub fn device() -> Option<&'static MappedUart> {
    // SAFETY: null, or a reference that `set` got.
    unsafe { DEVICE.load(Ordering::Acquire).as_ref() }
}

const KEPT_SIZE: usize = 1 << 15;

#[repr(C)]
struct Kept {
    text: [AtomicU8; KEPT_SIZE],
    next: AtomicUsize,
}

static KEPT: Kept = Kept {
    text: [const { AtomicU8::new(0) }; KEPT_SIZE],
    next: AtomicUsize::new(0),
};

fn keep(text: &str) {
    for byte in text.bytes() {
        let at = KEPT.next.fetch_add(1, Ordering::Relaxed) % KEPT_SIZE;
        KEPT.text[at].store(byte, Ordering::Relaxed);
    }
}

pub fn print(args: fmt::Arguments<'_>) {
    // The writer never fails.
    let _ = Console.write_fmt(args);
}

/// Waits, bounded, until all is sent.
pub fn flush() {
    if let Some(device) = device()
        && !OFF.load(Ordering::Relaxed)
    {
        device.uart.flush(&device.registers);
    }
}

struct Console;

impl Write for Console {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        keep(text);
        if let Some(device) = device()
            && !OFF.load(Ordering::Relaxed)
        {
            device.send(text);
        }
        Ok(())
    }
}
