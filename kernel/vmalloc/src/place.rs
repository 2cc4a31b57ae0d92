//! Where an area goes: congruent to the memory that it will map.
//!
//! A leaf needs its virtual and its physical address aligned alike. So what matters is not that the
//! virtual address is aligned, but that it is where the memory is, modulo the leaf:
//!
//! ```text
//!   run                            leaf     the virtual address is
//!   32M or more, at pa             32M      pa modulo 32M
//!   2M + 64K at 2M - 64K           2M       2M - 64K modulo 2M: one 64K group, then the block
//!   1M at pa = 64K * n             64K      0 modulo 64K
//!   15 pages                       -        anything
//! ```
//!
//! # Memory in several runs
//! It has one of them to follow: if the first does not hold the largest leaf that could be, one of
//! the next few that holds a larger one. The area then begins as far before that phase as the run
//! lies behind the area's start. A list of extents knows its runs, and the next [`MAX_RUNS`] are
//! looked at. An array does not: a few frames are, at its start, behind the first run and on the
//! way to its middle; where those at both ends of an aligned block, or of a short array, are as far
//! apart as it is long, it is taken for one run. Whether it is one the map finds out. Either way it
//! costs no more for more pages.

use crate::va::Fit;
use paging::{Granule, LeafSet, LeafSize, Pfn, PhysAddr, PhysSource, Run, leaf};

/// Runs that are looked at, besides the first.
pub(crate) const MAX_RUNS: usize = 3;

/// What an area is to be congruent to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Phase {
    /// Where the run that is followed begins, less the pages before it.
    pa: PhysAddr,
    /// Bytes of the largest leaf that it holds; 0 for none but pages.
    leaf: u64,
}

impl Phase {
    /// Anything is as good.
    pub const NONE: Self = Self {
        pa: PhysAddr(0),
        leaf: 0,
    };

    /// One run.
    #[inline(always)]
    pub fn of_run<G: Granule>(run: Run, allowed: LeafSet) -> Self {
        Self {
            pa: run.pa,
            leaf: largest_leaf::<G>(run, allowed),
        }
    }

    /// Returns the memory of `source`, of which nothing was read yet; `again` makes another one
    /// like it, for when more was read than the first run.
    #[inline]
    pub fn of_source<G: Granule, S: PhysSource<G>>(
        source: &mut S,
        allowed: LeafSet,
        again: impl FnOnce() -> S,
    ) -> Self {
        let pages = source.pages();
        // Most often the first run is as good as any: what is read of it is not read again, since
        // the source remembers it.
        let limit = if S::RUNS_ARE_FREE {
            run_worth_knowing::<G>(pages)
        } else {
            few::<G>().min(pages)
        };
        let Some(first) = run_at(source, 0, limit) else {
            return Self::NONE;
        };
        let phase = Self::of_run::<G>(first, allowed);
        // Behind a run that ends, no larger leaf may be worth more than it costs to look: a block
        // is large. A run that did not end may be all there is.
        let unseen = if first.pages == limit {
            pages
        } else {
            pages - first.pages
        };
        let worth = largest_leaf::<G>(aligned(unseen), allowed);
        if first.pages == pages || worth <= phase.leaf || phase.leaf >= LeafSize::BLOCK2.bytes::<G>() {
            return phase;
        }
        let phase = if S::RUNS_ARE_FREE {
            Self::of_runs::<G, S>(source, allowed, first.pages, phase)
        } else {
            Self::of_samples::<G, S>(source, allowed, first, phase)
        };
        *source = again();
        phase
    }

    /// Returns the first run of `source`, of `pages` pages of which nothing was read yet. Nothing
    /// behind it is read, but the page that ends it: for a source that must read each page once.
    pub fn of_first_run<G: Granule, S: PhysSource<G>>(source: &mut S, pages: u64, allowed: LeafSet) -> Self {
        source
            .run_at(0, run_worth_knowing::<G>(pages))
            .map_or(Self::NONE, |run| Self::of_run::<G>(run, allowed))
    }

    /// Follows `run`, which begins at page `at`, for its leaves of `leaf` bytes.
    const fn following<G: Granule>(run: Run, at: u64, leaf: u64) -> Self {
        Self {
            pa: PhysAddr(run.pa.0.wrapping_sub(at << G::PAGE_SHIFT)),
            leaf,
        }
    }

