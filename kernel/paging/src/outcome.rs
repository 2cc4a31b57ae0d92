//! What an operation did (DESIGN rule 9), and why one failed.

use crate::addr::{Pfn, PhysAddr, VirtAddr};
use crate::descriptor::Descriptor;
use crate::granule::{Granule, LAST_LEVEL, Level};
use core::fmt;

/// A leaf's level, and whether it is a contiguous group.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeafSize {
    level: Level,
    contiguous: bool,
}

impl LeafSize {
    /// One page: `4K` with 4 KiB pages.
    pub const PAGE: Self = Self::new(3, false);
    /// A group of pages: `64K`.
    pub const PAGE_GROUP: Self = Self::new(3, true);
    /// A level 2 block: `2M`.
    pub const BLOCK2: Self = Self::new(2, false);
    /// A group of level 2 blocks: `32M`.
    pub const BLOCK2_GROUP: Self = Self::new(2, true);
    /// A level 1 block: `1G`.
    pub const BLOCK1: Self = Self::new(1, false);
    /// A group of level 1 blocks: `16G`.
    pub const BLOCK1_GROUP: Self = Self::new(1, true);
    /// A level 0 block, `512G`: with 52-bit addresses.
    pub const BLOCK0: Self = Self::new(0, false);

    /// Largest first. A granule may lack some.
    pub const ALL: [Self; 7] = [
        Self::BLOCK0,
        Self::BLOCK1_GROUP,
        Self::BLOCK1,
        Self::BLOCK2_GROUP,
        Self::BLOCK2,
        Self::PAGE_GROUP,
        Self::PAGE,
    ];

    /// Returns the leaf of `level`, single or as a group.
    #[inline]
    #[must_use]
    pub const fn new(level: Level, contiguous: bool) -> Self {
        Self { level, contiguous }
    }

    /// Returns its level.
    #[inline]
    #[must_use]
    pub const fn level(self) -> Level {
        self.level
    }

    /// Whether it is a group.
    #[must_use]
    pub const fn is_contiguous(self) -> bool {
        self.contiguous
    }

    /// Whether granule `G` has it.
    #[inline]
    #[must_use]
    pub fn exists<G: Granule>(self) -> bool {
        G::leaf_allowed(self.level) && (!self.contiguous || G::cont_shift(self.level) != 0)
    }

    /// Returns the bytes mapped.
    #[inline]
    #[must_use]
    pub fn bytes<G: Granule>(self) -> u64 {
        if self.contiguous {
            G::cont_size(self.level)
        } else {
            G::size(self.level)
        }
    }

    /// Returns the descriptors it takes.
    #[inline]
    #[must_use]
    pub fn descriptors<G: Granule>(self) -> usize {
        if self.contiguous {
            G::cont_entries(self.level)
        } else {
            1
        }
    }

    #[inline]
    const fn slot(self) -> usize {
        self.level as usize * 2 + self.contiguous as usize
    }
}

impl fmt::Debug for LeafSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "L{}{}", self.level, if self.contiguous { "C" } else { "" })
    }
}

/// Leaf sizes that a mapping may use.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct LeafSet(pub(crate) u8);

impl LeafSet {
    /// Every size.
    pub const ALL: Self = Self(0xff);
    /// Pages only.
    pub const PAGES: Self = Self(1 << LeafSize::PAGE.slot());

    /// Returns `sizes` and always the page.
    #[must_use]
    pub const fn of(sizes: &[LeafSize]) -> Self {
        let mut set = Self::PAGES.0;
        let mut i = 0;
        while i < sizes.len() {
            set |= 1 << sizes[i].slot();
            i += 1;
        }
        Self(set)
    }

    /// Returns the set without groups: for an erratum (DESIGN rule 11).
    #[must_use]
    pub const fn without_groups(self) -> Self {
        Self(self.0 & 0b0101_0101)
    }

    /// Returns the set without leaves larger than `size`.
    #[must_use]
    pub const fn at_most(self, size: LeafSize) -> Self {
        let level = size.level as usize;
        let other_group = (!size.contiguous as u8) << (2 * level + 1);
        let keep = (!0u8 << (2 * level)) & !other_group;
        Self(self.0 & keep | Self::PAGES.0)
    }

    #[must_use]
    pub(crate) const fn below(self, level: Level) -> Self {
        let level = if level < 0 { 0 } else { level as u32 };
        Self(self.0 & !0u8 << (2 * level))
    }

