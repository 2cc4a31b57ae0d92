//! Copies with bugs that the proofs must refute; `BUG` 0 is right.

use paging::{
    Attributes, Granule, Granule4K, Granule16K, Granule16K52, Granule64K, LAST_LEVEL, LeafSet, LeafSize,
    Leaves, Level, PhysAddr, TlbiRange, VirtAddr, mmu,
};

use crate::flush::{Log, RVAAE1IS, VAAE1IS};
use crate::leaves::{Answer, answer, set};
use crate::shim;

/// 1: VA and PA need not be congruent. 2: a group need not be whole. 3: the first group begins at
/// the first descriptor.
#[inline(always)]
fn divide<G: Granule, const BUG: u8>(
    level: Level,
    va: VirtAddr,
    pa: PhysAddr,
    nr: usize,
    groups: bool,
) -> Leaves {
    let mut leaves = Leaves {
        level,
        nr,
        grouped: 0,
        head: 0,
    };
    let group = G::cont_entries(level);
    let congruent = BUG == 1 || (va.0 ^ pa.0) & (G::cont_size(level) - 1) == 0;
    if nr >= group && groups && congruent {
        let to_group = G::index(va.0, level).wrapping_neg() & (group - 1);
        let head = if BUG == 3 { 0 } else { to_group };
        let rest = nr.saturating_sub(head);
        let grouped = if BUG == 2 { rest } else { rest & !(group - 1) };
        if grouped != 0 {
            (leaves.grouped, leaves.head) = (grouped, head);
        }
    }
    leaves
}

/// 1 to 3 as [`divide`]. 4: a leaf as large as the memory is refused. 5: only VA is aligned. 6:
/// `allowed` is ignored. 7: the table's end is ignored.
#[inline(always)]
fn largest<G: Granule, const BUG: u8>(va: VirtAddr, pa: PhysAddr, size: u64, allowed: LeafSet) -> Leaves {
    for level in G::ROOT_LEVEL..LAST_LEVEL {
        let (single, group) = (LeafSize::new(level, false), LeafSize::new(level, true));
        let fits = |leaf: LeafSize| {
            let bytes = leaf.bytes::<G>();
            let address = if BUG == 5 { va.0 } else { va.0 | pa.0 };
            let covered = if BUG == 4 { size > bytes } else { size >= bytes };
            leaf.exists::<G>() && address & (bytes - 1) == 0 && covered
        };
        if !fits(single) {
            continue;
        }
        if BUG == 6 || allowed.contains(single) {
            return divided::<G, BUG>(level, va, pa, size, allowed);
        }
        if allowed.contains(group) && fits(group) {
            let leaves = divided::<G, BUG>(level, va, pa, size, allowed);
            return Leaves {
                nr: leaves.grouped,
                ..leaves
            };
        }
    }
    divided::<G, BUG>(LAST_LEVEL, va, pa, size, allowed)
}

#[inline(always)]
fn divided<G: Granule, const BUG: u8>(
    level: Level,
    va: VirtAddr,
    pa: PhysAddr,
    size: u64,
    allowed: LeafSet,
) -> Leaves {
    let group = LeafSize::new(level, true);
    let left = G::root_entries_at(level) - G::index(va.0, level);
    let nr = (size >> G::shift(level)) as usize;
    let nr = if BUG == 7 { nr } else { nr.min(left) };
    divide::<G, BUG>(level, va, pa, nr, group.exists::<G>() && allowed.contains(group))
}

/// 1: NUM is one too large. 2: the second operation begins where the first does. 3: a last page is
/// left out.
#[inline(always)]
fn cover<G: Granule, const BUG: u8>(start: u64, pages: u64, log: *mut u64) {
    const MOST: u64 = 32 << 16;
    let log = Log::new(log);
    let issue = |op: TlbiRange| log.issue(RVAAE1IS, op.operand::<G>());
    let (mut at, mut rest) = (start, pages);
    while rest >= MOST || (rest == pages && rest >= 2) {
        let units = (rest / 2).min(MOST / 2);
        let scale = (units.ilog2() / 5).min(3);
        let num = (units >> (5 * scale)) as u8 - u8::from(BUG != 1);
        let op = TlbiRange {
            start: VirtAddr(at),
            scale: scale as u8,
            num,
        };
        issue(op);
        at += op.pages() << G::PAGE_SHIFT;
        rest = rest.wrapping_sub(op.pages());
        if BUG == 1 {
            return;
        }
    }
    if rest == 1 && BUG != 3 {
        log.issue(VAAE1IS, mmu::tlbi_va_operand(VirtAddr(at)));
    } else if rest > 1 {
        let units = rest.div_ceil(2);
        let scale = (0..3).find(|scale| units <= 32 << (5 * scale)).unwrap_or(3);
        let num = units.div_ceil(1 << (5 * scale)) as u8 - 1;
        let mut op = TlbiRange {
            start: VirtAddr(start),
            scale: scale as u8,
            num,
        };
        if BUG != 2 {
            let end = start + (pages << G::PAGE_SHIFT);
            op.start = VirtAddr(end - (op.pages() << G::PAGE_SHIFT));
        }
        issue(op);
    }
}

macro_rules! planted_leaves {
    ($($name:ident $granule:ty, $bug:literal;)*) => {
        shim! {$(
            fn $name(va: u64, pa: u64, size: u64, allowed: u8, out: &mut Answer) {
                *out = answer(largest::<$granule, $bug>(VirtAddr(va), PhysAddr(pa), size, set(allowed)));
            }
        )*}
    };
}

