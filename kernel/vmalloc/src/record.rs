//! What is kept with each area, in six words.
//!
//! ```text
//!   word 0   kind 2:0, permissions changed or pages mapped 3, ready 4, blocks 7:5, size in bytes
//!            61:8, busy 62, device 63
//!   word 1   caller that freed it, or 0 (a `Location`)
//!   word 2   caller that made it
//!   word 3.. ioremap: physical address; map_ram: bits of pages in use, of first and of last pages;
//!            memory of its own: up to three blocks (`frames`) in bits 47:0; in bits 63:48, from
//!            the lowest up, a fourth or the first page of a list
//! ```
//!
//! The number of blocks in word 0 is up to 4, or 4 more than those before a list.

use crate::va;
use core::panic::Location;
use paging::{Granule, PhysAddr, VirtAddr, VirtRange};

pub(crate) const WORDS: usize = 6;
pub(crate) const INLINE_BLOCKS: usize = 4;

const KIND_AND_SIZE: usize = 0;
const FREER: usize = 1;
const CALLER: usize = 2;
const PHYSICAL: usize = 3;
const BLOCKS: usize = 3;
/// Of three.
pub(crate) const MAP_RAM: usize = 3;
pub(crate) const BLOCK_BITS: u32 = 48;
const BLOCK_MASK: u64 = (1 << BLOCK_BITS) - 1;
/// Of the last block, above each of the others.
const PART_BITS: u32 = u64::BITS - BLOCK_BITS;

/// Of a reserved area: pages were mapped.
const PERMISSIONS_CHANGED: u64 = 1 << 3;
const READY: u64 = 1 << 4;
const NR_SHIFT: u32 = 5;
const SIZE_SHIFT: u32 = 8;
/// Without RAM.
const DEVICE: u64 = 1 << 63;
/// A call is changing parts. Written under the shard's lock.
const BUSY: u64 = 1 << 62;
const ABOVE: u64 = DEVICE | BUSY;

pub(crate) type Area = va::Area<WORDS>;
pub(crate) type List = va::List<WORDS>;

/// The kind of an area, which decides the call that frees it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Kind {
    /// Own memory: `vmalloc`, `vfree`.
    Vmalloc,
    /// A caller's pages: `vmap`, `vunmap`.
    Vmap,
    /// A physical range: `ioremap`, `iounmap`.
    Ioremap,
    /// Addresses, mapped in places: `get_vm_area`, `free_vm_area`.
    Reserved,
    /// A stack with guard pages.
    Stack,
    /// A block of `vm_map_ram`.
    MapRam,
}

impl Kind {
    const fn from_word(word: u64) -> Self {
        match word & 0b111 {
            0 => Self::Vmalloc,
            1 => Self::Vmap,
            2 => Self::Ioremap,
            3 => Self::Reserved,
            4 => Self::Stack,
            _ => Self::MapRam,
        }
    }

    /// Whether frames are freed with the area.
    #[must_use]
    pub const fn owns_frames(self) -> bool {
        matches!(self, Self::Vmalloc | Self::Stack)
    }
}

/// An area, for callers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AreaInfo {
    /// With the offset of a physical range.
    pub va: VirtAddr,
    /// Bytes that were asked for.
    pub size: u64,
    /// The pages, without guards.
    pub range: VirtRange,
    /// What it is for.
    pub kind: Kind,
    /// That made it.
    pub caller: &'static Location<'static>,
}

/// An area that was freed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Freed {
    /// The area.
    pub area: AreaInfo,
    /// The caller.
    pub by: &'static Location<'static>,
}

/// Read once.
#[derive(Clone, Copy)]
pub(crate) struct Head(u64);

impl Head {
    #[inline(always)]
    pub fn of(area: &Area) -> Self {
        Self(area.word(KIND_AND_SIZE))
    }

    #[inline(always)]
    const fn is(self, kind: Kind) -> bool {
        self.0 & 0b111 == kind as u64
    }

    #[inline(always)]
    const fn nr_blocks(self) -> u64 {
        self.0 >> NR_SHIFT & 0b111
    }

