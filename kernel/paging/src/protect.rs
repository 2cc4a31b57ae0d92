//! `protect`, `set_valid` and `split`. Permissions, AF and software bits of a leaf covered whole
//! change in place (DESIGN rule 3); all else by break-before-make.

use crate::addr::{PhysAddr, VirtRange};
use crate::descriptor::{Attributes, Descriptor};
use crate::edit::{Change, Edit};
use crate::flush::FlushBatch;
use crate::granule::Granule;
use crate::mmu::Mmu;
use crate::outcome::{Error, Failure, LeafSize, Outcome};
use crate::tables::Tables;
use crate::trace;
use crate::tree::{Node, Slot, Tree};
use crate::walk::Leaf;

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
        let attributes = |leaf: Leaf| change(leaf.attributes);
        self.edit(
            range,
            |leaf| {
                Some(Leaf {
                    attributes: attributes(leaf),
                    ..leaf
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
        self.edit(range, |leaf| Some(Leaf { valid, ..leaf }), batch)
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
        let node = self.table_around(range);
        let mut change = Change::new(range, batch.pending_mut());
        self.reserve(node, &mut change)?;
        for cut in [range.start, range.end()] {
            // Linux split a block there.
            if let Some((table, leaf)) = self.leaf_cut_at(node, cut) {
                self.split_leaf(table, leaf, Some, &mut change);
            }
        }
        self.unreserve(&mut change);
        Ok(change.outcome)
    }

    fn edit<C, E: Edit>(
        &self,
        range: VirtRange,
        edit: E,
        batch: &mut FlushBatch<'_, G, T, M, C>,
    ) -> Result<Outcome, Failure> {
        self.validate(range)?;
        let node = self.table_around(range);
        self.check_edit(node, range, edit)?;
        let mut change = Change::new(range, batch.pending_mut());
        self.reserve(node, &mut change)?;
        self.edit_table(node, range, edit, &mut change);
        self.unreserve(&mut change);
        Ok(change.outcome)
    }

    fn check_edit<E: Edit>(&self, node: Node, range: VirtRange, edit: E) -> Result<(), Error> {
        let mut rest = range;
        while let Some(Slot { part, found, .. }) = self.next_slot(node, &mut rest) {
            if found.is_table(node.level) {
                self.check_edit(self.child(node, found), part, edit)?;
            } else if found.is_vacant() {
                return Err(Error::NotMapped(part.start));
            } else {
                let leaf = Leaf::of::<G>(node.level, part.start, found);
                if edit(leaf).is_some_and(|new| new.attributes.is_writable_and_executable()) {
                    return Err(Error::WritableExecutable(part.start));
                }
                let done = self.leaves_like(node.table, &leaf, rest, None);
                rest = rest.behind(done);
            }
        }
        Ok(())
    }

    fn edit_table<E: Edit>(&self, node: Node, range: VirtRange, edit: E, change: &mut Change<'_, G>) {
        trace::level::<G>(node, range);
        let mut rest = range;
        while let Some(Slot { part, found, .. }) = self.next_slot(node, &mut rest) {
            if found.is_table(node.level) {
                self.edit_table(self.child(node, found), part, edit, change);
            } else {
                let leaf = Leaf::of::<G>(node.level, part.start, found);
                let done = self.edit_leaf(node.table, &leaf, rest, edit, change);
                rest = rest.behind(done);
            }
        }
    }

    /// Edits a leaf, and after a page those in `rest` that differ only in their frame. Returns what
    /// they translate.
    #[inline(never)]
    fn edit_leaf<E: Edit>(
        &self,
        table: PhysAddr,
        leaf: &Leaf,
        rest: VirtRange,
        edit: E,
        change: &mut Change<'_, G>,
    ) -> VirtRange {
        let (mut range, size) = (leaf.range::<G>(), leaf.size);
        let new = edit(*leaf);
        if new == Some(*leaf) {
            return range;
        }
        // Made valid: a TLB holds nothing, or the same, which the batch invalidates. Made invalid:
        // as a permission that goes.
        let held = leaf.valid || change.pending.may_be_held(change.range);
        let in_place = new.filter(|new| {
            let may = !held || self.may_change_in_place(leaf.attributes, new.attributes);
            may && change.range.covers(range)
        });
        let Some(new) = in_place else {
            self.split_leaf(table, *leaf, edit, change);
            return range;
        };
        range = self.leaves_like(table, leaf, rest, Some(&new));
        let nr = range.size / size.bytes::<G>();
        change.record(range, size, nr as u32, leaf.valid, false);
        range
    }

    /// Makes `leaf`, and after a page those in `rest` that differ from it only in their frame, as
    /// `new` is. Returns what they translate.
    #[inline]
    fn leaves_like(&self, table: PhysAddr, leaf: &Leaf, rest: VirtRange, new: Option<&Leaf>) -> VirtRange {
        let (range, level) = (leaf.range::<G>(), leaf.size.level());
        let index = G::index(leaf.va.0, level);
        if leaf.size != LeafSize::PAGE {
            if let Some(new) = new {
                let (nr, first) = (leaf.size.descriptors::<G>(), new.descriptor::<G>());
                self.tables.fill_linear(table, index, nr, first, G::size(level));
            }
            return range;
        }
        let (like, pa) = (self.load(table, index).0, PhysAddr(0));
        let template = new.map(|new| Leaf { pa, ..*new }.descriptor::<G>());
        let mut nr = 0;
        while nr <= rest.size >> G::PAGE_SHIFT {
            let index = index + nr as usize;
            let Descriptor(found) = self.load(table, index);
            if (found ^ like) & !G::ADDRESS != 0 {
                break;
            }
            if let Some(template) = template {
                self.tables.store(table, index, found & G::ADDRESS | template);
            }
            nr += 1;
        }
        VirtRange::new(range.start, nr << G::PAGE_SHIFT)
    }
}
