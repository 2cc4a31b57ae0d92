//! Splits leaves that an operation covers in part, no further than needed (DESIGN rule 8).
//!
//! A leaf is rewritten by the largest leaves that fit. New tables are filled first, so it is broken
//! **once** (rule 3).

use crate::addr::{PhysAddr, VirtAddr, VirtRange};
use crate::descriptor::{CONTIGUOUS, Descriptor};
use crate::flush::{Packed, Pending};
use crate::granule::{Granule, LAST_LEVEL, Level};
use crate::leaf::Leaves;
use crate::mmu::Mmu;
use crate::outcome::{Error, LeafSize, Outcome};
use crate::tables::Tables;
use crate::trace;
use crate::tree::{BreakPolicy, Node, Tree};
use crate::walk::Leaf;
use arrayvec::ArrayVec;

/// 16K pages at level 3.
const MAX_DESCRIPTORS: usize = 128;
/// Two cuts, each one table at each level below the root.
const MAX_RESERVE: usize = 8;

/// What becomes of a leaf, or of a part of one, by its attributes; `None` takes it out.
pub(crate) trait Edit: Fn(Leaf) -> Option<Leaf> + Copy {}
impl<F: Fn(Leaf) -> Option<Leaf> + Copy> Edit for F {}

/// An operation under way.
pub(crate) struct Change<'p, G> {
    pub(crate) range: VirtRange,
    /// For splits. Taken before anything is changed.
    reserve: ArrayVec<PhysAddr, MAX_RESERVE>,
    pub(crate) pending: &'p mut Pending<G>,
    pub(crate) outcome: Outcome,
}

impl<'p, G: Granule> Change<'p, G> {
    /// Returns a change that splits nothing.
    #[inline]
    pub(crate) fn new(range: VirtRange, pending: &'p mut Pending<G>) -> Self {
        Self {
            range,
            reserve: ArrayVec::new_const(),
            pending,
            outcome: Outcome::default(),
        }
    }

    /// Counts `nr` leaves that were taken out or changed in place. No TLB holds invalid ones.
    #[inline]
    pub(crate) fn record(&mut self, leaves: VirtRange, size: LeafSize, nr: u32, valid: bool, links: bool) {
        self.outcome.levels.insert(size.level());
        self.outcome.leaves.add(size, nr);
        if valid {
            self.pending.invalidate(leaves, size.level(), links);
        } else {
            self.pending.publish();
        }
    }
}

/// For the cuts `a` and `b` of one leaf.
fn nr_tables<G: Granule>(level: Level, a: Option<VirtAddr>, b: Option<VirtAddr>) -> usize {
    if level == LAST_LEVEL {
        return 0;
    }
    let inside = |cut: &VirtAddr| !cut.is_aligned(G::size(level));
    let (a, b) = (a.filter(inside), b.filter(inside));
    match (a, b) {
        (None, None) => 0,
        (Some(x), Some(y)) if x.align_down(G::size(level)) != y.align_down(G::size(level)) => {
            2 + nr_tables::<G>(level + 1, a, None) + nr_tables::<G>(level + 1, None, b)
        }
        _ => 1 + nr_tables::<G>(level + 1, a, b),
    }
}

impl<G: Granule, T: Tables, M: Mmu> Tree<G, T, M> {
    /// Returns the leaf around `va`, in `node` or behind it, and its table, if it begins before.
    pub(crate) fn leaf_cut_at(&self, node: Node, va: VirtAddr) -> Option<(PhysAddr, Leaf)> {
        let mut node = node;
        // No leaf spans a table's start.
        while !va.is_aligned(G::table_span(node.level)) {
            let found = self.load(node.table, G::index(va.0, node.level));
            if !found.is_table(node.level) {
                let leaf = Leaf::of::<G>(node.level, va, found);
                return (!found.is_vacant() && leaf.va != va).then_some((node.table, leaf));
            }
            node = self.child(node, found);
        }
        None
    }

    /// For splits at both ends of the range, which `node` holds (DESIGN rule 8).
    pub(crate) fn reserve(&self, node: Node, change: &mut Change<'_, G>) -> Result<(), Error> {
        let cut = |va| self.leaf_cut_at(node, va).map(|(_, leaf)| (leaf, va));
        let needed = match (cut(change.range.start), cut(change.range.end())) {
            (None, None) => return Ok(()),
            (Some((leaf, a)), Some((other, b))) if leaf.va == other.va => {
                nr_tables::<G>(leaf.size.level(), Some(a), Some(b))
            }
            (a, b) => {
                let nr = |(leaf, cut): (Leaf, VirtAddr)| nr_tables::<G>(leaf.size.level(), Some(cut), None);
                a.map_or(0, nr) + b.map_or(0, nr)
            }
        };
        for _ in 0..needed {
            let Some(table) = self.tables.alloc_table() else {
                self.unreserve(change);
                return Err(Error::OutOfTables(LAST_LEVEL));
            };
            change.reserve.push(table);
        }
        Ok(())
    }

    pub(crate) fn unreserve(&self, change: &mut Change<'_, G>) {
        while let Some(table) = change.reserve.pop() {
            self.tables.free_table(table);
        }
    }

