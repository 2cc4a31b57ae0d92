//! Descriptors as the architecture defines them: the model's own constants and its own decoder.
//!
//! Nothing here comes from `paging::descriptor`: a bit that the engine has wrong must look wrong
//! here. Geometry is computed from the plain facts of [`Granule`] (shifts, levels, where a leaf may
//! be), not by its methods.
//!
//! Source: Arm ARM DDI 0487, D8.3 (VMSAv8-64 translation table descriptor formats), D8.4.1
//! (permissions), D8.6 (memory attributes), D8.7.1 (contiguous bit). Not modelled, and therefore
//! refused: 52-bit output addresses, hierarchical permissions (APTable and its like), NSTable, the
//! nT bit.

use core::fmt;
use paging::Granule;

/// Bit 0.
pub const VALID: u64 = 1;
/// Bits 1:0 of a table at levels 0 to 2, and of a page at level 3.
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
/// Bits 47:12.
pub const ADDRESS: u64 = ((1 << 48) - 1) & !0xfff;

/// What may change in a live leaf without break-before-make: permissions, AF, DBM, GP. (Arm ARM
/// D8.16.1 lists what may not; these are not in the list. Software bits are not even seen by a
/// walk.)
pub const PERMISSIONS: u64 = AP_EL0 | AP_READ_ONLY | ACCESS_FLAG | GUARDED | DIRTY_MODIFIER | PXN | UXN;
/// Ignored bits of a table descriptor: 11:2 and 58:51.
pub const TABLE_IGNORED: u64 = 0x3ff << 2 | 0xff << 51;

/// log2 of the bytes that one descriptor of `level` covers.
pub fn shift<G: Granule>(level: u8) -> u32 {
    G::PAGE_SHIFT + G::INDEX_BITS * u32::from(3 - level)
}

/// Returns the bytes that one descriptor of `level` covers.
pub fn size<G: Granule>(level: u8) -> u64 {
    1 << shift::<G>(level)
}

/// Descriptors in a contiguous group of `level`; 1 where there is none.
pub fn group_entries<G: Granule>(level: u8) -> usize {
    1 << G::cont_shift(level)
}

/// Returns the bytes that a contiguous group of `level` covers.
pub fn group_size<G: Granule>(level: u8) -> u64 {
    size::<G>(level) << G::cont_shift(level)
}

/// Descriptors that a walk may read in a table of `level`.
pub fn entries<G: Granule>(level: u8) -> usize {
    if level == G::ROOT_LEVEL {
        1 << (G::VA_BITS - shift::<G>(level))
    } else {
        1 << G::INDEX_BITS
    }
}

/// Returns the index that a walk for `va` uses in a table of `level`.
pub fn index<G: Granule>(level: u8, va: u64) -> usize {
    (va >> shift::<G>(level)) as usize & (entries::<G>(level) - 1)
}

/// What a descriptor says to a walk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Entry {
    /// Bit 0 clear, or an encoding that faults as if it were.
    Invalid,
    /// A link to the table at this physical address.
    Table(u64),
    /// A block or a page, with the bits that a walk ignores cleared.
    Leaf(u64),
}

/// Returns what `raw` says to a walk at `level`.
pub fn decode<G: Granule>(level: u8, raw: u64) -> Entry {
    match (raw & 0b11, level) {
        (0b11, 3) => Entry::Leaf(raw & !SOFTWARE),
        (0b11, _) => Entry::Table(raw & ADDRESS & !(G::PAGE_SIZE - 1)),
        (0b01, 0..=2) if G::leaf_allowed(level) => Entry::Leaf(raw & !SOFTWARE),
        // 0b01 at level 3, or a block where the granule has none: reserved, a translation fault.
        _ => Entry::Invalid,
    }
}

/// `raw` with everything cleared that a walk does not see: two descriptors with the same value are
/// one to it.
pub fn normalise<G: Granule>(level: u8, raw: u64) -> u64 {
    match decode::<G>(level, raw) {
        Entry::Invalid => 0,
        Entry::Table(table) => table | TABLE_OR_PAGE,
        Entry::Leaf(leaf) => leaf,
    }
}

/// Returns whether a TLB may hold what the normalised `value` says: valid, and not an Access flag
/// fault.
///
/// Source: Arm ARM D8.16 (TLB maintenance): an entry that causes a Translation, Address size or
/// Access flag fault is never held. Hardware management of AF is off (TCR_EL1.HA = 0).
pub fn cacheable<G: Granule>(level: u8, value: u64) -> bool {
    match decode::<G>(level, value) {
        Entry::Invalid => false,
        Entry::Table(_) => true,
        Entry::Leaf(leaf) => leaf & ACCESS_FLAG != 0,
    }
}

/// Returns the output address of a leaf of `level`.
pub fn output<G: Granule>(level: u8, leaf: u64) -> u64 {
    leaf & ADDRESS & !(size::<G>(level) - 1)
}

/// Returns what is wrong with the encoding of `raw` at `level`, if anything: reserved encodings and
/// non-zero RES0 bits.
pub fn defect<G: Granule>(level: u8, raw: u64, allow_res0: bool) -> Option<&'static str> {
    if raw & VALID == 0 {
        return None;
    }
    match decode::<G>(level, raw) {
        Entry::Invalid => Some("a reserved encoding: no block at this level, or no page bit at level 3"),
        Entry::Table(_) => {
            let res0 = 0b111 << 48 | ((G::PAGE_SIZE - 1) & !0xfff);
            if raw >> 59 != 0 {
                Some("hierarchical attributes (bits 63:59), which the model does not know")
            } else if raw & res0 != 0 && !allow_res0 {
                Some("RES0 bits of a table descriptor: only 11:2 and 58:51 are ignored")
            } else {
                None
            }
        }
        Entry::Leaf(leaf) => {
            if leaf & ADDRESS & (size::<G>(level) - 1) != 0 {
                Some("an output address that is not a multiple of the leaf's size")
            } else if leaf & (0b11 << 48 | 0x1f << 59) != 0 {
                Some("RES0 or implementation defined bits in a leaf")
            } else if (leaf & SHAREABILITY) >> 8 == 1 {
                Some("the reserved shareability 0b01")
            } else if leaf & CONTIGUOUS != 0 && G::cont_shift(level) == 0 {
                Some("the contiguous bit at a level that has none")
            } else {
                None
            }
        }
    }
}

/// Shows a normalised descriptor.
pub(crate) struct Show<G> {
    level: u8,
    value: u64,
    granule: core::marker::PhantomData<G>,
}

pub(crate) fn show<G: Granule>(level: u8, value: u64) -> Show<G> {
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
                    (leaf & SHAREABILITY) >> 8,
                )?;
                f.write_str(has(ACCESS_FLAG, "", " !AF"))
            }
        }
    }
}
