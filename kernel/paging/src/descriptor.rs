//! The bits of a VMSAv8-64 stage 1 descriptor, and the attributes of a leaf.
//!
//! Source: Arm ARM DDI 0487, D8.3 (translation table descriptor formats), D8.4 (memory access
//! control), D8.6 (other attributes). Where an address stands in a descriptor is the granule's:
//! [`Granule::encode`].

use crate::addr::PhysAddr;
use crate::granule::{Granule, LAST_LEVEL, Level};
use core::fmt;

/// Bit 0: the descriptor is valid.
pub const VALID: u64 = 1 << 0;
/// Bit 1: a table (levels 0 to 2) or a page (level 3). Clear: a block.
pub const TABLE_OR_PAGE: u64 = 1 << 1;
/// AttrIndx\[2:0\], bits 4:2: index into MAIR_EL1.
pub const ATTR_INDEX_SHIFT: u32 = 2;
/// AttrIndx\[2:0\] as a mask.
pub const ATTR_INDEX: u64 = 0b111 << ATTR_INDEX_SHIFT;
/// AP\[1\], bit 6: accessible from EL0.
pub const AP_USER: u64 = 1 << 6;
/// AP\[2\], bit 7: read-only.
pub const AP_READ_ONLY: u64 = 1 << 7;
/// SH\[1:0\], bits 9:8.
pub const SHAREABILITY_SHIFT: u32 = 8;
/// SH\[1:0\] as a mask.
pub const SHAREABILITY: u64 = 0b11 << SHAREABILITY_SHIFT;
/// AF, bit 10: accessed. Clear: the first access faults.
pub const ACCESSED: u64 = 1 << 10;
/// nG, bit 11: belongs to one ASID.
pub const NOT_GLOBAL: u64 = 1 << 11;
/// Output address of 48 bits, bits 47:12 (the low bits are zero for larger leaves and granules).
pub const ADDRESS: u64 = 0x0000_ffff_ffff_f000;
/// GP, bit 50: guarded page (branch target identification).
pub const GUARDED: u64 = 1 << 50;
/// DBM, bit 51: dirty bit modifier.
pub const DIRTY_MODIFIER: u64 = 1 << 51;
/// Contiguous, bit 52: one of a group of equal neighbours.
pub const CONTIGUOUS: u64 = 1 << 52;
/// PXN, bit 53: never executed at EL1.
pub const PRIVILEGED_EXECUTE_NEVER: u64 = 1 << 53;
/// UXN, bit 54: never executed at EL0.
pub const USER_EXECUTE_NEVER: u64 = 1 << 54;
/// Bits 58:55, left to software in a leaf.
pub const SOFTWARE_SHIFT: u32 = 55;
/// The software bits as a mask.
pub const SOFTWARE: u64 = 0b1111 << SOFTWARE_SHIFT;

/// Bits of a live leaf that may change in place, without break-before-make: permissions, AF, DBM
/// and software bits.
///
/// Source: Arm ARM D8.16.1 (break-before-make requirements): all that is not listed there. DESIGN
/// rule 3.
pub const CHANGEABLE_IN_PLACE: u64 = AP_USER
    | AP_READ_ONLY
    | ACCESSED
    | DIRTY_MODIFIER
    | PRIVILEGED_EXECUTE_NEVER
    | USER_EXECUTE_NEVER
    | GUARDED
    | SOFTWARE;

/// What kind of memory a leaf maps: an index into MAIR_EL1, and the shareability that goes with it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct MemoryType {
    index: u8,
    shareability: u8,
}

impl MemoryType {
    /// Device-nGnRnE: no gathering, no reordering, no early write acknowledgement. MAIR index 0.
    pub const DEVICE_NGNRNE: Self = Self::new(0, 0b10);
    /// Device-nGnRE: early write acknowledgement allowed; what `ioremap` gives. MAIR index 1.
    pub const DEVICE_NGNRE: Self = Self::new(1, 0b10);
    /// Normal, inner and outer non-cacheable; what `ioremap_wc` gives. MAIR index 2.
    pub const NORMAL_NC: Self = Self::new(2, 0b10);
    /// Normal, inner and outer write-back cacheable; RAM. MAIR index 3.
    pub const NORMAL: Self = Self::new(3, 0b11);
    /// Normal, inner and outer write-through cacheable. MAIR index 4.
    pub const NORMAL_WT: Self = Self::new(4, 0b11);

    /// Returns the memory type at `index` of MAIR_EL1 with SH field `shareability` (0 non, 2 outer,
    /// 3 inner).
    ///
    /// # Panics
    /// If `index` exceeds 7 or `shareability` is 1 or exceeds 3: reserved encodings.
    #[must_use]
    pub const fn new(index: u8, shareability: u8) -> Self {
        assert!(index < 8 && shareability < 4 && shareability != 1);
        Self { index, shareability }
    }

    /// Returns the index into MAIR_EL1.
    #[must_use]
    pub const fn index(self) -> u8 {
        self.index
    }

