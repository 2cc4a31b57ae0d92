use alloc::vec::Vec;

use kernel::layout;
use paging::{
    Attributes, Extent, Extents, FrameArray, Granule as _, LeafCounts, LeafSet, LeafSize, Outcome, Pfn,
    PhysAddr, PhysSource, VirtAddr, VirtRange,
};

use super::context::has_leaf;
use super::live::TestTree;

pub const PAGE: u64 = layout::PAGE_SIZE as u64;
/// Of pages (Arm ARM D8.6.1, "The Contiguous bit").
pub const GROUP: u64 = match layout::PAGE_SHIFT {
    12 => 16,
    14 => 128,
    _ => 32,
};
pub const BLOCK_GROUP: u64 = match layout::PAGE_SHIFT {
    12 => 16,
    _ => 32,
};
pub const BLOCK: u64 = PAGE / 8;
pub const BLOCK_ORDER: u8 = BLOCK.ilog2() as u8;
pub const BLOCK_SIZE: u64 = BLOCK * PAGE;
/// Bytes under a descriptor above those of blocks, or under a block where the root has none above.
pub const BLOCKS_SPAN: u64 = if layout::Granule::ROOT_LEVEL <= 1 {
    BLOCK * BLOCK_SIZE
} else {
    BLOCK_SIZE
};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Walker {
    Range,
    Array,
    Extents,
}

impl Walker {
    pub const ALL: [Self; 3] = [Self::Range, Self::Array, Self::Extents];
}

#[derive(Clone, Copy, Debug)]
pub struct Consecutive {
    first: u64,
    nr: u64,
}

impl FrameArray for Consecutive {
    fn nr_frames(&self) -> usize {
        self.nr as usize
    }
    fn frame(&self, index: usize) -> Option<Pfn> {
        Some(Pfn(self.first + index as u64))
    }
}

#[derive(Clone, Debug)]
pub enum Source {
    Range {
        start: PhysAddr,
        pages: u64,
        walker: Walker,
    },
    Array(Vec<Pfn>),
    Extents(Vec<Extent>),
}

impl Source {
    #[must_use]
    pub fn array_of(extents: &[Extent]) -> Self {
        Self::Array(
            extents
                .iter()
                .flat_map(|extent| (extent.start.0..extent.start.0 + extent.pages).map(Pfn))
                .collect(),
        )
    }

    #[must_use]
    pub fn pages(&self) -> u64 {
        match self {
            Self::Range { pages, .. } => *pages,
            Self::Array(frames) => frames.len() as u64,
            Self::Extents(extents) => extents.iter().map(|extent| extent.pages).sum(),
        }
    }

    #[must_use]
    pub fn size(&self) -> u64 {
        self.pages() * PAGE
    }

    #[must_use]
    pub fn pa(&self, page: u64) -> PhysAddr {
        match self {
            Self::Range { start, .. } => start.add(page * PAGE),
            Self::Array(frames) => PhysAddr(frames[page as usize].0 * PAGE),
            Self::Extents(extents) => {
                let mut page = page;
                for extent in extents {
                    if page < extent.pages {
                        return PhysAddr((extent.start.0 + page) * PAGE);
                    }
                    page -= extent.pages;
                }
                panic!("page {page} behind the last extent");
            }
        }
    }

    pub fn map(
        &self,
        tree: &TestTree,
        va: VirtAddr,
        attributes: Attributes,
        allowed: LeafSet,
    ) -> Result<Outcome, paging::Failure> {
        match self {
            Self::Range {
                start,
                pages,
                walker: Walker::Range,
            } => paging::vmap_range_noflush(tree, va, *start, pages * PAGE, attributes, allowed),
            Self::Range {
                start,
                pages,
                walker: Walker::Array,
            } => {
                let frames = Consecutive {
                    first: start.0 / PAGE,
                    nr: *pages,
                };
                paging::vmap_pages_range_noflush_walk(tree, va, &frames, attributes, allowed)
            }
            Self::Range {
                start,
                pages,
                walker: Walker::Extents,
            } => {
                let extents = [Extent {
                    start: Pfn(start.0 / PAGE),
                    pages: *pages,
                }];
                map_extents(tree, va, &extents, attributes, allowed)
            }
            Self::Array(frames) => {
                paging::vmap_pages_range_noflush_walk(tree, va, frames.as_slice(), attributes, allowed)
            }
            Self::Extents(extents) => map_extents(tree, va, extents, attributes, allowed),
        }
    }

    fn run(&self, page: u64) -> u64 {
        let head = self.pa(page);
        match self {
            Self::Range { pages, .. } => pages - page,
            _ => {
                (page + 1..self.pages())
                    .find(|next| self.pa(*next) != head.add((next - page) * PAGE))
                    .unwrap_or(self.pages())
                    - page
            }
        }
    }

    #[must_use]
    pub fn expected_leaves(&self, va: VirtAddr, from: u64, to: u64, allowed: LeafSet) -> LeafCounts {
        let mut counts = LeafCounts::default();
        let mut page = from;
        while page < to {
            let end_of_run = to.min(page + self.run(page));
            while page < end_of_run {
                let va = va.add((page - from) * PAGE);
                let size = largest_legal(va, self.pa(page), (end_of_run - page) * PAGE, allowed);
                counts.add(size, 1);
                page += size.bytes::<layout::Granule>() / PAGE;
            }
        }
        counts
    }
}

/// An oracle for the engine's leaf rule.
fn largest_legal(va: VirtAddr, pa: PhysAddr, size: u64, allowed: LeafSet) -> LeafSize {
    LeafSize::ALL
        .into_iter()
        .find(|leaf| {
            let bytes = leaf.bytes::<layout::Granule>();
            has_leaf(*leaf) && allowed.contains(*leaf) && (va.0 | pa.0).is_multiple_of(bytes) && size >= bytes
        })
        .unwrap_or(LeafSize::PAGE)
}

fn map_extents(
    tree: &TestTree,
    va: VirtAddr,
    extents: &[Extent],
    attributes: Attributes,
    allowed: LeafSet,
) -> Result<Outcome, paging::Failure> {
    let mut source = Extents::new(extents);
    let pages = PhysSource::<layout::Granule>::pages(&source);
    tree.map(VirtRange::new(va, pages * PAGE), &mut source, attributes, allowed)
}
