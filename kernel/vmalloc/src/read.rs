//! What areas hold: `vread`, which copies it, and `vmallocinfo`, which lists it.

use crate::backend::{Backend, Lock, WalkLock};
use crate::error::Error;
use crate::record::{self, AreaInfo, Head, Kind};
use crate::state::Vmalloc;
use crate::va::{Life, Vpn};
use core::fmt;
use core::sync::atomic::{Ordering, fence};
use paging::{Granule, LeafCounts, LeafSize, PhysAddr, VirtAddr, VirtRange, Visit};

/// An area as [`Vmalloc::vmallocinfo`] lists it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AreaListing {
    /// Where it is, what for, and who made it.
    pub info: AreaInfo,
    /// Where an ioremap begins in physical memory.
    pub physical: Option<PhysAddr>,
    /// Leaves that map it, by size.
    pub leaves: LeafCounts,
    /// Leaves that `set_memory_invalid` took the access from.
    pub invalid: u32,
    /// Its frames are its own.
    pub owns_frames: bool,
    /// A `set_memory_*` changed it.
    pub permissions_changed: bool,
}

impl fmt::Display for AreaListing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let info = &self.info;
        let range = info.range;
        write!(
            f,
            "{}-{} {:>10} {:?} {}",
            range.start,
            range.end(),
            info.size,
            info.kind,
            info.caller
        )?;
        if info.va != range.start {
            write!(f, " va={}", info.va)?;
        }
        if let Some(pa) = self.physical {
            write!(f, " phys={pa}")?;
        }
        for size in LeafSize::ALL {
            match self.leaves.get(size) {
                0 => {}
                nr => write!(f, " {size:?}={nr}")?,
            }
        }
        for (set, name) in [
            (self.invalid != 0, " invalid"),
            (self.owns_frames, " owned"),
            (self.permissions_changed, " reset-perms"),
        ] {
            if set {
                f.write_str(name)?;
            }
        }
        Ok(())
    }
}

/// Looked at with the walk lock held once.
const STEP: u64 = 32 << 20;

impl<B: Backend> Vmalloc<B> {
    /// Calls `each` for every area in use, in the order of addresses. No lock is held between one area and the next, nor in
    /// `each`: what comes and goes meanwhile is listed or not.
    ///
    /// [Waiting](crate#contexts): for the state lock, and shares the walk lock, a step at a time.
    pub fn vmallocinfo(&self, mut each: impl FnMut(&AreaListing)) {
        let mut from = self.range().start;
        while let Some(listing) = self.listing_from(from) {
            each(&listing);
            from = listing.info.range.end();
        }
    }

    fn listing_from(&self, from: VirtAddr) -> Option<AreaListing> {
        if !self.range().contains(from) {
            return None;
        }
        let page = Vpn(from.0 >> B::Granule::PAGE_SHIFT);
        let state = self.state.lock();
        let segment = state.space.segments_from(page).find(|segment| {
            // Not the one whose guard this may be.
            let begins = segment.first.0 + u64::from(segment.lead) >= page.0;
            begins && segment.state.is_live() && record::is_ready(&segment.words)
        })?;
        drop(state);
        let info = record::info::<B::Granule>(&segment)?;
        let (leaves, invalid) = self.count_leaves(info.range);
        Some(AreaListing {
            info,
            physical: record::physical(&segment.words),
            leaves,
            invalid,
            owns_frames: Head::in_words(&segment.words).owns_frames(),
            permissions_changed: Head::in_words(&segment.words).permissions_changed(),
        })
    }

    fn count_leaves(&self, range: VirtRange) -> (LeafCounts, u32) {
        let (mut leaves, mut invalid) = (LeafCounts::default(), 0);
        let mut done = 0;
        while done < range.size {
            let size = STEP.min(range.size - done);
            let part = VirtRange::new(range.start.add(done), size);
            let _walk = self.backend.walks().walk();
            let visited = self.backend.tree().visit(part, |leaf| {
                // One that begins before this part was counted with the part before.
                if part.contains(leaf.va) {
                    leaves.add(leaf.size, 1);
                    invalid += u32::from(!leaf.valid);
                }
                Visit::Continue
            });
            if visited.is_err() {
                break;
            }
            done += size;
        }
        (leaves, invalid)
    }

