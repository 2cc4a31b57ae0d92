//! The console: a UART behind a lock, and the backend of `log`. Panics use the early console,
//! without the lock.

mod typed;

use core::fmt::{self, Write};
use core::sync::atomic::{AtomicBool, Ordering};

use log::{Level, LevelFilter, Log, Metadata, Record};

use crate::arch::early_console::{self, MappedUart};
use crate::sync::{HotWord, IrqSpinLock, Padded};
use typed::Typed;

struct Console {
    uart: Option<&'static MappedUart>,
    typed: Typed,
}

/// Keeps messages of the early console together, too.
static CONSOLE: Padded<IrqSpinLock<Console>> = Padded(IrqSpinLock::new(
    "console",
    Console {
        uart: None,
        typed: Typed::new(),
    },
));

#[must_use]
pub fn hot_words() -> [HotWord; 1] {
    [HotWord::of("the console", &CONSOLE)]
}

/// A [`Listening`] exists; Ctrl-C came since.
static LISTENS: AtomicBool = AtomicBool::new(false);
static INTERRUPTED: AtomicBool = AtomicBool::new(false);

const CTRL_C: u8 = 0x03;

struct Logger;
static LOGGER: Logger = Logger;

/// # Panics
/// When called twice.
pub fn init_log(level: LevelFilter) {
    if log::set_logger(&LOGGER).is_err() {
        panic!("the logger was set twice");
    }
    log::set_max_level(level);
}

static ATTACHED: spin::Once<MappedUart> = spin::Once::new();

/// Uses `uart` as the loader set it up: only it knows the clock.
pub fn attach(uart: MappedUart) {
    let uart = ATTACHED.call_once(|| uart);
    CONSOLE.lock().uart = Some(uart);
    early_console::set(Some(uart));
}

pub fn print(args: fmt::Arguments<'_>) {
    match CONSOLE.lock().uart {
        Some(uart) => {
            // The writer never fails.
            let _ = Lines(uart).write_fmt(args);
        }
        None => early_console::print(args),
    }
}

impl Console {
    fn receive(&self) -> Option<u8> {
        self.uart?.receive()
    }
}

pub fn read_byte() -> Option<u8> {
    let mut console = CONSOLE.lock();
    console.typed.take().or_else(|| console.receive())
}

/// Ctrl-C is not input, but [`interrupted`].
#[derive(Debug)]
pub struct Listening(());

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

/// Returns whether Ctrl-C came, and drops input before it. Long work polls.
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

#[macro_export]
macro_rules! print {
    ($($arg:tt)*) => {
        $crate::drivers::console::print(core::format_args!($($arg)*))
    };
}

#[macro_export]
macro_rules! println {
    () => {
        $crate::print!("\n")
    };
    ($($arg:tt)*) => {
        $crate::drivers::console::print(core::format_args!("{}\n", core::format_args!($($arg)*)))
    };
}
