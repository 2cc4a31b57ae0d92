//! [`Pending`] and [`FlushBatch`]: operations record, from the tables **as they were** (DESIGN rule
//! 4), what a TLB may hold. One [`Tree::flush`] covers any number of them.

use crate::addr::{VirtAddr, VirtRange};
use crate::granule::{Granule, LAST_LEVEL};
use crate::mmu::{Mmu, TlbiRange};
use crate::tables::Tables;
use crate::tree::Tree;
mod pending;

pub(crate) use pending::Packed;
pub use pending::{Pending, PendingRange};

/// NUM 31, SCALE 3.
const MAX_RANGE_OP: u64 = 32 << 16;

/// Returns the largest operation within `pages` pages (2 or more).
#[inline(always)]
fn range_op_within(start: VirtAddr, pages: u64) -> TlbiRange {
    let units = (pages / 2).min(MAX_RANGE_OP / 2);
    // In base 32, SCALE is the place of the first digit, NUM + 1 the digit. 2^20 units are 32 of
    // SCALE 3.
    let scale = (units.ilog2() / 5).min(3);
    TlbiRange {
        start,
        scale: scale as u8,
        num: (units >> (5 * scale)) as u8 - 1,
    }
}

/// Returns the smallest operation that covers `pages` pages (2 to [`MAX_RANGE_OP`]) up to `end`.
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