    /// Copies from `va` on into `out`, whatever is there: memory as it is, zeros for holes, guards, device memory and sparse areas.
    /// Gives the number of bytes that were memory.
    ///
    /// Safe beside anything that others do: what is given back while it is read is read as zeros, and never as what came
    /// after it.
    ///
    /// [Waiting](crate#contexts): for the state lock, and shares the walk lock, for each page; all walks are kept out for one that
    /// [`vm_map_ram`](Self::vm_map_ram) mapped.
    ///
    /// # Errors
    /// [`Error::Outside`] if `out` does not lie in the region whole.
    pub fn vread(&self, va: VirtAddr, out: &mut [u8]) -> Result<usize, Error> {
        let size = out.len() as u64;
        let offset = va.offset_from(self.range().start);
        if offset > self.range().size || size > self.range().size - offset {
            return Err(Error::Outside(va));
        }
        let page = B::Granule::PAGE_SIZE;
        let mut copied = 0;
        let mut va = va;
        let mut out = out;
        while !out.is_empty() {
            let nr = (page - (va.0 & (page - 1))).min(out.len() as u64) as usize;
            let (part, rest) = out.split_at_mut(nr);
            if self.read_page(va, part) {
                copied += nr;
            } else {
                part.fill(0);
            }
            va = va.add(nr as u64);
            out = rest;
        }
        Ok(copied)
    }

    /// Reads a part of one page, if it is memory of an area in use before and after.
    fn read_page(&self, va: VirtAddr, out: &mut [u8]) -> bool {
        let Some((before, kind)) = self.readable_at(va) else {
            return false;
        };
        let copied = if kind == Kind::MapRam {
            self.read_short_mapping(va, out)
        } else {
            // Held while it is read: nobody takes the linear map's leaf away meanwhile.
            let _walk = self.backend.walks().walk();
            self.read_mapped(va, out)
        };
        if !copied {
            return false;
        }
        // The frame may have been freed and used again while it was read. An area is dead before its frames are free, and never lives again:
        // the same one alive, before and after, means that the frame was its own all along.
        fence(Ordering::Acquire);
        self.readable_at(va) == Some((before, kind))
    }

    /// Reads a part of one page of a block of `vm_map_ram`, if it is mapped. The block outlives its mappings, so that it is alive says nothing of
    /// them; but who ends one takes it out with the walk lock shared, before its pages are his again, and here that is held alone.
    #[cold]
    fn read_short_mapping(&self, va: VirtAddr, out: &mut [u8]) -> bool {
        // Most of a block is not mapped, which is no reason to keep anybody out.
        self.translate(va).is_some() && {
            let _release = self.backend.walks().release();
            self.read_mapped(va, out)
        }
    }

    /// Reads what `va` is mapped to, if that is RAM. The walk lock is held.
    fn read_mapped(&self, va: VirtAddr, out: &mut [u8]) -> bool {
        let Some(leaf) = self.backend.tree().translate(va) else {
            return false;
        };
        let pa = leaf.translate(va);
        let page = B::Granule::PAGE_SIZE;
        self.backend.is_ram(pa.align_down(page), page) && self.backend.read_memory(pa, out)
    }

    /// Which area of memory in use `va` is in, and of which kind that is.
    fn readable_at(&self, va: VirtAddr) -> Option<(Life, Kind)> {
        let page = Vpn(va.0 >> B::Granule::PAGE_SHIFT);
        let segment = self.state.lock().space.find(page)?;
        let live = segment.state.is_live() && segment.contains(page) && record::is_ready(&segment.words);
        let kind = record::kind_of(&segment.words);
        let memory = !matches!(kind, Kind::Ioremap | Kind::Reserved);
        (live && memory).then_some((segment.life, kind))
    }
}
