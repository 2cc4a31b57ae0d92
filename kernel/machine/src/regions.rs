use core::fmt;

use arrayvec::ArrayVec;

pub const MAX_REGIONS: usize = 128;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PhysRegion {
    pub start: u64,
    pub end: u64,
}

impl PhysRegion {
    /// Returns `None` beyond the address space.
    #[must_use]
    pub const fn new(start: u64, size: u64) -> Option<Self> {
        match start.checked_add(size) {
            Some(end) => Some(Self { start, end }),
            None => None,
        }
    }

    #[must_use]
    pub const fn size(&self) -> u64 {
        self.end - self.start
    }

    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.start >= self.end
    }

    #[must_use]
    pub const fn shrink_to_pages(self, page: u64) -> Self {
        let end = self.end & !(page - 1);
        let start = match self.start.checked_next_multiple_of(page) {
            Some(start) if start < end => start,
            _ => end,
        };
        Self { start, end }
    }

    #[must_use]
    pub const fn grow_to_pages(self, page: u64) -> Self {
        Self {
            start: self.start & !(page - 1),
            end: match self.end.checked_next_multiple_of(page) {
                Some(end) => end,
                None => !(page - 1),
            },
        }
    }

    #[must_use]
    pub const fn intersection(&self, other: &Self) -> Self {
        let start = if self.start > other.start {
            self.start
        } else {
            other.start
        };
        let end = if self.end < other.end { self.end } else { other.end };
        Self {
            start,
            end: if end < start { start } else { end },
        }
    }
}

impl fmt::Display for PhysRegion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#012x}..{:#012x}", self.start, self.end)
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TooManyRegions;

#[derive(Clone, Debug, Default)]
pub struct Regions(ArrayVec<PhysRegion, MAX_REGIONS>);

impl Regions {
    #[must_use]
    pub const fn new() -> Self {
        Self(ArrayVec::new_const())
    }

    pub fn iter(&self) -> impl Iterator<Item = &PhysRegion> {
        self.0.iter()
    }

    #[must_use]
    pub fn size(&self) -> u64 {
        self.iter().map(PhysRegion::size).sum()
    }

    /// Returns whether one range holds `region`.
    #[must_use]
    pub fn contains(&self, region: &PhysRegion) -> bool {
        self.iter()
            .any(|here| here.start <= region.start && region.end <= here.end)
    }

    /// Adds a range, which may overlap.
    ///
    /// # Errors
    /// There is no room for one more.
    pub fn add(&mut self, region: PhysRegion) -> Result<(), TooManyRegions> {
        if region.is_empty() {
            return Ok(());
        }
        let mut new = region;
        self.0.retain(|here| {
            let apart = here.end < new.start || new.end < here.start;
            if !apart {
                new.start = new.start.min(here.start);
                new.end = new.end.max(here.end);
            }
            apart
        });
        let at = self.0.partition_point(|here| here.start < new.start);
        self.0.try_insert(at, new).map_err(|_| TooManyRegions)
    }

    /// Removes a range, as far as it is there.
    ///
    /// # Errors
    /// A split needs room for one more.
    pub fn remove(&mut self, region: PhysRegion) -> Result<(), TooManyRegions> {
        let mut i = 0;
        while i < self.0.len() {
            let here = self.0[i];
            if here.intersection(&region).is_empty() {
                i += 1;
                continue;
            }
            self.0.remove(i);
            let rest = [
                PhysRegion {
                    start: here.start,
                    end: region.start,
                },
                PhysRegion {
                    start: region.end,
                    end: here.end,
                },
            ];
            for part in rest {
                if !part.is_empty() {
                    self.0.try_insert(i, part).map_err(|_| TooManyRegions)?;
                    i += 1;
                }
            }
        }
        Ok(())
    }

    /// Takes whole pages from the lowest range.
    pub fn take(&mut self, size: u64) -> Option<u64> {
        let found = self.0.iter_mut().find(|here| here.size() >= size)?;
        let start = found.start;
        found.start += size;
        self.0.retain(|here| !here.is_empty());
        Some(start)
    }
}
