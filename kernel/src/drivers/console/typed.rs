//! Input taken from the UART in search of Ctrl-C.

use arrayvec::ArrayVec;

/// More stays in the UART.
const CAPACITY: usize = 4096;

pub struct Typed {
    bytes: ArrayVec<u8, CAPACITY>,
    nr_read: usize,
}

impl Typed {
    pub const fn new() -> Self {
        Self {
            bytes: ArrayVec::new_const(),
            nr_read: 0,
        }
    }

    pub fn has_room(&self) -> bool {
        !self.bytes.is_full()
    }

    pub fn put(&mut self, byte: u8) {
        // `has_room` was asked.
        let _ = self.bytes.try_push(byte);
    }

    pub fn take(&mut self) -> Option<u8> {
        let byte = self.bytes.get(self.nr_read).copied();
        match byte {
            Some(_) => self.nr_read += 1,
            None => self.clear(),
        }
        byte
    }

    pub fn clear(&mut self) {
        self.bytes.clear();
        self.nr_read = 0;
    }
}
