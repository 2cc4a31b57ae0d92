//! Tables that `unmap` covers whole: unlinked as they are, counted, and kept until the flush.

use super::Unmapping;
use crate::addr::{VirtAddr, VirtRange};
use crate::descriptor::{CONTIGUOUS, TABLE_OR_PAGE, VALID};
use crate::granule::{Granule, LAST_LEVEL};
use crate::mmu::Mmu;
use crate::outcome::LeafSize;
use crate::tables::Tables;
use crate::tree::{Node, Tree};

impl<G: Granule, T: Tables, M: Mmu> Tree<G, T, M> {
    /// Buries `node`, which was just unlinked and whose whole span, from `va` on, the range covers; and all tables below.
    ///
    /// Its descriptors stay as they are. So as long as a walk cache holds the link, a walk may take up any of them again:
    /// every leaf is invalidated at all levels, since TLBIs are in no order among themselves before the DSB.
    pub(super) fn bury_subtree(
        &self,
        node: &Node,
        occupied: usize,
        va: VirtAddr,
        unmapping: &mut Unmapping<'_, G>,
    ) {
        if node.level == LAST_LEVEL {
            self.count_buried_pages(node, occupied, va, unmapping);
        } else if occupied != G::ENTRIES || !self.count_buried_blocks(node, va, unmapping) {
            let size = G::size(node.level);
            let mut i = 0;
            while i < G::ENTRIES {
                // A `prune` that has marked a link here must be done with this table before it goes.
                let found = self.load_settled(node.table, i);
                let va = va.add(i as u64 * size);
                if found.is_table(node.level) {
                    let child = self.child(node, i, found);
                    // Nobody else has leaves in the span; but `prune` may take a link that counts nothing.
                    if found.occupied::<G>() == 0 && !self.unlink_if_empty(&child, found) {
                        continue;
                    }
                    self.bury_subtree(&child, found.occupied::<G>(), va, unmapping);
                } else if !found.is_vacant() {
                    let leaf = LeafSize::new(node.level, found.is_contiguous());
                    let range = VirtRange::new(va, leaf.bytes::<G>());
                    self.took_out(range, leaf, found, true, unmapping);
                    i += leaf.descriptors::<G>();
                    continue;
                }
                i += 1;
            }
        }
        // The link to it: a walk cache may hold that (DESIGN rule 5). Those in it were seen to above.
        let level = node.level - 1;
        unmapping
            .pending
            .invalidate_link(VirtRange::new(va, G::size(level)), level);
        unmapping.pending.bury(&self.tables, node.table);
        // Its links go with it, as they would one by one.
        unmapping.outcome.levels.insert(level);
        unmapping.outcome.tables_removed += 1;
    }

    /// Counts the blocks of a full table that was unlinked, if it holds nothing else: all single or all in groups.
    fn count_buried_blocks(&self, node: &Node, va: VirtAddr, unmapping: &mut Unmapping<'_, G>) -> bool {
        let level = node.level;
        let (and, or) = self.tables.flags(node.table, 0, G::ENTRIES);
        if and & VALID == 0 || or & TABLE_OR_PAGE != 0 || (and ^ or) & CONTIGUOUS != 0 {
            return false;
        }
        let grouped = or & CONTIGUOUS != 0;
        let nr = if grouped {
            G::ENTRIES >> G::cont_shift(level)
        } else {
            G::ENTRIES
        };
        unmapping.outcome.levels.insert(level);
        unmapping
            .outcome
            .leaves
            .add(LeafSize::new(level, grouped), nr as u32);
        let span = VirtRange::new(va, G::table_span(level));
        unmapping.pending.invalidate(span, level, true);
        true
    }

    /// Counts the leaves of a last-level table that was unlinked, and records what a TLB may hold of them.
    fn count_buried_pages(
        &self,
        node: &Node,
        occupied: usize,
        va: VirtAddr,
        unmapping: &mut Unmapping<'_, G>,
    ) {
        if occupied == 0 {
            return;
        }
        unmapping.outcome.levels.insert(LAST_LEVEL);
        let by_range = self.mmu.has_tlbi_range();
        let span = VirtRange::new(va, G::table_span(LAST_LEVEL));
        if occupied == G::ENTRIES || by_range {
            // One range that holds the whole table costs no more than parts of it.
            let groups = (0..G::ENTRIES)
                .step_by(G::cont_entries(LAST_LEVEL))
                .filter(|head| self.load(node.table, *head).is_contiguous())
                .count();
            let outcome = &mut unmapping.outcome;
            outcome.leaves.add(LeafSize::PAGE_GROUP, groups as u32);
            outcome.leaves.add(
                LeafSize::PAGE,
                (occupied - (groups << G::cont_shift(LAST_LEVEL))) as u32,
            );
            unmapping.pending.invalidate(span, LAST_LEVEL, true);
            return;
        }
        let mut i = 0;
        while i < G::ENTRIES {
            let found = self.load(node.table, i);
            if found.is_vacant() {
                i += 1;
                continue;
            }
            let leaf = LeafSize::new(LAST_LEVEL, found.is_contiguous());
            let va = va.add((i as u64) << G::PAGE_SHIFT);
            self.took_out(
                VirtRange::new(va, leaf.bytes::<G>()),
                leaf,
                found,
                true,
                unmapping,
            );
            i += leaf.descriptors::<G>();
        }
    }
}
