//! The line and its history. Each change reprints the text after the cursor (ECMA-48).

use alloc::string::String;
use core::ops::Range;

use kernel::print;

pub const MAX_LINE: usize = 192;
const HISTORY_SIZE: usize = 1024;

/// ASCII: each byte is a column.
#[derive(Debug)]
pub struct Line {
    text: String,
    cursor: usize,
    pub is_overlong: bool,
}

impl Line {
    pub fn new() -> Self {
        Self {
            text: String::with_capacity(MAX_LINE),
            cursor: 0,
            is_overlong: false,
        }
    }

    pub fn text(&self) -> &str {
        &self.text
    }

    pub fn before_cursor(&self) -> &str {
        &self.text[..self.cursor]
    }

    pub fn show(&self) {
        print!("{}", self.text);
        move_left(self.text.len() - self.cursor);
    }

    pub fn clear(&mut self) {
        self.text.clear();
        self.cursor = 0;
        self.is_overlong = false;
    }

    pub fn insert(&mut self, text: &str) {
        let room = MAX_LINE - self.text.len();
        self.is_overlong |= text.len() > room;
        let text = &text[..text.len().min(room)];
        self.text.insert_str(self.cursor, text);
        print!("{}", &self.text[self.cursor..]);
        self.cursor += text.len();
        move_left(self.text.len() - self.cursor);
    }

    pub fn move_to(&mut self, column: usize) {
        let column = column.min(self.text.len());
        print!("{}", self.text.get(self.cursor..column).unwrap_or_default());
        move_left(self.cursor.saturating_sub(column));
        self.cursor = column;
    }

    pub fn move_left(&mut self) {
        self.move_to(self.cursor.saturating_sub(1));
    }

    pub fn move_right(&mut self) {
        self.move_to(self.cursor + 1);
    }

    pub fn backspace(&mut self) {
        self.remove(self.cursor.saturating_sub(1)..self.cursor);
    }

    pub fn delete(&mut self) {
        self.remove(self.cursor..self.cursor + 1);
    }

    pub fn kill_word(&mut self) {
        let word = self.before_cursor().trim_end_matches(' ');
        let start = word.rfind(' ').map_or(0, |blank| blank + 1);
        self.remove(start..self.cursor);
    }

    pub fn kill_to_start(&mut self) {
        self.remove(0..self.cursor);
    }

    pub fn kill_to_end(&mut self) {
        self.remove(self.cursor..self.text.len());
    }

    pub fn replace(&mut self, text: &str) {
        self.remove(0..self.text.len());
        self.insert(text);
    }

    fn remove(&mut self, range: Range<usize>) {
        let range = range.start..range.end.min(self.text.len());
        if range.is_empty() {
            return;
        }
        self.move_to(range.start);
        self.text.drain(range);
        print!("{}\x1b[K", &self.text[self.cursor..]);
        move_left(self.text.len() - self.cursor);
    }
}

fn move_left(columns: usize) {
    if columns != 0 {
        print!("\x1b[{columns}D");
    }
}

#[derive(Debug)]
pub struct History {
    lines: String,
    back: usize,
}

impl History {
    pub fn new() -> Self {
        Self {
            lines: String::with_capacity(HISTORY_SIZE),
            back: 0,
        }
    }

    /// Adds `line` unless it is the same as the last. Drops the oldest.
    pub fn add(&mut self, line: &str) {
        self.leave();
        if line.is_empty() || self.line(1) == Some(line) {
            return;
        }
        while self.lines.len() + line.len() + 1 > HISTORY_SIZE {
            let oldest = self.lines.find('\n').map_or(0, |end| end + 1);
            self.lines.drain(..oldest);
        }
        self.lines.push_str(line);
        self.lines.push('\n');
    }

    /// From the end.
    fn line(&self, back: usize) -> Option<&str> {
        self.lines.lines().nth_back(back.checked_sub(1)?)
    }

    pub fn leave(&mut self) {
        self.back = 0;
    }

    pub fn older(&mut self) -> Option<&str> {
        let back = self.back + 1;
        self.line(back)?;
        self.back = back;
        self.line(back)
    }

    pub fn newer(&mut self) -> &str {
        self.back = self.back.saturating_sub(1);
        self.line(self.back).unwrap_or_default()
    }
}
