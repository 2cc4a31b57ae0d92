//! The model's own constants and decoder, independent of `paging::descriptor` so that its errors
//! show: Arm ARM DDI 0487, D8.3 (formats), D8.4.1 (permissions), D8.6 (memory attributes), D8.7.1
//! (contiguous bit). Hierarchical permissions, NSTable and nT are refused.

use core::fmt;
use paging::Granule;

/// Bit 0.
pub const VALID: u64 = 1;
/// Bits 1:0 of a table, and of a page at level 3.
pub const TABLE_OR_PAGE: u64 = 0b11;
/// AttrIndx\[2:0\].
pub const ATTR_INDEX: u64 = 0x7 << 2;
/// NS.
pub const NON_SECURE: u64 = 1 << 5;
/// AP\[1\]: EL0 may access.
pub const AP_EL0: u64 = 1 << 6;
/// AP\[2\]: read-only.
pub const AP_READ_ONLY: u64 = 1 << 7;
/// SH\[1:0\].
pub const SHAREABILITY: u64 = 0x3 << 8;
/// AF.
pub const ACCESS_FLAG: u64 = 1 << 10;
/// nG.
pub const NOT_GLOBAL: u64 = 1 << 11;
/// GP.
pub const GUARDED: u64 = 1 << 50;
/// DBM.
pub const DIRTY_MODIFIER: u64 = 1 << 51;
/// Contiguous.
pub const CONTIGUOUS: u64 = 1 << 52;
/// PXN.
pub const PXN: u64 = 1 << 53;
/// UXN.
pub const UXN: u64 = 1 << 54;
/// Bits 58:55, ignored in a leaf.
pub const SOFTWARE: u64 = 0xf << 55;
/// Bits 47:12, of a descriptor of 48 bits.
pub const ADDRESS: u64 = ((1 << 48) - 1) & !0xfff;

/// From the top: `(bits of the address, first of them, first bit in the descriptor)`. Arm ARM
/// D8.3.1.
fn address_fields<G: Granule>() -> &'static [(u32, u32, u32)] {
    match (G::PA_BITS, G::PAGE_SHIFT) {
        (48, _) => &[(36, 12, 12)],
        (52, 12 | 14) => &[(2, 50, 8), (38, 12, 12)],
        (52, 16) => &[(4, 48, 12), (32, 16, 16)],
        other => panic!("no descriptor has {other:?} bits of address and page"),
    }
}

/// Returns the bits of the address.
pub fn address_bits<G: Granule>() -> u64 {
    let fields = address_fields::<G>().iter();
    fields.fold(0, |bits, (nr, _, at)| bits | ((1 << nr) - 1) << at)
}

/// Returns the address, with what it may have below its alignment.
pub fn address<G: Granule>(raw: u64) -> u64 {
    let fields = address_fields::<G>().iter();
    fields.fold(0, |pa, (nr, first, at)| {
        pa | (raw >> at & ((1 << nr) - 1)) << first
    })
}

/// Returns `pa` as a descriptor holds it.
pub fn with_address<G: Granule>(pa: u64) -> u64 {
    let fields = address_fields::<G>().iter();
    fields.fold(0, |raw, (nr, first, at)| {
        raw | (pa >> first & ((1 << nr) - 1)) << at
    })
}

/// Whether OA\[51:50\] stand where SH is otherwise (TCR_EL1.DS = 1).
pub fn has_shareability<G: Granule>() -> bool {
    address_bits::<G>() & SHAREABILITY == 0
}

/// Returns SH: its own, or TCR_EL1.SH1, inner shareable here.
pub fn shareability<G: Granule>(leaf: u64) -> u64 {
    if has_shareability::<G>() {
        (leaf & SHAREABILITY) >> 8
    } else {
        0b11
    }
}

/// May change in a live leaf: not among what Arm ARM D8.16.1 lists for break-before-make.
pub const PERMISSIONS: u64 = AP_EL0 | AP_READ_ONLY | ACCESS_FLAG | GUARDED | DIRTY_MODIFIER | PXN | UXN;
/// Ignored in a table descriptor: 11:2 and 58:51.
pub const TABLE_IGNORED: u64 = 0x3ff << 2 | 0xff << 51;

/// Returns log2 of [`size`].
pub fn shift<G: Granule>(level: i8) -> u32 {
    G::PAGE_SHIFT + G::INDEX_BITS * (3 - level) as u32
}

/// Returns the bytes under a descriptor.
pub fn size<G: Granule>(level: i8) -> u64 {
    1 << shift::<G>(level)
}

/// Returns the descriptors of a group, or 1.
pub fn group_entries<G: Granule>(level: i8) -> usize {
    1 << G::cont_shift(level)
}

/// Returns the bytes of a group.
pub fn group_size<G: Granule>(level: i8) -> u64 {
    size::<G>(level) << G::cont_shift(level)
}

/// Returns the descriptors of a table that walks use.
pub fn entries<G: Granule>(level: i8) -> usize {
    if level == G::ROOT_LEVEL {
        1 << (G::VA_BITS - shift::<G>(level))
    } else {
        1 << G::INDEX_BITS
    }
}

