//! `dump`: what a range maps, in the style of Linux's `kernel_page_tables`.

use crate::addr::{PhysAddr, VirtRange};
use crate::descriptor::Attributes;
use crate::granule::Granule;
use crate::mmu::Mmu;
use crate::outcome::{DisplaySize, LeafSize};
use crate::tables::Tables;
use crate::tree::Tree;
use crate::walk::{Leaf, Visit};
use arrayvec::ArrayString;
use core::fmt::{self, Write};
use core::marker::PhantomData;

/// Alike leaves, consecutive in VA and PA.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DumpRun<G> {
    /// Cut to the range asked for.
    pub range: VirtRange,
    /// Of the first address.
    pub pa: PhysAddr,
    /// The leaves'.
    pub size: LeafSize,
    /// Their attributes.
    pub attributes: Attributes,
    /// Walks use them.
    pub valid: bool,
    granule: PhantomData<G>,
}

impl<G: Granule> DumpRun<G> {
    fn of(leaf: &Leaf, range: VirtRange) -> Self {
        let start = leaf.va.max(range.start);
        let last = leaf.range::<G>().last().min(range.last());
        Self {
            range: VirtRange::new(start, last.offset_from(start) + 1),
            pa: leaf.translate(start),
            size: leaf.size,
            attributes: leaf.attributes,
            valid: leaf.valid,
            granule: PhantomData,
        }
    }

    fn continues(&self, next: &Self) -> bool {
        self.range.end() == next.range.start
            && self.pa.add(self.range.size) == next.pa
            && self.size == next.size
            && self.attributes == next.attributes
            && self.valid == next.valid
    }
}

impl<G: Granule> fmt::Display for DumpRun<G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:#018x}-{:#018x} {:#014x} {:>6} L{} {:<4} {} {:?}{}",
            self.range.start,
            self.range.end(),
            self.pa,
            text(DisplaySize(self.range.size)),
            self.size.level(),
            text(DisplaySize(self.size.bytes::<G>())),
            if self.size.is_contiguous() { 'C' } else { '-' },
            self.attributes,
            if self.valid { "" } else { " invalid" },
        )
    }
}

fn text(size: DisplaySize) -> ArrayString<24> {
    let mut text = ArrayString::new();
    let _ = write!(text, "{size}");
    text
}

/// Runs of a range, in ascending order.
#[derive(Debug)]
pub struct Dump<'t, G: Granule, T: Tables, M: Mmu> {
    tree: &'t Tree<G, T, M>,
    rest: Option<VirtRange>,
}

impl<G: Granule, T: Tables, M: Mmu> Tree<G, T, M> {
    /// Returns the runs in `range`, cut to whole pages and to this half. Each part is as it was
    /// when read.
    pub fn dump(&self, range: VirtRange) -> Dump<'_, G, T, M> {
        let all = self.range();
        let start = range.start.align_down(G::PAGE_SIZE).max(all.start);
        let last = range.last().min(all.last());
        let rest = (range.size != 0 && start <= last).then(|| {
            let size = last.align_down(G::PAGE_SIZE).offset_from(start) + G::PAGE_SIZE;
            VirtRange::new(start, size)
        });
        Dump { tree: self, rest }
    }
}

impl<G: Granule, T: Tables, M: Mmu> Iterator for Dump<'_, G, T, M> {
    type Item = DumpRun<G>;

    fn next(&mut self) -> Option<DumpRun<G>> {
        let range = self.rest?;
        let mut run: Option<DumpRun<G>> = None;
        let mut ended = false;
        let visited = self.tree.visit(range, |leaf| {
            let next = DumpRun::of(leaf, range);
            match &mut run {
                None => run = Some(next),
                Some(run) if run.continues(&next) => run.range.size += next.range.size,
                Some(_) => {
                    ended = true;
                    return Visit::Stop;
                }
            }
            Visit::Continue
        });
        self.rest = match (visited, run) {
            (Ok(()), Some(run)) if ended => {
                let done = run.range.end().offset_from(range.start);
                Some(VirtRange::new(run.range.end(), range.size - done))
            }
            _ => None,
        };
        run
    }
}
