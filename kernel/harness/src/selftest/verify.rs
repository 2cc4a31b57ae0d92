//! Checks each page of a mapping by oracles that must agree, as the emulator uses a wrong page
//! without complaint: `Tree::translate`, the descriptors as read here, PAR_EL1 after `AT`, and data
//! written by one alias and read by the other. An unmapped page must fault at one level for all.

use core::ptr;

use kernel::arch::mmu::{self, Access, Translation};
use kernel::arch::probe::{probe_read, probe_write};
use kernel::arch::syndrome::FaultStatus;
use kernel::layout::{self, PAGE_SHIFT};
use kernel::mm::{linear_va, walk_lock};
use paging::descriptor::{ADDRESS, CONTIGUOUS};
use paging::{Attributes, Descriptor, Granule, Leaf, MemoryType, PhysAddr, VirtAddr};

use super::failure::{Alias, Failure, Oracle, PageDefect, go_on};
use super::live::TestTree;
use super::source::{BLOCK_GROUP, GROUP, PAGE};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Expected {
    pub pa: PhysAddr,
    pub attributes: Attributes,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Memory {
    Owned(u64),
    Untouched,
}

/// Of more, one in 512 is probed.
const MOST_PROBES: u64 = 4096;
/// Of more, one in 64 is looked up.
const MOST_VACANT: u64 = 1 << 18;

const INDEX_BITS: u32 = PAGE_SHIFT - 3;
const VA_BITS: u32 = layout::Granule::VA_BITS;
const ROOT_LEVEL: i8 = 4 - (VA_BITS - PAGE_SHIFT).div_ceil(INDEX_BITS) as i8;

/// Arm ARM D8.3.1: 52 bits have two more where SH is otherwise, with FEAT_LPA2, or four below the
/// page with pages of 64 KiB.
const fn address(found: Descriptor) -> u64 {
    match (layout::Granule::PA_BITS, PAGE_SHIFT) {
        (48, _) => found.0 & ADDRESS,
        (_, 16) => found.0 & 0xffff_ffff_0000 | (found.0 >> 12 & 0xf) << 48,
        _ => found.0 & 0x0003_ffff_ffff_f000 | (found.0 >> 8 & 3) << 50,
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RawWalk {
    pub level: i8,
    pub table: PhysAddr,
    pub index: usize,
    pub descriptor: Descriptor,
}

fn read_descriptor(table: PhysAddr, index: usize) -> Descriptor {
    let at = linear_va(table.0) as *const u64;
    // SAFETY: tables lie in RAM, so in the linear map; the index is within a table; all only read.
    Descriptor(unsafe { ptr::read_volatile(at.add(index & ((1 << INDEX_BITS) - 1))) })
}

/// Walks by the format of descriptors only (Arm ARM D8.3).
#[must_use]
pub fn raw_walk(root: PhysAddr, va: VirtAddr) -> RawWalk {
    let mut table = root;
    let mut level = ROOT_LEVEL;
    loop {
        let shift = PAGE_SHIFT + INDEX_BITS * (3 - level) as u32;
        let index = ((va.0 & ((1 << VA_BITS) - 1)) >> shift) as usize & ((1 << INDEX_BITS) - 1);
        let descriptor = read_descriptor(table, index);
        if level == 3 || descriptor.0 & 0b11 != 0b11 {
            return RawWalk {
                level,
                table,
                index,
                descriptor,
            };
        }
        table = PhysAddr(address(descriptor));
        level += 1;
    }
}

impl RawWalk {
    #[must_use]
    pub fn is_leaf(&self) -> bool {
        self.descriptor.0 & 0b11 == if self.level == 3 { 0b11 } else { 0b01 }
            && self.level >= layout::Granule::FIRST_LEAF_LEVEL
    }

    #[must_use]
    pub fn output(&self, va: VirtAddr) -> PhysAddr {
        let within = va.0 & (layout::Granule::size(self.level) - 1);
        PhysAddr(address(self.descriptor) | within)
    }

    /// And that a neighbour is no member.
    fn check_group(&self) -> Result<(), PageDefect> {
        let members = if self.level == 3 { GROUP } else { BLOCK_GROUP } as usize;
        let within = self.index & (members - 1);
        let first = read_descriptor(self.table, self.index - within);
        if (self.descriptor.0 | first.0) & CONTIGUOUS == 0 || within == 0 {
            return Ok(());
        }
        let expected = Descriptor(first.0 + within as u64 * layout::Granule::size(self.level));
        if self.descriptor == expected {
            Ok(())
        } else {
            Err(PageDefect::MixedGroup {
                found: self.descriptor,
                expected,
            })
        }
    }
}

/// Not computed from MAIR_EL1. Device and Normal non-cacheable memory is outer shareable,
/// with no regard to the descriptor (Arm ARM, PAR_EL1).
fn par_of(memory: MemoryType) -> (u8, u8) {
    match memory.index() {
        0 => (0x00, 0b10),
        1 => (0x04, 0b10),
        2 => (0x44, 0b10),
        3 => (0xff, memory.shareability()),
        4 => (0xbb, memory.shareability()),
        _ => (0, 0),
    }
}

fn pattern(key: u64, page: u64, offset: usize) -> u64 {
    // SplitMix64's finaliser.
    let mut z =
        key ^ page.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (offset as u64).wrapping_mul(0xd1b5_4a32_d192_ed03);
    z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ z >> 31
}

const OFFSETS: [usize; 3] = [0, PAGE as usize / 2 - 8, PAGE as usize - 8];

const ASK_EVERY: u64 = 1024;

/// Checks pages; `None` is one that must not be mapped. `AT` is asked of every page: of the first
/// that a descriptor translates for reading and for writing, of the others for one in turn.
///
/// # Errors
/// The first page that is wrong.
pub fn verify_pages(
    tree: &TestTree,
    va: VirtAddr,
    pages: u64,
    expected: impl Fn(u64) -> Option<Expected>,
    memory: Memory,
) -> Result<(), Failure> {
    let at = |page: u64| va.add(page * PAGE);
    let locate = |page: u64| {
        move |defect| Failure::Page {
            page,
            va: at(page),
            defect,
        }
    };
    let mut nr_vacant = 0;
    let mut last: Option<Seen> = None;
    for page in 0..pages {
        if page % ASK_EVERY == 0 {
            go_on()?;
        }
        let va = at(page);
        let expected = expected(page);
        let probe = nr_vacant < MOST_PROBES || page % 512 == 0;
        if expected.is_none() {
            nr_vacant += 1;
            if nr_vacant > MOST_VACANT && page % 64 != 0 {
                continue;
            }
        }
        let again = last.filter(|seen| seen.has(va));
        let seen = again.unwrap_or_else(|| Seen::at(tree, va));
        last = Some(seen);
        let accesses = match again {
            None => &[Access::Read, Access::Write][..],
            Some(_) if page % 2 == 0 => &[Access::Read],
            Some(_) => &[Access::Write],
        };
        match expected {
            Some(expected) => verify_translation(&seen, va, &expected, accesses),
            None => verify_vacant(tree, &seen, va, accesses, probe),
        }
        .map_err(locate(page))?;
    }
    if let Memory::Owned(key) = memory {
        verify_data(va, pages, &expected, key).map_err(|(page, defect)| locate(page)(defect))?;
    }
    Ok(())
}

/// What one descriptor says, as read here and by the engine.
#[derive(Clone, Copy)]
struct Seen {
    raw: RawWalk,
    leaf: Option<Leaf>,
    first: VirtAddr,
}

impl Seen {
    fn at(tree: &TestTree, va: VirtAddr) -> Self {
        let raw = raw_walk(tree.root(), va);
        Self {
            raw,
            leaf: tree.translate(va),
            first: VirtAddr(va.0 & !(layout::Granule::size(raw.level) - 1)),
        }
    }

    /// Whether it is the descriptor of `va` too. Only the test changes its tables, and not now.
    fn has(&self, va: VirtAddr) -> bool {
        va.0.wrapping_sub(self.first.0) < layout::Granule::size(self.raw.level)
    }
}

fn verify_translation(
    seen: &Seen,
    va: VirtAddr,
    expected: &Expected,
    accesses: &[Access],
) -> Result<(), PageDefect> {
    let output = |oracle, found| {
        if found == expected.pa {
            Ok(())
        } else {
            Err(PageDefect::Output {
                oracle,
                found,
                expected: expected.pa,
            })
        }
    };
    let attributes = |found| {
        if found == expected.attributes {
            Ok(())
        } else {
            Err(PageDefect::Attributes {
                found,
                expected: expected.attributes,
            })
        }
    };
    let raw = seen.raw;
    if !raw.is_leaf() {
        return Err(PageDefect::NotMapped(Oracle::Descriptors));
    }
    output(Oracle::Descriptors, raw.output(va))?;
    attributes(raw.descriptor.attributes::<layout::Granule>())?;
    raw.check_group()?;

    let leaf = seen.leaf.ok_or(PageDefect::NotMapped(Oracle::Engine))?;
    output(Oracle::Engine, leaf.translate(va))?;
    attributes(leaf.attributes)?;
    if leaf.size.level() != raw.level {
        return Err(PageDefect::Level {
            descriptors: raw.level,
            engine: leaf.size.level(),
        });
    }

    for &access in accesses {
        let oracle = Oracle::At(access);
        let permitted = access == Access::Read || expected.attributes.is_writable();
        match (mmu::translate(va.0 as usize, access), permitted) {
            (Ok(translation), true) => {
                output(oracle, PhysAddr(translation.pa))?;
                memory_type(&translation, expected.attributes.memory())?;
            }
            (Ok(_), false) => return Err(PageDefect::Permitted(oracle)),
            (Err(abort), true) => {
                return Err(PageDefect::Refused {
                    oracle,
                    status: abort.status,
                });
            }
            (Err(abort), false) => fault(oracle, abort.status, FaultStatus::Permission(raw.level))?,
        }
    }
    Ok(())
}

fn memory_type(translation: &Translation, memory: MemoryType) -> Result<(), PageDefect> {
    let found = (translation.attribute, translation.shareability);
    let expected = par_of(memory);
    // With TCR_EL1.DS a descriptor has no SH. The architecture says 0b10 of Device and
    // non-cacheable memory; QEMU 7.2 shows TCR_EL1.SH1.
    let of_tcr = layout::Granule::DS && expected.1 == 0b10 && found == (expected.0, 0b11);
    if found == expected || of_tcr {
        Ok(())
    } else {
        Err(PageDefect::MemoryType { found, expected })
    }
}

fn fault(oracle: Oracle, found: FaultStatus, expected: FaultStatus) -> Result<(), PageDefect> {
    if found == expected {
        Ok(())
    } else {
        Err(PageDefect::Fault {
            oracle,
            found,
            expected,
        })
    }
}

fn verify_vacant(
    tree: &TestTree,
    seen: &Seen,
    va: VirtAddr,
    accesses: &[Access],
    probe: bool,
) -> Result<(), PageDefect> {
    let raw = seen.raw;
    if raw.descriptor.is_valid() {
        return Err(PageDefect::StillMapped(Oracle::Descriptors));
    }
    if seen.leaf.is_some() {
        return Err(PageDefect::StillMapped(Oracle::Engine));
    }
    if let Ok(walk) = tree.walk(va)
        && walk.level() != raw.level
    {
        return Err(PageDefect::Level {
            descriptors: raw.level,
            engine: walk.level(),
        });
    }
    let expected = FaultStatus::Translation(raw.level);
    for &access in accesses {
        let oracle = Oracle::At(access);
        match mmu::translate(va.0 as usize, access) {
            Ok(_) => return Err(PageDefect::StillMapped(oracle)),
            Err(abort) => fault(oracle, abort.status, expected)?,
        }
    }
    if probe { probe_vacant(va, expected) } else { Ok(()) }
}

/// AT may walk the tables; a load or store uses what the TLB holds.
fn probe_vacant(va: VirtAddr, expected: FaultStatus) -> Result<(), PageDefect> {
    let va = va.0 as usize;
    let read = Oracle::Probe(Access::Read);
    let found = probe_read(va).err().ok_or(PageDefect::StillMapped(read))?;
    fault(read, found.status().unwrap_or(FaultStatus::Other(0)), expected)?;
    let write = Oracle::Probe(Access::Write);
    // SAFETY: the load has faulted. Were the page mapped, it would be a frame of the test.
    let found = unsafe { probe_write(va, 0) }
        .err()
        .ok_or(PageDefect::StillMapped(write))?;
    fault(write, found.status().unwrap_or(FaultStatus::Other(0)), expected)
}

fn verify_data(
    va: VirtAddr,
    pages: u64,
    expected: &impl Fn(u64) -> Option<Expected>,
    key: u64,
) -> Result<(), (u64, PageDefect)> {
    // Before any is read, to find two pages that share a frame.
    for page in 0..pages {
        if let Some(expected) = expected(page) {
            for offset in OFFSETS {
                write(linear_va(expected.pa.0) + offset, pattern(key, page, offset));
            }
        }
    }
    for page in 0..pages {
        let Some(expected) = expected(page) else { continue };
        let mapped = (va.0 + page * PAGE) as usize;
        for offset in OFFSETS {
            let wanted = pattern(key, page, offset);
            compare(Alias::ReadByMapping, offset, read(mapped + offset), wanted)
                .map_err(|defect| (page, defect))?;
            if expected.attributes.is_writable() {
                write(mapped + offset, !wanted);
            }
        }
    }
    for page in 0..pages {
        let Some(expected) = expected(page) else { continue };
        for offset in OFFSETS {
            let wanted = pattern(key, page, offset);
            let wanted = if expected.attributes.is_writable() {
                !wanted
            } else {
                wanted
            };
            let found = read(linear_va(expected.pa.0) + offset);
            compare(Alias::ReadByLinear, offset, found, wanted).map_err(|defect| (page, defect))?;
        }
    }
    Ok(())
}

fn compare(alias: Alias, offset: usize, found: u64, expected: u64) -> Result<(), PageDefect> {
    if found == expected {
        Ok(())
    } else {
        Err(PageDefect::Data {
            alias,
            offset,
            found,
            expected,
        })
    }
}

/// AT takes no exception, so a broken leaf would not be retried: the walk lock keeps edits out.
fn permits(va: usize, access: Access) -> bool {
    let _walk = walk_lock().walk();
    mmu::translate(va, access).is_ok()
}

#[must_use]
pub fn is_readable(va: usize) -> bool {
    permits(va, Access::Read)
}

#[must_use]
pub fn is_writable(va: usize) -> bool {
    permits(va, Access::Write)
}

#[must_use]
pub fn read(va: usize) -> u64 {
    // SAFETY: an address that AT has translated for reading, or a linear one of a frame of the
    // test.
    unsafe { ptr::read_volatile(va as *const u64) }
}

pub fn write(va: usize, value: u64) {
    // SAFETY: as for `read`, translated for writing.
    unsafe { ptr::write_volatile(va as *mut u64, value) };
}