/// Returns the index for `va`.
pub fn index<G: Granule>(level: i8, va: u64) -> usize {
    (va >> shift::<G>(level)) as usize & (entries::<G>(level) - 1)
}

/// What a descriptor means to a walk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Entry {
    /// Or as good as that.
    Invalid,
    /// A link.
    Table(u64),
    /// Without the bits that walks ignore.
    Leaf(u64),
}

/// Returns what `raw` means.
pub fn decode<G: Granule>(level: i8, raw: u64) -> Entry {
    match (raw & 0b11, level) {
        (0b11, 3) => Entry::Leaf(raw & !SOFTWARE),
        (0b11, _) => Entry::Table(address::<G>(raw) & !(G::PAGE_SIZE - 1)),
        (0b01, -1..=2) if G::leaf_allowed(level) => Entry::Leaf(raw & !SOFTWARE),
        // Reserved: 0b01 at level 3, or a block where there is none.
        _ => Entry::Invalid,
    }
}

/// Returns `raw` without what walks do not see.
pub fn normalise<G: Granule>(level: i8, raw: u64) -> u64 {
    match decode::<G>(level, raw) {
        Entry::Invalid => 0,
        Entry::Table(table) => with_address::<G>(table) | TABLE_OR_PAGE,
        Entry::Leaf(leaf) => leaf,
    }
}

/// Returns whether a TLB may hold `value`, which must not cause a Translation, Address size or
/// Access flag fault (Arm ARM D8.16). TCR_EL1.HA is 0.
pub fn cacheable<G: Granule>(level: i8, value: u64) -> bool {
    match decode::<G>(level, value) {
        Entry::Invalid => false,
        Entry::Table(_) => true,
        Entry::Leaf(leaf) => leaf & ACCESS_FLAG != 0,
    }
}

/// Returns the address that a leaf maps.
pub fn output<G: Granule>(level: i8, leaf: u64) -> u64 {
    address::<G>(leaf) & !(size::<G>(level) - 1)
}

/// Returns what is wrong.
pub fn defect<G: Granule>(level: i8, raw: u64, allow_res0: bool) -> Option<&'static str> {
    if raw & VALID == 0 {
        return None;
    }
    match decode::<G>(level, raw) {
        Entry::Invalid => Some("a reserved encoding: no block at this level, or no page bit at level 3"),
        Entry::Table(_) => {
            // Bits 50:48 as far as no address is there, and what is below a page, where only 64K
            // with 52 bits has one.
            let below = match G::PA_BITS > 48 && G::PAGE_SHIFT == 16 {
                true => 0,
                false => (G::PAGE_SIZE - 1) & !0xfff,
            };
            let res0 = 0b111 << 48 & !address_bits::<G>() | below;
            if raw >> 59 != 0 {
                Some("hierarchical attributes (bits 63:59), which the model does not know")
            } else if raw & res0 != 0 && !allow_res0 {
                Some("RES0 bits of a table descriptor: only 11:2 and 58:51 are ignored")
            } else {
                None
            }
        }
        Entry::Leaf(leaf) => {
            if address::<G>(leaf) & (size::<G>(level) - 1) != 0 {
                Some("an output address that is not a multiple of the leaf's size")
            } else if leaf & !address_bits::<G>() & (0b11 << 48 | 0x1f << 59) != 0 {
                Some("RES0 or implementation defined bits in a leaf")
            } else if shareability::<G>(leaf) == 1 {
                Some("the reserved shareability 0b01")
            } else if leaf & CONTIGUOUS != 0 && G::cont_shift(level) == 0 {
                Some("the contiguous bit at a level that has none")
            } else {
                None
            }
        }
    }
}

pub(crate) struct Show<G> {
    level: i8,
    value: u64,
    granule: core::marker::PhantomData<G>,
}

pub(crate) fn show<G: Granule>(level: i8, value: u64) -> Show<G> {
    Show {
        level,
        value,
        granule: core::marker::PhantomData,
    }
}

impl<G: Granule> fmt::Display for Show<G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match decode::<G>(self.level, self.value) {
            Entry::Invalid => write!(f, "invalid {:#x}", self.value),
            Entry::Table(table) => write!(f, "link to table {table:#x}"),
            Entry::Leaf(leaf) => {
                let has = |bit: u64, yes, no| if leaf & bit != 0 { yes } else { no };
                write!(
                    f,
                    "{} to pa {:#x} r{}{}{} attr {} sh {}",
                    if self.level == 3 { "page" } else { "block" },
                    output::<G>(self.level, leaf),
                    has(AP_READ_ONLY, "-", "w"),
                    has(PXN, "-", "x"),
                    has(CONTIGUOUS, " CONT", ""),
                    (leaf & ATTR_INDEX) >> 2,
                    shareability::<G>(leaf),
                )?;
                f.write_str(has(ACCESS_FLAG, "", " !AF"))
            }
        }
    }
}
