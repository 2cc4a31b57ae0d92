//! `set_memory_*`: permissions of pages of an area that owns its frames, and of their linear alias,
//! all or nothing.
//!
//! First the linear map is split at the edges of the physical runs and the area is changed, which
//! may fail; then the alias is changed, which cannot. Such an area is freed at once (Linux's
//! `VM_FLUSH_RESET_PERMS`): unmap and flush, restore and fold the alias, free the frames.

use crate::area::VmArea;
use crate::backend::Backend;
use crate::error::Error;
use crate::linear::LinearEdit;
use crate::record::{self, Area, Head, Kind};
use crate::region::Vmalloc;
use crate::sparse::Busy;
use paging::{Attributes, Failure, Granule, Outcome, VirtAddr, VirtRange, Visit};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Change {
    Writable(bool),
    Executable(bool),
    Valid(bool),
}

struct Changed {
    outcome: Outcome,
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

    /// The alias is never executable.
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
            ///
            /// [`Error::Misaligned`], [`Error::Empty`], [`Error::OutOfBounds`];
            /// [`Error::WrongKind`] if it does not own its frames; [`Error::Map`] if a page would
            /// be writable and executable, or a split lacks a table. Nothing has changed then.
            pub fn $name(&self, offset: u64, size: u64) -> Result<Outcome, Error> {
                let range = self.pages_at(offset, size)?;
                let vm = self.vm;
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
            /// `va` is in a raw area.
            ///
            /// # Errors
            ///
            /// As the method of [`VmArea`], and as [`vfree`](Self::vfree) for an address in no such
            /// area.
            ///
            /// # Safety
            ///
            /// A refused address takes no promise. Otherwise the area is the caller's to change,
            /// and its pages are not used in a way that is no longer allowed.
            pub unsafe fn $name(&self, va: VirtAddr, size: u64) -> Result<Outcome, Error> {
                self.set_memory_at(va, size, $change)
            })*
        }
    };
}

set_memory! {
    /// Makes the pages and their linear alias writable.
    set_memory_rw => Change::Writable(true);
    /// Makes the pages, which must be read-only, executable and
    /// [publishes](Backend::publish_instructions) them. A CPU may execute there after a context
    /// synchronisation event.
    set_memory_x => Change::Executable(true);
    /// Makes the pages not executable.
    set_memory_nx => Change::Executable(false);
    /// Makes the pages and their linear alias accessible, and publishes executable ones.
    set_memory_valid => Change::Valid(true);
    /// Makes the pages and their linear alias inaccessible. They keep their frames.
    set_memory_invalid => Change::Valid(false);
    /// Makes the pages and their linear alias read-only. `offset` and `size` are whole pages. All
    /// or nothing. [Waiting](crate#contexts): for other changes of the area's parts and the linear
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
        let handle = VmArea::adopt(self, area);
        let busy = Busy::adopt(self, handle.area());
        let result = handle
            .pages_at(va.offset_from(start), size)
            .and_then(|range| self.set_memory(handle.area(), range, change));
        drop(busy);
        handle.into_raw();
        result
    }

    /// When no other call changes its pages, makes it busy.
    fn claim_around(&self, va: VirtAddr) -> Result<Area, Error> {
        loop {
            let (_, mut held) = self.shard_at(Self::page_of(va)).ok_or(Error::Outside(va))?;
            let page = Self::page_of(va);
            let mut start = page;
            if let Some(area) = held.space.find(page)
                && area.state().is_live()
                && area.contains(page)
            {
                // Not even briefly: a `vm_map_ram` block may be about to be freed.
                if !Head::of(&area).kind().owns_frames() {
                    return Err(Error::wrong_kind::<B::Granule>(&area, Kind::Vmalloc));
                }
                if Head::of(&area).is_busy() {
                    drop(held);
                    self.backend.relax();
                    continue;
                }
                start = area.start();
            }
            let area = match held.space.claim(start) {
                Ok(area) => area,
                Err(error) => return Err(Self::explain(&held, va, error)),
            };
            record::set_busy(&area, true);
            return Ok(area);
        }
    }

    /// Called without locks.
    fn publish(&self, range: VirtRange, changed: Changed) -> Outcome {
        if changed.executable {
            self.backend.publish_instructions(range);
        }
        changed.outcome
    }

    /// Or executable ones accessible.
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

    fn set_memory(&self, area: &Area, range: VirtRange, change: Change) -> Result<Changed, Error> {
        if !Head::of(area).owns_frames() || !Head::of(area).kind().owns_frames() {
            return Err(match record::info::<B::Granule>(area) {
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
        let _alone = self.linear_map.0.enter(&self.backend);
        self.backend
            .alone_in_linear_map(|| self.set_memory_alone(area, range, pages, change))
    }

    /// Inside the linear map's gate.
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
            // Its leaves end where the range does.
            panic!("changing the alias of {range:?}: {failure}");
        }
        record::set_permissions_changed(area);
        Ok(Changed { outcome, executable })
    }
}
