//! The alias in the linear map of an area that owns its frames.

use crate::backend::Backend;
use crate::frames::Blocks;
use crate::linear::LinearEdit;
use crate::record::Area;
use crate::region::Vmalloc;
use core::mem::ManuallyDrop;
use paging::{Failure, Granule, LeafSize, PhysAddr, PhysSource};

impl<B: Backend> Vmalloc<B> {
    /// Inside the linear map's gate.
    pub(crate) fn edit_alias(
        &self,
        area: &Area,
        pages: core::ops::Range<u64>,
        edit: LinearEdit,
    ) -> Result<(), Failure> {
        self.for_each_run(area, pages, |pa, size| {
            self.backend.edit_linear_map(pa, size, edit).map(drop)
        })
    }

    /// Outside the run only leaves across its ends can have been split: folding climbs the ladder
    /// around each end, until a leaf cannot be made.
    pub(crate) fn coalesce_alias(&self, area: &Area, pages: core::ops::Range<u64>) {
        let folded = self.for_each_run(area, pages, |pa, size| {
            self.backend.edit_linear_map(pa, size, LinearEdit::Coalesce)?;
            self.fold_around(pa)?;
            self.fold_around(pa.add(size))
        });
        if let Err(failure) = folded {
            panic!("folding the alias of {area:?}: {failure}");
        }
    }

    fn fold_around(&self, end: PhysAddr) -> Result<(), Failure> {
        let leaves = self.backend.tree().config().leaves;
        let smallest_first = LeafSize::ALL.into_iter().rev();
        for size in smallest_first.filter(|size| size.exists::<B::Granule>() && leaves.contains(*size)) {
            let bytes = size.bytes::<B::Granule>();
            if end.is_aligned(bytes) {
                continue;
            }
            let edited =
                self.backend
                    .edit_linear_map(end.align_down(bytes), bytes, LinearEdit::Fold(size))?;
            if edited.leaves.get(size) == 0 {
                break;
            }
        }
        Ok(())
    }

    fn for_each_run(
        &self,
        area: &Area,
        pages: core::ops::Range<u64>,
        mut each: impl FnMut(PhysAddr, u64) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let blocks = ManuallyDrop::new(Blocks::of_area(&self.backend, area));
        let mut source = blocks.source(pages.end);
        let mut page = pages.start;
        while page < pages.end {
            let run = PhysSource::<B::Granule>::run_at(&mut source, page, pages.end - page);
            let Some(run) = run else {
                unreachable!("{area:?} lacks frames from page {page} on")
            };
            each(run.pa, run.pages << B::Granule::PAGE_SHIFT)?;
            page += run.pages;
        }
        Ok(())
    }

    /// The area is unmapped and flushed.
    pub(crate) fn reset_alias(&self, area: &Area) {
        let _alone = self.linear_map.0.enter(&self.backend);
        self.backend.alone_in_linear_map(|| {
            if let Err(failure) = self.edit_alias(area, 0..area.pages(), LinearEdit::Restore) {
                // Leaves are split where the change ended.
                panic!("restoring the alias of {area:?}: {failure}");
            }
            self.coalesce_alias(area, 0..area.pages());
        });
    }
}
