//! What one table holds whole, of a source that must be asked for each run: no recursion, no pin.

use super::Mapping;
use crate::addr::{PhysAddr, VirtRange};
use crate::descriptor::{Attributes, Descriptor};
use crate::granule::{Granule, LAST_LEVEL};
use crate::mmu::Mmu;
use crate::outcome::{Error, Failure, LeafSet, LeafSize, LevelMask, Outcome};
use crate::source::PhysSource;
use crate::tables::Tables;
use crate::trace;
use crate::tree::Tree;

/// What [`Tree::map_in_one_table`] did.
enum InOneTable {
    /// All of it.
    Done(Outcome),
    /// It failed at this page, with these levels written.
    Failed(Error, u64, LevelMask),
    /// Nothing: it is not that simple.
    No,
}

impl<G: Granule, T: Tables, M: Mmu> Tree<G, T, M> {
    /// What is more than one run into one table.
    #[inline(never)]
    pub(super) fn map_pieces<S: PhysSource<G>>(
        &self,
        range: VirtRange,
        source: &mut S,
        attributes: Attributes,
        allowed: LeafSet,
    ) -> Result<Outcome, Failure> {
        match self.map_in_one_table(Mapping::new(range, &mut *source, attributes, allowed)) {
            InOneTable::Done(outcome) => Ok(outcome),
            InOneTable::Failed(error, page, levels) => Err(self.undo(range, error, page, levels)),
            InOneTable::No => self.map_anywhere(Mapping::new(range, source, attributes, allowed)),
        }
    }

    /// The common cases, without recursion and without a pin: every table on the way is there, and the last one holds the
    /// whole range, be it as pages or as one run of blocks. Takes its `Mapping` by value, so that it lives in registers.
    #[inline(always)]
    fn map_in_one_table<S: PhysSource<G>>(&self, mut mapping: Mapping<'_, S>) -> InOneTable {
        let VirtRange { start, size } = mapping.range;
        // The bits of an address that differ within the range.
        let varying = start.0 ^ (start.0 + (size - 1));
        let mut node = self.root_node();
        let mut link = Descriptor::VACANT;
        trace::level::<G>(node.level, node.table, start, size);
        while node.level < LAST_LEVEL && varying < G::size(node.level) && size < G::size(node.level) {
            let index = G::index(start.0, node.level);
            link = self.load(node.table, index);
            if !link.is_table(node.level) {
                return InOneTable::No;
            }
            node = self.child(&node, index, link);
            trace::level::<G>(node.level, node.table, start, size);
        }
        let level = node.level;
        let index = G::index(start.0, level);
        let block = G::size(level);
        let nr = (size >> G::shift(level)) as usize;
        if (level < LAST_LEVEL && varying >= G::table_span(level)) || !self.all_vacant(node.table, index, nr)
        {
            // Tables that are about to go are not in the way, and whatever else there is has to be found and named.
            return InOneTable::No;
        }
        let mut blocks = PhysAddr(0);
        if level < LAST_LEVEL {
            // One run of whole blocks, or it is not as simple.
            let single = LeafSize::new(level, false);
            if !G::leaf_allowed(level)
                || !mapping.allowed.contains(single)
                || (start.0 | size) & (block - 1) != 0
            {
                return InOneTable::No;
            }
            let head = if S::RUNS_ARE_FREE {
                size >> G::PAGE_SHIFT
            } else {
                1
            };
            match self.run_at(&mut mapping, head) {
                Ok((pa, _)) if pa.0 & (block - 1) != 0 => return InOneTable::No,
                _ => {}
            }
            match self.run_at(&mut mapping, size >> G::PAGE_SHIFT) {
                Ok((pa, run)) if run == size >> G::PAGE_SHIFT => blocks = pa,
                _ => return InOneTable::No,
            }
        }
        if self.occupy_from(&node, link, nr).is_err() {
            return InOneTable::No;
        }
        if level < LAST_LEVEL {
            self.fill_run(&mut mapping, node.table, level, index, start, blocks, nr);
        } else if let Err((done, error)) = self.fill_pages(&mut mapping, node.table, index, nr) {
            self.vacate(&node, nr - done);
            return InOneTable::Failed(error, mapping.page, mapping.outcome.levels);
        }
        InOneTable::Done(mapping.outcome)
    }

    /// Whether `nr` descriptors from `index` on are vacant.
    #[inline(always)]
    fn all_vacant(&self, table: PhysAddr, index: usize, nr: usize) -> bool {
        if nr == 1 {
            self.load(table, index) == Descriptor::VACANT
        } else {
            self.tables.or_all(table, index, nr) == 0
        }
    }
}
