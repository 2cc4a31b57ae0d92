//! Where frames come from, front to back. An array is read **once**.

use crate::addr::{Pfn, PhysAddr, VirtAddr};
use crate::granule::{Granule, LAST_LEVEL};

/// A rotation: too large a number sets bits that no address has.
#[inline]
pub(crate) const fn output<G: Granule>(n: u64) -> PhysAddr {
    PhysAddr(n.rotate_left(G::PAGE_SHIFT))
}

/// Physically consecutive pages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Run {
    /// The first address.
    pub pa: PhysAddr,
    /// At least 1.
    pub pages: u64,
}

/// What a source has at a page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Piece<'a> {
    /// A run.
    Run(Run),
    /// At least one frame; the first could begin a contiguous group.
    Frames(&'a [Pfn]),
    /// At least one frame; none can begin a contiguous group.
    Singles(&'a [Pfn]),
}

/// A source of physical pages, read front to back.
pub trait PhysSource<G: Granule> {
    /// [`run_at`](Self::run_at) costs the same for every length. If not, callers that only predict
    /// a mapping ask for short runs.
    const RUNS_ARE_FREE: bool;

    /// What a walk is handed: a reference, or a copy in registers.
    type Passed<'s>: PhysSource<G>
    where
        Self: 's;

    /// Returns it.
    fn passed(&mut self) -> Self::Passed<'_>;

    /// Returns the number of pages.
    fn pages(&self) -> u64;

    /// Returns the physical run at `page`, 1 to `limit` pages, or `None` without a frame.
    ///
    /// # Panics
    /// If `page` lies before one asked for earlier and not [rewound](Self::rewind), in a source
    /// that keeps its place. The same page may be asked for with a larger limit.
    fn run_at(&mut self, page: u64, limit: u64) -> Option<Run>;

    /// Returns the longest piece within `limit` at `page`, mapped at `va`. `limit` pages from
    /// `page` on are within [`pages`](Self::pages).
    #[inline(always)]
    fn piece_at(&mut self, page: u64, limit: u64, va: VirtAddr) -> Option<Piece<'_>> {
        let _ = va;
        self.run_at(page, limit).map(Piece::Run)
    }

    /// Starts over. A source that keeps its place must implement it.
    fn rewind(&mut self) {}

    /// Returns the frame numbers of `nr` pages from `page` on, if memory holds them as `Pfn`. Does
    /// not move on.
    #[inline]
    fn pfns(&self, page: u64, nr: u64) -> Option<&[Pfn]> {
        let _ = (page, nr);
        None
    }
}

/// Implements [`PhysSource::Passed`] as a reference.
#[macro_export]
macro_rules! passed_by_reference {
    () => {
        type Passed<'s>
            = &'s mut Self
        where
            Self: 's;

        #[inline]
        fn passed(&mut self) -> &mut Self {
            self
        }
    };
}

impl<G: Granule, S: PhysSource<G>> PhysSource<G> for &mut S {
    const RUNS_ARE_FREE: bool = S::RUNS_ARE_FREE;

    passed_by_reference!();

    #[inline]
    fn pages(&self) -> u64 {
        (**self).pages()
    }

    #[inline]
    fn run_at(&mut self, page: u64, limit: u64) -> Option<Run> {
        (**self).run_at(page, limit)
    }

    #[inline]
    fn piece_at(&mut self, page: u64, limit: u64, va: VirtAddr) -> Option<Piece<'_>> {
        (**self).piece_at(page, limit, va)
    }

    fn rewind(&mut self) {
        (**self).rewind();
    }

    #[inline]
    fn pfns(&self, page: u64, nr: u64) -> Option<&[Pfn]> {
        (**self).pfns(page, nr)
    }
}

/// A contiguous range: what `ioremap` maps, Linux's `vmap_range_noflush`.
#[derive(Clone, Copy, Debug)]
pub struct PhysRange {
    start: PhysAddr,
    pages: u64,
}

impl PhysRange {
    /// Returns `pages` pages from `start` on, which `map` demands to be page-aligned.
    #[must_use]
    pub const fn new(start: PhysAddr, pages: u64) -> Self {
        Self { start, pages }
    }
}

impl<G: Granule> PhysSource<G> for PhysRange {
    const RUNS_ARE_FREE: bool = true;

    type Passed<'s> = Self;

    #[inline]
    fn passed(&mut self) -> Self {
        *self
    }

    #[inline]
    fn pages(&self) -> u64 {
        self.pages
    }

    #[inline]
    fn run_at(&mut self, page: u64, limit: u64) -> Option<Run> {
        (page < self.pages).then(|| Run {
            pa: self.start.add(page << G::PAGE_SHIFT),
            pages: limit.min(self.pages - page),
        })
    }

    #[inline]
    fn piece_at(&mut self, page: u64, limit: u64, va: VirtAddr) -> Option<Piece<'_>> {
        let _ = va;
        debug_assert!(
            page + limit <= self.pages,
            "pages {page} to {} of {}",
            page + limit,
            self.pages
        );
        let pa = self.start.add(page << G::PAGE_SHIFT);
        Some(Piece::Run(Run { pa, pages: limit }))
    }
}

