//! What is collected until a flush.

use crate::addr::{PhysAddr, VirtAddr, VirtRange};
use crate::granule::{Granule, LAST_LEVEL, Level};
use crate::tables::Tables;
use arrayvec::ArrayVec;
use core::marker::PhantomData;

pub(super) const MAX_RANGES: usize = 8;

/// Translations to invalidate.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PendingRange {
    /// The addresses.
    pub range: VirtRange,
    /// Of descriptors that a TLB may hold, a group as its descriptors (rule 4).
    pub stride: Level,
    /// A link was taken out: walk caches are invalidated (rule 5).
    pub links: bool,
}

/// Flags are in the low bits of the size, a multiple of the page size.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Packed {
    start: u64,
    size: u64,
}

/// log2 of the bytes under a descriptor of the stride.
const SHIFT: u64 = 0b011_1111;
const LINKS: u64 = 0b100_0000;
const FLAGS: u64 = SHIFT | LINKS;

impl Packed {
    #[inline]
    pub(crate) fn new<G: Granule>(range: VirtRange, stride: Level, links: bool) -> Self {
        let links = if links { LINKS } else { 0 };
        Self {
            start: range.start.0,
            size: range.size | u64::from(G::shift(stride)) | links,
        }
    }

    #[inline]
    pub(crate) const fn range(self) -> VirtRange {
        VirtRange::new(VirtAddr(self.start), self.size & !FLAGS)
    }

    #[inline]
    pub(crate) const fn links(self) -> bool {
        self.size & LINKS != 0
    }

    /// How many descriptors of its stride.
    #[inline]
    pub(crate) const fn nr(self) -> u64 {
        self.size() >> (self.size & SHIFT)
    }

    #[inline]
    pub(super) fn unpack<G: Granule>(self) -> PendingRange {
        let below = (self.size & SHIFT) as u32 - G::PAGE_SHIFT;
        PendingRange {
            range: self.range(),
            stride: LAST_LEVEL - (below / G::INDEX_BITS) as Level,
            links: self.links(),
        }
    }

    #[inline]
    const fn last(self) -> u64 {
        self.start + (self.size() - 1)
    }

    #[inline]
    fn joined(self, other: Self) -> Self {
        let start = self.start.min(other.start);
        let size = (self.last().max(other.last()) - start).wrapping_add(1);
        Self {
            start,
            size: size | self.flags_with(other),
        }
    }

    /// The smaller stride, and the links of either.
    #[inline]
    fn flags_with(self, other: Self) -> u64 {
        (self.size & SHIFT).min(other.size & SHIFT) | (self.size | other.size) & LINKS
    }

    #[inline]
    const fn size(self) -> u64 {
        self.size & !FLAGS
    }

    #[inline]
    const fn is_continued_by(self, new: Self, growth: u64, slack: u64) -> bool {
        // Joined, another stride would need more TLBIs.
        growth == 0 || (growth <= new.size() + slack && self.has_stride_of(new))
    }

    #[inline]
    const fn has_stride_of(self, new: Self) -> bool {
        (self.size ^ new.size) & SHIFT == 0
    }

    #[inline]
    fn growth(self, new: Self) -> u64 {
        let ends = new.last().max(self.last()) - self.last();
        ends + (self.start - new.start.min(self.start))
    }
}

/// What operations have unmapped and not yet invalidated.
///
/// Neither addresses nor tables may be reused before a [flush](crate::Tree::flush). Dropped with
/// dead tables, it leaks them.
#[must_use = "translations may linger until it is flushed"]
#[derive(Debug)]
pub struct Pending<G> {
    ranges: ArrayVec<Packed, MAX_RANGES>,
    /// Unlinked tables, strung through their first descriptor; 0 for none. With bit 0 clear, a
    /// stale walk reads an invalid descriptor.
    dead: PhysAddr,
    nr_dead: u32,
    /// Not 0: descriptors need a barrier and no TLBI. Zeroed with the count before it.
    published: u32,
    granule: PhantomData<G>,
}

impl<G: Granule> Default for Pending<G> {
    fn default() -> Self {
        Self::new()
    }
}

impl<G: Granule> Pending<G> {
    /// Returns it empty.
    #[inline]
    pub const fn new() -> Self {
        Self {
            ranges: ArrayVec::new_const(),
            dead: NONE,
            nr_dead: 0,
            published: 0,
            granule: PhantomData,
        }
    }