    /// Looks at the runs from page `at` on.
    #[inline(never)]
    fn of_runs<G: Granule, S: PhysSource<G>>(source: &mut S, allowed: LeafSet, at: u64, best: Self) -> Self {
        let (mut at, mut best) = (at, best);
        for _ in 0..MAX_RUNS {
            let rest = source.pages() - at;
            // The most that could come: a run over all of the rest, aligned as well as can be.
            if rest == 0 || largest_leaf::<G>(aligned(rest), allowed) <= best.leaf {
                break;
            }
            let Some(run) = source.run_at(at, run_worth_knowing::<G>(rest)) else {
                break;
            };
            let leaf = largest_leaf::<G>(run, allowed);
            if leaf > best.leaf {
                best = Self::following::<G>(run, at, leaf);
            }
            at += run.pages;
        }
        best
    }

    /// Looks at a few places behind the first few pages, `first`.
    #[inline(never)]
    fn of_samples<G: Granule, S: PhysSource<G>>(
        source: &mut S,
        allowed: LeafSet,
        first: Run,
        best: Self,
    ) -> Self {
        let pages = source.pages();
        let mut seen = Seen {
            source,
            next: first.pages,
        };
        // A run that is longer than was looked at may be long enough for any leaf: from the small
        // ones up, each by its last page.
        if first.pages == few::<G>() {
            let blocks = LeafSize::ALL
                .into_iter()
                .rev()
                .filter(|size| size.bytes::<G>() >= LeafSize::BLOCK2.bytes::<G>())
                .filter(|size| is_leaf::<G>(*size, allowed))
                .map(LeafSize::bytes::<G>);
            let held = blocks.take_while(|bytes| {
                let skip = first.pa.0.wrapping_neg() & (bytes - 1);
                seen.has::<G>(first, 0, skip + bytes - G::PAGE_SIZE)
            });
            if let Some(leaf) = held.last() {
                return Self::following::<G>(first, 0, leaf);
            }
        }
        let block = LeafSize::BLOCK2.bytes::<G>();
        let blocks = is_leaf::<G>(LeafSize::BLOCK2, allowed) && pages > block >> G::PAGE_SHIFT;
        let mut best = best;
        for sample in [first.pages, pages / 4, pages / 2] {
            let at = sample.max(seen.next);
            if at >= pages {
                break;
            }
            let Some(run) = seen.run_at(at, few::<G>().min(pages - at)) else {
                break;
            };
            let group = largest_leaf::<G>(run, allowed);
            if group > best.leaf {
                best = Self::following::<G>(run, at, group);
            }
            if !blocks {
                if best.leaf != 0 {
                    break;
                }
            } else if seen.holds::<G>(run, at, block) {
                return Self::following::<G>(run, at, block);
            }
        }
        best
    }

    /// `fit` at this phase, as a leaf of `bytes` needs it.
    #[inline(always)]
    fn congruent<G: Granule>(self, fit: Fit, bytes: u64) -> Fit {
        fit.congruent(bytes >> G::PAGE_SHIFT, (self.pa.0 & (bytes - 1)) >> G::PAGE_SHIFT)
    }
}

/// An array that is looked at in places, each behind the last.
struct Seen<'a, S> {
    source: &'a mut S,
    /// The first page that was not looked at.
    next: u64,
}

impl<S> Seen<'_, S> {
    fn run_at<G: Granule>(&mut self, page: u64, limit: u64) -> Option<Run>
    where
        S: PhysSource<G>,
    {
        let run = run_at(self.source, page, limit);
        // A page without a frame was looked at as well.
        self.next = self.next.max(page + run.map_or(1, |run| run.pages));
        run
    }

    /// Returns whether the first aligned leaf of `bytes` that `run`, from page `at` on, could hold
    /// seems to be there: by its ends.
    fn holds<G: Granule>(&mut self, run: Run, at: u64, bytes: u64) -> bool
    where
        S: PhysSource<G>,
    {
        let skip = run.pa.0.wrapping_neg() & (bytes - 1);
        let last = skip + bytes - G::PAGE_SIZE;
        at + (last >> G::PAGE_SHIFT) < self.source.pages()
            && self.has::<G>(run, at, skip)
            && self.has::<G>(run, at, last)
    }

    /// Returns whether the page `offset` bytes behind page `at`, where `run` begins, has the frame
    /// that the run would have there.
    fn has<G: Granule>(&mut self, run: Run, at: u64, offset: u64) -> bool
    where
        S: PhysSource<G>,
    {
        let page = at + (offset >> G::PAGE_SHIFT);
        if page >= self.source.pages() {
            return false;
        }
        let found = self.run_at(page, 1);
        found.is_some_and(|found| found.pa.0 == run.pa.0.wrapping_add(offset))
    }
}

