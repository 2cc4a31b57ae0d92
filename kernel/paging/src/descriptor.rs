//! The bits of a VMSAv8-64 stage 1 descriptor (Arm ARM D8.3, D8.4, D8.6), without its address
//! ([`Granule::encode`]).

use crate::addr::PhysAddr;
use crate::granule::{Granule, LAST_LEVEL, Level};
use core::fmt;

/// Bit 0: valid.
pub const VALID: u64 = 1 << 0;
/// Bit 1: a table, or a page at level 3. Clear: a block.
pub const TABLE_OR_PAGE: u64 = 1 << 1;
/// AttrIndx\[2:0\], bits 4:2: index into MAIR_EL1.
pub const ATTR_INDEX_SHIFT: u32 = 2;
/// Mask.
pub const ATTR_INDEX: u64 = 0b111 << ATTR_INDEX_SHIFT;
/// AP\[1\], bit 6: accessible from EL0.
pub const AP_USER: u64 = 1 << 6;
/// AP\[2\], bit 7: read-only.
pub const AP_READ_ONLY: u64 = 1 << 7;
/// SH\[1:0\], bits 9:8.
pub const SHAREABILITY_SHIFT: u32 = 8;
/// Mask.
pub const SHAREABILITY: u64 = 0b11 << SHAREABILITY_SHIFT;
/// AF, bit 10: accessed. Clear: the first access faults.
pub const ACCESSED: u64 = 1 << 10;
/// nG, bit 11: belongs to one ASID.
pub const NOT_GLOBAL: u64 = 1 << 11;
/// Output address of 48 bits, bits 47:12.
pub const ADDRESS: u64 = 0x0000_ffff_ffff_f000;
/// GP, bit 50: guarded page.
pub const GUARDED: u64 = 1 << 50;
/// DBM, bit 51: dirty bit modifier.
pub const DIRTY_MODIFIER: u64 = 1 << 51;
/// Contiguous, bit 52: one of a group.
pub const CONTIGUOUS: u64 = 1 << 52;
/// PXN, bit 53: never executed at EL1.
pub const PRIVILEGED_EXECUTE_NEVER: u64 = 1 << 53;
/// UXN, bit 54: never executed at EL0.
pub const USER_EXECUTE_NEVER: u64 = 1 << 54;
/// Bits 58:55: software's, in a leaf.
pub const SOFTWARE_SHIFT: u32 = 55;
/// Mask.
pub const SOFTWARE: u64 = 0b1111 << SOFTWARE_SHIFT;

/// May change without break-before-make: what Arm ARM D8.16.1 does not list (DESIGN rule 3).
pub const CHANGEABLE_IN_PLACE: u64 = AP_USER
    | AP_READ_ONLY
    | ACCESSED
    | DIRTY_MODIFIER
    | PRIVILEGED_EXECUTE_NEVER
    | USER_EXECUTE_NEVER
    | GUARDED
    | SOFTWARE;

/// A kind of memory: index into MAIR_EL1, and shareability.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct MemoryType {
    index: u8,
    shareability: u8,
}

impl MemoryType {
    /// Device-nGnRnE. MAIR index 0.
    pub const DEVICE_NGNRNE: Self = Self::new(0, 0b10);
    /// Device-nGnRE. MAIR index 1.
    pub const DEVICE_NGNRE: Self = Self::new(1, 0b10);
    /// Normal, non-cacheable. MAIR index 2.
    pub const NORMAL_NC: Self = Self::new(2, 0b10);
    /// Normal, write-back: RAM. MAIR index 3.
    pub const NORMAL: Self = Self::new(3, 0b11);
    /// Normal, write-through. MAIR index 4.
    pub const NORMAL_WT: Self = Self::new(4, 0b11);

    /// Returns the type at `index` of MAIR_EL1 with SH field `shareability`.
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

    /// Returns the SH field.
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

/// A leaf without address, type and contiguous bits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct Attributes(u64);

impl Attributes {
    pub(crate) const ALL: u64 = ATTR_INDEX | SHAREABILITY | NOT_GLOBAL | CHANGEABLE_IN_PLACE;

    /// Returns kernel memory: global, accessed, read-only, never executable.
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

    /// RAM, writable, never executable.
    pub const KERNEL_DATA: Self = Self::kernel(MemoryType::NORMAL).writable();
    /// RAM, read-only, never executable.
    pub const KERNEL_RODATA: Self = Self::kernel(MemoryType::NORMAL);
    /// RAM, read-only, executable.
    pub const KERNEL_TEXT: Self = Self::kernel(MemoryType::NORMAL).executable();
    /// nGnRE, writable, never executable.
    pub const DEVICE: Self = Self::kernel(MemoryType::DEVICE_NGNRE).writable();

