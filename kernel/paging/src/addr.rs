//! Addresses, frame numbers and ranges as distinct types. Operations check alignment.

use core::fmt;

macro_rules! address {
    ($(#[$doc:meta])* $name:ident, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        #[repr(transparent)]
        pub struct $name(pub u64);

        impl $name {
            /// Returns the address as a number.
            #[inline]
            #[must_use]
            pub const fn get(self) -> u64 {
                self.0
            }

            /// Returns the address `bytes` further on, wrapping.
            #[inline]
            #[must_use]
            pub const fn add(self, bytes: u64) -> Self {
                Self(self.0.wrapping_add(bytes))
            }

            /// Returns the bytes from `earlier` to `self`, wrapping.
            #[inline]
            #[must_use]
            pub const fn offset_from(self, earlier: Self) -> u64 {
                self.0.wrapping_sub(earlier.0)
            }

            /// Returns whether the address is a multiple of `size`, a power of two.
            #[inline]
            #[must_use]
            pub const fn is_aligned(self, size: u64) -> bool {
                self.0 & (size - 1) == 0
            }

            /// Returns the address rounded down to a multiple of `size`, a power of two.
            #[inline]
            #[must_use]
            pub const fn align_down(self, size: u64) -> Self {
                Self(self.0 & !(size - 1))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, ":{:#x}"), self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:#018x}", self.0)
            }
        }

        impl fmt::LowerHex for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::LowerHex::fmt(&self.0, f)
            }
        }
    };
}

address!(
    /// A virtual address.
    VirtAddr,
    "va"
);
address!(
    /// A physical (output) address.
    PhysAddr,
    "pa"
);

/// A physical page: its address divided by the page size.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
#[repr(transparent)]
pub struct Pfn(pub u64);

/// A range of virtual addresses; its end may be 2^64.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct VirtRange {
    /// First address.
    pub start: VirtAddr,
    /// Bytes.
    pub size: u64,
}

impl VirtRange {
    /// Returns `size` bytes from `start` on.
    #[inline]
    #[must_use]
    pub const fn new(start: VirtAddr, size: u64) -> Self {
        Self { start, size }
    }

    /// Returns the last address. Meaningless for an empty range.
    #[inline]
    #[must_use]
    pub const fn last(self) -> VirtAddr {
        VirtAddr(self.start.0.wrapping_add(self.size).wrapping_sub(1))
    }

    /// Returns the first address behind the range, wrapping.
    #[inline]
    #[must_use]
    pub const fn end(self) -> VirtAddr {
        self.start.add(self.size)
    }

    /// Returns whether `va` is in the range.
    #[inline]
    #[must_use]
    pub const fn contains(self, va: VirtAddr) -> bool {
        va.offset_from(self.start) < self.size
    }

    /// Returns whether `other`, not empty, is in the range.
    #[inline]
    #[must_use]
    pub const fn covers(self, other: Self) -> bool {
        self.contains(other.start) && self.contains(other.last())
    }

    /// Returns the range without its first `size` bytes.
    #[inline]
    pub(crate) const fn without(self, size: u64) -> Self {
        Self::new(self.start.add(size), self.size - size)
    }

    /// Returns what is behind `done`, which covers the start.
    #[inline]
    pub(crate) const fn behind(self, done: Self) -> Self {
        let skipped = done.end().offset_from(self.start);
        Self::new(done.end(), self.size.saturating_sub(skipped))
    }

    /// Returns whether the ranges share an address.
    #[inline]
    #[must_use]
    pub const fn overlaps(self, other: Self) -> bool {
        self.size != 0 && other.size != 0 && (self.contains(other.start) || other.contains(self.start))
    }
}

impl fmt::Debug for VirtRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "va:{:#x}+{:#x}", self.start.0, self.size)
    }
}
