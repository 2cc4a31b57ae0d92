//! A PL011 by polling: for the time before there is a driver, and for a panic's last words.
//!
//! It takes no lock. A line of two CPUs may interleave; a line is never lost to a lock whose holder
//! is what died.

use core::fmt::{self, Write};
use core::ptr::{read_volatile, write_volatile};
use core::sync::atomic::{AtomicUsize, Ordering};

use super::time::relax;

/// Address of the registers, or 0 for none.
static BASE: AtomicUsize = AtomicUsize::new(0);

const UARTDR: usize = 0x00;
const UARTFR: usize = 0x18;
const UARTFR_TXFF: u32 = 1 << 5;
const UARTFR_BUSY: u32 = 1 << 3;
/// How often to look whether the FIFO has room, before the byte is sent anyway: a stuck UART does
/// not stop the kernel.
const PATIENCE: u32 = 1 << 20;

/// Where the PL011's registers are mapped from now on; 0 switches the console off.
pub fn set_base(va: usize) {
    BASE.store(va, Ordering::Release);
}

/// Returns where the registers are mapped, or 0.
#[must_use]
pub fn base() -> usize {
    BASE.load(Ordering::Acquire)
}

/// Prints, each newline as CR LF.
pub fn print(args: fmt::Arguments<'_>) {
    // The writer itself never fails.
    let _ = Console.write_fmt(args);
}

/// Waits until what was printed has left the UART, but not forever: for the moment before
/// power-off.
pub fn flush() {
    let base = base();
    if base != 0 {
        wait_while(base, UARTFR_BUSY);
    }
}

fn wait_while(base: usize, flags: u32) {
    for _ in 0..PATIENCE {
        // SAFETY: a PL011 is mapped at the base, by the promise of its setter.
        let seen = unsafe { read_volatile((base + UARTFR) as *const u32) };
        if seen & flags == 0 {
            return;
        }
        relax();
    }
}

struct Console;

impl Write for Console {
    fn write_str(&mut self, s: &str) -> fmt::Result {
        let base = base();
        if base == 0 {
            return Ok(());
        }
        let put = |byte: u8| {
            wait_while(base, UARTFR_TXFF);
            // SAFETY: a PL011 is mapped at the base, by the promise of its setter.
            unsafe { write_volatile((base + UARTDR) as *mut u32, u32::from(byte)) };
        };
        for byte in s.bytes() {
            if byte == b'\n' {
                put(b'\r');
            }
            put(byte);
        }
        Ok(())
    }
}
