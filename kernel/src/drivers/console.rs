//! The console: a PL011, behind a lock, and the `log` backend on it.
//!
//! Until [`attach`] everything goes to the early console, which polls the same UART through its
//! fixed slot. After it, everybody writes through the `arm-pl011-uart` driver over an ioremap,
//! whole messages under one lock, so that lines of several CPUs do not mix. A panic and a fatal
//! exception still use [`early_console`], which takes no lock; its base is moved to the same
//! ioremap.

mod typed;

use core::fmt::{self, Write};
use core::ptr::NonNull;
use core::sync::atomic::{AtomicBool, Ordering};

use arm_pl011_uart::{PL011Registers, Uart, UniqueMmioPointer};
use log::{Level, LevelFilter, Log, Metadata, Record};

use crate::arch::early_console;
use crate::sync::{HotWord, IrqSpinLock, Padded};
use typed::Typed;

struct Console {
    /// The driver once there is one.
    uart: Option<Uart<'static>>,
    typed: Typed,
}

/// The lock also keeps whole messages of the early console together.
static CONSOLE: Padded<IrqSpinLock<Console>> = Padded(IrqSpinLock::new(
    "console",
    Console {
        uart: None,
        typed: Typed::new(),
    },
));

/// Returns what all CPUs write here.
#[must_use]
pub fn hot_words() -> [HotWord; 1] {
    [HotWord::of("the console", &CONSOLE)]
}

/// Whether a [`Listening`] is there, and whether Ctrl-C was typed since.
static LISTENS: AtomicBool = AtomicBool::new(false);
static INTERRUPTED: AtomicBool = AtomicBool::new(false);

const CTRL_C: u8 = 0x03;

struct Logger;
static LOGGER: Logger = Logger;

/// Makes the console the backend of `log`, at `level`.
///
/// # Panics
/// When it is called a second time.
pub fn init_log(level: LevelFilter) {
    if log::set_logger(&LOGGER).is_err() {
        panic!("the logger was set twice");
    }
    log::set_max_level(level);
}

/// Makes the PL011 that is mapped at `va` the console.
///
/// It is used as the loader left it: only the loader knows its clock, and with it the baud rate.
///
/// # Safety
/// A PL011 is mapped at `va` as device memory, for good, and only the early console uses it
/// besides.
pub unsafe fn attach(va: usize) {
    let Some(registers) = NonNull::new(va as *mut PL011Registers) else {
        return;
    };
    // SAFETY: the caller's promise. The early console writes the data register too, but only when
    // everything else has ended.
    let registers = unsafe { UniqueMmioPointer::new(registers) };
    let mut console = CONSOLE.lock();
    console.uart = Some(Uart::new(registers));
    early_console::set_base(va);
}

/// Prints, each newline as CR LF, as one message.
pub fn print(args: fmt::Arguments<'_>) {
    match CONSOLE.lock().uart.as_mut() {
        Some(uart) => {
            // The writer itself never fails.
            let _ = Lines(uart).write_fmt(args);
        }
        None => early_console::print(args),
    }
}

impl Console {
    /// Returns the next byte from the UART. Bytes with a line error are skipped.
    fn receive(&mut self) -> Option<u8> {
        self.uart.as_mut()?.read_word().ok().flatten()
    }
}

/// Returns the next byte that was typed, if there is one.
pub fn read_byte() -> Option<u8> {
    let mut console = CONSOLE.lock();
    console.typed.take().or_else(|| console.receive())
}

/// While this lives, Ctrl-C is not input: [`interrupted`] reports it.
#[derive(Debug)]
pub struct Listening(());

/// Begins to listen for Ctrl-C.
#[must_use = "it is listened for until this is dropped"]
pub fn listen() -> Listening {
    INTERRUPTED.store(false, Ordering::Relaxed);
    LISTENS.store(true, Ordering::Relaxed);
    Listening(())
}

impl Drop for Listening {
    fn drop(&mut self) {
        LISTENS.store(false, Ordering::Relaxed);
    }
}

/// Returns whether Ctrl-C was typed since [`listen`]. Long work asks where it can stop. Input
/// before the Ctrl-C is dropped, as a terminal does; input after it stays.
#[inline]
pub fn interrupted() -> bool {
    LISTENS.load(Ordering::Relaxed) && (INTERRUPTED.load(Ordering::Relaxed) || look_for_interrupt())
}

#[cold]
fn look_for_interrupt() -> bool {
    let mut console = CONSOLE.lock();
    while console.typed.has_room()
        && let Some(byte) = console.receive()
    {
        if byte == CTRL_C {
            console.typed.clear();
            INTERRUPTED.store(true, Ordering::Relaxed);
            return true;
        }
        console.typed.put(byte);
    }
    false
}

/// Writes to the UART with CR before each LF.
struct Lines<'a>(&'a mut Uart<'static>);

impl Write for Lines<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for line in text.split_inclusive('\n') {
            match line.strip_suffix('\n') {
                Some(line) => {
                    self.0.write_str(line)?;
                    self.0.write_str("\r\n")?;
                }
                None => self.0.write_str(line)?,
            }
        }
        Ok(())
    }
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        // What is said at these levels is said to the user: no need to say that it is.
        let prefix = match record.level() {
            Level::Error => "error: ",
            Level::Warn => "warning: ",
            Level::Info => "",
            Level::Debug => "debug: ",
            Level::Trace => "trace: ",
        };
        print(format_args!("vmwalk: {prefix}{}\n", record.args()));
    }

    fn flush(&self) {
        early_console::flush();
    }
}

/// Prints to the console at any log level: the suite's own output.
#[macro_export]
macro_rules! print {
    ($($arg:tt)*) => {
        $crate::drivers::console::print(core::format_args!($($arg)*))
    };
}

/// [`print!`](crate::print), and a newline.
#[macro_export]
macro_rules! println {
    () => {
        $crate::print!("\n")
    };
    ($($arg:tt)*) => {
        $crate::drivers::console::print(core::format_args!("{}\n", core::format_args!($($arg)*)))
    };
}
