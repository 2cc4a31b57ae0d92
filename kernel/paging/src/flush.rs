//! What must be invalidated before anything is given back: [`Pending`] and [`FlushBatch`].
//!
//! An operation that takes translations out of a live tree does not invalidate them on the spot. It records, from the
//! tables **as they were** (DESIGN rule 4), which ranges a TLB may hold, at which stride, whether a walk cache may hold a
//! link, and which tables are unlinked. One flush then covers any number of operations:
//!
//! 1. DSB ISHST: the stores that took the entries out are complete for table walks (rule 3; Arm ARM D8.16, K13.5.3);
//! 2. the fewest TLBIs: by range where FEAT_TLBIRANGE is, by VA otherwise, one `VMALLE1IS` above a threshold;
//! 3. DSB ISH: the invalidations are complete on every CPU of the domain;
//! 4. ISB: this CPU forgets what it fetched or translated ahead;
//! 5. only then the dead tables, and whatever else was [withheld](FlushBatch::withhold), go back (rules 5 and 6).

use crate::addr::{VirtAddr, VirtRange};
use crate::granule::{Granule, LAST_LEVEL, Level};
use crate::mmu::{Mmu, TlbiRange};
use crate::tables::Tables;
use crate::tree::Tree;
use pending::linked;

mod pending;

pub use pending::{Pending, PendingRange, TakenOut};

/// Most pages that one range operation covers: NUM 31, SCALE 3.
const MAX_RANGE_OP: u64 = 32 << 16;

/// The largest range operation at `start` that covers no more than `pages` pages, which are at least 2.
#[inline(always)]
fn range_op_within(start: VirtAddr, pages: u64) -> TlbiRange {
    let units = (pages / 2).min(MAX_RANGE_OP / 2);
    // Base 32: the place of the first digit is the SCALE, the digit itself NUM + 1. 2^20 units are 32 of SCALE 3.
    let scale = (units.ilog2() / 5).min(3);
    TlbiRange {
        start,
        scale: scale as u8,
        num: (units >> (5 * scale)) as u8 - 1,
    }
}

/// The smallest range operation that covers `pages` pages, at least 2 and at most [`MAX_RANGE_OP`], and ends at `end`.
#[inline]
fn range_op_up_to<G: Granule>(end: VirtAddr, pages: u64) -> TlbiRange {
    let units = pages.div_ceil(2);
    let scale = (0..3).find(|scale| units <= 32 << (5 * scale)).unwrap_or(3);
    let num = units.div_ceil(1 << (5 * scale)) as u8 - 1;
    let scale = scale as u8;
    let mut op = TlbiRange {
        start: end,
        scale,
        num,
    };
    op.start = end.add((op.pages() << G::PAGE_SHIFT).wrapping_neg());
    op
}

/// The fewest TLBIs that cover `pages` pages from `start`, and nothing beside them.
///
/// An operation covers `(NUM + 1) << (5 * SCALE + 1)` pages. One that is as large as fits leaves a rest that is smaller than
/// one unit of its SCALE; a second one, which may overlap it, ends where the range ends. So two always suffice, up to 2^21
/// pages; every further 2^21 take one more. A rest of one page goes by VA.
pub(crate) fn for_each_range_op<G: Granule>(
    start: VirtAddr,
    pages: u64,
    mut by_range: impl FnMut(TlbiRange),
    mut by_va: impl FnMut(VirtAddr),
) {
    let end = start.add(pages << G::PAGE_SHIFT);
    let mut start = start;
    let mut rest = pages;
    while rest >= MAX_RANGE_OP || (rest == pages && rest >= 2) {
        let op = range_op_within(start, rest);
        by_range(op);
        start = start.add(op.pages() << G::PAGE_SHIFT);
        rest -= op.pages();
    }
    match rest {
        0 => {}
        1 => by_va(start),
        _ => by_range(range_op_up_to::<G>(end, rest)),
    }
}

/// How many TLBIs [`for_each_range_op`] makes of `pages` pages, at least 1.
#[inline(always)]
fn nr_range_ops(pages: u64) -> u64 {
    if pages <= 1 {
        return pages;
    }
    if pages < MAX_RANGE_OP {
        let first = range_op_within(VirtAddr(0), pages);
        return 1 + u64::from(first.pages() != pages);
    }
    pages.div_ceil(MAX_RANGE_OP)
}

/// How many TLBIs `pending` takes.
#[inline(always)]
fn nr_tlbis<G: Granule>(pending: &PendingRange, tlbi_range: bool) -> u64 {
    let by_va = pending.range.size >> G::shift(pending.stride);
    if !tlbi_range || by_va <= 1 {
        return by_va;
    }
    nr_range_ops(pending.range.size >> G::PAGE_SHIFT).min(by_va)
}

