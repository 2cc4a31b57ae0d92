//! The console: a UART, behind a lock, and the `log` backend on it.
//!
//! Until [`attach`] everything goes to the early console, which polls the same UART through its
//! fixed slot. After it, whole messages are written through an ioremap under one lock, so that
//! lines of several CPUs do not mix. A panic and a fatal exception still use [`early_console`],
//! which takes no lock, through the same ioremap.

mod typed;

use core::fmt::{self, Write};
use core::sync::atomic::{AtomicBool, Ordering};

use log::{Level, LevelFilter, Log, Metadata, Record};

use crate::arch::early_console::{self, MappedUart};
use crate::sync::{HotWord, IrqSpinLock, Padded};
use typed::Typed;

struct Console {
    /// The UART through its ioremap, once there is one.
    uart: Option<&'static MappedUart>,
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

static ATTACHED: spin::Once<MappedUart> = spin::Once::new();

/// Makes `uart` the console.
///
/// It is used as the loader left it: only the loader knows its clock, and with it the baud rate.
pub fn attach(uart: MappedUart) {
    let uart = ATTACHED.call_once(|| uart);
    CONSOLE.lock().uart = Some(uart);
    early_console::set(Some(uart));
}

/// Prints, each newline as CR LF, as one message.
pub fn print(args: fmt::Arguments<'_>) {
    match CONSOLE.lock().uart {
        Some(uart) => {
            // The writer itself never fails.
            let _ = Lines(uart).write_fmt(args);
        }
        None => early_console::print(args),
    }
}

impl Console {
    /// Returns the next byte from the UART.
    fn receive(&self) -> Option<u8> {
        self.uart?.receive()
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

/// Writes to the UART.
struct Lines<'a>(&'a MappedUart);

impl Write for Lines<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.send(text);
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
