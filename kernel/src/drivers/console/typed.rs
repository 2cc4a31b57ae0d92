//! Input that was taken from the UART in search of Ctrl-C and is not read yet.

use arrayvec::ArrayVec;

/// Bytes at most. More stay in the UART, and are not searched.
const CAPACITY: usize = 4096;

/// A queue of bytes.
pub struct Typed {
    bytes: ArrayVec<u8, CAPACITY>,
    /// Of these, read already.
    nr_read: usize,
}

impl Typed {
    /// Nothing.
    pub const fn new() -> Self {
        Self {
            bytes: ArrayVec::new_const(),
            nr_read: 0,
        }
    }

    /// Returns whether one more byte can be [put](Self::put) in.
    pub fn has_room(&self) -> bool {
        !self.bytes.is_full()
    }

    /// Puts a byte in, if there is room.
    pub fn put(&mut self, byte: u8) {
        // `has_room` was asked.
        let _ = self.bytes.try_push(byte);
    }

    /// Returns the next byte.
    pub fn take(&mut self) -> Option<u8> {
        let byte = self.bytes.get(self.nr_read).copied();
        match byte {
            Some(_) => self.nr_read += 1,
            None => self.clear(),
        }
        byte
    }

    /// Drops all that is left.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.nr_read = 0;
    }
}
