//! One physical run into one table that is there.

use super::{bound, extent, leaves_of};
use crate::addr::{PhysAddr, VirtRange};
use crate::descriptor::{Attributes, CONTIGUOUS, Descriptor};
use crate::granule::{Granule, LAST_LEVEL, Level};
use crate::leaf::choose_leaf;
use crate::map::valid_bits;
use crate::mmu::Mmu;
use crate::outcome::{Failure, LeafSet, LeafSize, Outcome};
use crate::source::{PhysRange, PhysSource};
use crate::tables::Tables;
use crate::tree::Tree;

impl<G: Granule, T: Tables, M: Mmu> Tree<G, T, M> {
    /// Maps `range` to the physical run from `pa` on, with its barriers, as [`map`](Self::map) does. Nothing of it has been
    /// checked.
    #[inline(always)]
    pub(crate) fn map_run(
        &self,
        range: VirtRange,
        pa: PhysAddr,
        attributes: Attributes,
        allowed: LeafSet,
    ) -> Result<Outcome, Failure> {
        let size = range.size;
        if cfg!(feature = "trace") {
            return self.map_run_anywhere(range, pa, attributes, allowed);
        }
        if size == G::PAGE_SIZE {
            return self.map_leaf::<3>(range, pa, attributes, allowed);
        }
        let extent = extent(range);
        if extent < bound::<G>(3) {
            self.map_leaves::<3>(range, pa, attributes, allowed)
        } else if size == G::size(2) {
            self.map_leaf::<2>(range, pa, attributes, allowed)
        } else if extent < bound::<G>(2) {
            self.map_leaves::<2>(range, pa, attributes, allowed)
        } else if size == G::size(1) {
            self.map_leaf::<1>(range, pa, attributes, allowed)
        } else if extent < bound::<G>(1) {
            self.map_leaves::<1>(range, pa, attributes, allowed)
        } else {
            self.map_run_anywhere(range, pa, attributes, allowed)
        }
    }

    /// The general way.
    #[cold]
    #[inline(never)]
    fn map_run_anywhere(
        &self,
        range: VirtRange,
        pa: PhysAddr,
        attributes: Attributes,
        allowed: LeafSet,
    ) -> Result<Outcome, Failure> {
        let mut source = PhysRange::new(pa, range.size >> G::PAGE_SHIFT);
        self.map_source(range, &mut source, attributes, allowed)
    }

    /// One page or one block.
    #[inline(never)]
    fn map_leaf<const LEVEL: Level>(
        &self,
        range: VirtRange,
        pa: PhysAddr,
        attributes: Attributes,
        allowed: LeafSet,
    ) -> Result<Outcome, Failure> {
        let single = LeafSize::new(LEVEL, false);
        let fits = G::leaf_allowed(LEVEL)
            && self.is_plain(VirtRange::new(range.start, 0), G::size(LEVEL), pa.0)
            && self.implements(pa, G::size(LEVEL))
            && (LEVEL == LAST_LEVEL || allowed.intersection(self.config().leaves).contains(single))
            && !attributes.is_writable_and_executable();
        if fits && let Some((node, link)) = self.descend::<LEVEL>(range.start) {
            let index = G::index(range.start.0, LEVEL);
            if self.load(node.table, index) == Descriptor::VACANT && self.occupy_seen(&node, link, 1).is_ok()
            {
                let leaf = pa.0 | attributes.bits() | valid_bits(LEVEL);
                self.tables.store(node.table, index, leaf);
                self.publish();
                return Ok(leaves_of(LEVEL, 1, 0));
            }
        }
        self.map_run_anywhere(range, pa, attributes, allowed)
    }

