//! Splits leaves that an operation covers in part, no further than needed (DESIGN rule 8).
//!
//! A *unit* (a block, or a group) is rewritten by the largest leaves that fit. New tables are
//! filled first, so it is broken **once** (rule 3).

use crate::addr::{PhysAddr, VirtAddr, VirtRange};
use crate::descriptor::{Attributes, CONTIGUOUS, Descriptor, TABLE_OR_PAGE, VALID};
use crate::flush::{Pending, PendingRange};
use crate::granule::{Granule, LAST_LEVEL, Level};
use crate::leaf::Leaves;
use crate::mmu::Mmu;
use crate::outcome::{Error, LeafSize, Outcome};
use crate::tables::Tables;
use crate::trace;
use crate::tree::{BreakPolicy, Node, Tree};
use arrayvec::ArrayVec;

/// 16K pages at level 3.
const MAX_UNIT: usize = 128;
/// Two cuts, each one table at each level below the root.
const MAX_RESERVE: usize = 8;

/// A leaf without its output address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PageState {
    pub attributes: Attributes,
    /// An invalid leaf keeps its place, frame and attributes.
    pub valid: bool,
}

impl PageState {
    #[inline]
    pub(crate) fn of<G: Granule>(found: Descriptor) -> Self {
        Self {
            attributes: found.attributes::<G>(),
            valid: found.is_valid(),
        }
    }

    #[inline]
    pub(crate) fn template<G: Granule>(self, level: Level) -> u64 {
        let kind = if level == LAST_LEVEL { TABLE_OR_PAGE } else { 0 };
        self.attributes.in_descriptor::<G>() | kind | if self.valid { VALID } else { 0 }
    }
}

/// `None` takes the page out.
pub(crate) trait Edit: Fn(PageState) -> Option<PageState> + Copy {}
impl<F: Fn(PageState) -> Option<PageState> + Copy> Edit for F {}

pub(crate) struct Reserve(ArrayVec<PhysAddr, MAX_RESERVE>);

impl Reserve {
    pub(crate) const fn new() -> Self {
        Self(ArrayVec::new_const())
    }

    fn take(&mut self) -> PhysAddr {
        self.0
            .pop()
            .unwrap_or_else(|| panic!("a split needs more tables than it reserved"))
    }
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Unit {
    pub(crate) node: Node,
    pub(crate) index: usize,
    pub(crate) size: LeafSize,
    pub(crate) range: VirtRange,
    pub(crate) first: Descriptor,
}

struct Cut<'c, E> {
    range: VirtRange,
    old: PageState,
    edit: E,
    reserve: &'c mut Reserve,
    outcome: &'c mut Outcome,
}

/// For the cuts `a` and `b` of one leaf.
fn nr_tables<G: Granule>(level: Level, a: Option<u64>, b: Option<u64>) -> usize {
    if level == LAST_LEVEL {
        return 0;
    }
    let inside = |cut: &u64| cut & (G::size(level) - 1) != 0;
    let (a, b) = (a.filter(inside), b.filter(inside));
    match (a, b) {
        (None, None) => 0,
        (Some(x), Some(y)) if x >> G::shift(level) != y >> G::shift(level) => {
            2 + nr_tables::<G>(level + 1, a, None) + nr_tables::<G>(level + 1, None, b)
        }
        _ => 1 + nr_tables::<G>(level + 1, a, b),
    }
}

impl<G: Granule, T: Tables, M: Mmu> Tree<G, T, M> {
    #[inline]
    pub(crate) fn unit(&self, node: Node, index: usize, va: VirtAddr, found: Descriptor) -> Unit {
        let size = LeafSize::new(node.level, found.is_contiguous());
        let start = va.align_down(size.bytes::<G>());
        let index = index & !(size.descriptors::<G>() - 1);
        let first = if found.is_contiguous() {
            self.load(node.table, index)
        } else {
            found
        };
        Unit {
            node,
            index,
            size,
            range: VirtRange::new(start, size.bytes::<G>()),
            first,
        }
    }

    pub(crate) fn unit_cut_at(&self, va: VirtAddr) -> Option<Unit> {
        if va.0 == 0 {
            return None;
        }
        let mut node = self.root_node();
        loop {
            let index = G::index(va.0, node.level);
            let found = self.load(node.table, index);
            if !found.is_table(node.level) {
                let unit = (!found.is_vacant()).then(|| self.unit(node, index, va, found))?;
                return (unit.range.start != va).then_some(unit);
            }
            if va.is_aligned(G::size(node.level)) {
                // No leaf spans a table's start.
                return None;
            }
            node = self.child(node, found);
        }
    }

    /// For splits at both ends (DESIGN rule 8).
    pub(crate) fn reserve(&self, range: VirtRange, reserve: &mut Reserve) -> Result<(), Error> {
        let cut = |va: VirtAddr| self.unit_cut_at(va).map(|unit| (unit, va.0));
        let (start, end) = (cut(range.start), cut(range.end()));
        let needed = match (start, end) {
            (None, None) => return Ok(()),
            (Some((unit, a)), Some((other, b))) if unit.range == other.range => {
                nr_tables::<G>(unit.node.level, Some(a), Some(b))
            }
            (a, b) => [a, b]
                .iter()
                .flatten()
                .map(|(unit, cut)| nr_tables::<G>(unit.node.level, Some(*cut), None))
                .sum(),
        };
        for _ in 0..needed {
            let Some(table) = self.tables.alloc_table() else {
                self.unreserve(reserve);
                return Err(Error::OutOfTables(LAST_LEVEL));
            };
            reserve.0.push(table);
        }
        Ok(())
    }

