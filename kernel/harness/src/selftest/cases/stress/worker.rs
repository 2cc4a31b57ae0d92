use core::sync::atomic::{AtomicU64, Ordering};

use kernel::mm::{frames, linear_va};
use paging::{Pfn, VirtAddr, VirtRange};
use vmalloc::{AreaInfo, Error, Kind, Request, SpaceError, Vmalloc};

use super::page::{fill, id_at, verify, verify_device};
use super::{DEVICE_SIZE, Finding, RAM_SLOTS, Round, SLOTS, Shared, Subject};
use crate::selftest::by_address::ByAddress;
use crate::selftest::source::PAGE;
use crate::selftest::verify::{is_readable, is_writable};

const MOST_FRAMES: usize = 64;
const ORDERS: [u8; 8] = [0, 0, 0, 1, 2, 3, 4, 5];
const ID_BITS: u32 = 28;

const NO_AREA: &str = "was refused what there is enough for";
const BAD_FREE: &str = "was refused to free an area that is its own";
const NO_CHANGE: &str = "was refused a change of permissions";
const WRONG_PERMISSION: &str = "found a page writable, or valid, against what was set";
const NOT_UNDONE: &str = "found a page changed by a call that failed";
const REUSED: &str = "was given an address whose translation is not flushed";
const NOT_FLUSHED: &str = "came back from a call that flushes, and the translation is not flushed";
const LOST_AREA: &str = "does not find an area that is its own";
const NOT_READ: &str = "was refused to read or to list";

pub struct Worker<'a, S> {
    subject: &'a S,
    shared: &'a Shared,
    round: Round,
    rng: fastrand::Rng,
    next_id: u32,
    frames: [Pfn; MOST_FRAMES],
}

fn lacks(error: &Error) -> bool {
    matches!(
        error,
        Error::OutOfFrames { .. }
            | Error::OutOfNodes
            | Error::OutOfSpace(SpaceError::NoSpace { .. } | SpaceError::NoAlignedSpace { .. })
            | Error::Map(paging::Error::OutOfTables(_))
    )
}

impl<'a, S: Subject> Worker<'a, S> {
    pub fn new(subject: &'a S, shared: &'a Shared, round: Round, cpu: usize) -> Self {
        Self {
            subject,
            shared,
            round,
            rng: fastrand::Rng::with_seed(round.seed ^ (cpu as u64) << 40),
            next_id: 1 + ((cpu as u32) << (ID_BITS - 6)),
            frames: [Pfn(0); MOST_FRAMES],
        }
    }

