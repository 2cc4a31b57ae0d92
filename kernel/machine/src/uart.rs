//! UARTs by polling: which registers, and which of their bits, send and receive a byte.
//!
//! A UART that its loader has set up is two data registers, and two conditions on status registers.
//! So there is one driver, and a [`Model`] of each family is data. Clock, rate and pins are left as
//! they are: only the loader knows them.
//!
//! `models` has the families, and what `compatible` says of each.

mod models;

#[cfg(test)]
mod tests;

use dtoolkit::fdt::FdtNode;
use dtoolkit::{Node, Property};

pub use models::known;

/// Bits of an access.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Width {
    /// 8
    Byte,
    /// 16
    Half,
    /// 32
    Word,
}

impl Width {
    /// Returns it in bytes.
    #[must_use]
    pub const fn bytes(self) -> usize {
        match self {
            Self::Byte => 1,
            Self::Half => 2,
            Self::Word => 4,
        }
    }
}

/// The registers of a UART.
pub trait Registers {
    /// Reads the register at `offset`.
    fn read(&self, offset: usize, width: Width) -> u32;

    /// Writes it.
    fn write(&self, offset: usize, width: Width, value: u32);

    /// Waits a little, before a condition is looked at again.
    fn relax(&self) {}
}

/// A register, by its offset: in bytes, or in registers where the spacing differs from machine to
/// machine.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Register(u16, Width);

/// Holds when a register, masked, has a value.
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

/// How bytes come in.
#[derive(Debug)]
struct Receive {
    /// There is one.
    ready: Condition,
    from: Register,
    /// Bits beside the byte that say that it has an error.
    errors: u32,
    /// Written when it is read.
    after: Option<(Register, u32)>,
}

/// A family of UARTs.
#[derive(Debug)]
pub struct Model {
    /// What it is called.
    pub name: &'static str,
    /// A byte can be sent.
    ready: Condition,
    /// Written before each byte.
    before: &'static [(Register, u32)],
    /// And then waited for.
    armed: Option<Condition>,
    to: Register,
    /// Written after it.
    after: Option<(Register, u32)>,
    /// All that was sent is out.
    idle: Condition,
    /// `None`: only output.
    receive: Option<Receive>,
    /// `reg-shift` and `reg-io-width` of the device tree say where its registers are.
    spaced: bool,
}

/// A UART of a machine.
#[derive(Clone, Copy, Debug)]
pub struct Uart {
    /// Its family.
    pub model: &'static Model,
    /// log2 of the bytes from register to register, where the model counts registers.
    shift: u8,
    /// The width of each access, if not the model's.
    width: Option<Width>,
}

/// How often a condition is looked at before the byte is sent anyway: a stuck UART does not stop
/// the kernel.
const PATIENCE: u32 = 1 << 20;

impl Uart {
    /// An Arm PL011.
    pub const PL011: Self = Self {
        model: &models::PL011,
        shift: 0,
        width: None,
    };

    /// Returns the UART that `node` is, if it is one of the [`known`].
    #[must_use]
    pub fn of(node: FdtNode<'_>) -> Option<Self> {
        // From the most specific to what it is a variant of.
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

    /// Returns where the last byte of its registers ends that is ever accessed.
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

    /// Sends `byte`, once there is room for it.
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

    /// Returns the next byte that came in. Bytes with an error of the line are skipped.
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

    /// Waits until what was sent is out, but not forever: for the moment before power-off.
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
