//! `vread` copies what areas hold; `vmallocinfo` lists them.

use crate::backend::Backend;
use crate::error::Error;
use crate::record::{self, AreaInfo, Head, Kind};
use crate::region::Vmalloc;
use core::fmt;
use paging::{Granule, LAST_LEVEL, LeafCounts, LeafSize, PhysAddr, VirtAddr, VirtRange, Visit};

/// An area, for [`Vmalloc::vmallocinfo`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AreaListing {
    /// The area.
    pub info: AreaInfo,
    /// Where an ioremap begins.
    pub physical: Option<PhysAddr>,
    /// Leaves by size.
    pub leaves: LeafCounts,
    /// That `set_memory_invalid` made inaccessible.
    pub invalid: u32,
    /// It owns its frames.
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
    /// Calls `each` for every area in use, by address, without a lock: areas that come and go may
    /// be missed. Waits for each shard's lock in turn.
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
        let mut listing = self.next_area(page, |area| {
            if area.start() < page {
                return None;
            }
            let head = Head::of(area);
            Some(AreaListing {
                info: record::info::<B::Granule>(area)?,
                physical: record::physical(area),
                leaves: LeafCounts::default(),
                invalid: 0,
                owns_frames: head.owns_frames(),
                permissions_changed: head.permissions_changed(),
            })
        })?;
        self.count_leaves(&mut listing);
        Some(listing)
    }

    /// One span per hold of the lock; missing tables are skipped whole.
    fn count_leaves(&self, listing: &mut AreaListing) {
        let info = listing.info;
        let mut at = info.range.start;
        while info.range.contains(at) {
            let left = info.range.end().offset_from(at);
            let step = self.look_at(at, |area| {
                if record::info::<B::Granule>(area) != Some(info) {
                    return None;
                }
                let tree = self.backend.tree();
                let vacant = tree.walk(at).ok().filter(|walk| walk.leaf.is_none());
                let level = vacant.map_or(LAST_LEVEL - 1, |walk| walk.level().min(LAST_LEVEL - 1));
                let span = B::Granule::size(level);
                let step = (span - (at.0 & (span - 1))).min(left);
                let part = VirtRange::new(at, step.min(B::Granule::size(LAST_LEVEL - 1)));
                if level == LAST_LEVEL - 1 {
                    let visited = tree.visit(part, |leaf| {
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

    /// Copies from `va` into `out`: memory as it is, zeros for holes, guards, devices and sparse
    /// areas. Returns the bytes that were memory. What is freed meanwhile reads as zeros, never as
    /// its next contents. Holds the shard's lock while a page is copied.
    ///
    /// # Errors
    ///
    /// [`Error::Outside`] if `out` is not within the region.
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

    /// The page stays memory under the shard's lock: areas are retired, and `vm_map_ram` mappings
    /// unmapped, under it before their frames are freed.
    fn read_page(&self, va: VirtAddr, out: &mut [u8]) -> bool {
        let read = self.look_at_leaf(va, |area, leaf| {
            let kind = Head::of(area).kind();
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