    /// Returns the intersection.
    #[must_use]
    pub const fn intersection(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Whether `size` is in it.
    #[must_use]
    pub const fn contains(self, size: LeafSize) -> bool {
        self.0 & (1 << size.slot()) != 0
    }
}

impl fmt::Debug for LeafSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set()
            .entries(LeafSize::ALL.iter().filter(|s| self.contains(**s)))
            .finish()
    }
}

/// Counts of leaves by size.
// Moved by words where unaligned accesses fault.
#[derive(Clone, Copy, PartialEq, Eq, Default, Hash)]
#[repr(align(8))]
pub struct LeafCounts([u32; 8]);

impl LeafCounts {
    /// Returns how many leaves of `size`. A group counts as one.
    #[must_use]
    pub const fn get(&self, size: LeafSize) -> u32 {
        self.0[size.slot()]
    }

    /// Counts `nr` more of `size`.
    #[inline]
    pub const fn add(&mut self, size: LeafSize, nr: u32) {
        self.0[size.slot() & 7] += nr;
    }

    /// Counts `nr` fewer of `size`.
    ///
    /// # Panics
    /// If there are fewer than `nr`.
    pub fn remove(&mut self, size: LeafSize, nr: u32) {
        self.0[size.slot()] = self.0[size.slot()]
            .checked_sub(nr)
            .unwrap_or_else(|| panic!("removing {nr} {size:?} from {:?}", self.0));
    }

    /// Adds `other`.
    pub fn merge(&mut self, other: &Self) {
        for (mine, theirs) in self.0.iter_mut().zip(other.0) {
            *mine += theirs;
        }
    }

    /// Returns the pages of granule `G` in all.
    #[must_use]
    pub fn pages<G: Granule>(&self) -> u64 {
        LeafSize::ALL
            .iter()
            .filter(|size| self.get(**size) != 0)
            .map(|size| u64::from(self.get(*size)) * (size.bytes::<G>() >> G::PAGE_SHIFT))
            .sum()
    }

    /// Whether all are 0.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|nr| *nr == 0)
    }

    /// Displays the counts as "3x2M 16x64K 5x4K".
    #[must_use]
    pub fn display<G: Granule>(&self) -> impl fmt::Display + '_ {
        DisplayCounts::<G>(self, core::marker::PhantomData)
    }
}

impl fmt::Debug for LeafCounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut map = f.debug_map();
        for size in LeafSize::ALL {
            if self.get(size) != 0 {
                map.entry(&size, &self.get(size));
            }
        }
        map.finish()
    }
}

struct DisplayCounts<'a, G>(&'a LeafCounts, core::marker::PhantomData<G>);

impl<G: Granule> fmt::Display for DisplayCounts<'_, G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for size in LeafSize::ALL {
            let nr = self.0.get(size);
            if nr != 0 {
                write!(f, "{separator}{nr}x{}", DisplaySize(size.bytes::<G>()))?;
                separator = " ";
            }
        }
        if separator.is_empty() {
            f.write_str("none")?;
        }
        Ok(())
    }
}

/// Displays bytes by the largest unit: "4K", "2M", "16G".
#[derive(Clone, Copy, Debug)]
pub struct DisplaySize(pub u64);

impl fmt::Display for DisplaySize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (shift, unit) = match self.0 {
            0 => (0, ""),
            size => match size.trailing_zeros() {
                40.. => (40, "T"),
                30.. => (30, "G"),
                20.. => (20, "M"),
                10.. => (10, "K"),
                _ => (0, ""),
            },
        };
        write!(f, "{}{unit}", self.0 >> shift)
    }
}

/// Levels at which a call wrote descriptors: Linux's `pgtbl_mod_mask`.
#[derive(Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct LevelMask(u32);

impl LevelMask {
    /// No level.
    pub const NONE: Self = Self(0);

    /// Returns the mask of one level.
    #[must_use]
    pub const fn of(level: Level) -> Self {
        Self(Self::bit(level))
    }

    #[inline]
    const fn bit(level: Level) -> u32 {
        // Level -1 is the last bit.
        1u32.wrapping_shl(level as u32)
    }

    /// Whether `level` was modified.
    #[must_use]
    pub const fn contains(self, level: Level) -> bool {
        self.0 & Self::bit(level) != 0
    }

    /// Adds `level`.
    #[inline]
    pub const fn insert(&mut self, level: Level) {
        self.0 |= Self::bit(level);
    }

    /// Adds `other`.
    pub const fn merge(&mut self, other: Self) {
        self.0 |= other.0;
    }

    /// Returns bit `n` for level `n`, bit 7 for level -1.
    #[must_use]
    pub const fn bits(self) -> u8 {
        (self.0 | self.0 >> 24) as u8
    }

    /// Whether no level was modified.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
}

