use super::{BASE, Naive, PAGE, TinyBatch, TinyTree};
use paging::{
    Attributes, Error, Extent, Extents, Failure, LeafSet, PageArray, Pfn, PhysAddr, PhysRange, VirtAddr,
    VirtRange,
};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Source {
    Congruent,
    /// One frame off: pages.
    OddPhase,
    /// Two frames off: groups of two.
    EvenPhase,
    /// Congruent throughout.
    Array,
    /// The second half is elsewhere.
    BrokenArray,
    /// Runs: one page, the rest, and a page far away.
    Runs,
}

pub const SOURCES: [Source; 6] = [
    Source::Congruent,
    Source::OddPhase,
    Source::EvenPhase,
    Source::Array,
    Source::BrokenArray,
    Source::Runs,
];

impl Source {
    fn frames(self, start: u64, pages: u64) -> Vec<u64> {
        let from = |base: u64| (0..pages).map(move |i| base + start + i);
        match self {
            Self::Congruent | Self::Array => from(0x100).collect(),
            Self::OddPhase => from(0x201).collect(),
            Self::EvenPhase => from(0x302).collect(),
            Self::BrokenArray => (0..pages)
                .map(|i| start + i + if i < pages / 2 { 0x400 } else { 0x500 })
                .collect(),
            Self::Runs => (0..pages)
                .map(|i| start + i + if i + 1 < pages { 0x600 } else { 0x700 })
                .collect(),
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Change {
    ReadOnly,
    Writable,
    Uncached,
}

impl Change {
    fn apply(self, old: Attributes) -> Attributes {
        match self {
            Self::ReadOnly => old.read_only(),
            Self::Writable => old.writable(),
            Self::Uncached => {
                let new = Attributes::kernel(paging::MemoryType::NORMAL_NC);
                if old.is_writable() { new.writable() } else { new }
            }
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum What {
    Map(Source),
    Unmap,
    Protect(Change),
    Split,
    Coalesce,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Op {
    pub what: What,
    pub start: u64,
    pub pages: u64,
}

impl Op {
    pub fn range(self) -> VirtRange {
        VirtRange::new(VirtAddr(BASE + self.start * PAGE), self.pages * PAGE)
    }

    pub fn pages(self) -> std::ops::Range<u64> {
        self.start..self.start + self.pages
    }

    pub fn expected(self, before: &Naive) -> Result<Naive, Error> {
        let mut after = before.clone();
        match self.what {
            What::Map(source) => {
                if let Some(page) = self.pages().find(|page| before.contains_key(page)) {
                    return Err(Error::NotMapped(VirtAddr(BASE + page * PAGE)));
                }
                let frames = source.frames(self.start, self.pages);
                let bits = Attributes::KERNEL_DATA.bits();
                after.extend(
                    self.pages()
                        .zip(frames)
                        .map(|(page, frame)| (page, (frame, bits))),
                );
            }
            What::Unmap => self.pages().for_each(|page| {
                after.remove(&page);
            }),
            What::Protect(change) => {
                for page in self.pages() {
                    match after.get_mut(&page) {
                        Some((_, bits)) => *bits = change.apply(Attributes::from_bits(*bits)).bits(),
                        None => return Err(Error::NotMapped(VirtAddr(BASE + page * PAGE))),
                    }
                }
            }
            What::Split | What::Coalesce => {}
        }
        Ok(after)
    }

    pub fn run(self, tree: &TinyTree<'_>) -> Result<(), Failure> {
        let mut batch = tree.batch();
        self.run_in(tree, &mut batch)?;
        batch.flush();
        Ok(())
    }

    pub fn run_in<'t, 'a>(
        self,
        tree: &'t TinyTree<'a>,
        batch: &mut TinyBatch<'t, 'a>,
    ) -> Result<(), Failure> {
        let range = self.range();
        match self.what {
            What::Map(source) => {
                let frames = source.frames(self.start, self.pages);
                let attributes = Attributes::KERNEL_DATA;
                match source {
                    Source::Congruent | Source::OddPhase | Source::EvenPhase => {
                        let mut source = PhysRange::new(PhysAddr(frames[0] * PAGE), self.pages);
                        tree.map(range, &mut source, attributes, LeafSet::ALL)?;
                    }
                    Source::Array | Source::BrokenArray => {
                        let frames: Vec<_> = frames.into_iter().map(Pfn).collect();
                        let mut source = PageArray::new(frames.as_slice());
                        tree.map(range, &mut source, attributes, LeafSet::ALL)?;
                    }
                    Source::Runs => {
                        let cuts = [0, 1.min(self.pages - 1), self.pages - 1, self.pages];
                        let runs: Vec<_> = cuts
                            .windows(2)
                            .filter(|cut| cut[0] != cut[1])
                            .map(|cut| Extent {
                                start: Pfn(frames[cut[0] as usize]),
                                pages: cut[1] - cut[0],
                            })
                            .collect();
                        tree.map(range, &mut Extents::new(&runs), attributes, LeafSet::ALL)?;
                    }
                }
            }
            What::Unmap => {
                tree.unmap(range, batch)?;
            }
            What::Protect(change) => {
                tree.protect(range, |old| change.apply(old), batch)?;
            }
            What::Split => {
                tree.split(range, batch)?;
            }
            What::Coalesce => {
                tree.coalesce(range, batch)?;
            }
        }
        Ok(())
    }
}

pub fn ranges(edges: &[u64]) -> Vec<(u64, u64)> {
    let pairs = edges
        .iter()
        .flat_map(|start| edges.iter().map(move |end| (*start, *end)));
    pairs
        .filter(|(start, end)| start < end)
        .map(|(start, end)| (start, end - start))
        .collect()
}

pub fn ops(ranges: &[(u64, u64)], what: &[What]) -> Vec<Op> {
    let all = what.iter().flat_map(|what| {
        ranges.iter().map(|(start, pages)| Op {
            what: *what,
            start: *start,
            pages: *pages,
        })
    });
    all.collect()
}

pub const EDITS: [What; 6] = [
    What::Unmap,
    What::Protect(Change::ReadOnly),
    What::Protect(Change::Writable),
    What::Protect(Change::Uncached),
    What::Split,
    What::Coalesce,
];

pub fn maps() -> Vec<What> {
    SOURCES.into_iter().map(What::Map).collect()
}

pub fn everything() -> Vec<What> {
    [maps().as_slice(), &EDITS].concat()
}