#[inline(always)]
fn nr_all_tlbis<G: Granule>(ranges: impl Iterator<Item = PendingRange>, tlbi_range: bool) -> u64 {
    ranges
        .map(|pending| nr_tlbis::<G>(&pending, tlbi_range))
        .fold(0, u64::saturating_add)
}

impl<G: Granule, T: Tables, M: Mmu> Tree<G, T, M> {
    /// The TLBIs for `ranges`, without a barrier.
    #[inline(always)]
    fn issue_tlbis(&self, ranges: impl Iterator<Item = PendingRange> + Clone) {
        let by_range = self.mmu.has_tlbi_range();
        let total = nr_all_tlbis::<G>(ranges.clone(), by_range);
        if total > u64::from(self.config().flush_all_above) {
            self.mmu.tlbi_vmalle1is();
            return;
        }
        for pending in ranges {
            self.issue_range(&pending, by_range);
        }
    }

    #[inline(always)]
    fn issue_range(&self, pending: &PendingRange, by_range: bool) {
        let mmu = &self.mmu;
        let VirtRange { start, size } = pending.range;
        let by_va = |va| {
            if pending.links {
                mmu.tlbi_vaae1is(va);
            } else {
                mmu.tlbi_vaale1is(va);
            }
        };
        let stride = G::shift(pending.stride);
        let nr_by_va = size >> stride;
        if by_range && nr_tlbis::<G>(pending, true) < nr_by_va {
            let op = |range| {
                if pending.links {
                    mmu.tlbi_rvaae1is(range);
                } else {
                    mmu.tlbi_rvaale1is(range);
                }
            };
            for_each_range_op::<G>(start, size >> G::PAGE_SHIFT, op, by_va);
        } else {
            (0..nr_by_va).for_each(|i| by_va(start.add(i << stride)));
        }
    }

    /// The TLBIs for the leaves of level `stride` in `range`, of which there are at least two, and with `links` for the links
    /// to them: most often one operation does.
    #[inline(always)]
    pub(crate) fn issue_one(&self, range: VirtRange, stride: Level, links: bool) {
        let VirtRange { start, size } = range;
        let by_range = self.mmu.has_tlbi_range() && self.config().flush_all_above != 0;
        let issued = by_range && {
            let pages = size >> G::PAGE_SHIFT;
            // The first SCALE that reaches: what is a multiple of a larger unit is one of its unit, too.
            if pages <= 32 << 1 {
                self.issue_exactly::<0>(start, pages, links)
            } else if pages <= 32 << 6 {
                self.issue_exactly::<1>(start, pages, links)
            } else if pages <= 32 << 11 {
                self.issue_exactly::<2>(start, pages, links)
            } else {
                pages <= 32 << 16 && self.issue_exactly::<3>(start, pages, links)
            }
        };
        if !issued {
            self.issue_several(range, stride, links);
        }
    }

    /// The range operation of `SCALE` that covers `pages` pages and nothing beside them. `false`: there is none.
    #[inline(always)]
    fn issue_exactly<const SCALE: u8>(&self, start: VirtAddr, pages: u64, links: bool) -> bool {
        let shift = 5 * u32::from(SCALE) + 1;
        if pages & ((1 << shift) - 1) != 0 {
            return false;
        }
        let num = (pages >> shift) as u8 - 1;
        let op = TlbiRange {
            start,
            scale: SCALE,
            num,
        };
        if links {
            self.mmu.tlbi_rvaae1is(op);
        } else {
            self.mmu.tlbi_rvaale1is(op);
        }
        true
    }

    #[cold]
    #[inline(never)]
    fn issue_several(&self, range: VirtRange, stride: Level, links: bool) {
        self.issue_tlbis(core::iter::once(PendingRange { range, stride, links }));
    }

    /// TLBIs for `ranges`, then DSB ISH; once more the last of them on a CPU that may complete a TLBI too early.
    ///
    /// The caller has issued the leading DSB.
    #[inline(always)]
    pub(crate) fn invalidate_and_wait(&self, ranges: impl Iterator<Item = PendingRange> + Clone) {
        self.issue_tlbis(ranges.clone());
        if let Some(last) = ranges.last() {
            self.wait_for_tlbis(last.range.start);
        }
    }

    /// The DSB ISH behind TLBIs, of which one was for `va`; there is one, or this would not be needed.
    #[inline(always)]
    pub(crate) fn wait_for_tlbis(&self, va: VirtAddr) {
        // DESIGN rule 3 and 4, Arm ARM D8.16: the TLBIs are complete for all CPUs only after a DSB of the CPU that
        // issued them.
        self.mmu.dsb_ish();
        if self.config().repeat_tlbi {
            // DESIGN rule 11: a further TLBI and DSB complete only when the earlier ones truly have.
            self.mmu.tlbi_vaae1is(va);
            self.mmu.dsb_ish();
        }
    }

