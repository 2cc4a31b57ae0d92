//! The steps of every reference walker.

use super::Error;
use super::flush::flush_table;
use crate::addr::{Pfn, PhysAddr, VirtAddr, VirtRange};
use crate::descriptor::{Attributes, Descriptor};
use crate::granule::{Granule, LAST_LEVEL, Level};
use crate::mmu::Mmu;
use crate::outcome::{LeafCounts, LeafSize, LevelMask};
use crate::tables::Tables;
use core::marker::PhantomData;

/// A tree and what changes it.
pub struct Context<'a, G, T, M> {
    /// The root table.
    pub root: PhysAddr,
    /// Where tables live.
    pub tables: &'a T,
    /// Barriers and invalidations.
    pub mmu: &'a M,
    granule: PhantomData<G>,
}

impl<'a, G: Granule, T: Tables, M: Mmu> Context<'a, G, T, M> {
    /// Returns an empty tree, or `None` without a page for its root.
    #[must_use]
    pub fn new(tables: &'a T, mmu: &'a M) -> Option<Self> {
        Some(Self::from_root(tables.alloc_table()?, tables, mmu))
    }

    /// Returns the tree at `root`, which only reference walkers change.
    #[must_use]
    pub const fn from_root(root: PhysAddr, tables: &'a T, mmu: &'a M) -> Self {
        Self {
            root,
            tables,
            mmu,
            granule: PhantomData,
        }
    }

    /// Returns the leaf descriptor that maps `va`, and its level.
    #[must_use]
    pub fn leaf_at(&self, va: VirtAddr) -> Option<(Descriptor, Level)> {
        let mut table = self.root;
        let mut level = G::ROOT_LEVEL;
        loop {
            let found = Descriptor(self.tables.load(table, G::index(va.0, level)));
            if !found.is_valid() {
                return None;
            }
            if !found.is_table(level) {
                return Some((found, level));
            }
            table = found.address::<G>();
            level += 1;
        }
    }

    /// Returns where `va` is mapped to, and by which leaf.
    #[must_use]
    pub fn translate(&self, va: VirtAddr) -> Option<(PhysAddr, LeafSize)> {
        let (found, level) = self.leaf_at(va)?;
        let within = va.0 & (G::size(level) - 1);
        let leaf = LeafSize::new(level, found.is_contiguous());
        Some((found.address::<G>().add(within), leaf))
    }

    /// Returns the leaves by size. A group counts as one.
    #[must_use]
    pub fn leaf_counts(&self, range: VirtRange) -> LeafCounts {
        let mut counts = LeafCounts::default();
        let mut done = 0;
        while done < range.size {
            let va = range.start.add(done);
            let bytes = match self.translate(va) {
                Some((_, leaf)) => {
                    counts.add(leaf, 1);
                    leaf.bytes::<G>()
                }
                None => G::PAGE_SIZE,
            };
            done += bytes - (va.0 & (bytes - 1));
        }
        counts
    }

    /// Frees every table with all that it maps.
    pub fn release(self) {
        // DESIGN rule 5: no walk cache holds a freed table. No CPU walks the tree.
        self.mmu.dsb_ishst();
        self.mmu.tlbi_vmalle1is();
        self.mmu.dsb_ish();
        self.mmu.isb();
        self.release_table(self.root, G::ROOT_LEVEL);
    }

    fn release_table(&self, table: PhysAddr, level: Level) {
        if level < LAST_LEVEL {
            for index in 0..G::root_entries_at(level) {
                let found = Descriptor(self.tables.load(table, index));
                if found.is_table(level) {
                    self.release_table(found.address::<G>(), level + 1);
                }
            }
        }
        self.tables.free_table(table);
    }

    /// Checks that `size` bytes at `va` can be walked.
    ///
    /// # Errors
    /// [`Error::Empty`], [`Error::Misaligned`], [`Error::OutOfRange`].
    #[inline]
    pub fn check_range(&self, va: VirtAddr, size: u64) -> Result<(), Error> {
        let span = 1u64 << G::VA_BITS;
        if size == 0 {
            return Err(Error::Empty(va));
        }
        for value in [va.0, size] {
            if value & (G::PAGE_SIZE - 1) != 0 {
                return Err(Error::Misaligned(value));
            }
        }
        if size > span - (va.0 & (span - 1)) {
            return Err(Error::OutOfRange(va, size));
        }
        Ok(())
    }

    /// Returns the address of page `page` of a range. Linux asks `pfn_valid` here, most of its cost
    /// for page arrays.
    ///
    /// # Errors
    /// [`Error::NoFrame`], [`Error::BadFrame`].
    #[inline]
    pub fn output(&self, frame: Option<Pfn>, page: u64) -> Result<PhysAddr, Error> {
        let frame = frame.ok_or(Error::NoFrame { page })?;
        if frame.0 >> (G::PA_BITS - G::PAGE_SHIFT) != 0 {
            return Err(Error::BadFrame(frame));
        }
        Ok(PhysAddr(frame.0 << G::PAGE_SHIFT))
    }

    /// Returns the table for `va`, adding what is missing.
    ///
    /// # Errors
    /// [`Error::OutOfTables`], [`Error::Occupied`].
    pub fn table_for(&self, va: VirtAddr, level: Level, levels: &mut LevelMask) -> Result<PhysAddr, Error> {
        let mut table = self.root;
        for above in G::levels_before(level) {
            table = self.next_table(table, above, va, levels)?;
        }
        Ok(table)
    }