    /// Returns the SH field: 0 non-shareable, 2 outer, 3 inner shareable.
    #[must_use]
    pub const fn shareability(self) -> u8 {
        self.shareability
    }
}

impl fmt::Debug for MemoryType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.index, self.shareability) {
            (0, 0b10) => f.write_str("Device-nGnRnE"),
            (1, 0b10) => f.write_str("Device-nGnRE"),
            (2, 0b10) => f.write_str("Normal-NC"),
            (3, 0b11) => f.write_str("Normal-WB"),
            (4, 0b11) => f.write_str("Normal-WT"),
            (index, sh) => write!(f, "AttrIndx {index} SH {sh}"),
        }
    }
}

/// The attributes of a leaf: every bit of its descriptor but the address, the type bits and the
/// contiguous bit.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct Attributes(u64);

impl Attributes {
    /// Every bit that is one of them.
    pub(crate) const ALL: u64 = ATTR_INDEX | SHAREABILITY | NOT_GLOBAL | CHANGEABLE_IN_PLACE;

    /// Kernel memory of type `memory`: global, accessed, read-only, never executable. Widen it with
    /// the methods below.
    #[must_use]
    pub const fn kernel(memory: MemoryType) -> Self {
        Self(
            (memory.index as u64) << ATTR_INDEX_SHIFT
                | (memory.shareability as u64) << SHAREABILITY_SHIFT
                | ACCESSED
                | AP_READ_ONLY
                | PRIVILEGED_EXECUTE_NEVER
                | USER_EXECUTE_NEVER,
        )
    }

    /// Readable and writable kernel RAM, never executable: what `vmalloc` gives.
    pub const KERNEL_DATA: Self = Self::kernel(MemoryType::NORMAL).writable();
    /// Read-only kernel RAM, never executable.
    pub const KERNEL_RODATA: Self = Self::kernel(MemoryType::NORMAL);
    /// Read-only, executable kernel RAM.
    pub const KERNEL_TEXT: Self = Self::kernel(MemoryType::NORMAL).executable();
    /// Device registers: nGnRE, readable and writable, never executable.
    pub const DEVICE: Self = Self::kernel(MemoryType::DEVICE_NGNRE).writable();

    /// The same, writable.
    #[must_use]
    pub const fn writable(self) -> Self {
        Self(self.0 & !AP_READ_ONLY)
    }

    /// The same, read-only.
    #[must_use]
    pub const fn read_only(self) -> Self {
        Self(self.0 | AP_READ_ONLY)
    }

    /// The same, executable at EL1.
    #[must_use]
    pub const fn executable(self) -> Self {
        Self(self.0 & !PRIVILEGED_EXECUTE_NEVER)
    }

    /// The same, never executable at EL1.
    #[must_use]
    pub const fn execute_never(self) -> Self {
        Self(self.0 | PRIVILEGED_EXECUTE_NEVER)
    }

    /// The same with the software bits (4 bits, 58:55) set to `bits`.
    #[must_use]
    pub const fn with_software(self, bits: u8) -> Self {
        Self(self.0 & !SOFTWARE | ((bits as u64) << SOFTWARE_SHIFT & SOFTWARE))
    }

    /// Returns whether a store from EL1 is permitted.
    #[must_use]
    pub const fn is_writable(self) -> bool {
        self.0 & AP_READ_ONLY == 0
    }

    /// Returns whether EL1 may execute from it.
    #[must_use]
    pub const fn is_executable(self) -> bool {
        self.0 & PRIVILEGED_EXECUTE_NEVER == 0
    }

    /// Returns whether EL1 may write and execute: what no leaf may be (DESIGN rule 10).
    #[inline]
    #[must_use]
    pub const fn is_writable_and_executable(self) -> bool {
        self.0 & (AP_READ_ONLY | PRIVILEGED_EXECUTE_NEVER) == 0
    }

    /// Returns the memory type.
    #[must_use]
    pub const fn memory(self) -> MemoryType {
        MemoryType {
            index: ((self.0 & ATTR_INDEX) >> ATTR_INDEX_SHIFT) as u8,
            shareability: ((self.0 & SHAREABILITY) >> SHAREABILITY_SHIFT) as u8,
        }
    }

    /// Returns the software bits (58:55).
    #[must_use]
    pub const fn software(self) -> u8 {
        ((self.0 & SOFTWARE) >> SOFTWARE_SHIFT) as u8
    }