    /// Returns the ranges to invalidate.
    #[inline]
    pub fn ranges(&self) -> impl Iterator<Item = PendingRange> + Clone + '_ {
        self.ranges.iter().map(|packed| packed.unpack::<G>())
    }

    /// Returns how many tables wait to be freed.
    #[must_use]
    pub const fn nr_dead_tables(&self) -> usize {
        self.nr_dead as usize
    }

    /// Whether a flush has nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty() && self.published == 0
    }

    pub(crate) fn may_be_held(&self, range: VirtRange) -> bool {
        self.ranges().any(|pending| pending.range.overlaps(range))
    }

    /// Returns how many TLBIs a flush issues.
    #[must_use]
    pub fn nr_tlbis(&self, tlbi_range: bool) -> u64 {
        super::nr_all_tlbis::<G>(self.ranges(), tlbi_range)
    }

    /// Records that a TLB may hold `range`, by descriptors of level `stride`.
    #[doc(hidden)] // for the proofs, which flush any range
    #[inline]
    pub fn invalidate(&mut self, range: VirtRange, stride: Level, links: bool) {
        let new = Packed::new::<G>(range, stride, links);
        if let Some(last) = self.ranges.last_mut() {
            // Neighbours of one stride, and repetitions, are one range.
            if last.range().end() == range.start && last.has_stride_of(new) {
                last.size = (last.size + range.size) | (new.size & LINKS);
                return;
            }
            if last.range().covers(range) {
                last.size = last.size() | last.flags_with(new);
                return;
            }
        }
        if self.ranges.try_push(new).is_err() {
            self.collect(new, 0);
        }
    }

    /// A walk cache may hold the link of `level` for `span`: any address of it, invalidated at all
    /// levels, reaches it, so it goes with the leaves just recorded if it can.
    #[inline]
    pub(crate) fn invalidate_link(&mut self, span: VirtRange, level: Level) {
        if let Some(last) = self.ranges.last_mut() {
            // The first entry that overlaps the span lies in it.
            if last.size & SHIFT <= u64::from(G::shift(level)) && last.range().overlaps(span) {
                last.size |= LINKS;
                return;
            }
        }
        self.invalidate(VirtRange::new(span.start, G::PAGE_SIZE), LAST_LEVEL, true);
    }

    /// `new` may continue either of the last two ranges, up to `slack` bytes away: areas of two
    /// kinds often alternate.
    #[inline]
    pub(super) fn record(&mut self, new: Packed, slack: u64) {
        for old in self.ranges.iter_mut().rev().take(2) {
            if old.is_continued_by(new, old.growth(new), slack) {
                *old = old.joined(new);
                return;
            }
        }
        if self.ranges.try_push(new).is_err() {
            self.collect(new, slack);
        }
    }

    /// Of any of the ranges. Without room, the one that grows least takes `new` in: more may be
    /// invalidated than needed.
    #[inline(never)]
    pub(super) fn collect(&mut self, new: Packed, slack: u64) {
        let (mut least, mut nearest) = (u64::MAX, 0);
        for (i, old) in self.ranges.iter().enumerate().rev() {
            let growth = old.growth(new);
            if growth < least {
                (least, nearest) = (growth, i);
                if growth <= new.size() + slack {
                    break;
                }
            }
        }
        let is_full = self.ranges.is_full();
        if let Some(old) = self.ranges.get_mut(nearest)
            && (is_full || old.is_continued_by(new, least, slack))
        {
            *old = old.joined(new);
            return;
        }
        self.ranges.push(new);
    }

    /// They replace nothing that a TLB may hold.
    #[inline]
    pub(crate) fn publish(&mut self) {
        self.published = 1;
    }

    /// Keeps what strings dead tables together vacant.
    const LINK_SHIFT: u32 = G::PA_BITS - 48;

    /// Its span is in a range with `links`.
    #[inline]
    pub(crate) fn defer_free<T: Tables>(&mut self, tables: &T, table: PhysAddr) {
        tables.store(table, 0, self.dead.0 >> Self::LINK_SHIFT);
        self.dead = table;
        self.nr_dead += 1;
    }

    /// Takes over all of `other`.
    pub fn merge<T: Tables>(&mut self, tables: &T, mut other: Self) {
        self.append(tables, &mut other, 0);
    }

    #[inline]
    pub(super) fn append<T: Tables>(&mut self, tables: &T, other: &mut Self, slack: u64) {
        match other.ranges[..] {
            [one] => self.record(one, slack),
            ref several => several.iter().for_each(|range| self.collect(*range, slack)),
        }
        other.ranges.clear();
        self.published |= core::mem::take(&mut other.published);
        if other.dead != NONE {
            self.append_dead(tables, other);
        }
    }

    #[cold]
    #[inline(never)]
    fn append_dead<T: Tables>(&mut self, tables: &T, other: &mut Self) {
        while let Some(table) = other.next_dead(tables) {
            self.defer_free(tables, table);
        }
    }

    fn next_dead<T: Tables>(&mut self, tables: &T) -> Option<PhysAddr> {
        let table = self.dead;
        if table == NONE {
            return None;
        }
        self.dead = PhysAddr(tables.load(table, 0) << Self::LINK_SHIFT);
        self.nr_dead -= 1;
        Some(table)
    }

    #[inline]
    pub(super) fn finish<T: Tables>(&mut self, tables: &T) {
        if self.dead != NONE {
            self.free_dead(tables);
        }
        // Last, so that a batch at its end need not store it.
        self.ranges = ArrayVec::new_const();
        self.published = 0;
    }

    #[cold]
    #[inline(never)]
    fn free_dead<T: Tables>(&mut self, tables: &T) {
        while let Some(table) = self.next_dead(tables) {
            tables.free_table(table);
        }
    }

    #[inline]
    pub(super) fn only(&self) -> Option<Packed> {
        match self.ranges[..] {
            [only] => Some(only),
            _ => None,
        }
    }
}

/// [`Tables`](crate::Tables) never has one there.
const NONE: PhysAddr = PhysAddr(0);
