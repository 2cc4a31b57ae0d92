use arrayvec::ArrayVec;
use dtoolkit::fdt::{Fdt, FdtNode};
use dtoolkit::standard::NodeStandard;
use dtoolkit::{Node, Property};

use crate::regions::PhysRegion;

const MAX_DEPTH: usize = 8;

/// A node and all above it, the root first.
#[derive(Clone, Debug)]
pub struct Path<'a>(ArrayVec<FdtNode<'a>, MAX_DEPTH>);

impl<'a> Path<'a> {
    fn root(tree: Fdt<'a>) -> Self {
        let mut nodes = ArrayVec::new();
        nodes.push(tree.root());
        Self(nodes)
    }

    #[must_use]
    pub fn resolve(tree: Fdt<'a>, path: &str) -> Option<Self> {
        Self::root(tree).descend(path)
    }

    #[must_use]
    pub fn descend(mut self, path: &str) -> Option<Self> {
        for name in path.split('/').filter(|name| !name.is_empty()) {
            let child = self.node().child(name)?;
            self.0.try_push(child).ok()?;
        }
        Some(self)
    }

    #[must_use]
    pub fn node(&self) -> FdtNode<'a> {
        self.0[self.0.len() - 1]
    }

    pub fn nodes(&self) -> impl Iterator<Item = FdtNode<'a>> {
        self.0.iter().copied()
    }

    /// Returns the first registers, as the CPU addresses them.
    #[must_use]
    pub fn registers(&self) -> Option<PhysRegion> {
        let reg = self.node().reg().ok()??.next()?;
        self.translate(PhysRegion::new(reg.address().ok()?, reg.size().ok()?)?)
    }

    #[must_use]
    pub fn is_available(&self) -> bool {
        self.nodes().all(super::is_available)
    }

    #[must_use]
    pub fn registers_of(&self, compatible: &str) -> Option<PhysRegion> {
        let wanted = self.node().is_compatible(compatible) && self.is_available();
        wanted.then(|| self.registers())?
    }

    /// Returns `None` if a bus above does not map all of `region`, or not in one piece.
    #[must_use]
    pub fn translate(&self, region: PhysRegion) -> Option<PhysRegion> {
        let mut start = region.start;
        let buses = self.0.len() - 1;
        // The root's children have CPU addresses.
        for bus in self.0.iter().take(buses).skip(1).rev() {
            // None: not mapped; empty: the same.
            if bus.property("ranges")?.value().is_empty() {
                continue;
            }
            start = bus.ranges().ok()??.find_map(|range| {
                let child: u64 = range.child_bus_address().ok()?;
                let parent: u64 = range.parent_bus_address().ok()?;
                let length: u64 = range.length().ok()?;
                let offset = start.checked_sub(child)?;
                let fits = offset < length && region.size() <= length - offset;
                fits.then(|| parent.checked_add(offset))?
            })?;
        }
        PhysRegion::new(start, region.size())
    }
}

/// Visits parents first.
pub fn for_each_node<'a>(tree: Fdt<'a>, f: &mut impl FnMut(&Path<'a>)) {
    visit(&mut Path::root(tree), f);
}

fn visit<'a>(path: &mut Path<'a>, f: &mut impl FnMut(&Path<'a>)) {
    f(path);
    if path.0.is_full() {
        return;
    }
    for child in path.node().children() {
        path.0.push(child);
        visit(path, f);
        path.0.pop();
    }
}