    /// Returns the bits as they stand in a descriptor.
    #[inline]
    #[must_use]
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// Attributes from descriptor bits; address, type and contiguous bits are dropped.
    #[inline]
    #[must_use]
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits & Self::ALL)
    }

    /// Returns the bits as they stand in a descriptor of granule `G`.
    #[inline(always)]
    pub(crate) fn in_descriptor<G: Granule>(self) -> u64 {
        if G::DS { self.0 & G::ATTRIBUTES } else { self.0 }
    }

    /// The same with the shareability that the memory type's constant has.
    const fn with_usual_shareability(self) -> Self {
        let index = (self.0 & ATTR_INDEX) >> ATTR_INDEX_SHIFT;
        let cacheable = index >= MemoryType::NORMAL.index as u64;
        let shareability = if cacheable { 0b11 } else { 0b10 };
        Self(self.0 & !SHAREABILITY | shareability << SHAREABILITY_SHIFT)
    }

    /// Returns whether a live leaf with these attributes may become one with `new` in place (DESIGN
    /// rule 3).
    #[must_use]
    pub const fn may_change_in_place_to(self, new: Self) -> bool {
        (self.0 ^ new.0) & !CHANGEABLE_IN_PLACE == 0
    }
}

impl fmt::Debug for Attributes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "r{}{} {:?}",
            if self.is_writable() { 'w' } else { '-' },
            if self.is_executable() { 'x' } else { '-' },
            self.memory()
        )?;
        if self.0 & ACCESSED == 0 {
            f.write_str(" !AF")?;
        }
        if self.0 & NOT_GLOBAL != 0 {
            f.write_str(" nG")?;
        }
        if self.0 & AP_USER != 0 {
            f.write_str(" user")?;
        }
        if self.0 & USER_EXECUTE_NEVER == 0 {
            f.write_str(" user-x")?;
        }
        if self.software() != 0 {
            write!(f, " sw={:#x}", self.software())?;
        }
        Ok(())
    }
}

/// The value of one descriptor, as read at one moment.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
#[repr(transparent)]
pub struct Descriptor(pub u64);

impl Descriptor {
    /// Nothing here: what `map` demands and `unmap` leaves.
    pub const VACANT: Self = Self(0);

    /// Bits of which every leaf, valid or not, and every link has at least one: type, memory type,
    /// permissions. A leaf without any would be writable and executable.
    pub(crate) const KIND_BITS: u64 = 0x00ff_0000_0000_00ff;

    /// Returns a leaf of `level` that maps `pa` with `attributes`.
    #[inline]
    #[must_use]
    pub fn leaf<G: Granule>(level: Level, pa: PhysAddr, attributes: Attributes, contiguous: bool) -> Self {
        let kind = if level == LAST_LEVEL {
            VALID | TABLE_OR_PAGE
        } else {
            VALID
        };
        let cont = if contiguous { CONTIGUOUS } else { 0 };
        Self(G::encode(pa) | attributes.in_descriptor::<G>() | kind | cont)
    }

    /// Returns a link to the table at `table`.
    #[inline]
    #[must_use]
    pub fn table<G: Granule>(table: PhysAddr) -> Self {
        Self(G::encode(table) | TABLE_OR_PAGE | VALID)
    }

    /// Returns whether the walker uses it.
    #[inline]
    #[must_use]
    pub const fn is_valid(self) -> bool {
        self.0 & VALID != 0
    }

    /// Returns whether nothing is here, or nothing but what strings unlinked tables together. A
    /// descriptor can be invalid and yet not vacant: `set_valid` takes a page's validity away and
    /// leaves the rest.
    #[inline]
    #[must_use]
    pub const fn is_vacant(self) -> bool {
        self.0 & Self::KIND_BITS == 0
    }

    /// Whether it is a link to a table of `level + 1`.
    #[inline]
    #[must_use]
    pub const fn is_table(self, level: Level) -> bool {
        level < LAST_LEVEL && self.0 & (VALID | TABLE_OR_PAGE) == VALID | TABLE_OR_PAGE
    }

    /// As [`is_table`](Self::is_table) for a descriptor above the last level that this engine has
    /// written: nothing else of its own has the type bit there, valid or not.
    #[inline]
    #[must_use]
    pub(crate) const fn is_link(self) -> bool {
        self.0 & TABLE_OR_PAGE != 0
    }

    /// Returns whether it carries the contiguous bit.
    #[inline]
    #[must_use]
    pub const fn is_contiguous(self) -> bool {
        self.0 & CONTIGUOUS != 0
    }

    /// Returns the output address of a leaf or the address of the table linked, for granule `G`.
    #[inline]
    #[must_use]
    pub fn address<G: Granule>(self) -> PhysAddr {
        G::decode(self.0).align_down(G::PAGE_SIZE)
    }

    /// Returns the attributes of a leaf. Where a descriptor has no SH ([`Granule::DS`]), they have
    /// that of the memory type: what the walker takes from TCR_EL1 for write-back and write-through
    /// memory, and outer shareable for all other.
    #[inline]
    #[must_use]
    pub fn attributes<G: Granule>(self) -> Attributes {
        let attributes = Attributes::from_bits(self.0 & (G::ATTRIBUTES | !Attributes::ALL));
        if G::DS {
            attributes.with_usual_shareability()
        } else {
            attributes
        }
    }
}

impl fmt::Debug for Descriptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#018x}", self.0)
    }
}
