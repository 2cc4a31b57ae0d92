//! Areas are freed by handle or by address: at once (`unmap`), or deferred (`drain`).

use crate::backend::{Backend, Lock};
use crate::error::Error;
use crate::owner::COMMON;
use crate::record::{self, Area, Head, Kind};
use crate::region::{Context, Vmalloc};
use core::panic::Location;
use paging::{Granule, VirtAddr, VirtRange};

impl<B: Backend> Vmalloc<B> {
    #[inline(never)]
    pub(crate) fn free_area(&self, area: Area, range: VirtRange, by: &'static Location<'static>) {
        record::set_freer(&area, by);
        let here = self.drain_some(Context::Waiting);
        let owner = usize::from(area.owner());
        let shard = if owner == here.number {
            here
        } else {
            let shard = self.shards.get(owner);
            // Reads nothing of another CPU's shard.
            let head = Head::of(&area);
            if owner != COMMON && head.can_wait() && self.waits(head) {
                return self.defer_to_owner(shard, area, range.size >> B::Granule::PAGE_SHIFT);
            }
            shard
        };
        self.free_and_flush(shard, shard.state.lock(), area, range);
    }

    /// Frees memory of [`vmalloc`](Self::vmalloc) and its kin, or a stack.
    ///
    /// [Waiting](crate#contexts); elsewhere [`vfree_atomic`](Self::vfree_atomic). Under a lazy
    /// policy the call that reaches the shard's share purges; an area that a `set_memory_*` changed
    /// is flushed at once.
    ///
    /// # Errors
    ///
    /// [`Error::Misaligned`], [`Error::Outside`]; [`Error::Freed`] for a double free, naming the
    /// area and who freed it; [`Error::NoArea`], [`Error::Interior`], [`Error::Guard`],
    /// [`Error::Owned`], [`Error::WrongKind`]. Nothing has changed then.
    ///
    /// # Safety
    ///
    /// A refused address takes no promise. If an area of the right kind was made
    /// [raw](crate::VmArea::into_raw) there:
    ///
    /// 1. it is the caller's to free;
    /// 2. nothing in it is used any more, on any CPU: no reference, stack or code.
    #[track_caller]
    pub unsafe fn vfree(&self, va: VirtAddr) -> Result<(), Error> {
        self.free_at(va, Kind::Vmalloc, None, Location::caller())
    }

    /// Frees a mapping of [`vmap`](Self::vmap) and its kin. [Waiting](crate#contexts), and flushed
    /// on return unless [`ForeignPages::Defer`](crate::ForeignPages::Defer).
    ///
    /// # Errors
    ///
    /// As [`vfree`](Self::vfree).
    ///
    /// # Safety
    ///
    /// As [`vfree`](Self::vfree).
    #[track_caller]
    pub unsafe fn vunmap(&self, va: VirtAddr) -> Result<(), Error> {
        self.free_at(va, Kind::Vmap, None, Location::caller())
    }

    /// Frees a mapping of [`ioremap`](Self::ioremap) and its kin, by any address in its first page.
    ///
    /// # Errors
    ///
    /// As [`vfree`](Self::vfree), in the same contexts.
    ///
    /// # Safety
    ///
    /// As [`vfree`](Self::vfree).
    #[track_caller]
    pub unsafe fn iounmap(&self, va: VirtAddr) -> Result<(), Error> {
        let first = va.align_down(B::Granule::PAGE_SIZE);
        self.free_at(first, Kind::Ioremap, None, Location::caller())
    }

    /// Frees an area of [`get_vm_area`](Self::get_vm_area) and its mappings, as
    /// [`vunmap`](Self::vunmap). Nothing is flushed if nothing was ever mapped.
    ///
    /// # Errors
    ///
    /// As [`vfree`](Self::vfree).
    ///
    /// # Safety
    ///
    /// As [`vfree`](Self::vfree).
    #[track_caller]
    pub unsafe fn free_vm_area(&self, va: VirtAddr) -> Result<(), Error> {
        self.free_at(va, Kind::Reserved, None, Location::caller())
    }

    pub(crate) fn free_at(
        &self,
        va: VirtAddr,
        expected: Kind,
        expected_size: Option<u64>,
        by: &'static Location<'static>,
    ) -> Result<(), Error> {
        let page = self.first_page_at(va)?;
        self.drain_some(Context::Waiting);
        let (shard, mut held) = self.shard_at(page).ok_or(Error::Outside(va))?;
        let area = Self::claim(&mut held, va, expected)?;
        let size = Head::of(&area).size();
        if let Some(expected) = expected_size.filter(|expected| *expected != size) {
            area.entrust();
            return Err(Error::WrongLength { va, size, expected });
        }
        record::set_freer(&area, by);
        let range = record::range::<B::Granule>(&area);
        self.free_and_flush(shard, held, area, range);
        Ok(())
    }

    /// Frees memory of [`vmalloc`](Self::vmalloc) and its kin in any context, also in a handler
    /// that interrupted a lock's holder. Never waits: a later call frees the area
    /// ([`Usage::deferred`](crate::Usage::deferred)).
    ///
    /// # Errors
    ///
    /// [`Error::Misaligned`] and [`Error::Outside`]. If the shard's lock is free, those of
    /// [`vfree`](Self::vfree). If it is taken, [`Error::TooManyDeferred`] when
    /// [`MAX_DEFERRED_ADDRESSES`](crate::MAX_DEFERRED_ADDRESSES) wait; a wrong or repeated address
    /// goes to [`Backend::deferred_free_refused`] later. Nothing has changed after an error.
    ///
    /// # Safety
    ///
    /// As [`vfree`](Self::vfree).
    #[track_caller]
    pub unsafe fn vfree_atomic(&self, va: VirtAddr) -> Result<(), Error> {
        let by = Location::caller();
        let page = self.first_page_at(va)?;
        let Some((shard, mut held)) = self.try_shard_at(page) else {
            self.addresses.push(va, by)?;
            self.put_off_shared();
            self.backend.deferred_work();
            return Ok(());
        };
        let mut area = Self::claim(&mut held, va, Kind::Vmalloc)?;
        record::set_freer(&area, by);
        area.retire();
        drop(held);
        self.defer_to_next_call(shard, area);
        Ok(())
    }
}