/// Makes the fewest TLBIs that cover exactly `pages` pages.
///
/// The largest that fits leaves less than a unit of its SCALE; a second, which may overlap it, ends
/// where the range ends. So two suffice up to
/// 2^21 pages, each further 2^21 takes one more. A single page goes by VA.
pub(crate) fn for_each_range_op<G: Granule>(
    start: VirtAddr,
    pages: u64,
    mut by_range: impl FnMut(TlbiRange),
    mut by_va: impl FnMut(VirtAddr),
) {
    if G::RANGE_SHIFT > G::PAGE_SHIFT {
        return for_each_aligned_op::<G>(start, pages, by_range, by_va);
    }
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

/// The same, where operations begin at multiples of [`Granule::RANGE_SHIFT`]; pages before the
/// first go by VA. The next operation has a smaller SCALE; behind SCALE 0 at most one page is left.
fn for_each_aligned_op<G: Granule>(
    start: VirtAddr,
    pages: u64,
    mut by_range: impl FnMut(TlbiRange),
    mut by_va: impl FnMut(VirtAddr),
) {
    let (mut start, mut rest) = (start, pages);
    while rest != 0 {
        let step = if rest >= 2 && start.is_aligned(1 << G::RANGE_SHIFT) {
            let op = range_op_within(start, rest);
            by_range(op);
            op.pages()
        } else {
            by_va(start);
            1
        };
        start = start.add(step << G::PAGE_SHIFT);
        rest -= step;
    }
}

#[inline(always)]
fn nr_range_ops<G: Granule>(start: VirtAddr, pages: u64) -> u64 {
    if pages <= 1 {
        return pages;
    }
    if G::RANGE_SHIFT > G::PAGE_SHIFT {
        return nr_aligned_ops::<G>(start, pages);
    }
    if pages < MAX_RANGE_OP {
        let first = range_op_within(VirtAddr(0), pages);
        return 1 + u64::from(first.pages() != pages);
    }
    pages.div_ceil(MAX_RANGE_OP)
}

fn nr_aligned_ops<G: Granule>(start: VirtAddr, pages: u64) -> u64 {
    let nr = core::cell::Cell::new(0);
    let count = || nr.set(nr.get() + 1);
    for_each_aligned_op::<G>(start, pages, |_| count(), |_| count());
    nr.get()
}

#[inline(always)]
fn nr_tlbis<G: Granule>(pending: &PendingRange, tlbi_range: bool) -> u64 {
    let by_va = pending.range.size >> G::shift(pending.stride);
    if !tlbi_range || by_va <= 1 {
        return by_va;
    }
    nr_range_ops::<G>(pending.range.start, pending.range.size >> G::PAGE_SHIFT).min(by_va)
}

#[inline(always)]
fn nr_all_tlbis<G: Granule>(ranges: impl Iterator<Item = PendingRange>, tlbi_range: bool) -> u64 {
    ranges
        .map(|pending| nr_tlbis::<G>(&pending, tlbi_range))
        .fold(0, u64::saturating_add)
}

/// The first SCALE that reaches tells: a multiple of a larger unit is one of its unit.
#[inline(always)]
fn exact_op<G: Granule>(start: VirtAddr, pages: u64) -> Option<TlbiRange> {
    if G::RANGE_SHIFT > G::PAGE_SHIFT && !start.is_aligned(1 << G::RANGE_SHIFT) {
        return None;
    }
    debug_assert!(pages != 0, "an operation on no page");
    let of_scale = |scale: u32| {
        let shift = 5 * scale + 1;
        let units = pages >> shift;
        (units << shift == pages).then(|| TlbiRange {
            start,
            scale: scale as u8,
            num: units.wrapping_sub(1) as u8,
        })
    };
    let reaches = |scale: &u32| pages <= 32 << (5 * scale + 1);
    if reaches(&0) {
        return of_scale(0);
    }
    of_scale((1..4).find(reaches)?)
}

impl<G: Granule, T: Tables, M: Mmu> Tree<G, T, M> {
    /// The caller has issued the leading DSB.
    #[inline(always)]
    pub(crate) fn invalidate_and_wait(&self, stale: Packed) {
        let (VirtRange { start, size }, links) = (stale.range(), stale.links());
        if stale.nr() == 1 {
            self.issue_by_va(start, links);
        } else if self.mmu.has_tlbi_range()
            && let Some(op) = exact_op::<G>(start, size >> G::PAGE_SHIFT)
        {
            self.issue_by_range(op, links);
        } else {
            return self.issue_pieces(stale);
        }
        self.wait_for_tlbis(start);
    }

    #[inline(never)]
    fn issue_pieces(&self, stale: Packed) {
        self.issue_each(core::iter::once(stale.unpack::<G>()));
        self.wait_for_tlbis(stale.range().start);
    }

    fn issue_each(&self, ranges: impl Iterator<Item = PendingRange> + Clone) {
        let by_range = self.mmu.has_tlbi_range();
        let total = nr_all_tlbis::<G>(ranges.clone(), by_range);
        if total > u64::from(self.config().flush_all_above) {
            self.mmu.tlbi_vmalle1is();
            return;
        }
        for pending in ranges {
            let PendingRange { range, stride, links } = pending;
            let VirtRange { start, size } = range;
            let shift = G::shift(stride);
            let nr_by_va = size >> shift;
            if by_range && nr_tlbis::<G>(&pending, true) < nr_by_va {
                let op = |op| self.issue_by_range(op, links);
                let by_va = |va| self.issue_by_va(va, links);
                for_each_range_op::<G>(start, size >> G::PAGE_SHIFT, op, by_va);
            } else {
                (0..nr_by_va).for_each(|i| self.issue_by_va(start.add(i << shift), links));
            }
        }
    }

    #[inline(always)]
    fn issue_by_va(&self, va: VirtAddr, links: bool) {
        if links {
            self.mmu.tlbi_vaae1is(va);
        } else {
            self.mmu.tlbi_vaale1is(va);
        }
    }

    #[inline(always)]
    fn issue_by_range(&self, range: TlbiRange, links: bool) {
        if links {
            self.mmu.tlbi_rvaae1is(range);
        } else {
            self.mmu.tlbi_rvaale1is(range);
        }
    }

    /// Of one of the TLBIs.
    #[inline(always)]
    fn wait_for_tlbis(&self, va: VirtAddr) {
        // DESIGN rules 3 and 4, Arm ARM D8.16: TLBIs are complete for all CPUs after a DSB of the
        // issuing CPU.
        self.mmu.dsb_ish();
        if self.config().repeat_tlbi {
            self.issue_again(va);
        }
    }

    #[cold]
    fn issue_again(&self, va: VirtAddr) {
        // DESIGN rule 11: a further TLBI and DSB complete after the earlier ones.
        self.mmu.tlbi_vaae1is(va);
        self.mmu.dsb_ish();
    }

    /// Moves all that is pending in `some` to `pending`. By range, areas separated by a guard page,
    /// or less than a group, become one TLBI.
    #[inline]
    pub fn defer_all(&self, some: &mut Pending<G>, pending: &mut Pending<G>) {
        let slack = if self.mmu.has_tlbi_range() {
            G::cont_size(LAST_LEVEL)
        } else {
            0
        };
        pending.append(&self.tables, some, slack);
    }

    /// Flushes what is pending, then frees the unlinked tables:
    ///
    /// 1. DSB ISHST: cleared entries are complete for walks (rule 3; Arm ARM D8.16, K13.5.3). If
    ///    `foreign`, another CPU cleared some and handed them over by release and acquire: DSB ISH,
    ///    which waits for observed stores too (Arm ARM B2.3.12).
    /// 2. The fewest TLBIs, by range or by VA; above a threshold `VMALLE1IS`.
    /// 3. DSB ISH: complete on every CPU of the domain.
    /// 4. ISB: this CPU drops what it fetched or translated ahead.
    /// 5. Tables, and what was [deferred](FlushBatch::defer), go back (rules 5 and 6).
    pub fn flush(&self, mut pending: Pending<G>, foreign: bool) {
        self.flush_in_place(&mut pending, foreign);
    }

    #[inline]
    pub(crate) fn flush_in_place(&self, pending: &mut Pending<G>, foreign: bool) {
        if pending.only().is_some() || !pending.is_empty() {
            self.flush_pending(pending, foreign);
        }
    }

    #[inline(always)]
    fn flush_pending(&self, pending: &mut Pending<G>, foreign: bool) {
        let only = pending.only();
        if foreign {
            self.mmu.dsb_ish();
        } else {
            // Cleared entries are complete before the first TLBI.
            self.mmu.dsb_ishst();
        }
        if let Some(only) = only {
            self.invalidate_and_wait(only);
        } else {
            self.issue_several(pending);
        }
        // Arm ARM K13.5.3: drop what was fetched or translated ahead.
        self.mmu.isb();
        pending.finish(&self.tables);
    }

    #[inline(never)]
    fn issue_several(&self, pending: &Pending<G>) {
        if let Some(first) = pending.ranges().next() {
            self.issue_each(pending.ranges());
            self.wait_for_tlbis(first.range.start);
        }
    }

    #[cold]
    #[inline(never)]
    fn flush_late(&self, pending: &mut Pending<G>) {
        self.flush_pending(pending, false);
    }

    /// Returns an empty batch on this tree.
    #[inline]
    pub fn batch(&self) -> FlushBatch<'_, G, T, M> {
        FlushBatch {
            pending: Pending::new(),
            tree: self,
            deferred: None,
        }
    }
}

