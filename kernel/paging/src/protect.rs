//! `protect`, `set_valid` and `split`. Permissions, AF and software bits of a leaf covered whole
//! change in place (DESIGN rule 3); all else by break-before-make.

use crate::addr::{VirtAddr, VirtRange};
use crate::descriptor::{Attributes, CONTIGUOUS, Descriptor};
use crate::edit::{Edit, PageState, Reserve};
use crate::flush::FlushBatch;
use crate::granule::{Granule, LAST_LEVEL};
use crate::mmu::Mmu;
use crate::outcome::{Error, Failure, LeafSize, Outcome};
use crate::tables::Tables;
use crate::trace;
use crate::tree::{Node, Tree, part};

struct Editing<'b, 't, G: Granule, T: Tables, M: Mmu, C, E> {
    range: VirtRange,
    edit: E,
    reserve: Reserve,
    batch: &'b mut FlushBatch<'t, G, T, M, C>,
    outcome: Outcome,
}

impl<G: Granule, T: Tables, M: Mmu> Tree<G, T, M> {
    /// Gives every page in `range` the attributes that `change` makes of its own.
    ///
    /// `change` may be called repeatedly for a leaf and must answer alike. The outcome counts the
    /// changed leaves as they are afterwards. Granularity: a page. The old permissions may be used
    /// until `batch` has flushed.
    ///
    /// # Errors
    /// [`Error::Empty`], [`Error::Misaligned`], [`Error::NonCanonical`]; [`Error::NotMapped`];
    /// [`Error::WritableExecutable`]; [`Error::OutOfTables`]. Nothing has changed then.
    #[cfg_attr(feature = "trace", inline(never))]
    pub fn protect<C>(
        &self,
        range: VirtRange,
        change: impl Fn(Attributes) -> Attributes + Copy,
        batch: &mut FlushBatch<'_, G, T, M, C>,
    ) -> Result<Outcome, Failure> {
        self.edit(
            range,
            |state: PageState| {
                Some(PageState {
                    attributes: change(state.attributes),
                    ..state
                })
            },
            batch,
        )
    }

    /// Makes every page in `range` valid or invalid; it keeps frame, attributes and place.
    ///
    /// A TLB may hold a page made invalid until `batch` has flushed: until then edit it with the
    /// same batch (DESIGN rule 3).
    ///
    /// # Errors
    /// As [`protect`](Self::protect).
    #[cfg_attr(feature = "trace", inline(never))]
    pub fn set_valid<C>(
        &self,
        range: VirtRange,
        valid: bool,
        batch: &mut FlushBatch<'_, G, T, M, C>,
    ) -> Result<Outcome, Failure> {
        self.edit(range, |state| Some(PageState { valid, ..state }), batch)
    }

    /// Splits the leaves that span either end of `range`.
    ///
    /// # Errors
    /// As [`protect`](Self::protect), but a hole is no error.
    #[cfg_attr(feature = "trace", inline(never))]
    pub fn split<C>(
        &self,
        range: VirtRange,
        batch: &mut FlushBatch<'_, G, T, M, C>,
    ) -> Result<Outcome, Failure> {
        self.validate(range)?;
        let mut reserve = Reserve::new();
        self.reserve(range, &mut reserve)?;
        let mut outcome = Outcome::default();
        for cut in [range.start, range.end()] {
            // Linux split a block there.
            if let Some(unit) = self.unit_cut_at(cut) {
                let pending = batch.pending_mut();
                self.split_leaf(&unit, range, Some, &mut reserve, pending, &mut outcome);
            }
        }
        self.unreserve(&mut reserve);
        Ok(outcome)
    }

    fn edit<C, E: Edit>(
        &self,
        range: VirtRange,
        edit: E,
        batch: &mut FlushBatch<'_, G, T, M, C>,
    ) -> Result<Outcome, Failure> {
        self.validate(range)?;
        self.check_edit(self.root_node(), range.start, range.size, edit)?;
        let mut editing = Editing {
            range,
            edit,
            reserve: Reserve::new(),
            batch,
            outcome: Outcome::default(),
        };
        self.reserve(range, &mut editing.reserve)?;
        self.edit_table(self.root_node(), range.start, range.size, &mut editing);
        self.unreserve(&mut editing.reserve);
        Ok(editing.outcome)
    }

    fn check_edit<E: Edit>(&self, node: Node, va: VirtAddr, remaining: u64, edit: E) -> Result<(), Error> {
        let (index, nr) = self.slots(node.level, va, remaining);
        let mut va = va;
        let mut remaining = remaining;
        for i in index..index + nr {
            let here = part::<G>(node.level, va, remaining);
            let found = self.load(node.table, i);
            if found.is_table(node.level) {
                self.check_edit(self.child(node, found), va, here, edit)?;
            } else if found.is_vacant() {
                return Err(Error::NotMapped(va));
            } else if let Some(state) = edit(PageState::of::<G>(found))
                && state.attributes.is_writable()
                && state.attributes.is_executable()
            {
                return Err(Error::WritableExecutable(va));
            }
            va = va.add(here);
            remaining -= here;
        }
        Ok(())
    }