    #[inline(always)]
    pub const fn owns_frames(self) -> bool {
        self.nr_blocks() != 0
    }

    /// Whether nothing reuses what the area maps before its flush: its own frames are freed later,
    /// and a device stays. Others are a caller's frames, RAM of `ioremap_cache` included.
    #[inline(always)]
    pub const fn can_wait(self) -> bool {
        self.owns_frames() || self.0 & DEVICE != 0
    }

    #[inline(always)]
    pub const fn kind(self) -> Kind {
        Kind::from_word(self.0)
    }

    #[inline(always)]
    pub const fn size(self) -> u64 {
        (self.0 & !ABOVE) >> SIZE_SHIFT
    }

    pub const fn is_ready(self) -> bool {
        self.0 & READY != 0
    }

    pub const fn is_busy(self) -> bool {
        self.0 & BUSY != 0
    }

    /// Whether pages or their alias may differ from the first mapping.
    #[inline(always)]
    pub const fn permissions_changed(self) -> bool {
        self.0 & PERMISSIONS_CHANGED != 0 && !self.is(Kind::Reserved)
    }

    #[inline(always)]
    pub const fn may_be_mapped(self) -> bool {
        !self.is(Kind::Reserved) || self.0 & PERMISSIONS_CHANGED != 0
    }

    #[inline(always)]
    pub const fn may_have_holes(self) -> bool {
        self.is(Kind::Reserved)
    }

    #[inline(always)]
    pub fn one_block(self, area: &Area) -> Option<u64> {
        (self.nr_blocks() == 1).then(|| area.word(BLOCKS))
    }
}

/// Of a reserved area, that pages may be mapped.
pub(crate) fn set_permissions_changed(area: &Area) {
    area.set_word(KIND_AND_SIZE, area.word(KIND_AND_SIZE) | PERMISSIONS_CHANGED);
}

pub(crate) fn set_busy(area: &Area, busy: bool) {
    let rest = area.word(KIND_AND_SIZE) & !BUSY;
    area.set_word(KIND_AND_SIZE, if busy { rest | BUSY } else { rest });
}

#[inline(always)]
fn word_of(location: &'static Location<'static>) -> u64 {
    core::ptr::from_ref(location).expose_provenance() as u64
}

/// `word` is 0 or from [`word_of`].
fn location_of(word: u64) -> Option<&'static Location<'static>> {
    let pointer = core::ptr::with_exposed_provenance::<Location<'static>>(word as usize);
    // SAFETY: null, or a `&'static Location` by `word_of`.
    unsafe { pointer.as_ref() }
}

#[inline(always)]
pub(crate) fn new(kind: Kind, size: u64, caller: &'static Location<'static>) -> [u64; WORDS] {
    let mut words = [0; WORDS];
    words[KIND_AND_SIZE] = kind as u64 | size << SIZE_SHIFT;
    words[CALLER] = word_of(caller);
    words
}

/// Its first word is still that of `words`.
#[inline(always)]
pub(crate) fn set_ready(area: &Area, words: &[u64; WORDS]) {
    area.set_word(KIND_AND_SIZE, words[KIND_AND_SIZE] | READY);
}

#[inline(always)]
pub(crate) const fn set_one_block(words: &mut [u64; WORDS], block: u64) {
    words[KIND_AND_SIZE] |= 1 << NR_SHIFT;
    words[BLOCKS] = block;
}

/// It fits the area's pages.
pub(crate) fn set_size(area: &Area, size: u64) {
    let flags = area.word(KIND_AND_SIZE) & (ABOVE | ((1 << SIZE_SHIFT) - 1));
    area.set_word(KIND_AND_SIZE, flags | size << SIZE_SHIFT);
}

pub(crate) fn clear_blocks(area: &Area) {
    area.set_word(KIND_AND_SIZE, area.word(KIND_AND_SIZE) & !(0b111 << NR_SHIFT));
}

#[inline(always)]
pub(crate) fn set_freer(area: &Area, by: &'static Location<'static>) {
    area.set_word(FREER, word_of(by));
}