/// Frame numbers: `[Pfn]`, `[u64]`, `[u32]`, or a kernel's own frame handles.
pub trait FrameArray {
    /// Returns the number of frames.
    fn nr_frames(&self) -> usize;
    /// Returns frame `index`, or `None` for a null page.
    fn frame(&self, index: usize) -> Option<Pfn>;
    /// If memory holds them as `Pfn`.
    #[inline]
    fn as_pfns(&self) -> Option<&[Pfn]> {
        None
    }
}

impl FrameArray for [Pfn] {
    #[inline]
    fn nr_frames(&self) -> usize {
        self.len()
    }
    #[inline]
    fn frame(&self, index: usize) -> Option<Pfn> {
        self.get(index).copied()
    }
    #[inline]
    fn as_pfns(&self) -> Option<&[Pfn]> {
        Some(self)
    }
}

macro_rules! frame_numbers {
    ($($number:ty)*) => {$(
        impl FrameArray for [$number] {
            #[inline]
            fn nr_frames(&self) -> usize {
                self.len()
            }
            #[inline]
            fn frame(&self, index: usize) -> Option<Pfn> {
                self.get(index).map(|n| Pfn(u64::from(*n)))
            }
        }
    )*};
}

frame_numbers! { u64 u32 }

impl FrameArray for [Option<Pfn>] {
    #[inline]
    fn nr_frames(&self) -> usize {
        self.len()
    }
    #[inline]
    fn frame(&self, index: usize) -> Option<Pfn> {
        self.get(index).copied().flatten()
    }
}

/// An array of pages: what `vmap` maps, Linux's `vmap_pages_range_noflush_walk`.
#[derive(Debug)]
pub struct PageArray<'a, A: FrameArray + ?Sized> {
    frames: &'a A,
    /// `start..end`, from frame `head` on.
    start: u64,
    end: u64,
    head: u64,
    /// Read at `end`: it ended the run.
    next: Option<Option<Pfn>>,
}

impl<'a, A: FrameArray + ?Sized> PageArray<'a, A> {
    /// Returns the pages of `frames`, in order.
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

    passed_by_reference!();

    #[inline]
    fn pages(&self) -> u64 {
        self.frames.nr_frames() as u64
    }

    #[inline]
    fn run_at(&mut self, page: u64, limit: u64) -> Option<Run> {
        assert!(
            page >= self.start,
            "page {page} is asked for after page {}",
            self.start
        );
        let nr = self.frames.nr_frames() as u64;
        if page >= nr {
            return None;
        }
        if page >= self.end {
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
        while self.next.is_none() && self.end < stop {
            let read = self.frames.frame(self.end as usize);
            if read == Some(Pfn(self.head.wrapping_add(self.end - self.start))) {
                self.end += 1;
            } else {
                self.next = Some(read);
            }
        }
        Some(Run {
            pa: output::<G>(self.head.wrapping_add(page - self.start)),
            pages: (self.end - page).min(limit),
        })
    }

    #[inline(always)]
    fn piece_at(&mut self, page: u64, limit: u64, va: VirtAddr) -> Option<Piece<'_>> {
        let Some(all) = self.frames.as_pfns() else {
            return PhysSource::<G>::run_at(self, page, limit).map(Piece::Run);
        };
        let rest = all.get(page as usize..)?;
        let frames = &rest[..rest.len().min(limit as usize)];
        if frames.is_empty() {
            return None;
        }
        match before_group::<G>(frames, va) {
            [] => Some(Piece::Frames(frames)),
            singles => Some(Piece::Singles(singles)),
        }
    }

    #[cold]
    fn rewind(&mut self) {
        *self = Self::new(self.frames);
    }

    #[inline]
    fn pfns(&self, page: u64, nr: u64) -> Option<&[Pfn]> {
        let (first, nr) = (page as usize, nr as usize);
        self.frames.as_pfns()?.get(first..)?.get(..nr)
    }
}

/// Judged by a group's first and last frame.
#[inline]
fn before_group<G: Granule>(frames: &[Pfn], va: VirtAddr) -> &[Pfn] {
    let group = G::cont_entries(LAST_LEVEL);
    let to_boundary = G::index(va.0, LAST_LEVEL).wrapping_neg() & (group - 1);
    let could_be = |pages: &[Pfn]| {
        let (first, last) = (pages[0].0, pages[group - 1].0);
        first & (group as u64 - 1) == 0 && last.wrapping_sub(first) == group as u64 - 1
    };
    let Some(behind) = frames.get(to_boundary..) else {
        return frames;
    };
    match behind.chunks_exact(group).position(could_be) {
        Some(place) => &frames[..to_boundary + place * group],
        None => frames,
    }
}

/// An element of a scatter list.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Extent {
    /// The first frame.
    pub start: Pfn,
    /// The number of pages. Empty extents are skipped.
    pub pages: u64,
}

/// A scatter list. Extents that touch are one run.
#[derive(Debug)]
pub struct Extents<'a> {
    extents: &'a [Extent],
    pages: u64,
    /// And the page where it begins.
    rest: &'a [Extent],
    begins: u64,
}

impl<'a> Extents<'a> {
    /// Returns the pages of `extents`, in order.
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

    passed_by_reference!();

    #[inline]
    fn pages(&self) -> u64 {
        self.pages
    }

    #[cold]
    fn rewind(&mut self) {
        self.rest = self.extents;
        self.begins = 0;
    }

    #[inline]
    fn run_at(&mut self, page: u64, limit: u64) -> Option<Run> {
        assert!(
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
