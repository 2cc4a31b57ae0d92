//! Where the frames come from: [`PhysSource`] and its three implementations.
//!
//! A walker asks its source one thing: how long is the physical run that begins at this page? A contiguous range knows; an
//! array finds out by reading on. Pages are asked for in ascending order, and a source may keep what it has read: an array
//! reads **each element once**, also when a run crosses leaves and tables, and the element that ended a run is the head of
//! the next.

use crate::addr::{Pfn, PhysAddr};
use crate::granule::Granule;

/// The output address of frame `n`.
///
/// By rotation, so that a frame number too large for an address leaves bits where an address has none, and the walker's
/// one check of each address (`pa & !implemented == 0`) refuses it.
#[inline(always)]
pub(crate) const fn output<G: Granule>(n: u64) -> PhysAddr {
    PhysAddr(n.rotate_left(G::PAGE_SHIFT))
}

/// A physical run: `pages` consecutive pages from `pa` on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Run {
    /// The first address.
    pub pa: PhysAddr,
    /// How many pages, at least 1.
    pub pages: u64,
}

/// A source of physical pages, read front to back.
pub trait PhysSource<G: Granule> {
    /// Whether [`run_at`](Self::run_at) costs the same for every length: then the walker asks for all it could use, and
    /// otherwise no further than the leaf that it may be able to place.
    const RUNS_ARE_FREE: bool;

    /// How many pages there are.
    fn pages(&self) -> u64;

    /// The physical run at `page`, at least 1 and at most `limit` pages. `limit` is at least 1.
    ///
    /// Pages are asked for in ascending order; `page` may be asked for again with a larger limit, but nothing before it, unless the source was
    /// [rewound](Self::rewind).
    /// `None` if there is no frame for `page`. A run ends before a page without a frame.
    fn run_at(&mut self, page: u64, limit: u64) -> Option<Run>;

    /// Pages will be asked for from the first on again: by whoever tries a map once more that failed. A source that keeps no place has nothing to
    /// do; one that does must not take the default.
    fn rewind(&mut self) {}

    /// The physical runs of the first `pages` pages, one behind the other, where no page but the first was asked for so far. Afterwards pages may be
    /// asked for from the start of the last of these runs on.
    ///
    /// For a source that can go through its runs without keeping its place in memory.
    #[inline(always)]
    fn runs(&mut self, pages: u64) -> impl Iterator<Item = Run> {
        let mut page = 0;
        core::iter::from_fn(move || {
            if page >= pages {
                return None;
            }
            let run = self.run_at(page, pages - page)?;
            page += run.pages;
            Some(run)
        })
    }

    /// The frame numbers of `nr` pages from `page` on, if they lie in memory as such: then the walker may look at many of them
    /// at once, and may do so again. By default they do not.
    #[inline(always)]
    fn pfns(&self, page: u64, nr: u64) -> Option<&[Pfn]> {
        let _ = (page, nr);
        None
    }

    /// The output addresses of the pages from `page` on, into all of `outputs`, without a look at contiguity.
    ///
    /// # Errors
    /// The first page without a frame.
    #[inline]
    fn outputs_at(&mut self, page: u64, outputs: &mut [PhysAddr]) -> Result<(), u64> {
        let mut done = 0;
        while done < outputs.len() {
            let at = page + done as u64;
            let run = self.run_at(at, (outputs.len() - done) as u64).ok_or(at)?;
            for (i, output) in outputs[done..][..run.pages as usize].iter_mut().enumerate() {
                *output = run.pa.add((i as u64) << G::PAGE_SHIFT);
            }
            done += run.pages as usize;
        }
        Ok(())
    }
}

/// One contiguous physical range: what `ioremap` maps, Linux's `vmap_range_noflush`.
#[derive(Clone, Copy, Debug)]
pub struct PhysRange {
    start: PhysAddr,
    pages: u64,
}

impl PhysRange {
    /// `pages` pages from `start` on. `start` must be a multiple of the page size: `map` refuses it otherwise.
    #[must_use]
    pub const fn new(start: PhysAddr, pages: u64) -> Self {
        Self { start, pages }
    }
}

impl<G: Granule> PhysSource<G> for PhysRange {
    const RUNS_ARE_FREE: bool = true;

    #[inline(always)]
    fn pages(&self) -> u64 {
        self.pages
    }

