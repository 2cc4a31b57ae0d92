//! The line editor: crate `embedded-cli` between the console and the commands.

use core::convert::Infallible;

use arrayvec::ArrayVec;
use embedded_cli::arguments::Arg;
use embedded_cli::autocomplete::{Autocompletion, Request};
use embedded_cli::cli::{CliBuilder, CliHandle};
use embedded_cli::command::RawCommand;
use embedded_cli::service::{Autocomplete, CommandProcessor, Help, ProcessError};
use embedded_io::{ErrorType, Write};

use super::Shell;
use super::command::{self, COMMANDS, MAX_WORDS, Next};
use super::refusal::Refusal;
use crate::arch::time::relax;
use crate::drivers::console;
use crate::{print, println};

/// Characters of a line at most.
pub const MAX_LINE: usize = 192;
const HISTORY_SIZE: usize = 1024;
const PROMPT: &str = "vmwalk> ";

const BACKSPACE: u8 = 0x08;
const ESCAPE: u8 = 0x1b;
const DELETE: u8 = 0x7f;

/// The console as the editor writes to it.
struct Terminal;

impl ErrorType for Terminal {
    type Error = Infallible;
}

impl Write for Terminal {
    fn write(&mut self, bytes: &[u8]) -> Result<usize, Infallible> {
        // The console puts a CR before each LF itself.
        let bytes_to_show = if bytes == b"\r\n" { b"\n" } else { bytes };
        // The editor writes what it was given, which was ASCII.
        if let Ok(text) = core::str::from_utf8(bytes_to_show) {
            print!("{text}");
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> Result<(), Infallible> {
        Ok(())
    }
}

/// Names of commands are completed; the editor adds `help` of itself.
struct Names;

impl Autocomplete for Names {
    fn autocomplete(request: Request<'_>, completion: &mut Autocompletion<'_>) {
        let Request::CommandName(typed) = request else {
            return;
        };
        COMMANDS
            .iter()
            .filter(|command| command.name != "help")
            .filter_map(|command| command.name.strip_prefix(typed))
            .for_each(|rest| completion.merge_autocompletion(rest));
    }
}

impl Help for Names {}

/// Carries out each line.
struct Lines<'s> {
    shell: &'s mut Shell,
    overlong: bool,
    next: Next,
}

impl Lines<'_> {
    fn line<'a>(&mut self, raw: &RawCommand<'a>) -> Result<Next, Refusal<'a>> {
        if self.overlong {
            return Err(Refusal::Overlong);
        }
        let mut words = ArrayVec::<&'a str, MAX_WORDS>::new();
        words.push(raw.name());
        for word in raw.args().args() {
            let Ok(Arg::Value(word)) = word else {
                return Err(Refusal::Option);
            };
            if words.try_push(word).is_err() {
                return Err(Refusal::Word {
                    word,
                    expected: "expected: the line has too many words",
                });
            }
        }
        command::execute(self.shell, &words)
    }
}

impl CommandProcessor<Terminal, Infallible> for Lines<'_> {
    fn process<'a>(
        &mut self,
        _: &mut CliHandle<'_, Terminal, Infallible>,
        raw: RawCommand<'a>,
    ) -> Result<(), ProcessError<'a, Infallible>> {
        match self.line(&raw) {
            Ok(next) => self.next = next,
            Err(refusal) => println!("{refusal}"),
        }
        Ok(())
    }
}

/// Reads lines and carries them out, until `off`.
pub fn run(shell: &mut Shell) {
    let Ok(mut cli) = CliBuilder::default()
        .writer(Terminal)
        .command_buffer([0; MAX_LINE])
        .history_buffer([0; HISTORY_SIZE])
        .prompt(PROMPT)
        .build();
    let mut lines = Lines {
        shell,
        overlong: false,
        next: Next::Line,
    };
    // Characters since the last line: at least as many as the editor holds, which drops what finds no room.
    let mut typed = 0;
    while lines.next == Next::Line {
        let byte = match console::read_byte() {
            // What terminals send for the key left of the line's end.
            Some(DELETE) => BACKSPACE,
            Some(byte @ (b' '..=b'~' | b'\r' | b'\n' | b'\t' | BACKSPACE | ESCAPE)) => byte,
            // Not typed by a person who wants a command.
            Some(_) => continue,
            None => {
                relax();
                continue;
            }
        };
        typed += usize::from((b' '..=b'~').contains(&byte));
        lines.overlong = typed > MAX_LINE;
        let Ok(()) = cli.process_byte::<Names, _>(byte, &mut lines);
        if matches!(byte, b'\r' | b'\n') {
            typed = 0;
        }
    }
}
