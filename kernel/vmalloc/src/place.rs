//! Where an area goes: congruent to its memory, because a leaf needs VA and PA aligned alike.
//!
//! ```text
//!   run                            leaf     the virtual address is
//!   32M or more, at pa             32M      pa modulo 32M
//!   2M + 64K at 2M - 64K           2M       2M - 64K modulo 2M: one 64K group, then the block
//!   1M at pa = 64K * n             64K      0 modulo 64K
//!   15 pages                       -        anything
//! ```
//!
//! Of memory in several runs it follows the first, or one of the next few that holds a larger leaf.
//! A block, or a short array, passes for a run by the frames at its ends; the map finds out. The
//! cost does not grow with the pages.

use crate::va::Fit;
use paging::{Granule, LeafSet, LeafSize, Pfn, PhysAddr, PhysSource, Run, leaf};

/// Besides the first.
pub(crate) const MAX_RUNS: usize = 3;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Phase {
    /// Less the pages before it.
    pa: PhysAddr,
    /// In bytes; 0 if only pages.
    leaf: u64,
}

impl Phase {
    pub const NONE: Self = Self {
        pa: PhysAddr(0),
        leaf: 0,
    };

    #[inline(always)]
    pub fn of_run<G: Granule>(run: Run, allowed: LeafSet) -> Self {
        Self {
            pa: run.pa,
            leaf: largest_leaf::<G>(run, allowed),
        }
    }

    /// `source` was not read yet. `again` makes another, for when more than the first run was read.
    #[inline]
    pub fn of_source<G: Granule, S: PhysSource<G>>(
        source: &mut S,
        allowed: LeafSet,
        again: impl FnOnce() -> S,
    ) -> Self {
        let pages = source.pages();
        // Mostly the first run decides, and the source remembers it.
        let limit = if S::RUNS_ARE_FREE {
            run_worth_knowing::<G>(pages)
        } else {
            few::<G>().min(pages)
        };
        let Some(first) = run_at(source, 0, limit) else {
            return Self::NONE;
        };
        let phase = Self::of_run::<G>(first, allowed);
        // Else only a block repays the look.
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

    /// For a source that must read each page once.
    pub fn of_first_run<G: Granule, S: PhysSource<G>>(source: &mut S, pages: u64, allowed: LeafSet) -> Self {
        source
            .run_at(0, run_worth_knowing::<G>(pages))
            .map_or(Self::NONE, |run| Self::of_run::<G>(run, allowed))
    }

    const fn following<G: Granule>(run: Run, at: u64, leaf: u64) -> Self {
        Self {
            pa: PhysAddr(run.pa.0.wrapping_sub(at << G::PAGE_SHIFT)),
            leaf,
        }
    }

    #[inline(never)]
    fn of_runs<G: Granule, S: PhysSource<G>>(source: &mut S, allowed: LeafSet, at: u64, best: Self) -> Self {
        let (mut at, mut best) = (at, best);
        for _ in 0..MAX_RUNS {
            let rest = source.pages() - at;
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
        // It may hold any leaf: tried from the small ones up, by the last page.
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

    #[inline(always)]
    fn congruent<G: Granule>(self, fit: Fit, bytes: u64) -> Fit {
        fit.congruent(bytes >> G::PAGE_SHIFT, (self.pa.0 & (bytes - 1)) >> G::PAGE_SHIFT)
    }
}

/// In ascending order.
struct Seen<'a, S> {
    source: &'a mut S,
    next: u64,
}

impl<S> Seen<'_, S> {
    fn run_at<G: Granule>(&mut self, page: u64, limit: u64) -> Option<Run>
    where
        S: PhysSource<G>,
    {
        let run = run_at(self.source, page, limit);
        self.next = self.next.max(page + run.map_or(1, |run| run.pages));
        run
    }

    /// By the ends of `run`.
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

    /// `offset` bytes behind page `at`.
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

/// At most `limit` pages. Frame numbers in memory are judged by the last one, without moving
/// `source`.
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

/// A group, wherever it begins.
#[inline(always)]
fn few<G: Granule>() -> u64 {
    2 * (LeafSize::PAGE_GROUP.bytes::<G>() >> G::PAGE_SHIFT) - 1
}

const fn aligned(pages: u64) -> Run {
    Run {
        pa: PhysAddr(0),
        pages,
    }
}

/// `align`: bytes, a power of two, at least a page.
#[inline(always)]
pub(crate) fn best<G: Granule>(fit: Fit, phase: Phase, align: u64) -> Fit {
    if phase.leaf > align && phase.pa.is_aligned(align) {
        phase.congruent::<G>(fit, phase.leaf)
    } else {
        fit.congruent(align >> G::PAGE_SHIFT, 0)
    }
}

/// With less and less of the phase.
pub(crate) fn candidates<G: Granule>(
    fit: Fit,
    phase: Phase,
    align: u64,
    allowed: LeafSet,
) -> impl Iterator<Item = Fit> + Clone {
    // Smaller leaves than `align` follow from it.
    let any = phase.leaf > align && phase.pa.is_aligned(align);
    let leaves = any.then_some(LeafSize::ALL).into_iter().flatten();
    let congruent = leaves.filter_map(move |size| {
        let bytes = size.bytes::<G>();
        let wanted = is_leaf::<G>(size, allowed) && bytes <= phase.leaf && bytes > align;
        wanted.then(|| phase.congruent::<G>(fit, bytes))
    });
    congruent.chain(core::iter::once(fit.congruent(align >> G::PAGE_SHIFT, 0)))
}

/// It suffices to know the largest leaf in `pages`, wherever it begins.
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

/// By the engine's rule, in bytes; 0 if only pages.
#[inline(always)]
fn largest_leaf<G: Granule>(run: Run, allowed: LeafSet) -> u64 {
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
