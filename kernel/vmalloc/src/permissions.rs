//! `set_memory_*`: permissions of any pages of an area that owns its frames, and of their alias in
//! the linear map.
//!
//! All or nothing. What may fail comes first: the linear map is split at the edges of the physical
//! runs, then the area itself is changed, which splits its own leaves. The alias of exactly the
//! same pages is changed after that, and can no longer fail. A split that was not needed is folded
//! again.
//!
//! The linear map is shared by all areas, so one call at a time changes it, behind a gate, from the
//! split to the last fold. Other CPUs may find a leaf broken meanwhile (DESIGN rule 3): the
//! kernel's fault handler retries.
//!
//! What becomes executable, or valid again while executable, is
//! [published](Backend::publish_instructions) as the last step, before the call returns.
//!
//! An area so changed is freed at once, under either policy, in this order (Linux's
//! `VM_FLUSH_RESET_PERMS`): it is unmapped and flushed; its alias is restored and folded; its
//! frames are freed.

use crate::area::VmArea;
use crate::backend::Backend;
use crate::error::Error;
use crate::frames::Blocks;
use crate::linear::LinearEdit;
use crate::record::{self, Area, Head, Kind};
use crate::region::Vmalloc;
use crate::sparse::Busy;
use core::mem::ManuallyDrop;
use paging::{
    Attributes, Failure, Granule, LeafSize, Outcome, PhysAddr, PhysSource, VirtAddr, VirtRange, Visit,
};

/// What becomes of the pages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Change {
    Writable(bool),
    Executable(bool),
    Valid(bool),
}

/// What a change was.
struct Changed {
    outcome: Outcome,
    /// Some of it can be executed now that could not before.
    executable: bool,
}

impl Change {
    fn of(self, old: Attributes) -> Attributes {
        match self {
            Self::Writable(true) => old.writable(),
            Self::Writable(false) => old.read_only(),
            Self::Executable(true) => old.executable(),
            Self::Executable(false) => old.execute_never(),
            Self::Valid(_) => old,
        }
    }

    /// The alias is never executable, even if the area is.
    const fn of_alias(self) -> Option<LinearEdit> {
        match self {
            Self::Writable(writable) => Some(LinearEdit::SetWritable(writable)),
            Self::Valid(valid) => Some(LinearEdit::SetValid(valid)),
            Self::Executable(_) => None,
        }
    }
}