    /// The part in the range by `edit`, the rest as it was.
    #[cold]
    pub(crate) fn split_leaf<E: Edit>(
        &self,
        table: PhysAddr,
        leaf: Leaf,
        edit: E,
        change: &mut Change<'_, G>,
    ) {
        let mut new = [0u64; MAX_DESCRIPTORS];
        self.rewrite(table, &leaf, leaf.size.level(), edit, change, Some(&mut new));
        self.replace(table, &leaf, &new[..leaf.size.descriptors::<G>()], edit, change);
    }

    fn replace<E: Edit>(
        &self,
        table: PhysAddr,
        leaf: &Leaf,
        new: &[u64],
        edit: E,
        change: &mut Change<'_, G>,
    ) {
        let (range, stride) = (leaf.range::<G>(), leaf.size.level());
        let index = G::index(leaf.va.0, stride);
        let make = || {
            for (value, i) in new.iter().zip(index..) {
                self.tables.store(table, i, *value);
            }
        };
        // A change of size may go in place, one of memory type never.
        let in_place = self.config().break_policy == BreakPolicy::InPlace
            && edit(*leaf).is_none_or(|new| self.may_change_in_place(leaf.attributes, new.attributes));
        // Unless the batch has it, no TLB holds an invalid leaf.
        let held = leaf.valid || change.pending.may_be_held(range);
        if held && !in_place {
            let stale = Packed::new::<G>(range, stride, false);
            self.break_before_make(table, stride, stale, make);
        } else {
            // DESIGN rule 2: new tables are complete before their links. The batch's flush follows.
            self.mmu.dsb_ishst();
            make();
            if held {
                change.pending.invalidate(range, stride, false);
            }
        }
        change.pending.publish();
    }

    /// Invalidates `stale`, descriptors of `level`, before `make` writes them.
    pub(crate) fn break_before_make(
        &self,
        table: PhysAddr,
        level: Level,
        stale: Packed,
        make: impl FnOnce(),
    ) {
        let VirtRange { start, size } = stale.range();
        self.mmu.masked(|| {
            self.tables.enter_break(start, size, &[table]);
            let nr = (size >> G::shift(level)) as usize;
            self.tables.clear(table, G::index(start.0, level), nr);
            // DESIGN rule 3, Arm ARM D8.16.1: invalid descriptors and new tables are complete
            // before the TLBI, the TLBI before the new descriptors.
            self.mmu.dsb_ishst();
            self.invalidate_and_wait(stale);
            make();
            self.tables.exit_break();
        });
    }

    /// Makes the descriptors of `level` that replace `leaf`, and the tables below: in `table`, or
    /// in `live` if it is.
    fn rewrite<E: Edit>(
        &self,
        table: PhysAddr,
        leaf: &Leaf,
        level: Level,
        edit: E,
        change: &mut Change<'_, G>,
        mut live: Option<&mut [u64]>,
    ) {
        let (allowed, group) = (self.config().leaves, LeafSize::new(level, true));
        let groups = group.exists::<G>() && allowed.contains(group);
        let size = LeafSize::new(level, false);
        change.outcome.levels.insert(level);
        let mut rest = leaf.range::<G>();
        while rest.size != 0 {
            let va = rest.start;
            let single = Leaf {
                va,
                pa: leaf.translate(va),
                size,
                ..*leaf
            };
            let covered = change.range.contains(va);
            // Behind the range the distance wraps.
            let cut = if covered {
                change.range.end()
            } else {
                change.range.start
            };
            let to_cut = cut.offset_from(va).min(rest.size);
            let is_cut = to_cut < G::size(level);
            let nr = (to_cut >> G::shift(level)).max(1);
            let leaves = Leaves::divide::<G>(level, va, single.pa, nr as usize, groups);
            let within = (change.range, allowed);
            let describe = |new: Leaf| {
                trace::leaves::<G>(va, new.pa, leaves, within);
                new.descriptor::<G>()
            };
            let new = if is_cut {
                Some(Descriptor::table::<G>(self.build_table(&single, edit, change)).0)
            } else if covered {
                leaves.count::<G>(&mut change.outcome.leaves);
                edit(single).map(describe)
            } else {
                Some(describe(single))
            };
            rest = rest.without(leaves.bytes::<G>());
            let Some(first) = new else { continue };
            if let Some(live) = &mut live {
                let index = (va.offset_from(leaf.va) >> G::shift(level)) as usize;
                // All in a group, or none.
                let cont = if leaves.grouped == 0 { 0 } else { CONTIGUOUS };
                for (slot, i) in live[index..index + leaves.nr].iter_mut().zip(0..) {
                    *slot = (first | cont) + i * G::size(level);
                }
            } else {
                self.fill(table, va, first, leaves);
            }
        }
    }

    /// Returns a table that replaces the descriptor of `leaf`.
    fn build_table<E: Edit>(&self, leaf: &Leaf, edit: E, change: &mut Change<'_, G>) -> PhysAddr {
        let reserved = change.reserve.pop();
        let table = reserved.unwrap_or_else(|| panic!("a split needs more tables than it reserved"));
        change.outcome.tables_added += 1;
        let level = leaf.size.level() + 1;
        trace::level::<G>(Node { table, level }, leaf.range::<G>());
        self.rewrite(table, leaf, level, edit, change, None);
        table
    }
}