    /// Leaves `taken` to the flush of `pending`.
    ///
    /// Areas mostly lie side by side, with a guard page between them, and what is left where one begins at a group. Where TLBIs go
    /// by range, one over all of it is fewer; if somebody else's page is in between, it is translated anew.
    #[inline(always)]
    pub fn leave(&self, taken: TakenOut, pending: &mut Pending<G>) {
        pending.record(taken.range, self.slack());
    }

    /// Leaves all that is pending in `some` to the flush of `pending`, as [`leave`](Self::leave).
    #[inline]
    pub fn leave_all(&self, some: &mut Pending<G>, pending: &mut Pending<G>) {
        pending.append(&self.tables, some, self.slack());
    }

    #[inline(always)]
    fn slack(&self) -> u64 {
        if self.mmu.has_tlbi_range() {
            G::cont_size(LAST_LEVEL)
        } else {
            0
        }
    }

    /// Flushes what is pending and gives the dead tables back.
    ///
    /// `foreign` says that another CPU took some of it out and handed it over by release and acquire: then the leading
    /// barrier is DSB ISH, which waits for stores observed too, where DSB ISHST waits for this CPU's own (lazy purge;
    /// Arm ARM B2.3.12).
    pub fn flush(&self, mut pending: Pending<G>, foreign: bool) {
        self.flush_in_place(&mut pending, foreign);
    }

    /// As [`flush`](Self::flush); nothing is pending afterwards.
    #[inline(always)]
    pub(crate) fn flush_in_place(&self, pending: &mut Pending<G>, foreign: bool) {
        if pending.is_empty() {
            return;
        }
        let mmu = &self.mmu;
        if foreign {
            mmu.dsb_ish();
        } else {
            // The one leading barrier: what was written is complete for table walks before the first TLBI.
            mmu.dsb_ishst();
        }
        if pending.nr_ranges != 0 {
            self.invalidate_and_wait(pending.ranges());
        }
        // This CPU may have fetched or translated ahead by what is gone (oracle: without the ISB it may still hit).
        mmu.isb();
        if pending.dead.is_some() {
            // Tables may go back now: so may those that waited for such a moment.
            self.reclaim();
        }
        pending.release(&self.tables);
    }

    /// Flushes what is pending; its dead tables are withheld, since others walk.
    pub(crate) fn flush_withholding(&self, mut pending: Pending<G>) {
        let mut next = pending.dead.take();
        self.flush_in_place(&mut pending, false);
        while let Some(table) = next {
            next = linked(&self.tables, table);
            self.withhold(table);
        }
    }

    /// An empty batch on this tree.
    #[inline]
    pub fn batch(&self) -> FlushBatch<'_, G, T, M> {
        FlushBatch {
            tree: self,
            pending: Pending::new(),
            withheld: None,
        }
    }
}

/// Collects what operations take out, and flushes when it is dropped.
///
/// `C` is whatever must not be reused before the flush: frames, a range of addresses. It is dropped right after.
#[must_use = "it flushes where it is dropped, which is here"]
pub struct FlushBatch<'a, G: Granule, T: Tables, M: Mmu, C = ()> {
    tree: &'a Tree<G, T, M>,
    pending: Pending<G>,
    withheld: Option<C>,
}

impl<'a, G: Granule, T: Tables, M: Mmu> FlushBatch<'a, G, T, M> {
    /// Leaves what is collected to the flush of `pending`, as [`Tree::leave`].
    #[inline]
    pub fn leave_to(mut self, pending: &mut Pending<G>) {
        self.tree.leave_all(&mut self.pending, pending);
    }

    /// The same batch, which also owns `cargo` until it has flushed.
    pub fn withhold<C>(mut self, cargo: C) -> FlushBatch<'a, G, T, M, C> {
        FlushBatch {
            tree: self.tree,
            pending: core::mem::take(&mut self.pending),
            withheld: Some(cargo),
        }
    }
}

impl<G: Granule, T: Tables, M: Mmu, C> FlushBatch<'_, G, T, M, C> {
    /// Flushes now and gives back what was withheld to the caller.
    #[inline]
    pub fn flush(mut self) -> Option<C> {
        self.tree.flush_in_place(&mut self.pending, false);
        self.withheld.take()
    }

    /// What is collected, to be flushed later: a lazy purge merges many of these.
    pub fn detach(mut self) -> (Pending<G>, Option<C>) {
        (core::mem::take(&mut self.pending), self.withheld.take())
    }

    /// What is collected so far.
    pub fn pending(&self) -> &Pending<G> {
        &self.pending
    }

    #[inline(always)]
    pub(crate) fn pending_mut(&mut self) -> &mut Pending<G> {
        &mut self.pending
    }
}

impl<G: Granule, T: Tables, M: Mmu, C> Drop for FlushBatch<'_, G, T, M, C> {
    fn drop(&mut self) {
        self.tree.flush_in_place(&mut self.pending, false);
        // Field order would do; said here because it is the point: what is withheld goes back after the flush.
        drop(self.withheld.take());
    }
}

#[cfg(test)]
mod tests;
