//! Keys, from a byte; ESC `[`, numbers, and a letter or `~` (ECMA-48, 5.4); or ESC `O` and a letter
//! (VT100). A control character aborts a sequence.

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Key {
    Character(char),
    Enter,
    Complete,
    Left,
    Right,
    Home,
    End,
    Older,
    Newer,
    Backspace,
    Delete,
    KillWord,
    KillToStart,
    KillToEnd,
    Cancel,
    EndOfInput,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum State {
    #[default]
    Outside,
    Escape,
    /// Behind ESC `[`.
    Control(Option<u8>),
    Parameters(u8),
    /// Behind ESC `O`.
    Single,
}

const ESCAPE: u8 = 0x1b;

const fn ctrl(letter: u8) -> u8 {
    letter & 0x1f
}

const CTRL_A: u8 = ctrl(b'A');
const CTRL_C: u8 = ctrl(b'C');
const CTRL_D: u8 = ctrl(b'D');
const CTRL_E: u8 = ctrl(b'E');
const CTRL_H: u8 = ctrl(b'H');
const CTRL_K: u8 = ctrl(b'K');
const CTRL_U: u8 = ctrl(b'U');
const CTRL_W: u8 = ctrl(b'W');
const DELETE: u8 = 0x7f;

#[derive(Clone, Copy, Debug, Default)]
pub struct Decoder {
    state: State,
    /// After a CR, an LF is the same key.
    after_cr: bool,
}

impl Decoder {
    pub fn accept(&mut self, byte: u8) -> Option<Key> {
        let after_cr = core::mem::replace(&mut self.after_cr, byte == b'\r');
        if byte < b' ' {
            self.state = if byte == ESCAPE {
                State::Escape
            } else {
                State::Outside
            };
            return control_key(byte).filter(|_| !(after_cr && byte == b'\n'));
        }
        let state = core::mem::take(&mut self.state);
        match (state, byte) {
            (State::Outside, DELETE) => Some(Key::Backspace),
            (State::Outside, b' '..=b'~') => Some(Key::Character(char::from(byte))),
            (State::Escape, b'[') => self.go_on(State::Control(None)),
            (State::Escape, b'O') => self.go_on(State::Single),
            (State::Control(number), b'0'..=b'9') => {
                let number = number.unwrap_or(0).saturating_mul(10).saturating_add(byte - b'0');
                self.go_on(State::Control(Some(number)))
            }
            // Modifiers are ignored.
            (State::Control(number), b' '..=b'?') => self.go_on(State::Parameters(number.unwrap_or(0))),
            (State::Parameters(number), b' '..=b'?') => self.go_on(State::Parameters(number)),
            (State::Control(Some(number)) | State::Parameters(number), b'~') => numbered_key(number),
            (State::Control(_) | State::Parameters(_) | State::Single, letter) => lettered_key(letter),
            _ => None,
        }
    }

    fn go_on(&mut self, state: State) -> Option<Key> {
        self.state = state;
        None
    }
}

fn control_key(byte: u8) -> Option<Key> {
    match byte {
        b'\r' | b'\n' => Some(Key::Enter),
        b'\t' => Some(Key::Complete),
        CTRL_A => Some(Key::Home),
        CTRL_C => Some(Key::Cancel),
        CTRL_D => Some(Key::EndOfInput),
        CTRL_E => Some(Key::End),
        CTRL_H => Some(Key::Backspace),
        CTRL_K => Some(Key::KillToEnd),
        CTRL_U => Some(Key::KillToStart),
        CTRL_W => Some(Key::KillWord),
        _ => None,
    }
}

fn lettered_key(letter: u8) -> Option<Key> {
    match letter {
        b'A' => Some(Key::Older),
        b'B' => Some(Key::Newer),
        b'C' => Some(Key::Right),
        b'D' => Some(Key::Left),
        b'F' => Some(Key::End),
        b'H' => Some(Key::Home),
        _ => None,
    }
}

fn numbered_key(number: u8) -> Option<Key> {
    match number {
        1 | 7 => Some(Key::Home),
        3 => Some(Key::Delete),
        4 | 8 => Some(Key::End),
        _ => None,
    }
}