planted_leaves! {
    planted_leaves_4k_1 Granule4K, 1;
    planted_leaves_4k_4 Granule4K, 4;
    planted_leaves_4k_5 Granule4K, 5;
    planted_leaves_4k_6 Granule4K, 6;
    planted_leaves_4k_7 Granule4K, 7;
    planted_leaves_16k_2 Granule16K, 2;
    planted_leaves_16k_4 Granule16K, 4;
    planted_leaves_64k_3 Granule64K, 3;
    planted_leaves_64k_5 Granule64K, 5;
}

macro_rules! planted_divide {
    ($($name:ident $granule:ty, $bug:literal;)*) => {
        shim! {$(
            fn $name(level: i8, va: u64, pa: u64, nr: usize, groups: bool, out: &mut Answer) {
                *out = answer(divide::<$granule, $bug>(level, VirtAddr(va), PhysAddr(pa), nr, groups));
            }
        )*}
    };
}

planted_divide! {
    planted_divide_4k_1 Granule4K, 1;
    planted_divide_4k_2 Granule4K, 2;
    planted_divide_4k_3 Granule4K, 3;
    planted_divide_16k_1 Granule16K, 1;
    planted_divide_16k_2 Granule16K, 2;
    planted_divide_16k_3 Granule16K, 3;
    planted_divide_64k_1 Granule64K, 1;
    planted_divide_64k_2 Granule64K, 2;
    planted_divide_64k_3 Granule64K, 3;
}

/// Ignores where the run begins.
#[inline(always)]
fn within<G: Granule>(pages: u64, allowed: LeafSet) -> u64 {
    let fits = |size: &LeafSize| {
        size.exists::<G>() && allowed.contains(*size) && pages >= size.bytes::<G>() >> G::PAGE_SHIFT
    };
    let size = LeafSize::ALL.into_iter().find(fits).unwrap_or(LeafSize::PAGE);
    (size.level() as u64) << 8 | u64::from(size.is_contiguous())
}

shim! {
    fn planted_within_4k(_pa: u64, pages: u64, allowed: u8) -> u64 {
        within::<Granule4K>(pages, set(allowed))
    }
    fn planted_within_16k(_pa: u64, pages: u64, allowed: u8) -> u64 {
        within::<Granule16K>(pages, set(allowed))
    }
    fn planted_within_64k(_pa: u64, pages: u64, allowed: u8) -> u64 {
        within::<Granule64K>(pages, set(allowed))
    }
}

macro_rules! planted_cover {
    ($($name:ident $granule:ty, $bug:literal;)*) => {
        shim! {$(
            fn $name(start: u64, pages: u64, log: *mut u64) {
                cover::<$granule, $bug>(start, pages, log);
            }
        )*}
    };
}

/// As 64K pages, but for the operand.
#[derive(Clone, Copy, Default, Debug)]
struct WrongTg;

impl Granule for WrongTg {
    const NAME: &'static str = Granule64K::NAME;
    const PAGE_SHIFT: u32 = Granule64K::PAGE_SHIFT;
    const VA_BITS: u32 = Granule64K::VA_BITS;
    const TLBI_TG: u64 = Granule16K::TLBI_TG;
}

planted_cover! {
    planted_cover_16k_1 Granule16K, 1;
    planted_cover_16k_2 Granule16K, 2;
    planted_cover_16k_3 Granule16K, 3;
    planted_cover_16k_52_4 Granule16K, 0;
    planted_cover_16k_52_5 Granule16K52, 0;
    planted_cover_64k_1 Granule64K, 1;
    planted_cover_64k_2 Granule64K, 2;
    planted_cover_64k_3 Granule64K, 3;
    planted_cover_64k_5 WrongTg, 0;
}

/// 1: all attribute bits go in. 2: a page has a block's type. 3: the contiguous bit is where PXN
/// is.
fn encode<const BUG: u8>(level: Level, pa: u64, attributes: u64, contiguous: bool) -> u64 {
    let attributes = if BUG == 1 {
        attributes
    } else {
        Attributes::from_bits(attributes).bits()
    };
    let kind = if level == LAST_LEVEL && BUG != 2 { 3 } else { 1 };
    pa | attributes | kind | u64::from(contiguous) << if BUG == 3 { 53 } else { 52 }
}

shim! {
    fn planted_encode_1(level: i8, pa: u64, attributes: u64, contiguous: bool) -> u64 {
        encode::<1>(level, pa, attributes, contiguous)
    }
    fn planted_encode_2(level: i8, pa: u64, attributes: u64, contiguous: bool) -> u64 {
        encode::<2>(level, pa, attributes, contiguous)
    }
    fn planted_encode_3(level: i8, pa: u64, attributes: u64, contiguous: bool) -> u64 {
        encode::<3>(level, pa, attributes, contiguous)
    }
    fn planted_attributes(bits: u64, software: u8, out: &mut [u64; 5]) {
        let attributes = Attributes::from_bits(bits);
        *out = [
            attributes.writable().bits(),
            attributes.bits() & !(1 << 6),
            attributes.executable().bits(),
            attributes.execute_never().bits(),
            attributes.with_software(software).bits(),
        ];
    }
}