    #[inline(always)]
    fn run_at(&mut self, page: u64, limit: u64) -> Option<Run> {
        (page < self.pages).then(|| Run {
            pa: self.start.add(page << G::PAGE_SHIFT),
            pages: limit.min(self.pages - page),
        })
    }
}

/// A list of frame numbers to read from: `[Pfn]`, `[u64]`, `[u32]`, or a kernel's own array of frame handles.
pub trait FrameArray {
    /// How many frames.
    fn nr_frames(&self) -> usize;
    /// The frame number at `index`, which is below [`nr_frames`](Self::nr_frames). `None`: there is none (a null page).
    fn frame(&self, index: usize) -> Option<Pfn>;
    /// All of them, if they lie in memory as frame numbers.
    #[inline(always)]
    fn as_pfns(&self) -> Option<&[Pfn]> {
        None
    }
}

impl FrameArray for [Pfn] {
    #[inline(always)]
    fn nr_frames(&self) -> usize {
        self.len()
    }
    #[inline(always)]
    fn frame(&self, index: usize) -> Option<Pfn> {
        self.get(index).copied()
    }
    #[inline(always)]
    fn as_pfns(&self) -> Option<&[Pfn]> {
        Some(self)
    }
}

impl FrameArray for [u64] {
    #[inline(always)]
    fn nr_frames(&self) -> usize {
        self.len()
    }
    #[inline(always)]
    fn frame(&self, index: usize) -> Option<Pfn> {
        self.get(index).map(|n| Pfn(*n))
    }
}

impl FrameArray for [u32] {
    #[inline(always)]
    fn nr_frames(&self) -> usize {
        self.len()
    }
    #[inline(always)]
    fn frame(&self, index: usize) -> Option<Pfn> {
        self.get(index).map(|n| Pfn(u64::from(*n)))
    }
}

impl FrameArray for [Option<Pfn>] {
    #[inline(always)]
    fn nr_frames(&self) -> usize {
        self.len()
    }
    #[inline(always)]
    fn frame(&self, index: usize) -> Option<Pfn> {
        self.get(index).copied().flatten()
    }
}

/// An array of pages that is contiguous only in places: what `vmap` maps, Linux's `vmap_pages_range_noflush_walk`.
#[derive(Debug)]
pub struct PageArray<'a, A: FrameArray + ?Sized> {
    frames: &'a A,
    /// The run found so far: pages `start..end`, the first at frame `head`.
    start: u64,
    end: u64,
    head: u64,
    /// The element at `end`, if it has been read and did not continue the run. `Some(None)`: read, and there is no frame.
    next: Option<Option<Pfn>>,
}

impl<'a, A: FrameArray + ?Sized> PageArray<'a, A> {
    /// The pages of `frames`, in order.
    #[must_use]
    pub const fn new(frames: &'a A) -> Self {
        Self {
            frames,
            start: 0,
            end: 0,
            head: 0,
            next: None,
        }
    }
}

impl<G: Granule, A: FrameArray + ?Sized> PhysSource<G> for PageArray<'_, A> {
    const RUNS_ARE_FREE: bool = false;

    #[inline(always)]
    fn pages(&self) -> u64 {
        self.frames.nr_frames() as u64
    }

    #[inline]
    fn run_at(&mut self, page: u64, limit: u64) -> Option<Run> {
        debug_assert!(
            page >= self.start,
            "page {page} is asked for after page {}",
            self.start
        );
        let nr = self.frames.nr_frames() as u64;
        if page >= nr {
            return None;
        }
        if page >= self.end {
            // A new run begins here. Its head may have been read when the last run ended.
            let head = match self.next.take() {
                Some(read) if page == self.end => read,
                _ => self.frames.frame(page as usize),
            };
            self.start = page;
            self.end = page;
            let Some(head) = head else {
                self.next = Some(None);
                return None;
            };
            self.head = head.0;
            self.end = page + 1;
        }
        let stop = nr.min(page.saturating_add(limit));
        if self.next.is_none() {
            if let Some(frames) = self.frames.as_pfns() {
                // As below, without a look at each index.
                let rest = frames.get(self.end as usize..stop as usize).unwrap_or_default();
                let first = self.head.wrapping_add(self.end - self.start);
                let follows = |(frame, i): &(&Pfn, u64)| frame.0 == first.wrapping_add(*i);
                self.end += rest.iter().zip(0..).take_while(follows).count() as u64;
                if self.end < stop {
                    self.next = Some(frames.get(self.end as usize).copied());
                }
            }
            while self.next.is_none() && self.end < stop {
                let read = self.frames.frame(self.end as usize);
                if read != Some(Pfn(self.head.wrapping_add(self.end - self.start))) {
                    self.next = Some(read);
                    break;
                }
                self.end += 1;
            }
        }
        Some(Run {
            pa: output::<G>(self.head.wrapping_add(page - self.start)),
            pages: (self.end - page).min(limit),
        })
    }

    #[cold]
    fn rewind(&mut self) {
        *self = Self::new(self.frames);
    }

    #[inline(always)]
    fn pfns(&self, page: u64, nr: u64) -> Option<&[Pfn]> {
        let (first, nr) = (page as usize, nr as usize);
        self.frames.as_pfns()?.get(first..)?.get(..nr)
    }

    #[inline]
    fn outputs_at(&mut self, page: u64, outputs: &mut [PhysAddr]) -> Result<(), u64> {
        for (at, address) in (page..).zip(outputs) {
            let frame = if at < self.end {
                Some(Pfn(self.head.wrapping_add(at - self.start)))
            } else {
                match self.next.take() {
                    Some(read) if at == self.end => read,
                    _ if at < self.frames.nr_frames() as u64 => self.frames.frame(at as usize),
                    _ => None,
                }
            };
            let Some(frame) = frame else {
                return Err(at);
            };
            *address = output::<G>(frame.0);
        }
        Ok(())
    }
}

