use arrayvec::ArrayVec;
use kernel::bootargs::parse_number;
use paging::{PhysAddr, VirtAddr, VirtRange};

use super::refusal::Refusal;

pub const MAX_BLOCKS: usize = 64;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Permission {
    pub write: bool,
    pub execute: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Access {
    Read,
    Write,
    Execute,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Part {
    All,
    From(u64, u64),
}

fn scaled(word: &str) -> Option<u64> {
    let (digits, shift) = match word.as_bytes().last()? {
        b'K' | b'k' => (&word[..word.len() - 1], 10),
        b'M' | b'm' => (&word[..word.len() - 1], 20),
        b'G' | b'g' => (&word[..word.len() - 1], 30),
        b'T' | b't' => (&word[..word.len() - 1], 40),
        _ => (word, 0),
    };
    parse_number(digits)?.checked_mul(1 << shift)
}

pub fn number(word: &str) -> Result<u64, Refusal<'_>> {
    parse_number(word).ok_or(Refusal::Word {
        word,
        expected: "a number",
    })
}

pub fn size(word: &str) -> Result<u64, Refusal<'_>> {
    scaled(word).filter(|size| *size != 0).ok_or(Refusal::Word {
        word,
        expected: "a size (4096, 0x1000, 64K, 2M, 1G)",
    })
}

pub fn va(word: &str) -> Result<VirtAddr, Refusal<'_>> {
    parse_number(word).map(VirtAddr).ok_or(Refusal::Word {
        word,
        expected: "an address",
    })
}

pub fn pa(word: &str) -> Result<PhysAddr, Refusal<'_>> {
    scaled(word).map(PhysAddr).ok_or(Refusal::Word {
        word,
        expected: "a physical address",
    })
}

/// Parses a range, which must not wrap.
pub fn range<'a>(start: &'a str, bytes: &'a str) -> Result<VirtRange, Refusal<'a>> {
    let start = va(start)?;
    let size = size(bytes)?;
    // The last byte may be the last address.
    if start.0.checked_add(size - 1).is_none() {
        return Err(Refusal::NoRange(start, size));
    }
    Ok(VirtRange::new(start, size))
}

pub fn orders(word: &str) -> Result<ArrayVec<u8, MAX_BLOCKS>, Refusal<'_>> {
    let expected = Refusal::Word {
        word,
        expected: "up to 64 orders separated by commas (8,4,0)",
    };
    let mut orders = ArrayVec::new();
    for order in word.split(',') {
        let order = parse_number(order)
            .and_then(|order| u8::try_from(order).ok())
            .filter(|order| *order <= kernel::mm::frames::MAX_ORDER);
        let Some(order) = order else {
            return Err(expected);
        };
        if orders.try_push(order).is_err() {
            return Err(expected);
        }
    }
    Ok(orders)
}

pub fn part(word: &str) -> Result<Part, Refusal<'_>> {
    if word == "all" {
        return Ok(Part::All);
    }
    let both = word.split_once('+').and_then(|(offset, size)| {
        let size = scaled(size).filter(|size| *size != 0)?;
        Some(Part::From(scaled(offset)?, size))
    });
    both.ok_or(Refusal::Word {
        word,
        expected: "`all` or OFFSET+SIZE (64K+4K)",
    })
}

pub fn permission(word: &str) -> Result<Permission, Refusal<'_>> {
    let (write, execute) = match word {
        "r" => (false, false),
        "rw" => (true, false),
        "rx" => (false, true),
        // So that the engine can say why not.
        "rwx" => (true, true),
        _ => {
            return Err(Refusal::Word {
                word,
                expected: "one of r, rw, rx",
            });
        }
    };
    Ok(Permission { write, execute })
}

pub fn access(word: &str) -> Result<Access, Refusal<'_>> {
    match word {
        "r" => Ok(Access::Read),
        "w" => Ok(Access::Write),
        "x" => Ok(Access::Execute),
        _ => Err(Refusal::Word {
            word,
            expected: "one of r, w, x",
        }),
    }
}
