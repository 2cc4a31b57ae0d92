use super::{Naive, Shape};
use paging::{
    Attributes, Error, Failure, Granule, LeafSet, MemoryType, Mmu, Outcome, Pending, Tables, Tree, VirtAddr,
    VirtRange,
};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Change {
    ReadOnly,
    /// Refused for executable pages.
    Writable,
    ReadOnlyExecutable,
    /// Refused for writable pages.
    Executable,
    Software(u8),
    /// By break-before-make.
    Memory(MemoryType),
}

impl Change {
    pub fn apply(self, old: Attributes) -> Attributes {
        match self {
            Self::ReadOnly => old.read_only().execute_never(),
            Self::Writable => old.writable(),
            Self::ReadOnlyExecutable => old.read_only().executable(),
            Self::Executable => old.executable(),
            Self::Software(bits) => old.with_software(bits),
            Self::Memory(memory) => {
                let new = Attributes::kernel(memory).with_software(old.software());
                let new = if old.is_writable() { new.writable() } else { new };
                if old.is_executable() {
                    new.executable()
                } else {
                    new
                }
            }
        }
    }
}

#[derive(Clone, Debug)]
pub enum Op {
    Map {
        page: u64,
        shape: Shape,
        attributes: Attributes,
        allowed: LeafSet,
    },
    Unmap {
        page: u64,
        pages: u64,
    },
    /// To another batch.
    UnmapLater {
        page: u64,
        pages: u64,
    },
    Prune {
        page: u64,
        pages: u64,
    },
    Protect {
        page: u64,
        pages: u64,
        change: Change,
    },
    SetValid {
        page: u64,
        pages: u64,
        valid: bool,
    },
    Split {
        page: u64,
        pages: u64,
    },
    Coalesce {
        page: u64,
        pages: u64,
    },
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Expected {
    Done,
    Occupied(VirtAddr),
    NotMapped(VirtAddr),
    WritableExecutable(VirtAddr),
    Empty,
}

impl Expected {
    /// A lack of tables is not judged here.
    pub fn is_met_by(self, result: &Result<Outcome, Failure>) -> bool {
        match (self, result.as_ref().map_err(|failure| failure.error)) {
            (Self::Done, Ok(_)) => true,
            (Self::Occupied(at), Err(Error::Occupied { va, found, .. })) => at == va && !found.is_vacant(),
            (Self::NotMapped(at), Err(Error::NotMapped(va)))
            | (Self::WritableExecutable(at), Err(Error::WritableExecutable(va))) => at == va,
            (Self::Empty, Err(Error::Empty(_))) => true,
            _ => false,
        }
    }
}

impl Op {
    pub fn map(page: u64, shape: Shape) -> Self {
        Self::Map {
            page,
            shape,
            attributes: Attributes::KERNEL_DATA,
            allowed: LeafSet::ALL,
        }
    }

    pub fn range<G: Granule>(&self, base: VirtAddr) -> VirtRange {
        let (page, pages) = match self {
            Self::Map { page, shape, .. } => (*page, shape.pages()),
            Self::Unmap { page, pages }
            | Self::UnmapLater { page, pages }
            | Self::Prune { page, pages }
            | Self::Protect { page, pages, .. }
            | Self::SetValid { page, pages, .. }
            | Self::Split { page, pages }
            | Self::Coalesce { page, pages } => (*page, *pages),
        };
        VirtRange::new(base.add(page << G::PAGE_SHIFT), pages << G::PAGE_SHIFT)
    }

    pub fn apply<G: Granule, T: Tables, M: Mmu>(
        &self,
        tree: &Tree<G, T, M>,
        base: VirtAddr,
    ) -> Result<Outcome, Failure> {
        let mut batch = tree.batch();
        let range = self.range::<G>(base);
        let result = match self {
            Self::Map {
                shape,
                attributes,
                allowed,
                ..
            } => {
                let mut pruned = Outcome::default();
                let mut result = shape.map(tree, range.start, *attributes, *allowed);
                if matches!(result, Err(failure) if matches!(failure.error, Error::EmptyTable { .. })) {
                    pruned = tree.prune(range)?;
                    result = shape.map(tree, range.start, *attributes, *allowed);
                }
                if matches!(result, Err(failure) if failure.tables_left != 0) {
                    tree.prune(range)?;
                }
                result.map(|mut outcome| {
                    outcome.merge(&pruned);
                    outcome
                })
            }
            Self::Unmap { .. } => tree.unmap(range, &mut batch),
            Self::UnmapLater { .. } => {
                let mut pending = Pending::new();
                let gone = tree.unmap(range, &mut batch);
                batch.defer_to(&mut pending);
                tree.flush(pending, false);
                return gone;
            }
            Self::Prune { .. } => tree.prune(range),
            Self::Protect { change, .. } => tree.protect(range, |old| change.apply(old), &mut batch),
            Self::SetValid { valid, .. } => tree.set_valid(range, *valid, &mut batch),
            Self::Split { .. } => tree.split(range, &mut batch),
            Self::Coalesce { .. } => tree.coalesce(range, &mut batch),
        };
        batch.flush();
        result
    }

    pub fn apply_naively<G: Granule>(&self, map: &mut Naive, base: VirtAddr) -> Expected {
        let range = self.range::<G>(base);
        let pages = || (0..range.size >> G::PAGE_SHIFT).map(|i| range.start.0 + (i << G::PAGE_SHIFT));
        if range.size == 0 {
            return Expected::Empty;
        }
        let edit = |map: &mut Naive, change: &dyn Fn((u64, Attributes, bool)) -> (u64, Attributes, bool)| {
            let mut changed = Vec::new();
            for va in pages() {
                let Some(old) = map.0.get(&va) else {
                    return Expected::NotMapped(VirtAddr(va));
                };
                let new = change(*old);
                if new.1.is_writable() && new.1.is_executable() {
                    return Expected::WritableExecutable(VirtAddr(va));
                }
                changed.push((va, new));
            }
            map.0.extend(changed);
            Expected::Done
        };
        match self {
            Self::Map {
                shape, attributes, ..
            } => {
                if attributes.is_writable() && attributes.is_executable() {
                    return Expected::WritableExecutable(range.start);
                }
                if let Some(taken) = pages().find(|va| map.0.contains_key(va)) {
                    return Expected::Occupied(VirtAddr(taken));
                }
                for (va, frame) in pages().zip(shape.frames()) {
                    map.0.insert(va, (frame << G::PAGE_SHIFT, *attributes, true));
                }
                Expected::Done
            }
            Self::Unmap { .. } | Self::UnmapLater { .. } => {
                pages().for_each(|va| {
                    map.0.remove(&va);
                });
                Expected::Done
            }
            Self::Protect { change, .. } => edit(map, &|(pa, attributes, valid)| {
                (pa, change.apply(attributes), valid)
            }),
            Self::SetValid { valid, .. } => edit(map, &|(pa, attributes, _)| (pa, attributes, *valid)),
            Self::Split { .. } | Self::Coalesce { .. } | Self::Prune { .. } => Expected::Done,
        }
    }
}