/// A physical extent: `pages` pages from frame `start` on, as an element of a scatter list.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Extent {
    /// The first frame.
    pub start: Pfn,
    /// How many pages. Empty extents are skipped.
    pub pages: u64,
}

/// A list of physical runs, as a scatter list has. Extents that touch are one run.
#[derive(Debug)]
pub struct Extents<'a> {
    extents: &'a [Extent],
    pages: u64,
    /// The extents from the cursor on, and the number of the page at which the first of them begins.
    rest: &'a [Extent],
    begins: u64,
}

impl<'a> Extents<'a> {
    /// The pages of `extents`, in order.
    #[must_use]
    pub fn new(extents: &'a [Extent]) -> Self {
        Self {
            extents,
            pages: extents
                .iter()
                .fold(0, |sum: u64, extent| sum.saturating_add(extent.pages)),
            rest: extents,
            begins: 0,
        }
    }
}

impl<G: Granule> PhysSource<G> for Extents<'_> {
    const RUNS_ARE_FREE: bool = true;

    #[inline(always)]
    fn pages(&self) -> u64 {
        self.pages
    }

    #[cold]
    fn rewind(&mut self) {
        self.rest = self.extents;
        self.begins = 0;
    }

    #[inline(always)]
    fn runs(&mut self, pages: u64) -> impl Iterator<Item = Run> {
        let (mut rest, mut left) = (self.extents, pages);
        core::iter::from_fn(move || {
            let (mut first, mut nr) = (0, 0);
            while let Some((extent, behind)) = rest.split_first()
                && nr < left
            {
                if nr == 0 {
                    first = extent.start.0;
                } else if extent.pages != 0 && extent.start.0 != first.wrapping_add(nr) {
                    break;
                }
                nr = nr.saturating_add(extent.pages);
                rest = behind;
            }
            nr = nr.min(left);
            left -= nr;
            (nr != 0).then(|| Run {
                pa: output::<G>(first),
                pages: nr,
            })
        })
    }

    #[inline]
    fn run_at(&mut self, page: u64, limit: u64) -> Option<Run> {
        debug_assert!(
            page >= self.begins,
            "page {page} is asked for after page {}",
            self.begins
        );
        let (mut rest, mut begins) = (self.rest, self.begins);
        let (extent, behind) = loop {
            let (extent, behind) = rest.split_first()?;
            if page - begins < extent.pages {
                break (extent, behind);
            }
            begins += extent.pages;
            rest = behind;
        };
        (self.rest, self.begins) = (rest, begins);
        let first = extent.start.0.wrapping_add(page - begins);
        let mut pages = extent.pages - (page - begins);
        for next in behind {
            if pages >= limit || (next.pages != 0 && next.start.0 != first.wrapping_add(pages)) {
                break;
            }
            pages = pages.saturating_add(next.pages);
        }
        Some(Run {
            pa: output::<G>(first),
            pages: pages.min(limit),
        })
    }
}