macro_rules! set_memory {
    ($($(#[$doc:meta])* $name:ident => $change:expr;)*) => {
        impl<B: Backend> VmArea<'_, B> {
            $($(#[$doc])*
            ///
            /// # Errors
            /// [`Error::Misaligned`], [`Error::Empty`], [`Error::OutOfBounds`];
            /// [`Error::WrongKind`] if it does not own its frames; [`Error::Map`] if a page would
            /// be writable and executable, or a split has no table. Nothing has changed then.
            pub fn $name(&self, offset: u64, size: u64) -> Result<Outcome, Error> {
                let range = self.pages_at(offset, size)?;
                let vm = self.manager();
                let changed = vm.under_pressure(|| {
                    let _busy = Busy::begin(vm, self.area());
                    vm.set_memory(self.area(), range, $change)
                })?;
                Ok(vm.publish(range, changed))
            })*
        }

        impl<B: Backend> Vmalloc<B> {
            $($(#[$doc])*
            ///
            /// `va` is in an area that was made raw.
            ///
            /// # Errors
            /// As the method of [`VmArea`], and as [`vfree`](Self::vfree) for an address in no such
            /// area.
            ///
            /// # Safety
            /// An address that is refused takes no promise. Else the area is the caller's to
            /// change, and nothing that lies in the pages is used any more in a way that it does
            /// not allow.
            pub unsafe fn $name(&self, va: VirtAddr, size: u64) -> Result<Outcome, Error> {
                self.set_memory_at(va, size, $change)
            })*
        }
    };
}

set_memory! {
    /// Makes the pages writable again, and their alias in the linear map.
    set_memory_rw => Change::Writable(true);
    /// Makes the pages executable, which must be read-only, and
    /// [publishes](Backend::publish_instructions) what they hold: any CPU that has a context
    /// synchronisation event after this returns may go there. Their alias never is executable.
    set_memory_x => Change::Executable(true);
    /// Makes the pages not executable.
    set_memory_nx => Change::Executable(false);
    /// Makes the pages and their alias accessible again; publishes them as
    /// [`set_memory_x`](Self::set_memory_x) does, if they are executable.
    set_memory_valid => Change::Valid(true);
    /// Makes the pages and their alias in the linear map inaccessible: any access faults. They keep
    /// their frames.
    set_memory_invalid => Change::Valid(false);
    /// Makes the pages read-only, and their alias in the linear map. `offset` and `size` are whole
    /// pages, in the area; a larger leaf that they cut is split, no further than needed. All or
    /// nothing. [Waiting](crate#contexts): for what else changes parts of the area, and the linear
    /// map.
    set_memory_ro => Change::Writable(false);
}

impl<B: Backend> Vmalloc<B> {
    fn set_memory_at(&self, va: VirtAddr, size: u64, change: Change) -> Result<Outcome, Error> {
        let changed = self.under_pressure(|| self.set_memory_at_once(va, size, change))?;
        Ok(self.publish(VirtRange::new(va, size), changed))
    }

    fn set_memory_at_once(&self, va: VirtAddr, size: u64, change: Change) -> Result<Changed, Error> {
        let area = self.claim_around(va)?;
        let start = record::range::<B::Granule>(&area).start;
        // The area is this call's alone meanwhile: what frees it is told that it has an owner.
        let handle = VmArea::adopt(self, area);
        let busy = Busy::adopt(self, handle.area());
        let result = handle
            .pages_at(va.offset_from(start), size)
            .and_then(|range| self.set_memory(handle.area(), range, change));
        drop(busy);
        handle.into_raw();
        result
    }

    /// Takes the raw area around `va`, and makes it busy. Another call may be changing other pages
    /// of it, and has it meanwhile: that is waited for.
    fn claim_around(&self, va: VirtAddr) -> Result<Area, Error> {
        loop {
            let (_, mut held) = self.shard_at(Self::page_of(va)).ok_or(Error::Outside(va))?;
            let page = Self::page_of(va);
            let start = match held.space.find(page) {
                Some(segment) if segment.state.is_live() && segment.contains(page) => {
                    // Not even for a moment: a block of `vm_map_ram` may be about to be freed.
                    if !Head::in_words(&segment.words).kind().owns_frames()
                        && let Some(area) = record::info::<B::Granule>(&segment)
                    {
                        return Err(Error::WrongKind {
                            area,
                            expected: Kind::Vmalloc,
                        });
                    }
                    segment.start()
                }
                _ => page,
            };
            if held
                .space
                .lend(start)
                .is_some_and(|area| Head::of(&area).is_busy())
            {
                drop(held);
                self.backend.relax();
                continue;
            }
            let area = match held.space.claim(start) {
                Ok(area) => area,
                Err(error) => return Err(Self::explain(&held, va, error)),
            };
            record::set_busy(&area, true);
            return Ok(area);
        }
    }

    /// Publishes what was changed in `range`, with no lock held, if it can be executed.
    fn publish(&self, range: VirtRange, changed: Changed) -> Outcome {
        if changed.executable {
            self.backend.publish_instructions(range);
        }
        changed.outcome
    }

    /// Whether pages of `range`, of an area that is busy, are executable that `change` makes so, or
    /// accessible.
    fn makes_executable(&self, range: VirtRange, change: Change) -> Result<bool, Failure> {
        let mut executable = change == Change::Executable(true);
        if change == Change::Valid(true) {
            self.backend.tree().visit(range, |leaf| {
                executable = leaf.attributes.is_executable();
                if executable { Visit::Stop } else { Visit::Continue }
            })?;
        }
        Ok(executable)
    }

    /// Changes `range`, whole pages of `area`.
    fn set_memory(&self, area: &Area, range: VirtRange, change: Change) -> Result<Changed, Error> {
        if !Head::of(area).owns_frames() || !Head::of(area).kind().owns_frames() {
            return Err(match record::info_of_held::<B::Granule>(area) {
                Some(area) => Error::WrongKind {
                    area,
                    expected: Kind::Vmalloc,
                },
                None => Error::NoArea(range.start),
            });
        }
        let first =
            range.start.offset_from(record::range::<B::Granule>(area).start) >> B::Granule::PAGE_SHIFT;
        let pages = first..first + (range.size >> B::Granule::PAGE_SHIFT);
        let _alone = self.linear_map.enter(&self.backend);
        self.backend
            .alone_in_linear_map(|| self.set_memory_alone(area, range, pages, change))
    }

    /// The same, of pages `pages` of the area, while nothing else changes the linear map.
    fn set_memory_alone(
        &self,
        area: &Area,
        range: VirtRange,
        pages: core::ops::Range<u64>,
        change: Change,
    ) -> Result<Changed, Error> {
        let tree = self.backend.tree();
        let executable = self.makes_executable(range, change)?;
        let alias = change.of_alias();
        if alias.is_some() {
            let cut = self.edit_alias(area, pages.clone(), LinearEdit::Split);
            if let Err(failure) = cut {
                self.coalesce_alias(area, pages);
                return Err(failure.into());
            }
        }
        let mut batch = tree.batch();
        let changed = match change {
            Change::Valid(valid) => tree.set_valid(range, valid, &mut batch),
            _ => tree.protect(range, |old| change.of(old), &mut batch),
        };
        batch.flush();
        let outcome = match changed {
            Ok(outcome) => outcome,
            Err(failure) => {
                if alias.is_some() {
                    self.coalesce_alias(area, pages);
                }
                return Err(failure.into());
            }
        };
        if let Some(edit) = alias
            && let Err(failure) = self.edit_alias(area, pages, edit)
        {
            // Its leaves are cut where the range ends, so nothing is left to fail.
            panic!("changing the alias of {range:?}: {failure}");
        }
        record::set_permissions_changed(area);
        Ok(Changed { outcome, executable })
    }

    /// Makes `edit` of the alias of `pages` of `area`. Behind the linear map's gate.
    fn edit_alias(&self, area: &Area, pages: core::ops::Range<u64>, edit: LinearEdit) -> Result<(), Failure> {
        self.for_each_run(area, pages, |pa, size| {
            self.backend.edit_linear_map(pa, size, edit).map(drop)
        })
    }

    /// Folds what cutting the alias of `pages` left in pieces. Behind the linear map's gate.
    ///
    /// Beyond the run itself only leaves that reached over an end of it can have been cut, so what
    /// there is to fold lies around its ends: from each up the ladder, as far as it goes. A leaf
    /// that cannot be made would lie in every larger one, so nothing larger is looked at.
    fn coalesce_alias(&self, area: &Area, pages: core::ops::Range<u64>) {
        let folded = self.for_each_run(area, pages, |pa, size| {
            self.backend.edit_linear_map(pa, size, LinearEdit::Coalesce)?;
            self.fold_around(pa)?;
            self.fold_around(pa.add(size))
        });
        if let Err(failure) = folded {
            panic!("folding the alias of {area:?}: {failure}");
        }
    }

    /// Folds the leaves of the linear map that would reach over `end`.
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

    /// Calls `each` with the physical runs of `pages` of `area`, which owns its frames.
    fn for_each_run(
        &self,
        area: &Area,
        pages: core::ops::Range<u64>,
        mut each: impl FnMut(PhysAddr, u64) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        // Read, not taken over.
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

    /// Makes the alias of `area` what it was before any `set_memory_*`. The area is unmapped and
    /// flushed.
    pub(crate) fn reset_alias(&self, area: &Area) {
        let _alone = self.linear_map.enter(&self.backend);
        self.backend.alone_in_linear_map(|| {
            if let Err(failure) = self.edit_alias(area, 0..area.pages(), LinearEdit::Restore) {
                // Every leaf was cut at the edges of what was changed, and what was not is already
                // as it is to be.
                panic!("restoring the alias of {area:?}: {failure}");
            }
            self.coalesce_alias(area, 0..area.pages());
        });
    }
}
