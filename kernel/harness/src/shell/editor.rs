//! The line editor.
//!
//! Crates: `embedded-cli` (0.2) lacks keys and cannot list candidates. `noline` (0.5) waits for the
//! terminal to report the cursor, which a pipe does not, and cannot complete. `embassy-shell` (0.2)
//! keeps one byte of what is typed while a command runs. Others need an operating system.

use arrayvec::ArrayVec;
use kernel::arch::time::relax;
use kernel::drivers::console;
use kernel::mm::areas;
use kernel::{print, println};

use super::Shell;
use super::command::{self, MAX_WORDS, Next};
use super::keys::{Decoder, Key};
use super::line::{History, Line};
use super::refusal::Refusal;

const PROMPT: &str = "vmwalk> ";
const WIDTH: usize = 80;

#[derive(Debug)]
pub struct Editor {
    keys: Decoder,
    line: Line,
    history: History,
}

impl Editor {
    pub fn new() -> Self {
        Self {
            keys: Decoder::default(),
            line: Line::new(),
            history: History::new(),
        }
    }

    pub fn run(&mut self, shell: &mut Shell) {
        print!("{PROMPT}");
        loop {
            let Some(byte) = console::read_byte() else {
                areas::do_deferred_work();
                relax();
                continue;
            };
            let Some(key) = self.keys.accept(byte) else {
                continue;
            };
            if self.press(key, shell) == Next::Off {
                return;
            }
        }
    }

    fn press(&mut self, key: Key, shell: &mut Shell) -> Next {
        let line = &mut self.line;
        match key {
            Key::Character(c) => line.insert(c.encode_utf8(&mut [0; 4])),
            Key::Enter => return self.enter(shell),
            Key::Complete => self.complete(),
            Key::Left => line.move_left(),
            Key::Right => line.move_right(),
            Key::Home => line.move_to(0),
            Key::End => line.move_to(usize::MAX),
            Key::Older => {
                if let Some(older) = self.history.older() {
                    line.replace(older);
                }
            }
            Key::Newer => line.replace(self.history.newer()),
            Key::Backspace => line.backspace(),
            Key::Delete => line.delete(),
            Key::KillWord => line.kill_word(),
            Key::KillToStart => line.kill_to_start(),
            Key::KillToEnd => line.kill_to_end(),
            Key::Cancel => {
                line.clear();
                self.history.leave();
                print!("^C\n{PROMPT}");
            }
            Key::EndOfInput if line.text().is_empty() => {
                println!("off");
                return Next::Off;
            }
            Key::EndOfInput => line.delete(),
        }
        Next::Line
    }

    fn enter(&mut self, shell: &mut Shell) -> Next {
        println!();
        let next = execute(shell, &self.line).unwrap_or_else(|refusal| {
            println!("{refusal}");
            Next::Line
        });
        self.history.add(self.line.text());
        self.line.clear();
        if next == Next::Line {
            print!("{PROMPT}");
        }
        next
    }

    /// As far as all candidates agree, or lists them.
    fn complete(&mut self) {
        let typed = self.line.before_cursor();
        let (mut common, mut nr) = ("", 0);
        let word = command::for_each_candidate(typed, |name| {
            common = if nr == 0 { name } else { common_start(common, name) };
            nr += 1;
        });
        let rest = common.get(word.len()..).unwrap_or_default();
        if nr == 1 || !rest.is_empty() {
            self.line.insert(rest);
            if nr == 1 {
                self.line.insert(" ");
            }
        } else if nr > 1 {
            self.list();
        }
    }

    fn list(&mut self) {
        let typed = self.line.before_cursor();
        let mut column = WIDTH;
        command::for_each_candidate(typed, |name| {
            if column + 2 + name.len() > WIDTH {
                print!("\n{name}");
                column = name.len();
            } else {
                print!("  {name}");
                column += 2 + name.len();
            }
        });
        print!("\n{PROMPT}");
        self.line.show();
    }
}

fn common_start(one: &'static str, other: &str) -> &'static str {
    let same = one.bytes().zip(other.bytes()).take_while(|(a, b)| a == b);
    one.get(..same.count()).unwrap_or_default()
}

fn execute<'a>(shell: &mut Shell, line: &'a Line) -> Result<Next, Refusal<'a>> {
    if line.is_overlong {
        return Err(Refusal::Overlong);
    }
    let mut words = ArrayVec::<&str, MAX_WORDS>::new();
    let mut rest = line.text();
    while let Some((word, behind)) = first_word(rest) {
        rest = behind;
        if words.try_push(word).is_err() {
            return Err(Refusal::Word {
                word,
                expected: "expected: the line has too many words",
            });
        }
    }
    command::execute(shell, &words)
}

fn first_word(text: &str) -> Option<(&str, &str)> {
    let text = text.trim_start_matches(' ');
    if let Some(quoted) = text.strip_prefix('"') {
        return Some(quoted.split_once('"').unwrap_or((quoted, "")));
    }
    let end = text.find(' ').unwrap_or(text.len());
    (end != 0).then(|| text.split_at(end))
}