/// Collects what operations unmap, and flushes when dropped; then it drops `C` (frames, addresses),
/// which must not be reused before.
#[must_use = "it flushes where it is dropped, which is here"]
#[repr(C)]
pub struct FlushBatch<'a, G: Granule, T: Tables, M: Mmu, C = ()> {
    pending: Pending<G>,
    tree: &'a Tree<G, T, M>,
    deferred: Option<C>,
}

impl<'a, G: Granule, T: Tables, M: Mmu> FlushBatch<'a, G, T, M> {
    /// As [`Tree::defer_all`].
    #[inline]
    pub fn defer_to(&mut self, pending: &mut Pending<G>) {
        self.tree.defer_all(&mut self.pending, pending);
    }

    /// Returns the batch, owning `cargo` until it has flushed.
    pub fn defer<C>(mut self, cargo: C) -> FlushBatch<'a, G, T, M, C> {
        FlushBatch {
            pending: core::mem::take(&mut self.pending),
            tree: self.tree,
            deferred: Some(cargo),
        }
    }
}

impl<G: Granule, T: Tables, M: Mmu, C> FlushBatch<'_, G, T, M, C> {
    /// Flushes, empties the batch, and returns what was deferred.
    #[inline]
    pub fn flush(&mut self) -> Option<C> {
        self.tree.flush_in_place(&mut self.pending, false);
        self.deferred.take()
    }

    /// Returns what is collected.
    pub fn pending(&self) -> &Pending<G> {
        &self.pending
    }

    #[inline]
    pub(crate) fn pending_mut(&mut self) -> &mut Pending<G> {
        &mut self.pending
    }
}

impl<G: Granule, T: Tables, M: Mmu, C> Drop for FlushBatch<'_, G, T, M, C> {
    #[inline]
    fn drop(&mut self) {
        if !self.pending.is_empty() {
            self.tree.flush_late(&mut self.pending);
        }
    }
}

#[cfg(test)]
mod tests;