    pub(crate) fn unreserve(&self, reserve: &mut Reserve) {
        while let Some(table) = reserve.0.pop() {
            self.tables.free_table(table);
        }
    }

    /// The part in `range` by `edit`, the rest as it was.
    #[cold]
    pub(crate) fn split_leaf<E: Edit>(
        &self,
        unit: &Unit,
        range: VirtRange,
        edit: E,
        reserve: &mut Reserve,
        pending: &mut Pending<G>,
        outcome: &mut Outcome,
    ) {
        let level = unit.node.level;
        let nr = unit.size.descriptors::<G>();
        let pa = unit.first.address::<G>();
        let old = PageState::of::<G>(unit.first);
        let whole = range.covers(unit.range);
        let mut new = [0u64; MAX_UNIT];
        let mut touched = [unit.node.table, unit.node.table];
        for (j, slot) in new[..nr].iter_mut().enumerate() {
            let offset = (j as u64) << G::shift(level);
            let va = unit.range.start.add(offset);
            let pa = pa.add(offset);
            let piece = VirtRange::new(va, G::size(level));
            *slot = if !range.overlaps(piece) {
                G::encode(pa) | old.template::<G>(level)
            } else if range.covers(piece) {
                let changed = edit(old).map_or(0, |state| G::encode(pa) | state.template::<G>(level));
                if whole && changed != 0 && unit.size.is_contiguous() {
                    changed | CONTIGUOUS
                } else {
                    outcome.leaves.add(LeafSize::new(level, false), u32::from(!whole));
                    changed
                }
            } else {
                let table = reserve.take();
                let mut cut = Cut {
                    range,
                    old,
                    edit,
                    reserve,
                    outcome,
                };
                self.build_table(table, level + 1, va, pa, &mut cut);
                touched[1] = table;
                Descriptor::table::<G>(table).0
            };
        }
        if whole {
            outcome.leaves.add(unit.size, 1);
        }
        outcome.levels.insert(level);
        // A change of size may go in place, one of memory type never.
        let in_place = self.config().break_policy == BreakPolicy::InPlace
            && edit(old).is_none_or(|new| self.may_change_in_place(old.attributes, new.attributes));
        self.replace(unit, &new[..nr], &touched, in_place, pending);
    }

    fn replace(
        &self,
        unit: &Unit,
        new: &[u64],
        touched: &[PhysAddr],
        in_place: bool,
        pending: &mut Pending<G>,
    ) {
        let tables = &self.tables;
        let Unit { node, index, .. } = *unit;
        let make = || {
            for (j, value) in new.iter().enumerate() {
                tables.store(node.table, index + j, *value);
            }
        };
        let stale = PendingRange {
            range: unit.range,
            stride: node.level,
            links: false,
        };
        // Unless the batch has it, no TLB holds an invalid unit.
        if !unit.first.is_valid() && !pending.may_be_held(unit.range) {
            // DESIGN rule 2: new tables are complete before their links.
            self.mmu.dsb_ishst();
            make();
        } else if in_place {
            // DESIGN rule 2; the batch's flush follows.
            self.mmu.dsb_ishst();
            make();
            pending.invalidate(stale.range, stale.stride, false);
        } else {
            self.mmu.masked(|| {
                tables.enter_break(unit.range.start, unit.range.size, touched);
                tables.clear(node.table, index, new.len());
                // DESIGN rule 3, Arm ARM D8.16.1: invalid descriptors and new tables are complete
                // before the TLBI, the TLBI before the new descriptors.
                self.mmu.dsb_ishst();
                self.invalidate_and_wait(stale);
                make();
                tables.exit_break();
            });
        }
        pending.publish();
    }

    /// It replaces a descriptor which maps `va` to `pa`.
    fn build_table<E: Edit>(
        &self,
        table: PhysAddr,
        level: Level,
        va: VirtAddr,
        pa: PhysAddr,
        cut: &mut Cut<'_, E>,
    ) {
        let size = G::size(level);
        let groups = self.config().leaves.contains(LeafSize::new(level, true));
        let groups = groups && LeafSize::new(level, true).exists::<G>();
        cut.outcome.levels.insert(level);
        cut.outcome.tables_added += 1;
        trace::level::<G>(Node { table, level }, va, G::table_span(level));
        let mut index = 0;
        while index < G::ENTRIES {
            let offset = (index as u64) << G::shift(level);
            let (va, pa) = (va.add(offset), pa.add(offset));
            let piece = VirtRange::new(va, size);
            let covered = cut.range.covers(piece);
            if !covered && cut.range.overlaps(piece) {
                let below = cut.reserve.take();
                self.build_table(below, level + 1, va, pa, cut);
                self.tables.store(table, index, Descriptor::table::<G>(below).0);
                index += 1;
                continue;
            }
            // To the next cut or the end of the table. Behind the range the distance wraps.
            let edge = if covered { cut.range.end() } else { cut.range.start };
            let to_cut = edge.offset_from(va) >> G::shift(level);
            let nr = to_cut.min((G::ENTRIES - index) as u64) as usize;
            let leaves = Leaves::divide::<G>(level, va, pa, nr, groups);
            let state = if covered {
                (cut.edit)(cut.old)
            } else {
                Some(cut.old)
            };
            if let Some(state) = state {
                trace::leaves::<G>(va, pa, leaves, cut.range, self.config().leaves);
                self.fill(table, va, pa, leaves, state.template::<G>(level));
            }
            if covered {
                leaves.count::<G>(&mut cut.outcome.leaves);
            }
            index += nr;
        }
    }
}
