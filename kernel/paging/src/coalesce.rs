//! `coalesce` and `fold`: leaves become larger ones, by break-before-make of all descriptors of a
//! group, or of a table, which is freed after the flush (DESIGN rules 1, 3, 5).

use crate::addr::{PhysAddr, VirtAddr, VirtRange};
use crate::descriptor::{CONTIGUOUS, Descriptor, TABLE_OR_PAGE, VALID};
use crate::edit::PageState;
use crate::flush::{FlushBatch, PendingRange};
use crate::granule::{Granule, LAST_LEVEL, Level};
use crate::mmu::Mmu;
use crate::outcome::{Failure, LeafSize, Outcome};
use crate::tables::Tables;
use crate::tree::{Node, Tree, part};

const fn alike<G: Granule>() -> u64 {
    G::ATTRIBUTES | G::ADDRESS | VALID | TABLE_OR_PAGE
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Uniform {
    pa: PhysAddr,
    state: PageState,
}

impl<G: Granule, T: Tables, M: Mmu> Tree<G, T, M> {
    /// Folds what lies whole in `range` into the largest leaves that the policy allows, and counts
    /// them. Granularity: a page.
    ///
    /// # Errors
    /// [`Error::Empty`](crate::Error::Empty), [`Error::Misaligned`](crate::Error::Misaligned),
    /// [`Error::NonCanonical`](crate::Error::NonCanonical).
    #[cfg_attr(feature = "trace", inline(never))]
    pub fn coalesce<C>(
        &self,
        range: VirtRange,
        batch: &mut FlushBatch<'_, G, T, M, C>,
    ) -> Result<Outcome, Failure> {
        self.validate(range)?;
        let mut outcome = Outcome::default();
        self.coalesce_table(self.root_node(), range.start, range.size, batch, &mut outcome);
        Ok(outcome)
    }

    /// Folds the leaf of `size` around `va`, if the policy allows it and all descriptors of the
    /// rung below are leaves that agree; reads no other.
    ///
    /// The outcome counts the leaf if `va` then lies in one of `size` or larger; its levels are
    /// empty if it did before.
    ///
    /// # Errors
    /// [`Error::NonCanonical`](crate::Error::NonCanonical) if the leaf leaves the tree's half.
    #[cfg_attr(feature = "trace", inline(never))]
    pub fn fold<C>(
        &self,
        va: VirtAddr,
        size: LeafSize,
        batch: &mut FlushBatch<'_, G, T, M, C>,
    ) -> Result<Outcome, Failure> {
        let mut outcome = Outcome::default();
        if size == LeafSize::PAGE || !size.exists::<G>() || !self.config().leaves.contains(size) {
            return Ok(outcome);
        }
        let bytes = size.bytes::<G>();
        let va = va.align_down(bytes);
        self.validate(VirtRange::new(va, bytes))?;
        // A group's descriptors are of its own level, a block's are those of the table.
        let rung = size.level() + Level::from(!size.is_contiguous());
        let mut node = self.root_node();
        let mut parent = (node, 0);
        while node.level < rung {
            let index = G::index(va.0, node.level);
            let found = self.load(node.table, index);
            if !found.is_table(node.level) {
                outcome.leaves.add(size, u32::from(!found.is_vacant()));
                return Ok(outcome);
            }
            parent = (node, index);
            node = self.child(node, found);
        }
        if size.is_contiguous() {
            let (index, nr) = (G::index(va.0, rung), G::cont_entries(rung));
            let head = self.load(node.table, index);
            if head.is_contiguous() && !head.is_table(rung) {
                outcome.leaves.add(size, 1);
            } else {
                self.fold_groups(node, index, nr, va, batch, &mut outcome);
            }
        } else if let Some(uniform) = self.block_of(node, va) {
            self.fold_table(parent, node, va, uniform, batch, &mut outcome);
        }
        Ok(outcome)
    }

    /// The caller makes the block.
    fn coalesce_table<C>(
        &self,
        node: Node,
        va: VirtAddr,
        remaining: u64,
        batch: &mut FlushBatch<'_, G, T, M, C>,
        outcome: &mut Outcome,
    ) -> Option<Uniform> {
        let level = node.level;
        let (index, nr) = self.slots(level, va, remaining);
        if level < LAST_LEVEL {
            let (mut va, mut remaining) = (va, remaining);
            for i in index..index + nr {
                let here = part::<G>(level, va, remaining);
                let found = self.load(node.table, i);
                if found.is_table(level) {
                    let child = self.child(node, found);
                    if let Some(uniform) = self.coalesce_table(child, va, here, batch, outcome) {
                        self.fold_table((node, i), child, va, uniform, batch, outcome);
                    }
                }
                va = va.add(here);
                remaining -= here;
            }
        }
        let whole = level > G::ROOT_LEVEL && remaining == G::table_span(level);
        if whole && let Some(uniform) = self.block_of(node, va) {
            return Some(uniform);
        }
        let head = va.0.wrapping_neg() & (G::size(level) - 1);
        if let Some(whole) = remaining.checked_sub(head) {
            let index = index + usize::from(head != 0);
            let nr = ((whole >> G::shift(level)) as usize).min(G::root_entries_at(level) - index);
            self.fold_groups(node, index, nr, va.add(head), batch, outcome);
        }
        None
    }

    fn block_of(&self, node: Node, va: VirtAddr) -> Option<Uniform> {
        let block = LeafSize::new(node.level - 1, false);
        if !block.exists::<G>() || !self.config().leaves.contains(block) {
            return None;
        }
        let uniform = self.uniform(node, 0, G::ENTRIES)?;
        self.is_made(block, va, uniform).then_some(uniform)
    }

    fn is_made(&self, size: LeafSize, va: VirtAddr, uniform: Uniform) -> bool {
        let bytes = size.bytes::<G>();
        uniform.state.valid && G::leaves(va, uniform.pa, bytes, self.config().leaves).first() == size
    }

    fn uniform(&self, node: Node, index: usize, nr: usize) -> Option<Uniform> {
        let first = self.load(node.table, index);
        if first.is_vacant() || first.is_table(node.level) {
            return None;
        }
        let uniform = Uniform {
            pa: first.address::<G>(),
            state: PageState::of::<G>(first),
        };
        // One comparison: a table differs in its type bits.
        let step = G::size(node.level);
        let mut expected = first.0 & alike::<G>();
        let consecutive = (index + 1..index + nr).all(|i| {
            expected = expected.wrapping_add(step);
            self.load(node.table, i).0 & alike::<G>() == expected
        });
        consecutive.then_some(uniform)
    }

    fn fold_groups<C>(
        &self,
        node: Node,
        index: usize,
        nr: usize,
        va: VirtAddr,
        batch: &mut FlushBatch<'_, G, T, M, C>,
        outcome: &mut Outcome,
    ) {
        let level = node.level;
        let (group, size) = (G::cont_entries(level), LeafSize::new(level, true));
        if !size.exists::<G>() || !self.config().leaves.contains(size) {
            return;
        }
        for head in (index.next_multiple_of(group)..index + nr).step_by(group) {
            if head + group > index + nr || self.load(node.table, head).is_contiguous() {
                continue;
            }
            let Some(uniform) = self.uniform(node, head, group) else {
                continue;
            };
            let start = va.add(((head - index) as u64) << G::shift(level));
            if !self.is_made(size, start, uniform) {
                continue;
            }
            let range = VirtRange::new(start, G::cont_size(level));
            let first = G::encode(uniform.pa) | uniform.state.template::<G>(level) | CONTIGUOUS;
            let stale = PendingRange {
                range,
                stride: level,
                links: false,
            };
            self.remake(node, head, group, stale, Descriptor(first));
            batch.pending_mut().publish();
            outcome.levels.insert(level);
            outcome.leaves.add(size, 1);
        }
    }

    fn fold_table<C>(
        &self,
        (node, index): (Node, usize),
        child: Node,
        va: VirtAddr,
        uniform: Uniform,
        batch: &mut FlushBatch<'_, G, T, M, C>,
        outcome: &mut Outcome,
    ) {
        let level = node.level;
        let stale = PendingRange {
            range: VirtRange::new(va, G::size(level)),
            stride: LAST_LEVEL,
            links: true,
        };
        let block = Descriptor(G::encode(uniform.pa) | uniform.state.template::<G>(level));
        self.remake(node, index, 1, stale, block);
        // DESIGN rule 5: `remake` invalidated walk caches; the flush keeps software readers out.
        batch.pending_mut().publish();
        batch.pending_mut().defer_free(&self.tables, child.table);
        outcome.levels.insert(level);
        outcome.tables_removed += 1;
        outcome.leaves.add(LeafSize::new(level, false), 1);
    }

    fn remake(&self, node: Node, index: usize, nr: usize, stale: PendingRange, first: Descriptor) {
        let VirtRange { start, size } = stale.range;
        self.mmu.masked(|| {
            self.tables.enter_break(start, size, &[node.table]);
            self.tables.clear(node.table, index, nr);
            // DESIGN rule 3, Arm ARM D8.16.1. Never in place: folding is not urgent.
            self.mmu.dsb_ishst();
            self.invalidate_and_wait(stale);
            self.tables
                .fill_linear(node.table, index, nr, first.0, G::size(node.level));
            self.tables.exit_break();
        });
    }
}
