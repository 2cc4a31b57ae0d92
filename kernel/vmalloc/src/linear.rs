//! [`LinearEdit`]: the linear map follows an area's permissions.

use paging::{Failure, Granule, LeafSize, Mmu, Outcome, Tables, Tree, VirtAddr, VirtRange, Visit};

/// A change of part of the linear map.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LinearEdit {
    /// At both ends. Only this may fail, for lack of a table.
    Split,
    /// Makes every page writable or read-only.
    SetWritable(bool),
    /// Makes every page valid or invalid.
    SetValid(bool),
    /// Makes every page valid and writable, as unused memory is.
    Restore,
    /// Folds split leaves as policy allows, where valid and writable. The rest stays split for
    /// other areas: restoring must not split.
    Coalesce,
    /// The one leaf of this size in the range.
    Fold(LeafSize),
}

impl LinearEdit {
    /// Makes the change in `tree`, and flushes.
    ///
    /// # Errors
    ///
    /// As [`Tree::split`], [`Tree::protect`], [`Tree::set_valid`], [`Tree::coalesce`] and
    /// [`Tree::fold`]. Nothing has changed then.
    pub fn apply<G: Granule, T: Tables, M: Mmu>(
        self,
        tree: &Tree<G, T, M>,
        range: VirtRange,
    ) -> Result<Outcome, Failure> {
        let mut batch = tree.batch();
        let outcome = match self {
            Self::Split => tree.split(range, &mut batch)?,
            Self::SetWritable(true) => tree.protect(range, |old| old.writable(), &mut batch)?,
            Self::SetWritable(false) => tree.protect(range, |old| old.read_only(), &mut batch)?,
            Self::SetValid(valid) => tree.set_valid(range, valid, &mut batch)?,
            Self::Restore => {
                // Only what differs: an edit reserves tables for all leaves that its range cuts.
                let mut outcome = Outcome::default();
                let mut at = range.start;
                while let Some(changed) = next_stretch(tree, at, range, false)? {
                    if changed.read_only {
                        outcome.merge(&tree.protect(changed.range, |old| old.writable(), &mut batch)?);
                    }
                    if changed.invalid {
                        outcome.merge(&tree.set_valid(changed.range, true, &mut batch)?);
                    }
                    at = changed.range.end();
                }
                outcome
            }
            Self::Coalesce => {
                let mut outcome = Outcome::default();
                let mut at = range.start;
                while let Some(plain) = next_stretch(tree, at, range, true)? {
                    outcome.merge(&tree.coalesce(plain.range, &mut batch)?);
                    at = plain.range.end();
                }
                outcome
            }
            // A leaf is uniform, so its first page tells.
            Self::Fold(size) => match tree.translate(range.start) {
                Some(first) if first.attributes.is_writable() => tree.fold(range.start, size, &mut batch)?,
                _ => Outcome::default(),
            },
        };
        batch.flush();
        Ok(outcome)
    }
}

struct Stretch {
    range: VirtRange,
    read_only: bool,
    invalid: bool,
}

/// Its leaves are all valid and writable (`plain`), or none.
fn next_stretch<G: Granule, T: Tables, M: Mmu>(
    tree: &Tree<G, T, M>,
    at: VirtAddr,
    range: VirtRange,
    plain: bool,
) -> Result<Option<Stretch>, Failure> {
    let left = range.size - at.offset_from(range.start);
    if left == 0 {
        return Ok(None);
    }
    let (mut start, mut end) = (None, range.start.add(range.size));
    let (mut read_only, mut invalid) = (false, false);
    tree.visit(VirtRange::new(at, left), |leaf| {
        let is_writable = leaf.attributes.is_writable();
        if (leaf.valid && is_writable) == plain {
            start = start.or(Some(leaf.va.max(at)));
            read_only |= !is_writable;
            invalid |= !leaf.valid;
        } else if start.is_some() {
            end = leaf.va;
            return Visit::Stop;
        }
        Visit::Continue
    })?;
    Ok(start.map(|start| Stretch {
        range: VirtRange::new(start, end.offset_from(start)),
        read_only,
        invalid,
    }))
}
