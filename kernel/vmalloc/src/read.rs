//! What areas hold: `vread`, which copies it, and `vmallocinfo`, which lists it.

use crate::backend::Backend;
use crate::error::Error;
use crate::record::{self, AreaInfo, Head, Kind};
use crate::region::Vmalloc;
use core::fmt;
use paging::{Granule, LAST_LEVEL, LeafCounts, LeafSize, PhysAddr, VirtAddr, VirtRange, Visit};

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

impl<B: Backend> Vmalloc<B> {
    /// Calls `each` for every area in use, in the order of addresses. No lock is held between one
    /// area and the next, nor in `each`: what comes and goes meanwhile is listed or not.
    ///
    /// Waits for each shard's lock in turn, and holds that of an area for one span of it at a time.
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
        let page = Self::page_of(from);
        let mut listing = self.next_segment(page, |segment| {
            // Not the one whose guard this may be.
            if segment.start() < page {
                return None;
            }
            let head = Head::in_words(&segment.words);
            Some(AreaListing {
                info: record::info::<B::Granule>(segment)?,
                physical: record::physical(&segment.words),
                leaves: LeafCounts::default(),
                invalid: 0,
                owns_frames: head.owns_frames(),
                permissions_changed: head.permissions_changed(),
            })
        })?;
        self.count_leaves(&mut listing);
        Some(listing)
    }

    /// Counts the leaves of an area, as long as it is in use: a span under one hold of its shard's
    /// lock. Where no table is, nothing is looked at for as much as that table would translate.
    fn count_leaves(&self, listing: &mut AreaListing) {
        let info = listing.info;
        let mut at = info.range.start;
        while info.range.contains(at) {
            let left = info.range.end().offset_from(at);
            let step = self.look_at(at, |segment| {
                if record::info::<B::Granule>(segment) != Some(info) {
                    return None;
                }
                let tree = self.backend.tree();
                let vacant = tree.walk(at).ok().filter(|walk| walk.leaf.is_none());
                // A table of this level is missing: nothing is mapped up to where the next one
                // would begin.
                let level = vacant.map_or(LAST_LEVEL - 1, |walk| walk.level().min(LAST_LEVEL - 1));
                let span = B::Granule::size(level);
                let step = (span - (at.0 & (span - 1))).min(left);
                let part = VirtRange::new(at, step.min(B::Granule::size(LAST_LEVEL - 1)));
                if level == LAST_LEVEL - 1 {
                    let visited = tree.visit(part, |leaf| {
                        // One that begins before this part was counted with the part before.
                        if part.contains(leaf.va) {
                            listing.leaves.add(leaf.size, 1);
                            listing.invalid += u32::from(!leaf.valid);
                        }
                        Visit::Continue
                    });
                    visited.ok()?;
                }
                Some(step)
            });
            let Some(step) = step else {
                return;
            };
            at = at.add(step);
        }
    }

    /// Copies from `va` on into `out`: memory as it is, zeros for holes, guards, device memory and
    /// sparse areas. Gives the number of bytes that were memory.
    ///
    /// Safe beside anything that others do: what is freed while it is read is read as zeros,
    /// and never as what came after it.
    ///
    /// Waits for the lock of the shard that has the address, and holds it while a page is copied.
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

    /// Reads a part of one page, if it is memory of an area in use. It stays so as long as its
    /// shard's lock is held: an area is retired, and a mapping of `vm_map_ram` unmapped, under that
    /// lock, before the frame is free. So is a page of an area whose permissions change; but if it
    /// is made invalid meanwhile, its alias may be so before it is read, which is a page that
    /// cannot be read.
    fn read_page(&self, va: VirtAddr, out: &mut [u8]) -> bool {
        let read = self.look_at_leaf(va, |segment, leaf| {
            let kind = Head::in_words(&segment.words).kind();
            if matches!(kind, Kind::Ioremap | Kind::Reserved) {
                return None;
            }
            let pa = leaf.translate(va);
            let page = B::Granule::PAGE_SIZE;
            let memory = self.backend.is_ram(pa.align_down(page), page);
            (memory && self.backend.read_memory(pa, out)).then_some(())
        });
        read.is_some()
    }
}
