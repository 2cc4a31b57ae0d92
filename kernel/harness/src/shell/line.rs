//! A line that is being typed, and the lines before it.
//!
//! Each change is shown at once: the text after the cursor is printed again and the cursor moved
//! back (ECMA-48: CUB, EL).

use alloc::string::String;
use core::ops::Range;

use kernel::print;

/// Characters of a line at most.
pub const MAX_LINE: usize = 192;
/// Characters of the lines before it at most.
const HISTORY_SIZE: usize = 1024;

/// A line: ASCII, so that each byte is a character and a column.
#[derive(Debug)]
pub struct Line {
    text: String,
    cursor: usize,
    /// A character was typed that found no room, so the line is not what was meant.
    pub is_overlong: bool,
}

impl Line {
    /// Returns an empty one, with its room.
    pub fn new() -> Self {
        Self {
            text: String::with_capacity(MAX_LINE),
            cursor: 0,
            is_overlong: false,
        }
    }

    /// Returns what was typed.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Returns what of it is before the cursor.
    pub fn before_cursor(&self) -> &str {
        &self.text[..self.cursor]
    }

    /// Shows all of it where nothing is.
    pub fn show(&self) {
        print!("{}", self.text);
        move_left(self.text.len() - self.cursor);
    }

    /// Empties it. Shows nothing.
    pub fn clear(&mut self) {
        self.text.clear();
        self.cursor = 0;
        self.is_overlong = false;
    }

    /// Inserts what is ASCII at the cursor, as much as there is room for.
    pub fn insert(&mut self, text: &str) {
        let room = MAX_LINE - self.text.len();
        self.is_overlong |= text.len() > room;
        let text = &text[..text.len().min(room)];
        self.text.insert_str(self.cursor, text);
        print!("{}", &self.text[self.cursor..]);
        self.cursor += text.len();
        move_left(self.text.len() - self.cursor);
    }

    /// Moves the cursor to `column`, or the end of the line.
    pub fn move_to(&mut self, column: usize) {
        let column = column.min(self.text.len());
        print!("{}", self.text.get(self.cursor..column).unwrap_or_default());
        move_left(self.cursor.saturating_sub(column));
        self.cursor = column;
    }

    /// One to the left.
    pub fn move_left(&mut self) {
        self.move_to(self.cursor.saturating_sub(1));
    }

    /// One to the right.
    pub fn move_right(&mut self) {
        self.move_to(self.cursor + 1);
    }

    /// Deletes the character before the cursor.
    pub fn backspace(&mut self) {
        self.remove(self.cursor.saturating_sub(1)..self.cursor);
    }

    /// Deletes the character at the cursor.
    pub fn delete(&mut self) {
        self.remove(self.cursor..self.cursor + 1);
    }

    /// Deletes the word before the cursor, and the blanks behind it.
    pub fn kill_word(&mut self) {
        let word = self.before_cursor().trim_end_matches(' ');
        let start = word.rfind(' ').map_or(0, |blank| blank + 1);
        self.remove(start..self.cursor);
    }

    /// Deletes what is before the cursor.
    pub fn kill_to_start(&mut self) {
        self.remove(0..self.cursor);
    }

    /// Deletes what is behind the cursor.
    pub fn kill_to_end(&mut self) {
        self.remove(self.cursor..self.text.len());
    }

    /// Makes it `text`, which is a line.
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

/// Moves the terminal's cursor.
fn move_left(columns: usize) {
    if columns != 0 {
        print!("\x1b[{columns}D");
    }
}

/// The lines that were typed, the newest last, and which of them is recalled.
#[derive(Debug)]
pub struct History {
    /// Each with a newline behind it.
    lines: String,
    /// How many lines back the recalled one is; 0 for none.
    back: usize,
}

impl History {
    /// None, with the room for all.
    pub fn new() -> Self {
        Self {
            lines: String::with_capacity(HISTORY_SIZE),
            back: 0,
        }
    }

    /// Adds a line, unless it is empty or the same as the last. The oldest go to make room.
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

    /// Returns the `back`-th line from the end.
    fn line(&self, back: usize) -> Option<&str> {
        self.lines.lines().nth_back(back.checked_sub(1)?)
    }

    /// No line is recalled.
    pub fn leave(&mut self) {
        self.back = 0;
    }

    /// Returns the line before the recalled one, if there is one.
    pub fn older(&mut self) -> Option<&str> {
        let back = self.back + 1;
        self.line(back)?;
        self.back = back;
        self.line(back)
    }

    /// Returns the line after the recalled one; an empty one after the newest.
    pub fn newer(&mut self) -> &str {
        self.back = self.back.saturating_sub(1);
        self.line(self.back).unwrap_or_default()
    }
}