    fn vm(&self) -> &'a Vmalloc<S::Backend> {
        self.subject.vm()
    }

    /// The address in pages of the region, and a number of [`ID_BITS`].
    fn pack(&self, va: VirtAddr, number: u32) -> u64 {
        (va.offset_from(self.vm().range().start) / PAGE) << ID_BITS | u64::from(number)
    }

    fn unpack(&self, word: u64) -> (VirtAddr, u32) {
        let va = self.vm().range().start.add((word >> ID_BITS) * PAGE);
        (va, (word & ((1 << ID_BITS) - 1)) as u32)
    }

    fn tolerate(&self, what: &'static str, at: u64, error: Error) -> Result<(), Finding> {
        if self.round.scarce && lacks(&error) {
            Ok(())
        } else {
            Err(Finding::refused(what, at, error))
        }
    }

    pub fn operate(&mut self) -> Result<(), Finding> {
        match self.rng.u32(0..16) {
            0 => self.vm().vm_unmap_aliases(),
            1 => self.list()?,
            2 | 3 => self.peek()?,
            4..=6 => return self.map_ram(),
            _ => {}
        }
        let slot = &self.shared.slots[self.rng.usize(0..SLOTS)];
        let word = slot.swap(0, Ordering::AcqRel);
        if word == 0 {
            return match self.make()? {
                Some((va, id)) => self.publish(slot, va, id),
                None => Ok(()),
            };
        }
        let (va, id) = self.unpack(word);
        let area = self.area_at(va)?;
        match (self.rng.u32(0..8), area.kind) {
            (0 | 1, Kind::Vmalloc) if self.round.permissions => self.change(va, id, &area),
            (2 | 3, Kind::Vmalloc) => {
                let va = self.resize(va, id, &area)?;
                self.publish(slot, va, id)
            }
            (4, _) => {
                self.verify(va, id, &area)?;
                self.publish(slot, va, id)
            }
            _ => self.end(va, id),
        }
    }

    /// Frees the one found there.
    fn publish(&mut self, slot: &AtomicU64, va: VirtAddr, id: u32) -> Result<(), Finding> {
        match slot.swap(self.pack(va, id), Ordering::AcqRel) {
            0 => Ok(()),
            other => {
                let (va, id) = self.unpack(other);
                self.end(va, id)
            }
        }
    }

    fn area_at(&self, va: VirtAddr) -> Result<AreaInfo, Finding> {
        let area = self.vm().find_vm_area(va).filter(|area| area.va == va);
        area.ok_or(Finding::new(LOST_AREA, va.0))
    }

    /// Returns `None` if something is lacking.
    fn make(&mut self) -> Result<Option<(VirtAddr, u32)>, Finding> {
        let vm = self.vm();
        let made = match self.rng.u32(0..8) {
            0 => {
                let nr = self.take_frames();
                if nr == 0 {
                    return Ok(None);
                }
                let made = vm.vmap(&self.frames[..nr]);
                if made.is_err() {
                    self.give_frames(nr);
                }
                made
            }
            1 => {
                let pages = if self.rng.u32(0..8) == 0 {
                    self.rng.u64(512..700)
                } else {
                    self.rng.u64(1..40)
                };
                let offset = self.rng.u64(0..DEVICE_SIZE / PAGE - pages) * PAGE;
                vm.ioremap(self.round.device.add(offset), pages * PAGE)
            }
            _ => vm.allocate(&self.request()),
        };
        let area = match made {
            Ok(area) => area,
            // Another CPU may be in the way.
            Err(Error::WouldBlock) => return Ok(None),
            Err(error) => return self.tolerate(NO_AREA, 0, error).map(|()| None),
        };
        let (range, kind) = (area.range(), area.kind());
        let (va, id) = (area.into_raw(), self.next_id);
        self.next_id += 1;
        if self.subject.owes(range) {
            return Err(Finding::new(REUSED, va.0));
        }
        if kind != Kind::Ioremap {
            fill(va, 0..range.size / PAGE, id);
        }
        Ok(Some((va, id)))
    }

    fn request(&mut self) -> Request {
        let pages = match self.rng.u32(0..8) {
            0 => self.rng.u64(1..600),
            1 | 2 => self.rng.u64(1..64),
            _ => self.rng.u64(1..8),
        };
        let request = Request::new(pages * PAGE).aligned(PAGE << self.rng.u32(0..6));
        match self.rng.u32(0..6) {
            0 | 1 => request.huge(),
            2 => request.zeroed(),
            // It can fail even if nothing is scarce.
            3 if self.round.scarce => request.nowait(),
            _ => request,
        }
    }

    /// Returns the number of frames.
    fn take_frames(&mut self) -> usize {
        let wanted = self.rng.usize(1..=MOST_FRAMES);
        let mut nr = 0;
        while nr < wanted {
            let order = ORDERS[self.rng.usize(0..ORDERS.len())].min((wanted - nr).ilog2() as u8);
            let Some(first) = frames::allocate(order) else {
                break;
            };
            if order != 0 {
                frames::split(first, order);
            }
            for frame in first.0..first.0 + (1 << order) {
                self.frames[nr] = Pfn(frame);
                nr += 1;
            }
        }
        nr
    }

    fn give_frames(&self, nr: usize) {
        self.frames[..nr].iter().for_each(|frame| frames::free(*frame, 0));
    }

    fn note_frames(&mut self, va: VirtAddr, pages: u64) -> Result<(), Finding> {
        for page in 0..pages {
            let at = va.add(page * PAGE);
            self.frames[page as usize] = self
                .vm()
                .vmalloc_to_pfn(at)
                .map_err(|error| Finding::refused(LOST_AREA, at.0, error))?;
        }
        Ok(())
    }

    fn verify(&mut self, va: VirtAddr, id: u32, area: &AreaInfo) -> Result<(), Finding> {
        let pages = area.size.div_ceil(PAGE);
        if area.kind != Kind::Ioremap {
            return verify(self.vm(), va, pages, id);
        }
        let device = self.vm().physical_address(va);
        let device = device.ok_or(Finding::new(LOST_AREA, va.0))?;
        verify_device(self.vm(), va, pages, device)
    }

    /// Most likely made by another CPU.
    fn end(&mut self, va: VirtAddr, id: u32) -> Result<(), Finding> {
        let vm = self.vm();
        let area = self.area_at(va)?;
        self.verify(va, id, &area)?;
        let pages = area.size.div_ceil(PAGE);
        if area.kind == Kind::Vmap {
            self.note_frames(va, pages)?;
        }
        // An area that vrealloc made smaller keeps its pages.
        let range = self.mapped_range(va, &area);
        self.subject.owe(range);
        let call = ByAddress::that_ends(area.kind);
        let atomic = call == ByAddress::Vfree && self.rng.u32(0..4) == 0;
        // SAFETY: raw, and in no slot, so that it is this worker's; nothing lies in it.
        let deferred = atomic.then(|| unsafe { vm.vfree_atomic(va) });
        let done = match deferred {
            // SAFETY: as above: it was not taken.
            None | Some(Err(Error::TooManyDeferred { .. })) => unsafe { call.at(vm, va) },
            Some(done) => done,
        };
        done.map_err(|error| Finding::refused(BAD_FREE, va.0, error))?;
        if area.kind == Kind::Vmap {
            if self.round.alone && self.subject.owes(range) {
                return Err(Finding::new(NOT_FLUSHED, va.0));
            }
            self.give_frames(pages as usize);
        }
        Ok(())
    }

    fn mapped_range(&self, va: VirtAddr, area: &AreaInfo) -> VirtRange {
        let mut pages = area.size.div_ceil(PAGE);
        while self
            .vm()
            .find_vm_area(va.add(pages * PAGE))
            .is_some_and(|there| there.va == va)
        {
            pages += 1;
        }
        VirtRange::new(va, pages * PAGE)
    }

    pub fn end_any(&mut self) -> Result<(), Finding> {
        for slot in &self.shared.ram_slots {
            let word = slot.swap(0, Ordering::AcqRel);
            if word != 0 {
                return self.unmap_ram(word);
            }
        }
        for slot in &self.shared.slots {
            let word = slot.swap(0, Ordering::AcqRel);
            if word != 0 {
                let (va, id) = self.unpack(word);
                return self.end(va, id);
            }
        }
        Ok(())
    }

    fn resize(&mut self, va: VirtAddr, id: u32, area: &AreaInfo) -> Result<VirtAddr, Finding> {
        let vm = self.vm();
        let before = area.size.div_ceil(PAGE);
        let pages = self.rng.u64(1..=(2 * before).min(400));
        let present = self.mapped_range(va, area);
        if pages > present.size / PAGE {
            self.subject.owe(present);
        }
        // SAFETY: raw, and in no slot, so that it is this worker's; nothing lies in it.
        let moved = match unsafe { vm.vrealloc(va, pages * PAGE) } {
            Ok(moved) => moved,
            Err(error) => {
                self.tolerate(NO_AREA, va.0, error)?;
                verify(vm, va, before, id)?;
                return Ok(va);
            }
        };
        verify(vm, moved, pages.min(before), id)?;
        fill(moved, 0..pages, id);
        Ok(moved)
    }

    fn change(&mut self, va: VirtAddr, id: u32, area: &AreaInfo) -> Result<(), Finding> {
        let vm = self.vm();
        let pages = area.size.div_ceil(PAGE);
        let first = self.rng.u64(0..pages);
        let nr = self.rng.u64(1..=pages - first);
        let (part, size) = (va.add(first * PAGE), nr * PAGE);
        let refused = |error| Finding::refused(NO_CHANGE, part.0, error);
        self.subject.owe(VirtRange::new(part, size));
        // SAFETY: raw, and in no slot, so that it is this worker's, as for each change below; its
        // accesses are probed.
        if let Err(error) = unsafe { vm.set_memory_ro(part, size) } {
            self.tolerate(NO_CHANGE, part.0, error)?;
            self.is_writable(va, 0..pages, true, NOT_UNDONE)?;
            return self.end(va, id);
        }
        if self.subject.owes(VirtRange::new(part, size)) {
            return Err(Finding::new(NOT_FLUSHED, part.0));
        }
        self.is_writable(va, first..first + nr, false, WRONG_PERMISSION)?;
        self.is_writable(va, 0..first, true, WRONG_PERMISSION)?;
        self.is_writable(va, first + nr..pages, true, WRONG_PERMISSION)?;
        verify(vm, va, pages, id)?;
        match self.rng.u32(0..4) {
            // They are whole leaves by now.
            0 => {
                let aliases = [part.0 as usize, self.alias_of(part)?];
                // SAFETY: as above.
                unsafe { vm.set_memory_invalid(part, size) }.map_err(refused)?;
                if aliases.into_iter().any(is_readable) {
                    return Err(Finding::new(WRONG_PERMISSION, part.0));
                }
                // SAFETY: as above.
                unsafe { vm.set_memory_valid(part, size) }.map_err(refused)?;
            }
            1 => {
                // SAFETY: as above.
                unsafe { vm.set_memory_x(part, size) }.map_err(refused)?;
                // SAFETY: as above.
                unsafe { vm.set_memory_nx(part, size) }.map_err(refused)?;
            }
            2 => {
                // SAFETY: as above.
                unsafe { vm.set_memory_rw(part, size) }.map_err(refused)?;
                self.is_writable(va, 0..pages, true, WRONG_PERMISSION)?;
            }
            _ => {}
        }
        self.end(va, id)
    }

    fn alias_of(&self, va: VirtAddr) -> Result<usize, Finding> {
        let frame = self.vm().vmalloc_to_pfn(va);
        let frame = frame.map_err(|error| Finding::refused(LOST_AREA, va.0, error))?;
        Ok(linear_va(frame.0 * PAGE))
    }

    fn is_writable(
        &self,
        va: VirtAddr,
        pages: core::ops::Range<u64>,
        writable: bool,
        what: &'static str,
    ) -> Result<(), Finding> {
        if pages.is_empty() {
            return Ok(());
        }
        for page in [pages.start, pages.end - 1] {
            let at = va.add(page * PAGE);
            for at in [at.0 as usize, self.alias_of(at)?] {
                if is_writable(at) != writable {
                    return Err(Finding::new(what, at as u64));
                }
            }
        }
        Ok(())
    }

    fn map_ram(&mut self) -> Result<(), Finding> {
        let vm = self.vm();
        let nr = self.take_frames();
        if nr == 0 {
            return Ok(());
        }
        let va = match vm.vm_map_ram(&self.frames[..nr]) {
            Ok(va) => va,
            Err(error) => {
                self.give_frames(nr);
                return self.tolerate(NO_AREA, 0, error);
            }
        };
        if self.subject.owes(VirtRange::new(va, nr as u64 * PAGE)) {
            return Err(Finding::new(REUSED, va.0));
        }
        fill(va, 0..nr as u64, self.next_id);
        self.next_id += 1;
        let slot = &self.shared.ram_slots[self.rng.usize(0..RAM_SLOTS)];
        match slot.swap(self.pack(va, nr as u32), Ordering::AcqRel) {
            0 => Ok(()),
            other => self.unmap_ram(other),
        }
    }

    fn unmap_ram(&mut self, word: u64) -> Result<(), Finding> {
        let vm = self.vm();
        let (va, nr) = self.unpack(word);
        let pages = u64::from(nr);
        verify(vm, va, pages, id_at(va))?;
        self.note_frames(va, pages)?;
        let range = VirtRange::new(va, pages * PAGE);
        self.subject.owe(range);
        // SAFETY: it is in no slot any more, so it is this worker's; nothing lies in it.
        unsafe { vm.vm_unmap_ram(va, pages) }.map_err(|error| Finding::refused(BAD_FREE, va.0, error))?;
        if self.round.alone && self.subject.owes(range) {
            return Err(Finding::new(NOT_FLUSHED, va.0));
        }
        self.give_frames(nr as usize);
        Ok(())
    }

    fn list(&mut self) -> Result<(), Finding> {
        let range = self.vm().range();
        let mut end = range.start;
        let mut found = Ok(());
        self.vm().vmallocinfo(|listing| {
            let area = listing.info.range;
            if area.start < end || area.last() > range.last() {
                found = Err(Finding::new(NOT_READ, area.start.0));
            }
            end = area.end();
        });
        found
    }

    fn peek(&mut self) -> Result<(), Finding> {
        let word = self.shared.slots[self.rng.usize(0..SLOTS)].load(Ordering::Acquire);
        if word == 0 {
            return Ok(());
        }
        let (va, _) = self.unpack(word);
        let at = va.add(self.rng.u64(0..4) * PAGE);
        match self.vm().vmalloc_to_pfn(at) {
            Ok(_) | Err(Error::NotMapped(_) | Error::Outside(_)) => {}
            Err(error) => return Err(Finding::refused(NOT_READ, at.0, error)),
        }
        let mut out = [0; 600];
        match self.vm().vread(at.add(PAGE - 300), &mut out) {
            Ok(read) if read <= out.len() => Ok(()),
            Ok(_) | Err(Error::Outside(_)) => Ok(()),
            Err(error) => Err(Finding::refused(NOT_READ, at.0, error)),
        }
    }
}