/// Returns the run at `page`, at most `limit` pages. Frame numbers that lie in memory are taken for
/// one where the last of them is as far from the first as it would be in one; and `source` stays
/// where it is.
#[inline(always)]
fn run_at<G: Granule, S: PhysSource<G>>(source: &mut S, page: u64, limit: u64) -> Option<Run> {
    if let Some(frames) = source.pfns(page, limit)
        && let (Some(first), Some(last)) = (frames.first(), frames.last())
    {
        let pages = if last.0.wrapping_sub(first.0) == limit - 1 {
            limit
        } else {
            let follows = |(frame, i): &(&Pfn, u64)| frame.0 == first.0.wrapping_add(*i);
            frames.iter().zip(0..).take_while(follows).count() as u64
        };
        return Some(Run {
            pa: PhysAddr(first.0 << G::PAGE_SHIFT),
            pages,
        });
    }
    source.run_at(page, limit)
}

/// Pages to look at where a look costs something: enough for a group of pages wherever it begins.
#[inline(always)]
fn few<G: Granule>() -> u64 {
    2 * (LeafSize::PAGE_GROUP.bytes::<G>() >> G::PAGE_SHIFT) - 1
}

/// `pages` pages that begin at a multiple of everything.
const fn aligned(pages: u64) -> Run {
    Run {
        pa: PhysAddr(0),
        pages,
    }
}

/// Returns the best place for `fit` at `phase`, where the caller insists on `align` (bytes, a power
/// of two, at least a page).
#[inline(always)]
pub(crate) fn best<G: Granule>(fit: Fit, phase: Phase, align: u64) -> Fit {
    if phase.leaf > align && phase.pa.is_aligned(align) {
        phase.congruent::<G>(fit, phase.leaf)
    } else {
        fit.congruent(align >> G::PAGE_SHIFT, 0)
    }
}

/// Returns the places worth trying for `fit`: the best first, then with less and less of the phase.
pub(crate) fn candidates<G: Granule>(
    fit: Fit,
    phase: Phase,
    align: u64,
    allowed: LeafSet,
) -> impl Iterator<Item = Fit> + Clone {
    // A leaf below what the caller insists on follows from that, if it can be had at all.
    let any = phase.leaf > align && phase.pa.is_aligned(align);
    let leaves = any.then_some(LeafSize::ALL).into_iter().flatten();
    let congruent = leaves.filter_map(move |size| {
        let bytes = size.bytes::<G>();
        let wanted = is_leaf::<G>(size, allowed) && bytes <= phase.leaf && bytes > align;
        wanted.then(|| phase.congruent::<G>(fit, bytes))
    });
    congruent.chain(core::iter::once(fit.congruent(align >> G::PAGE_SHIFT, 0)))
}

/// Returns how long a run it takes to know all there is to know of one of `pages` pages: the
/// largest leaf that could be among them, wherever in it the run begins.
fn run_worth_knowing<G: Granule>(pages: u64) -> u64 {
    let in_pages = |size: LeafSize| size.bytes::<G>() >> G::PAGE_SHIFT;
    let block = in_pages(LeafSize::BLOCK2);
    let leaf = if pages < block {
        in_pages(LeafSize::PAGE_GROUP)
    } else {
        LeafSize::ALL
            .into_iter()
            .map(in_pages)
            .find(|leaf| *leaf <= pages)
            .unwrap_or(block)
    };
    (2 * leaf - 1).min(pages)
}

#[inline(always)]
fn is_leaf<G: Granule>(size: LeafSize, allowed: LeafSet) -> bool {
    size != LeafSize::PAGE && size.exists::<G>() && allowed.contains(size)
}

/// Returns the largest leaf that the engine's rule makes in `run`, in bytes. 0 for none but pages.
#[inline(always)]
fn largest_leaf<G: Granule>(run: Run, allowed: LeafSet) -> u64 {
    // Pages alone, as most often, are not worth asking about.
    let group = LeafSize::PAGE_GROUP.bytes::<G>() >> G::PAGE_SHIFT;
    if run.pages < group {
        return 0;
    }
    match leaf::largest_within::<G>(run.pa, run.pages, allowed) {
        LeafSize::PAGE => 0,
        size => size.bytes::<G>(),
    }
}

#[cfg(test)]
mod tests;
