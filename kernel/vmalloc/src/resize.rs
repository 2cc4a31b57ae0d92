//! `vrealloc` copies no page.

use crate::area::VmArea;
use crate::backend::Backend;
use crate::error::Error;
use crate::frames::Blocks;
use crate::map::Place;
use crate::record::{self, Head, Kind};
use crate::region::{Context, Vmalloc};
use crate::va::Fit;
use core::mem::ManuallyDrop;
use core::panic::Location;
use paging::{Granule, LeafSize, VirtAddr};

impl<B: Backend> VmArea<'_, B> {
    /// Changes the size of `vmalloc` memory. What fits its pages stays; otherwise the area moves to
    /// another address, with the same frames and attributes. The old addresses are unmapped and
    /// flushed on return. [Waiting](crate#contexts).
    ///
    /// # Errors
    ///
    /// [`Error::WrongKind`] for anything but `vmalloc`; [`Error::PermissionsChanged`] if it must
    /// move and a `set_memory_*` changed it; else as [`Vmalloc::vmalloc`]. The area is unchanged.
    #[track_caller]
    pub fn vrealloc(&mut self, size: u64) -> Result<(), Error> {
        let caller = Location::caller();
        let vm = self.vm;
        if self.kind() != Kind::Vmalloc {
            return Err(Error::WrongKind {
                area: self.info(),
                expected: Kind::Vmalloc,
            });
        }
        let (pages, page) = vm.pages_and_align(size, 1)?;
        vm.size_of_ram_pages(pages)?;
        let present = self.range().size >> B::Granule::PAGE_SHIFT;
        if pages <= present {
            record::set_size(self.area(), size);
            return Ok(());
        }
        if Head::of(self.area()).permissions_changed() {
            return Err(Error::PermissionsChanged(self.info()));
        }
        let leaf = vm.backend.tree().translate(self.range().start);
        let attributes = leaf.ok_or(Error::NotMapped(self.range().start))?.attributes;
        let block2 = LeafSize::BLOCK2.bytes::<B::Granule>() >> B::Granule::PAGE_SHIFT;
        let max_order = vm.backend.max_order().min(block2.ilog2());
        let extra = vm.frames(pages - present, max_order, false, Context::Waiting)?;
        let old = ManuallyDrop::new(Blocks::of_area(&vm.backend, self.area()));
        // Owns no frames yet: a failure frees the list, and `extra` the new frames.
        let joined = vm.under_pressure(|| Blocks::joined(&old, &extra))?;
        let words = record::new(Kind::Vmalloc, size, caller);
        let mut source = joined.source(pages);
        let place = Place {
            fit: Fit::new(pages),
            phase: vm.phase_of(&mut source, || joined.source(pages)),
            align: page,
        };
        let new = vm.map_new(place, &mut source, attributes, &words, 0, Context::Waiting)?;
        joined.hand_to(new.area());
        drop(ManuallyDrop::into_inner(old).without_frames());
        drop(extra.without_frames());
        // Without its own frames it is flushed at once.
        record::clear_blocks(self.area());
        core::mem::replace(self, new).free_for(caller);
        Ok(())
    }
}

impl<B: Backend> Vmalloc<B> {
    /// As [`VmArea::vrealloc`] for a raw area. Returns its address.
    ///
    /// # Errors
    ///
    /// As [`VmArea::vrealloc`], and as [`vfree`](Self::vfree) for an address where no raw area
    /// begins. The area is unchanged.
    ///
    /// # Safety
    ///
    /// As [`vfree`](Self::vfree) if it moves.
    #[track_caller]
    pub unsafe fn vrealloc(&self, va: VirtAddr, size: u64) -> Result<VirtAddr, Error> {
        if !va.is_aligned(B::Granule::PAGE_SIZE) {
            return Err(Error::Misaligned(va));
        }
        if !self.is_vmalloc_addr(va) {
            return Err(Error::Outside(va));
        }
        let (_, mut held) = self.shard_at(Self::page_of(va)).ok_or(Error::Outside(va))?;
        let area = Self::claim(&mut held, va, Kind::Vmalloc)?;
        drop(held);
        let mut area = VmArea::adopt(self, area);
        let result = area.vrealloc(size);
        let va = area.into_raw();
        result.map(|()| va)
    }
}
