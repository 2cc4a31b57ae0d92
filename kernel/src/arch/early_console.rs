//! The console by polling: for the time before there is one behind a lock, and for a panic's last
//! words.
//!
//! It takes no lock. A line of two CPUs may interleave; a line is never lost to a lock whose holder
//! is what died.
//!
//! What is printed here is also kept in memory, and on a machine without a console that the kernel
//! knows that is all there is: `x/s &kernel::arch::early_console::KEPT` in gdb.

use core::fmt::{self, Write};
use core::ptr;
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU8, AtomicUsize, Ordering};

use machine::uart::Uart;

use super::mmio::Mmio;

/// A UART whose registers are mapped.
#[derive(Clone, Copy, Debug)]
pub struct MappedUart {
    uart: Uart,
    registers: Mmio,
}

impl MappedUart {
    /// Returns the UART whose registers are mapped at `va`.
    ///
    /// # Safety
    /// They are mapped as device memory for as long as this is used.
    #[must_use]
    pub const unsafe fn new(uart: Uart, va: usize) -> Self {
        Self {
            uart,
            // SAFETY: the caller's promise; a UART does not access memory.
            registers: unsafe { Mmio::new(va) },
        }
    }

    /// Returns where its registers are mapped.
    #[must_use]
    pub fn base(&self) -> usize {
        self.registers.base()
    }

    /// Sends `text`, each newline as CR LF.
    pub fn send(&self, text: &str) {
        for byte in text.bytes() {
            if byte == b'\n' {
                self.uart.send(&self.registers, b'\r');
            }
            self.uart.send(&self.registers, byte);
        }
    }

    /// Returns the next byte that came in.
    #[must_use]
    pub fn receive(&self) -> Option<u8> {
        self.uart.receive(&self.registers)
    }
}

/// A [`MappedUart`], or null for none.
static DEVICE: AtomicPtr<MappedUart> = AtomicPtr::new(ptr::null_mut());

/// Nothing is printed any more.
static OFF: AtomicBool = AtomicBool::new(false);

/// Prints to `device` from now on; `None` for memory alone.
pub fn set(device: Option<&'static MappedUart>) {
    let device = device.map_or(ptr::null_mut(), |device| ptr::from_ref(device).cast_mut());
    DEVICE.store(device, Ordering::Release);
}

/// Prints nothing from now on: the console is what fails.
pub fn switch_off() {
    OFF.store(true, Ordering::Relaxed);
}

/// Returns what is printed to.
#[must_use]
pub fn device() -> Option<&'static MappedUart> {
    // SAFETY: null, or a reference that `set` got.
    unsafe { DEVICE.load(Ordering::Acquire).as_ref() }
}

/// Bytes of [`KEPT`]. The oldest go first.
const KEPT_SIZE: usize = 1 << 15;

/// What was printed, and where the next byte goes.
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

/// Prints, each newline as CR LF.
pub fn print(args: fmt::Arguments<'_>) {
    // The writer itself never fails.
    let _ = Console.write_fmt(args);
}

/// Waits until what was printed has left the UART, but not forever: for the moment before
/// power-off.
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
