//! [`LinearEdit`]: what is asked of the kernel's linear map when the permissions of an area change.

use paging::{Failure, Granule, LeafSize, Mmu, Outcome, Tables, Tree, VirtAddr, VirtRange, Visit};

/// A change of a part of the linear map. [`apply`](Self::apply) makes it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LinearEdit {
    /// The leaves at both ends are cut, so that none reaches over either. The only one that may
    /// fail, for lack of a table.
    Split,
    /// Every page is writable, or is not.
    SetWritable(bool),
    /// Every page is valid, or is not.
    SetValid(bool),
    /// Every page is valid and writable, as unused memory is.
    Restore,
    /// What was cut is folded into leaves as large as the policy of the linear map has them; but
    /// only what is valid and writable, as unused memory is. The rest stays as it was cut: it is of
    /// several areas perhaps, and each is to be restored without a cut, which may fail.
    Coalesce,
    /// The same in one place, and into a leaf of this size or not at all. The range is that leaf's.
    Fold(LeafSize),
}

impl LinearEdit {
    /// Makes the change in `tree`, and flushes.
    ///
    /// # Errors
    /// As those of [`Tree::split`], [`Tree::protect`], [`Tree::set_valid`], [`Tree::coalesce`] and
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
                // Only what is not so already, which begins and ends where leaves do: an edit sets
                // tables aside for the leaves that its range cuts, also where they stay as they
                // are.
                let mut outcome = Outcome::default();
                let mut at = range.start;
                while let Some(changed) = next_stretch(tree, at, range, false)? {
                    let Stretch {
                        range: changed,
                        read_only,
                        invalid,
                    } = changed;
                    if read_only {
                        outcome.merge(&tree.protect(changed, |old| old.writable(), &mut batch)?);
                    }
                    if invalid {
                        outcome.merge(&tree.set_valid(changed, true, &mut batch)?);
                    }
                    at = changed.end();
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
            // All of a leaf is alike, so all of it is plain if its first page is: nothing else is
            // looked at for that.
            Self::Fold(size) => match tree.translate(range.start) {
                Some(first) if first.attributes.is_writable() => tree.fold(range.start, size, &mut batch)?,
                _ => Outcome::default(),
            },
        };
        batch.flush();
        Ok(outcome)
    }
}

/// Leaves that follow each other.
struct Stretch {
    range: VirtRange,
    /// Whether any of them is read-only.
    read_only: bool,
    /// Whether any of them is invalid.
    invalid: bool,
}

/// Returns the first stretch of `range`, from `at` on, in which every leaf is valid and writable
/// (`plain`), or none is.
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
