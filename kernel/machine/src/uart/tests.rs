use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::vec;
use std::vec::Vec;

use super::models::KNOWN;
use super::*;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Access {
    Read(usize, Width),
    Write(usize, Width, u32),
}
use Access::{Read, Write};

/// The last value repeats.
#[derive(Default)]
struct Script {
    answers: RefCell<Vec<(usize, VecDeque<u32>)>>,
    seen: RefCell<Vec<Access>>,
    nr: Cell<u64>,
}

impl Script {
    fn new(answers: &[(usize, &[u32])]) -> Self {
        let answers = answers
            .iter()
            .map(|(offset, values)| (*offset, values.iter().copied().collect()));
        Self {
            answers: RefCell::new(answers.collect()),
            ..Self::default()
        }
    }

    fn seen(&self) -> Vec<Access> {
        self.seen.take()
    }
}

impl Registers for Script {
    fn read(&self, offset: usize, width: Width) -> u32 {
        self.nr.set(self.nr.get() + 1);
        if self.nr.get() < 64 {
            self.seen.borrow_mut().push(Read(offset, width));
        }
        let mut answers = self.answers.borrow_mut();
        let found = answers.iter_mut().find(|(register, _)| *register == offset);
        let (_, due) = found.unwrap_or_else(|| panic!("register {offset:#x} is no status"));
        if due.len() > 1 {
            due.pop_front().unwrap()
        } else {
            due[0]
        }
    }

    fn write(&self, offset: usize, width: Width, value: u32) {
        self.seen.borrow_mut().push(Write(offset, width, value));
    }
}

use Width::{Byte, Half, Word};

fn uart(compatible: &str) -> Uart {
    known(compatible).unwrap()
}

#[test]
fn a_pl011_is_written_when_its_fifo_is_not_full() {
    let script = Script::new(&[(0x18, &[1 << 5, 1 << 5 | 1 << 3, 1 << 3])]);
    uart("arm,pl011").send(&script, b'v');
    let status = Read(0x18, Word);
    assert_eq!(
        script.seen(),
        [status, status, status, Write(0, Word, u32::from(b'v'))]
    );
}

#[test]
fn a_byte_of_a_pl011_with_an_error_is_skipped() {
    let script = Script::new(&[(0x18, &[0, 0, 1 << 4]), (0x00, &[1 << 10 | 7, 8])]);
    assert_eq!(uart("arm,pl011").receive(&script), Some(8));
    assert_eq!(uart("arm,pl011").receive(&script), None);
}

#[test]
fn an_8250_is_where_its_machine_has_it() {
    for (compatible, offset, width) in [("ns16550a", 5, Byte), ("brcm,bcm2835-aux-uart", 0x14, Word)] {
        let script = Script::new(&[(offset, &[0, 0x20, 0x61, 0x60]), (0, &[b'w'.into()])]);
        let uart = uart(compatible);
        uart.send(&script, b'v');
        let status = Read(offset, width);
        assert_eq!(script.seen(), [status, status, Write(0, width, b'v'.into())]);
        assert_eq!(uart.receive(&script), Some(b'w'));
        assert_eq!(uart.receive(&script), None);
    }
}

#[test]
fn a_cadence_that_is_off_is_switched_on() {
    let script = Script::new(&[(0x2c, &[1 << 4, 1 << 3])]);
    uart("cdns,uart-r1p12").send(&script, b'v');
    assert_eq!(
        script.seen(),
        [
            Read(0x2c, Word),
            Read(0x2c, Word),
            Write(0x00, Word, 0x14),
            Write(0x30, Word, b'v'.into()),
        ]
    );
}

#[test]
fn flags_of_a_scif_are_cleared_once_they_were_read() {
    let script = Script::new(&[(0x10, &[0x20, 0x62, 0]), (0x14, &[b'w'.into()])]);
    let uart = uart("renesas,scif");
    uart.send(&script, b'v');
    let status = Read(0x10, Half);
    assert_eq!(
        script.seen(),
        [status, Write(0x0c, Byte, b'v'.into()), Write(0x10, Half, 0x9f)]
    );
    assert_eq!(uart.receive(&script), Some(b'w'));
    assert_eq!(script.seen(), [status, Read(0x14, Byte), Write(0x10, Half, 0xfc)]);
}

#[test]
fn each_byte_of_a_geni_is_a_command() {
    let script = Script::new(&[(0x40, &[1 << 12 | 1, 1 << 12]), (0x610, &[1, 1 << 30])]);
    uart("qcom,geni-debug-uart").send(&script, b'v');
    assert_eq!(
        script.seen(),
        [
            Read(0x40, Word),
            Read(0x40, Word),
            Write(0x618, Word, 1 << 30 | 1),
            Write(0x80c, Word, 2),
            Write(0x270, Word, 1),
            Write(0x600, Word, 1 << 27),
            Read(0x610, Word),
            Read(0x610, Word),
            Write(0x700, Word, b'v'.into()),
        ]
    );
    assert_eq!(uart("qcom,geni-debug-uart").receive(&script), None);
}

fn answers(uart: &Uart, condition: &Condition) -> (usize, u32, u32) {
    let no = !condition.value & condition.mask;
    (uart.offset(condition.register), no, condition.value)
}

#[test]
fn each_waits_for_room_and_until_all_is_out() {
    for (name, uart) in KNOWN {
        let model = uart.model;
        let (status, no, yes) = answers(uart, &model.ready);
        let mut script = vec![(status, VecDeque::from([no, no, no, yes]))];
        if let Some(armed) = &model.armed {
            let (offset, _, yes) = answers(uart, armed);
            match script.iter_mut().find(|(register, _)| *register == offset) {
                Some((_, due)) => due.push_back(yes),
                None => script.push((offset, VecDeque::from([yes]))),
            }
        }
        let script = Script {
            answers: RefCell::new(script),
            ..Script::default()
        };
        uart.send(&script, b'v');
        let seen = script.seen();
        let first = seen
            .iter()
            .position(|access| matches!(access, Write(..)))
            .unwrap();
        assert_eq!(first, 4, "{name}: {seen:?}");
        let sent = Write(uart.offset(model.to), uart.width(model.to), b'v'.into());
        assert_eq!(seen.iter().filter(|access| **access == sent).count(), 1, "{name}");

        let (status, no, yes) = answers(uart, &model.idle);
        let script = Script::new(&[(status, &[no, no, yes, no])]);
        uart.flush(&script);
        assert_eq!(script.seen().len(), 3, "{name}");
    }
}

#[test]
fn a_stuck_one_does_not_stop_the_kernel() {
    for (name, uart) in KNOWN {
        let (status, no, _) = answers(uart, &uart.model.ready);
        let mut script = vec![(status, VecDeque::from([no]))];
        if let Some(armed) = &uart.model.armed {
            script.push((uart.offset(armed.register), VecDeque::from([0])));
        }
        let script = Script {
            answers: RefCell::new(script),
            ..Script::default()
        };
        uart.send(&script, b'v');
        let sent = Write(uart.offset(uart.model.to), uart.width(uart.model.to), b'v'.into());
        assert!(script.seen().contains(&sent), "{name}");
    }
}

#[test]
fn names_are_listed_once_and_registers_lie_in_a_page() {
    for (i, (name, uart)) in KNOWN.iter().enumerate() {
        assert!(KNOWN[..i].iter().all(|(other, _)| other != name), "{name}");
        assert!(uart.extent() > 4 && uart.extent() <= 4096, "{name}");
    }
}