/// And whether its pages have RAM.
pub(crate) fn set_physical(words: &mut [u64; WORDS], pa: PhysAddr, ram: bool) {
    words[PHYSICAL] = pa.0;
    if !ram {
        words[KIND_AND_SIZE] |= DEVICE;
    }
}

pub(crate) fn physical(area: &Area) -> Option<PhysAddr> {
    Head::of(area)
        .is(Kind::Ioremap)
        .then(|| PhysAddr(area.word(PHYSICAL)))
}

/// The area has none yet; `list` is 0 or the first page.
///
/// # Panics
///
/// If there is a list, and not one to three blocks before it.
pub(crate) fn set_blocks(area: &Area, inline: &[u64], list: u64) {
    let mut nr = inline.len();
    let block = |i| inline.get(i).copied().unwrap_or(0);
    let mut last = block(INLINE_BLOCKS - 1);
    if list != 0 {
        assert!((1..INLINE_BLOCKS).contains(&nr), "{nr} blocks before a list");
        last = list;
        nr += INLINE_BLOCKS;
    }
    for i in 0..INLINE_BLOCKS - 1 {
        area.set_word(BLOCKS + i, block(i) | last << BLOCK_BITS);
        last >>= PART_BITS;
    }
    area.set_word(KIND_AND_SIZE, area.word(KIND_AND_SIZE) | (nr as u64) << NR_SHIFT);
}

/// Inline ones, their number, and the first page of the list, or 0.
pub(crate) fn blocks(area: &Area) -> ([u64; INLINE_BLOCKS], usize, u64) {
    let nr = Head::of(area).nr_blocks() as usize;
    let mut inline = [0; INLINE_BLOCKS];
    let mut last = 0;
    for (i, block) in inline[..INLINE_BLOCKS - 1].iter_mut().enumerate() {
        let word = area.word(BLOCKS + i);
        *block = word & BLOCK_MASK;
        last |= word >> BLOCK_BITS << (PART_BITS * i as u32);
    }
    if nr > INLINE_BLOCKS {
        return (inline, nr - INLINE_BLOCKS, last);
    }
    inline[INLINE_BLOCKS - 1] = last;
    (inline, nr, 0)
}

/// What tells of an area, also when its pages are free again.
#[derive(Clone, Copy)]
pub(crate) struct Facts {
    pub range: VirtRange,
    words: [u64; PHYSICAL + 1],
}

impl Facts {
    pub const NONE: Self = Self {
        range: VirtRange::new(VirtAddr(0), 0),
        words: [0; PHYSICAL + 1],
    };

    #[inline(always)]
    pub fn of<G: Granule>(area: &Area) -> Self {
        Self {
            range: range::<G>(area),
            words: core::array::from_fn(|i| area.word(i)),
        }
    }

    #[inline(always)]
    pub const fn know_the_freer(&self) -> bool {
        self.words[FREER] != 0
    }

    pub fn info<G: Granule>(&self) -> Option<AreaInfo> {
        let head = Head(self.words[KIND_AND_SIZE]);
        let offset = if head.is(Kind::Ioremap) {
            self.words[PHYSICAL] & (G::PAGE_SIZE - 1)
        } else {
            0
        };
        Some(AreaInfo {
            va: self.range.start.add(offset),
            size: head.size(),
            range: self.range,
            kind: head.kind(),
            caller: location_of(self.words[CALLER])?,
        })
    }

    pub fn freed<G: Granule>(&self) -> Option<Freed> {
        let by = location_of(self.words[FREER])?;
        let area = self.info::<G>()?;
        Some(Freed { area, by })
    }
}

pub(crate) fn info<G: Granule>(area: &Area) -> Option<AreaInfo> {
    Facts::of::<G>(area).info::<G>()
}

#[inline(always)]
pub(crate) fn range<G: Granule>(area: &Area) -> VirtRange {
    let (start, pages) = area.body();
    VirtRange::new(VirtAddr(start.0 << G::PAGE_SHIFT), pages << G::PAGE_SHIFT)
}
