//! Polled UARTs: one driver, and a [`Model`] a family as data (`models`). Clock, rate and pins
//! stay: only the loader knows them.

mod models;

#[cfg(test)]
mod tests;

use dtoolkit::fdt::FdtNode;
use dtoolkit::{Node, Property};

pub use models::known;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Width {
    Byte,
    Half,
    Word,
}

impl Width {
    #[must_use]
    pub const fn bytes(self) -> usize {
        match self {
            Self::Byte => 1,
            Self::Half => 2,
            Self::Word => 4,
        }
    }
}

pub trait Registers {
    fn read(&self, offset: usize, width: Width) -> u32;

    fn write(&self, offset: usize, width: Width, value: u32);

    /// Before a condition is polled again.
    fn relax(&self) {}
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Register(u16, Width);

#[derive(Clone, Copy, Debug)]
struct Condition {
    register: Register,
    mask: u32,
    value: u32,
}

impl Condition {
    const fn set(register: Register, bit: u32) -> Self {
        let mask = 1 << bit;
        Self {
            register,
            mask,
            value: mask,
        }
    }

    const fn clear(register: Register, bit: u32) -> Self {
        Self {
            register,
            mask: 1 << bit,
            value: 0,
        }
    }
}

#[derive(Debug)]
struct Receive {
    ready: Condition,
    from: Register,
    errors: u32,
    after: Option<(Register, u32)>,
}

#[derive(Debug)]
pub struct Model {
    pub name: &'static str,
    ready: Condition,
    before: &'static [(Register, u32)],
    armed: Option<Condition>,
    to: Register,
    after: Option<(Register, u32)>,
    idle: Condition,
    /// `None`: only output.
    receive: Option<Receive>,
    spaced: bool,
}

#[derive(Clone, Copy, Debug)]
pub struct Uart {
    pub model: &'static Model,
    shift: u8,
    width: Option<Width>,
}

/// A stuck UART must not stop the kernel.
const PATIENCE: u32 = 1 << 20;

impl Uart {
    pub const PL011: Self = Self {
        model: &models::PL011,
        shift: 0,
        width: None,
    };

    #[must_use]
    pub fn of(node: FdtNode<'_>) -> Option<Self> {
        // The most specific first.
        let uart = node.compatible()?.find_map(known)?;
        if !uart.model.spaced {
            return Some(uart);
        }
        let number = |name| node.property(name)?.value_as::<u32>().ok();
        let width = match number("reg-io-width") {
            None => uart.width,
            Some(1) => Some(Width::Byte),
            Some(2) => Some(Width::Half),
            Some(4) => Some(Width::Word),
            Some(_) => return None,
        };
        let shift = match number("reg-shift") {
            None => uart.shift,
            Some(shift @ 0..=4) => shift as u8,
            Some(_) => return None,
        };
        Some(Self { width, shift, ..uart })
    }

    #[must_use]
    pub fn extent(&self) -> usize {
        let model = self.model;
        let conditions = [Some(model.ready), model.armed, Some(model.idle)];
        let receive = model.receive.as_ref();
        conditions
            .into_iter()
            .flatten()
            .map(|condition| condition.register)
            .chain([model.to])
            .chain(
                model
                    .before
                    .iter()
                    .chain(&model.after)
                    .map(|(register, _)| *register),
            )
            .chain(receive.map(|receive| receive.ready.register))
            .chain(receive.map(|receive| receive.from))
            .chain(receive.and_then(|receive| Some(receive.after?.0)))
            .map(|register| self.offset(register) + self.width(register).bytes())
            .max()
            .unwrap_or(0)
    }

    pub fn send(&self, registers: &impl Registers, byte: u8) {
        let model = self.model;
        self.wait_for(registers, &model.ready);
        for (register, value) in model.before {
            self.write(registers, *register, *value);
        }
        if let Some(armed) = &model.armed {
            self.wait_for(registers, armed);
        }
        self.write(registers, model.to, u32::from(byte));
        if let Some((register, value)) = model.after {
            self.write(registers, register, value);
        }
    }

    /// Returns the next byte, without line errors.
    pub fn receive(&self, registers: &impl Registers) -> Option<u8> {
        let receive = self.model.receive.as_ref()?;
        while self.holds(registers, &receive.ready) {
            let word = self.read(registers, receive.from);
            if let Some((register, value)) = receive.after {
                self.write(registers, register, value);
            }
            if word & receive.errors == 0 {
                return Some(word as u8);
            }
        }
        None
    }

    /// Waits, bounded, until all is sent.
    pub fn flush(&self, registers: &impl Registers) {
        self.wait_for(registers, &self.model.idle);
    }

    fn wait_for(&self, registers: &impl Registers, condition: &Condition) {
        for _ in 0..PATIENCE {
            if self.holds(registers, condition) {
                return;
            }
            registers.relax();
        }
    }

    fn holds(&self, registers: &impl Registers, condition: &Condition) -> bool {
        self.read(registers, condition.register) & condition.mask == condition.value
    }

    fn offset(&self, register: Register) -> usize {
        usize::from(register.0) << self.shift
    }

    fn width(&self, register: Register) -> Width {
        self.width.unwrap_or(register.1)
    }

    fn read(&self, registers: &impl Registers, register: Register) -> u32 {
        registers.read(self.offset(register), self.width(register))
    }

    fn write(&self, registers: &impl Registers, register: Register, value: u32) {
        registers.write(self.offset(register), self.width(register), value);
    }
}
