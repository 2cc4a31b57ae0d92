//! [`LinearEdit`]: what is asked of the kernel's linear map when the permissions of an area change.

use paging::{Failure, Granule, LeafSize, Mmu, Outcome, Tables, Tree, VirtRange};

/// A change of a part of the linear map. [`apply`](Self::apply) makes it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LinearEdit {
    /// The leaves at both ends are cut, so that none reaches over either. The only one that may fail, for lack of a table.
    Split,
    /// Every page is writable, or is not.
    SetWritable(bool),
    /// Every page is valid, or is not.
    SetValid(bool),
    /// Every page is valid and writable, as memory that nobody uses is.
    Restore,
    /// What was cut is folded into leaves as large as the policy of the linear map has them.
    Coalesce,
    /// The same in one place, and into a leaf of this size or not at all. The range is that leaf's.
    Fold(LeafSize),
}

impl LinearEdit {
    /// Makes the change in `tree`, and flushes.
    ///
    /// # Errors
    /// As those of [`Tree::split`], [`Tree::protect`], [`Tree::set_valid`], [`Tree::coalesce`] and [`Tree::fold`]. Nothing has changed then.
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
                let mut outcome = tree.protect(range, |old| old.writable(), &mut batch)?;
                outcome.merge(&tree.set_valid(range, true, &mut batch)?);
                outcome
            }
            Self::Coalesce => tree.coalesce(range, &mut batch)?,
            Self::Fold(size) => tree.fold(range.start, size, &mut batch)?,
        };
        batch.flush();
        Ok(outcome)
    }
}