impl fmt::Debug for LevelMask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set()
            .entries((-1..=LAST_LEVEL).filter(|level| self.contains(*level)))
            .finish()
    }
}

/// What an operation did.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Outcome {
    /// Levels written.
    pub levels: LevelMask,
    /// Sizes before it for `unmap`, else after.
    pub leaves: LeafCounts,
    /// Tables linked.
    pub tables_added: u32,
    /// Tables unlinked.
    pub tables_removed: u32,
}

impl Outcome {
    /// The compiler copies the whole by a call where unaligned accesses fault.
    #[inline]
    #[must_use]
    pub const fn copied(&self) -> Self {
        let [a, b, c, d, e, f, g, h] = self.leaves.0;
        Self {
            levels: self.levels,
            leaves: LeafCounts([a, b, c, d, e, f, g, h]),
            tables_added: self.tables_added,
            tables_removed: self.tables_removed,
        }
    }

    #[inline]
    pub(crate) fn linked(&mut self, level: Level, is_new: bool) {
        if is_new {
            self.levels.insert(level);
            self.tables_added += 1;
        }
    }

    /// Adds `other`.
    pub fn merge(&mut self, other: &Self) {
        self.levels.merge(other.levels);
        self.leaves.merge(&other.leaves);
        self.tables_added += other.tables_added;
        self.tables_removed += other.tables_removed;
    }
}

/// Why an operation refused or failed. What is mapped is unchanged.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Error {
    /// The range is empty.
    Empty(VirtAddr),
    /// An address or size is not a multiple of the page size.
    Misaligned(u64),
    /// The range leaves this tree's half.
    NonCanonical(VirtAddr, u64),
    /// A physical address that the CPU or the tree does not implement.
    PhysicalRange(PhysAddr),
    /// A frame number too large for an address: see [`of_frames`](Self::of_frames).
    FrameRange(Pfn),
    /// The source lacks a frame.
    NoFrame {
        /// From the start of the range.
        page: u64,
    },
    /// Something is mapped already.
    Occupied {
        /// First address taken.
        va: VirtAddr,
        /// The descriptor's level.
        level: Level,
        /// The descriptor.
        found: Descriptor,
    },
    /// An empty table in place of a block: [`prune`](crate::Tree::prune), and map again.
    EmptyTable {
        /// First address that it translates.
        va: VirtAddr,
        /// Of the link.
        level: Level,
    },
    /// Nothing is mapped here, but the operation needs it.
    NotMapped(VirtAddr),
    /// Writable and executable at once (DESIGN rule 10).
    WritableExecutable(VirtAddr),
    /// No page for a table of this level.
    OutOfTables(Level),
}

impl Error {
    /// Returns the error with a number too large for an address as given.
    #[must_use]
    pub fn of_frames<G: Granule>(self) -> Self {
        match self {
            Self::PhysicalRange(pa) if !pa.is_aligned(G::PAGE_SIZE) => {
                Self::FrameRange(Pfn(pa.0.rotate_right(G::PAGE_SHIFT)))
            }
            other => other,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Empty(va) => write!(f, "empty range at {va}"),
            Self::Misaligned(value) => write!(f, "{value:#x} is not a multiple of the page size"),
            Self::NonCanonical(va, size) => {
                write!(f, "{size:#x} bytes at {va} leave this half of the address space")
            }
            Self::PhysicalRange(pa) => write!(f, "physical address {pa} is not implemented"),
            Self::FrameRange(frame) => write!(f, "frame {:#x} is at no physical address", frame.0),
            Self::NoFrame { page } => write!(f, "no frame for page {page} of the range"),
            Self::Occupied { va, level, found } => {
                write!(f, "{va} is taken by level {level} descriptor {found:?}")
            }
            Self::EmptyTable { va, level } => {
                write!(f, "an empty table is where a level {level} block goes, at {va}")
            }
            Self::NotMapped(va) => write!(f, "nothing is mapped at {va}"),
            Self::WritableExecutable(va) => write!(f, "{va} would be writable and executable at once"),
            Self::OutOfTables(level) => write!(f, "no page for a level {level} table"),
        }
    }
}

impl core::error::Error for Error {}

/// An [`Error`], and what the call wrote and undid.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Failure {
    /// Why.
    pub error: Error,
    /// Levels written, for Linux's `arch_sync_kernel_mappings`.
    pub levels: LevelMask,
    /// Tables linked. They stay until a [`prune`](crate::Tree::prune).
    pub tables_left: u32,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self {
            error,
            levels: LevelMask::NONE,
            tables_left: 0,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.error, f)
    }
}

impl core::error::Error for Failure {}