    /// Several pages and groups of pages, or blocks and groups of blocks.
    #[inline(never)]
    fn map_leaves<const LEVEL: Level>(
        &self,
        range: VirtRange,
        pa: PhysAddr,
        attributes: Attributes,
        allowed: LeafSet,
    ) -> Result<Outcome, Failure> {
        let VirtRange { start, size } = range;
        let within = allowed.intersection(self.config().leaves);
        let fits = G::leaf_allowed(LEVEL)
            && size != 0
            && self.is_plain(range, G::size(LEVEL), pa.0)
            && self.implements(pa, size)
            && (LEVEL == LAST_LEVEL || within.contains(LeafSize::new(LEVEL, false)))
            && !attributes.is_writable_and_executable();
        if fits && let Some((node, link)) = self.descend::<LEVEL>(start) {
            let index = G::index(start.0, LEVEL);
            let nr = (size >> G::shift(LEVEL)) as usize;
            let group = G::cont_entries(LEVEL);
            let template = attributes.bits() | valid_bits(LEVEL);
            let one_group = nr == group
                && (start.0 | pa.0) & (G::cont_size(LEVEL) - 1) == 0
                && self.groups_allowed(within, LEVEL);
            if one_group {
                // Its length as a constant.
                if self.tables.or_all(node.table, index, group) == 0
                    && self.occupy_seen(&node, link, group).is_ok()
                {
                    let first = pa.0 | template | CONTIGUOUS;
                    self.tables
                        .fill_linear(node.table, index, group, first, G::size(LEVEL));
                    self.publish();
                    return Ok(leaves_of(LEVEL, 0, 1));
                }
            } else if self.tables.or_all(node.table, index, nr) == 0
                && self.occupy_seen(&node, link, nr).is_ok()
            {
                let shape = self.write_run(node.table, LEVEL, index, pa, nr, template, within);
                self.publish();
                let outcome = leaves_of(LEVEL, shape.singles(), shape.groups::<G>(LEVEL));
                debug_assert!(
                    outcome
                        .leaves
                        .get(choose_leaf::<G>(start, pa, size, size, within))
                        != 0,
                    "{outcome:?} lacks the leaf that choose_leaf chooses at {start:?} for {pa:?}"
                );
                return Ok(outcome);
            }
        }
        self.map_run_anywhere(range, pa, attributes, allowed)
    }

    /// Maps `range`, of which it is known that one table of `LEVEL` holds it, to several runs: whole blocks, or pages. `source` is
    /// one whose runs are free. Nothing of it has been checked.
    #[inline(never)]
    pub(crate) fn map_runs<const LEVEL: Level, S: PhysSource<G>>(
        &self,
        range: VirtRange,
        source: &mut S,
        attributes: Attributes,
        allowed: LeafSet,
    ) -> Result<Outcome, Failure> {
        let VirtRange { start, size } = range;
        let within = allowed.intersection(self.config().leaves);
        let fits = G::leaf_allowed(LEVEL)
            && size != 0
            && self.is_plain(range, G::size(LEVEL), 0)
            && source.pages() >= size >> G::PAGE_SHIFT
            && (LEVEL == LAST_LEVEL || within.contains(LeafSize::new(LEVEL, false)))
            && !attributes.is_writable_and_executable();
        if fits && let Some((node, link)) = self.descend::<LEVEL>(start) {
            let index = G::index(start.0, LEVEL);
            let nr = (size >> G::shift(LEVEL)) as usize;
            if self.tables.or_all(node.table, index, nr) == 0 && self.occupy_seen(&node, link, nr).is_ok() {
                let template = attributes.bits() | valid_bits(LEVEL);
                let in_block = G::shift(LEVEL) - G::PAGE_SHIFT;
                let (mut done, mut singles, mut groups) = (0, 0, 0);
                for run in source.runs(size >> G::PAGE_SHIFT) {
                    let blocks = (run.pages >> in_block) as usize;
                    let aligned = run.pa.0 & (G::size(LEVEL) - 1) == 0;
                    if blocks == 0 || !aligned || !self.implements(run.pa, run.pages << G::PAGE_SHIFT) {
                        break;
                    }
                    if blocks == 1 {
                        self.tables.store(node.table, index + done, run.pa.0 | template);
                        singles += 1;
                    } else {
                        let shape =
                            self.write_run(node.table, LEVEL, index + done, run.pa, blocks, template, within);
                        singles += shape.singles();
                        groups += shape.groups::<G>(LEVEL);
                    }
                    done += blocks;
                    if (blocks as u64) << in_block != run.pages {
                        // The rest of the run is no block, and the next one begins inside one.
                        break;
                    }
                }
                let outcome = leaves_of(LEVEL, singles, groups);
                if done < nr {
                    // Smaller leaves from here on, or an error.
                    return self.map_rest(range, source, attributes, within, (node, nr, done), outcome);
                }
                self.publish();
                return Ok(outcome);
            }
        }
        if LEVEL == LAST_LEVEL {
            return self.map_in_many_tables(range, source, attributes, allowed);
        }
        self.map_source(range, source, attributes, allowed)
    }

    /// The barriers of a map.
    #[inline(always)]
    pub(crate) fn publish(&self) {
        // DESIGN rule 2, Arm ARM D8.2.6 and K13.5.3: the stores are complete for table walks after a DSB, and an
        // earlier "invalid" that this CPU fetched ahead is forgotten at an ISB. No TLBI: an invalid descriptor is
        // never held.
        self.mmu.dsb_ishst();
        self.mmu.isb();
    }

    /// Whether all of `size` bytes from `pa` on, whole pages and at least one, are physical addresses that there are.
    #[inline(always)]
    fn implements(&self, pa: PhysAddr, size: u64) -> bool {
        let last_page = pa.0.wrapping_add(size - G::PAGE_SIZE);
        (pa.0 | last_page) & self.unimplemented_pa() == 0
    }
}