    /// Returns the table below a descriptor, added if missing.
    ///
    /// # Errors
    /// [`Error::OutOfTables`], [`Error::Occupied`].
    #[inline]
    pub fn next_table(
        &self,
        table: PhysAddr,
        level: Level,
        va: VirtAddr,
        levels: &mut LevelMask,
    ) -> Result<PhysAddr, Error> {
        let index = G::index(va.0, level);
        let found = Descriptor(self.tables.load(table, index));
        if found.is_table(level) {
            return Ok(found.address::<G>());
        }
        if !found.is_vacant() {
            return Err(Error::Occupied { va, level, found });
        }
        let new = self.tables.alloc_table().ok_or(Error::OutOfTables(level + 1))?;
        let link = Descriptor::table::<G>(new);
        // Release: a walk that sees the link sees the table zeroed.
        if let Err(found) = self.tables.compare_exchange(table, index, 0, link.0) {
            self.tables.free_table(new);
            let found = Descriptor(found);
            return Err(Error::Occupied { va, level, found });
        }
        self.publish();
        levels.insert(level);
        Ok(new)
    }

    /// Writes a page into its last-level table, without barriers.
    ///
    /// # Errors
    /// [`Error::Occupied`].
    #[inline]
    pub fn store_page(
        &self,
        table: PhysAddr,
        va: VirtAddr,
        pa: PhysAddr,
        attributes: Attributes,
        levels: &mut LevelMask,
    ) -> Result<(), Error> {
        let index = self.vacant_page(table, va)?;
        let page = Descriptor::leaf::<G>(LAST_LEVEL, pa, attributes, false);
        self.tables.store(table, index, page.0);
        levels.insert(LAST_LEVEL);
        Ok(())
    }

    #[inline]
    pub(super) fn vacant_page(&self, table: PhysAddr, va: VirtAddr) -> Result<usize, Error> {
        let index = G::index(va.0, LAST_LEVEL);
        let found = Descriptor(self.tables.load(table, index));
        if !found.is_vacant() {
            let level = LAST_LEVEL;
            return Err(Error::Occupied { va, level, found });
        }
        Ok(index)
    }

    /// As in Linux, only the first descriptor was checked.
    #[inline]
    pub(super) fn store_pages(
        &self,
        table: PhysAddr,
        index: usize,
        pa: PhysAddr,
        size: u64,
        attributes: Attributes,
    ) {
        if size == G::PAGE_SIZE {
            let page = Descriptor::leaf::<G>(LAST_LEVEL, pa, attributes, false);
            self.tables.store(table, index, page.0);
        } else {
            self.store_groups(table, index, pa, size, attributes);
        }
    }

    /// As Linux's setter for large pages.
    #[inline(never)]
    fn store_groups(&self, table: PhysAddr, index: usize, pa: PhysAddr, size: u64, attributes: Attributes) {
        let mut page = Descriptor::leaf::<G>(LAST_LEVEL, pa, attributes, true).0;
        for i in index..index + (size >> G::PAGE_SHIFT) as usize {
            self.tables.store(table, i, page);
            page += G::PAGE_SIZE;
        }
    }

    /// If `slice` is just a block, aligned and allowed. An empty table there is freed first.
    #[inline]
    pub(super) fn try_block(
        &self,
        table: PhysAddr,
        level: Level,
        slice: VirtRange,
        pa: PhysAddr,
        max_shift: u32,
        attributes: Attributes,
    ) -> Result<bool, Error> {
        let size = G::size(level);
        if !G::leaf_allowed(level)
            || max_shift < G::shift(level)
            || slice.size != size
            || (slice.start.0 | pa.0) & (size - 1) != 0
        {
            return Ok(false);
        }
        let index = G::index(slice.start.0, level);
        let found = Descriptor(self.tables.load(table, index));
        if found.is_table(level) {
            self.free_lower(table, index, level, slice.start)?;
        } else if !found.is_vacant() {
            let va = slice.start;
            return Err(Error::Occupied { va, level, found });
        }
        let block = Descriptor::leaf::<G>(level, pa, attributes, false);
        self.tables.store(table, index, block.0);
        self.publish();
        Ok(true)
    }

    #[cold]
    fn free_lower(&self, table: PhysAddr, index: usize, level: Level, va: VirtAddr) -> Result<(), Error> {
        let lower = Descriptor(self.tables.load(table, index)).address::<G>();
        let below = level + 1;
        for i in 0..G::ENTRIES {
            let found = Descriptor(self.tables.load(lower, i));
            let va = va.add((i as u64) << G::shift(below));
            if found.is_table(below) {
                self.free_lower(lower, i, below, va)?;
            } else if !found.is_vacant() {
                let level = below;
                return Err(Error::Occupied { va, level, found });
            }
        }
        self.tables.store(table, index, 0);
        flush_table(self.mmu, va);
        self.tables.free_table(lower);
        Ok(())
    }

    /// DSB ISHST: walks see the stores. ISB: this CPU drops a speculated fault (Arm ARM B2.3.12,
    /// D8.2.6).
    #[inline]
    pub(super) fn publish(&self) {
        self.mmu.dsb_ishst();
        self.mmu.isb();
    }
}

#[inline]
pub(super) fn slices<G: Granule>(range: VirtRange, level: Level) -> impl Iterator<Item = VirtRange> {
    let entry = G::size(level);
    let mut va = range.start;
    let mut left = range.size;
    core::iter::from_fn(move || {
        if left == 0 {
            return None;
        }
        let slice = VirtRange::new(va, left.min(entry - (va.0 & (entry - 1))));
        va = va.add(slice.size);
        left -= slice.size;
        Some(slice)
    })
}