    /// Returns them, writable.
    #[must_use]
    pub const fn writable(self) -> Self {
        Self(self.0 & !AP_READ_ONLY)
    }

    /// Returns them, read-only.
    #[must_use]
    pub const fn read_only(self) -> Self {
        Self(self.0 | AP_READ_ONLY)
    }

    /// Returns them, executable at EL1.
    #[must_use]
    pub const fn executable(self) -> Self {
        Self(self.0 & !PRIVILEGED_EXECUTE_NEVER)
    }

    /// Returns them, never executable at EL1.
    #[must_use]
    pub const fn execute_never(self) -> Self {
        Self(self.0 | PRIVILEGED_EXECUTE_NEVER)
    }

    /// Returns them, with software bits 58:55.
    #[must_use]
    pub const fn with_software(self, bits: u8) -> Self {
        Self(self.0 & !SOFTWARE | ((bits as u64) << SOFTWARE_SHIFT & SOFTWARE))
    }

    /// Whether EL1 may store.
    #[must_use]
    pub const fn is_writable(self) -> bool {
        self.0 & AP_READ_ONLY == 0
    }

    /// Whether EL1 may execute.
    #[must_use]
    pub const fn is_executable(self) -> bool {
        self.0 & PRIVILEGED_EXECUTE_NEVER == 0
    }

    /// Whether EL1 may write and execute: refused (DESIGN rule 10).
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

    /// Returns software bits 58:55.
    #[must_use]
    pub const fn software(self) -> u8 {
        ((self.0 & SOFTWARE) >> SOFTWARE_SHIFT) as u8
    }

    /// Returns the bits of a descriptor.
    #[inline]
    #[must_use]
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// Returns the attributes among a descriptor's bits.
    #[inline]
    #[must_use]
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits & Self::ALL)
    }

    #[inline(always)]
    pub(crate) fn in_descriptor<G: Granule>(self) -> u64 {
        if G::DS { self.0 & G::ATTRIBUTES } else { self.0 }
    }

    const fn with_usual_shareability(self) -> Self {
        let index = (self.0 & ATTR_INDEX) >> ATTR_INDEX_SHIFT;
        let cacheable = index >= MemoryType::NORMAL.index as u64;
        let shareability = if cacheable { 0b11 } else { 0b10 };
        Self(self.0 & !SHAREABILITY | shareability << SHAREABILITY_SHIFT)
    }

    /// Whether a live leaf may change to `new` in place (DESIGN rule 3).
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

/// A descriptor, as read at one moment.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
#[repr(transparent)]
pub struct Descriptor(pub u64);

impl Descriptor {
    /// What `map` demands and `unmap` leaves.
    pub const VACANT: Self = Self(0);

    /// Every leaf, valid or not, and every link has one of these bits.
    pub(crate) const KIND_BITS: u64 = 0x00ff_0000_0000_00ff;

    /// Returns a valid leaf.
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

    /// Returns a link to `table`.
    #[inline]
    #[must_use]
    pub fn table<G: Granule>(table: PhysAddr) -> Self {
        Self(G::encode(table) | TABLE_OR_PAGE | VALID)
    }

    /// Whether walks use it.
    #[inline]
    #[must_use]
    pub const fn is_valid(self) -> bool {
        self.0 & VALID != 0
    }

    /// Whether there is neither a link nor a leaf, valid or not.
    #[inline]
    #[must_use]
    pub const fn is_vacant(self) -> bool {
        self.0 & Self::KIND_BITS == 0
    }

    /// Whether it links a table of `level + 1`.
    #[inline]
    #[must_use]
    pub const fn is_table(self, level: Level) -> bool {
        level < LAST_LEVEL && self.0 & (VALID | TABLE_OR_PAGE) == VALID | TABLE_OR_PAGE
    }

    /// As [`is_table`](Self::is_table), for what the engine wrote above the last level.
    #[inline]
    #[must_use]
    pub(crate) const fn is_link(self) -> bool {
        self.0 & TABLE_OR_PAGE != 0
    }

    /// Whether the contiguous bit is set.
    #[inline]
    #[must_use]
    pub const fn is_contiguous(self) -> bool {
        self.0 & CONTIGUOUS != 0
    }

    /// Returns the output address, or that of the table.
    #[inline]
    #[must_use]
    pub fn address<G: Granule>(self) -> PhysAddr {
        G::decode(self.0).align_down(G::PAGE_SIZE)
    }

    /// Returns a leaf's attributes. Without SH ([`Granule::DS`]) shareability follows the memory
    /// type.
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