    fn edit_table<C, E: Edit>(
        &self,
        node: Node,
        va: VirtAddr,
        remaining: u64,
        editing: &mut Editing<'_, '_, G, T, M, C, E>,
    ) {
        trace::level::<G>(node, va, remaining);
        let (index, nr) = self.slots(node.level, va, remaining);
        let mut va = va;
        let mut remaining = remaining;
        let mut i = index;
        while i < index + nr {
            let here = part::<G>(node.level, va, remaining);
            let found = self.load(node.table, i);
            let mut advance = here;
            let mut step = 1;
            if found.is_table(node.level) {
                self.edit_table(self.child(node, found), va, here, editing);
            } else if node.level == LAST_LEVEL && !found.is_contiguous() {
                step = self.edit_pages(node, i, index + nr, va, found, editing);
                advance = (step as u64) << G::PAGE_SHIFT;
            } else {
                let unit = self.unit(node, i, va, found);
                step = unit.index + unit.size.descriptors::<G>() - i;
                advance = (here + (step as u64 - 1) * G::size(node.level)).min(remaining);
                self.edit_leaf(&unit, editing);
            }
            va = va.add(advance);
            remaining -= advance;
            i += step;
        }
    }

    /// They differ only in their frame. Returns how many.
    #[inline(never)]
    fn edit_pages<C, E: Edit>(
        &self,
        node: Node,
        index: usize,
        end: usize,
        va: VirtAddr,
        found: Descriptor,
        editing: &mut Editing<'_, '_, G, T, M, C, E>,
    ) -> usize {
        let old = PageState::of::<G>(found);
        let new = (editing.edit)(old);
        // Else one by one.
        let held = old.valid || editing.batch.pending().may_be_held(editing.range);
        let in_place = |new: PageState| !held || self.may_change_in_place(old.attributes, new.attributes);
        if !new.is_some_and(in_place) {
            self.edit_leaf(&self.unit(node, index, va, found), editing);
            return 1;
        }
        let changed = new != Some(old);
        let template = new.unwrap_or(old).template::<G>(LAST_LEVEL);
        let mut here = found;
        let mut nr = 0;
        loop {
            if changed {
                self.tables
                    .store(node.table, index + nr, G::encode(here.address::<G>()) | template);
            }
            nr += 1;
            if index + nr == end {
                break;
            }
            here = self.load(node.table, index + nr);
            if (here.0 ^ found.0) & !G::ADDRESS != 0 {
                break;
            }
        }
        if changed {
            editing.outcome.levels.insert(LAST_LEVEL);
            editing.outcome.leaves.add(LeafSize::PAGE, nr as u32);
            let pending = editing.batch.pending_mut();
            if old.valid {
                let range = VirtRange::new(va, (nr as u64) << G::PAGE_SHIFT);
                pending.invalidate(range, LAST_LEVEL, false);
            } else {
                pending.publish();
            }
        }
        nr
    }

    fn edit_leaf<C, E: Edit>(&self, unit: &crate::edit::Unit, editing: &mut Editing<'_, '_, G, T, M, C, E>) {
        let old = PageState::of::<G>(unit.first);
        let new = (editing.edit)(old);
        if new == Some(old) {
            return;
        }
        let covered = editing.range.covers(unit.range);
        let in_place = new.filter(|new| {
            // Made valid: a TLB holds nothing, or the same, which the batch invalidates. Made
            // invalid: as a permission that goes.
            let held = old.valid || editing.batch.pending().may_be_held(unit.range);
            covered && (!held || self.may_change_in_place(old.attributes, new.attributes))
        });
        let Some(new) = in_place else {
            self.split_leaf(
                unit,
                editing.range,
                editing.edit,
                &mut editing.reserve,
                editing.batch.pending_mut(),
                &mut editing.outcome,
            );
            return;
        };
        let level = unit.node.level;
        let cont = unit.first.0 & CONTIGUOUS;
        let first = G::encode(unit.first.address::<G>()) | new.template::<G>(level) | cont;
        let nr = unit.size.descriptors::<G>();
        self.tables.fill_linear(
            unit.node.table,
            unit.index,
            nr,
            Descriptor(first).0,
            G::size(level),
        );
        editing.outcome.levels.insert(level);
        editing.outcome.leaves.add(unit.size, 1);
        let pending = editing.batch.pending_mut();
        if old.valid {
            pending.invalidate(unit.range, level, false);
        } else {
            pending.publish();
        }
    }
}
