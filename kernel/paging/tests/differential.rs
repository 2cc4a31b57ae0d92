//! Comparison with `aarch64-paging`, which has no contiguous groups: those are off where tables are
//! compared.

use crate::memory::{Heap, LinearTree};
use crate::support;

use aarch64_paging::descriptor::{El1Attributes, PagingAttributes, PhysicalAddress, VirtualAddress};
use aarch64_paging::paging::{
    Constraints, El1And0, MemoryRegion, PageTable, RootTable, Translation, VaRange,
};
use aarch64_paging::target::TargetAllocator;
use paging::descriptor::{AP_USER, CONTIGUOUS, GUARDED, NOT_GLOBAL};
use paging::mmu::NoMmu;
use paging::{
    Attributes, Config, Granule4K, Half, LeafSet, LinearTables, MemoryType, PhysAddr, PhysRange, Tables,
    Tree, VirtAddr, VirtRange,
};
use std::collections::BTreeMap;
use std::ptr::NonNull;
use support::Rng;
use support::corpus::corpus;
use support::traced::{Event, traced};

type Ours = LinearTree<Granule4K>;

fn ours(half: Half, leaves: LeafSet) -> Ours {
    // SAFETY: 1. pages are mapped at their own address; 2. the other library reads only, between
    // operations.
    let tables = unsafe { LinearTables::new(0, Heap::new(0, false)) };
    let root = tables.alloc_table().expect("memory");
    let config = Config {
        leaves,
        ..Config::default()
    };
    Tree::new(root, half, tables, NoMmu::default(), config)
}

#[derive(Clone, Copy, Debug)]
struct Mapping {
    va: u64,
    pa: u64,
    size: u64,
    attributes: Attributes,
}

fn attributes(rng: &mut Rng) -> Attributes {
    match rng.below(5) {
        0 => Attributes::KERNEL_DATA,
        1 => Attributes::KERNEL_RODATA,
        2 => Attributes::DEVICE,
        3 => Attributes::kernel(MemoryType::NORMAL_NC).with_software(5),
        _ => Attributes::kernel(MemoryType::NORMAL).executable(),
    }
}

fn ranges(rng: &mut Rng, start: u64, nr: u64) -> Vec<Mapping> {
    let mut va = start;
    (0..nr)
        .map(|_| {
            let align = 12 + 9 * rng.below(3) as u32;
            va = (va + (rng.below(3000) << 12)).next_multiple_of(1 << align);
            let size = match rng.below(4) {
                0 => (1 + rng.below(20)) << 12,
                1 => (1 + rng.below(5)) << 21,
                2 => (1 << 30) + (rng.below(600) << 12),
                _ => (1 + rng.below(5000)) << 12,
            };
            let skew = if rng.below(3) == 0 {
                rng.below(512) << 12
            } else {
                0
            };
            let pa = ((1 + rng.below(64)) << 30) + va % (1 << 30) + skew;
            let mapping = Mapping {
                va,
                pa,
                size,
                attributes: attributes(rng),
            };
            va += size;
            mapping
        })
        .collect()
}

fn start(half: Half) -> (u64, VaRange) {
    match half {
        Half::Low => (0, VaRange::Lower),
        Half::High => (0xffff_0000_0000_0000, VaRange::Upper),
    }
}

fn map_ours(tree: &Ours, mapping: &Mapping) {
    let mut source = PhysRange::new(PhysAddr(mapping.pa), mapping.size >> 12);
    let range = VirtRange::new(VirtAddr(mapping.va), mapping.size);
    tree.map(range, &mut source, mapping.attributes, LeafSet::ALL)
        .expect("vacant");
}

fn region(va: u64, size: u64) -> MemoryRegion {
    MemoryRegion::from(VirtualAddress(va as usize)..VirtualAddress(va.wrapping_add(size) as usize))
}

fn compare(tree: &Ours, ours: PhysAddr, theirs: &[u64], base: u64, table: u64, level: i8, path: &str) {
    for index in 0..512 {
        let a = tree.tables().load(ours, index);
        let b = theirs[((table - base) / 8) as usize + index];
        let path = format!("{path}.{index}");
        if level < 3 && a & 3 == 3 {
            assert_eq!(b & 3, 3, "{path}: {a:#x} is a table, {b:#x} is none");
            let address = 0xffff_ffff_f000;
            assert_eq!(a & !address & !0xffc, b & !address, "{path}");
            compare(
                tree,
                PhysAddr(a & address),
                theirs,
                base,
                b & address,
                level + 1,
                &path,
            );
        } else {
            assert_eq!(a, b, "{path} at level {level}");
        }
    }
}

#[test]
fn both_libraries_build_the_same_tables() {
    for seed in 1..16 {
        for half in [Half::Low, Half::High] {
            let mut rng = Rng(seed * 7919);
            let (start, va_range) = start(half);
            let tree = ours(
                half,
                LeafSet::ALL.without_groups().at_most(paging::LeafSize::BLOCK1),
            );
            let base = 0x1_0000_0000;
            let mut theirs = RootTable::with_va_range(TargetAllocator::new(base), 0, El1And0, va_range);
            for mapping in ranges(&mut rng, start, 8) {
                map_ours(&tree, &mapping);
                let flags = El1Attributes::from_bits_retain(mapping.attributes.bits() as usize | 1);
                let region = region(mapping.va, mapping.size);
                theirs
                    .map_range(
                        &region,
                        PhysicalAddress(mapping.pa as usize),
                        flags,
                        Constraints::empty(),
                    )
                    .expect("valid");
            }
            let words: Vec<u64> = theirs
                .translation()
                .as_bytes()
                .chunks_exact(8)
                .map(|bytes| u64::from_le_bytes(bytes.try_into().expect("8 bytes")))
                .collect();
            let root = theirs.to_physical().0 as u64;
            compare(&tree, tree.root(), &words, base, root, 0, "root");
        }
    }
}

struct Reader {
    root: PhysAddr,
}

impl Translation<El1Attributes> for Reader {
    fn allocate_table(&mut self) -> (NonNull<PageTable<El1Attributes>>, PhysicalAddress) {
        let pa = PhysicalAddress(self.root.0 as usize);
        (self.physical_to_virtual(pa), pa)
    }

    unsafe fn deallocate_table(&mut self, _table: NonNull<PageTable<El1Attributes>>) {}

    fn physical_to_virtual(&self, pa: PhysicalAddress) -> NonNull<PageTable<El1Attributes>> {
        NonNull::new(std::ptr::with_exposed_provenance_mut(pa.0)).expect("no table is at 0")
    }
}

/// Page to (frame, attribute bits).
fn read_by_them(tree: &Ours, mappings: &[Mapping], va_range: VaRange) -> BTreeMap<u64, (u64, u64)> {
    let reader = Reader { root: tree.root() };
    // Dropping it would free the tree's tables.
    let theirs = std::mem::ManuallyDrop::new(RootTable::with_va_range(reader, 0, El1And0, va_range));
    let mut found = BTreeMap::new();
    for mapping in mappings {
        let wide = region(mapping.va, mapping.size + 0x1000);
        theirs
            .walk_range(&wide, &mut |part, descriptor, level| {
                if descriptor.is_valid() {
                    let size = 1u64 << (12 + 9 * (3 - level));
                    let bits = descriptor.flags().bits() as u64 & !CONTIGUOUS & !3;
                    let offset = part.start().0 as u64 & (size - 1);
                    for page in (0..part.len() as u64).step_by(4096) {
                        let pa = descriptor.output_address().0 as u64 + offset + page;
                        found.insert(part.start().0 as u64 + page, (pa, bits));
                    }
                }
                Ok(())
            })
            .expect("no callback fails");
    }
    found
}

#[test]
fn the_other_library_reads_what_we_mapped_groups_and_all() {
    for seed in 1..7 {
        for half in [Half::Low, Half::High] {
            let mut rng = Rng(seed * 104_729);
            let (start, va_range) = start(half);
            let tree = ours(half, LeafSet::ALL);
            let mut mappings = ranges(&mut rng, start, 6);
            mappings
                .iter_mut()
                .for_each(|mapping| mapping.size = mapping.size.min(64 << 20));
            let mut wanted = BTreeMap::new();
            for mapping in &mappings {
                map_ours(&tree, mapping);
                for offset in (0..mapping.size).step_by(4096) {
                    wanted.insert(
                        mapping.va + offset,
                        (mapping.pa + offset, mapping.attributes.bits()),
                    );
                }
            }
            assert_eq!(read_by_them(&tree, &mappings, va_range), wanted, "seed {seed}");
            for _ in 0..6 {
                let mapping = mappings[rng.below(6) as usize];
                let offset = rng.below(mapping.size >> 12) << 12;
                let size = ((1 + rng.below(40)) << 12).min(mapping.size - offset);
                let mut batch = tree.batch();
                tree.unmap(VirtRange::new(VirtAddr(mapping.va + offset), size), &mut batch)
                    .expect("memory suffices");
                batch.flush();
                for page in (0..size).step_by(4096) {
                    wanted.remove(&(mapping.va + offset + page));
                }
            }
            assert_eq!(
                read_by_them(&tree, &mappings, va_range),
                wanted,
                "seed {seed}, after unmapping"
            );
        }
    }
}

fn flags(bits: u64) -> El1Attributes {
    El1Attributes::from_bits_retain(bits as usize | 1)
}

#[test]
fn what_may_change_in_place_agrees_with_the_other_librarys_list() {
    // EL0 access and GP are permissions to us only; from global to nG in place is legal to them
    // only.
    let ours_alone = AP_USER | GUARDED;
    let theirs_alone = NOT_GLOBAL;
    let every_bit: Vec<u64> = (0..64)
        .map(|bit| 1 << bit)
        .filter(|bit| Attributes::from_bits(*bit).bits() != 0)
        .collect();
    assert_eq!(every_bit.len(), 17);
    for a in &every_bit {
        for b in &every_bit {
            for old in [0, *a, *b, a | b, Attributes::KERNEL_DATA.bits()] {
                let new = old ^ a ^ if a == b { 0 } else { *b };
                let (old, new) = (Attributes::from_bits(old), Attributes::from_bits(new));
                let we_say = old.may_change_in_place_to(new);
                let changed = old.bits() ^ new.bits();
                if changed & (ours_alone | theirs_alone) == 0 {
                    let they_say = El1Attributes::is_bbm_safe(flags(old.bits()), flags(new.bits()));
                    assert_eq!(we_say, they_say, "{:#x} -> {:#x}", old.bits(), new.bits());
                }
                if changed & theirs_alone != 0 {
                    assert!(!we_say, "{:#x} -> {:#x}", old.bits(), new.bits());
                }
            }
        }
    }
    assert!(
        !El1Attributes::is_bbm_safe(flags(0), flags(AP_USER)),
        "a difference that is gone is to be struck out"
    );
    assert!(!El1Attributes::is_bbm_safe(flags(0), flags(GUARDED)));
    assert!(El1Attributes::is_bbm_safe(flags(0), flags(NOT_GLOBAL)));
}

#[test]
fn no_store_of_the_corpus_breaks_the_other_librarys_rule() {
    let mut judged = 0;
    for case in corpus::<Granule4K>() {
        let tree = traced::<Granule4K>(Config::default(), false);
        for op in case.setup.iter().chain([&case.op]) {
            op.apply(&tree, support::corpus::base(&tree))
                .expect("memory suffices");
        }
        for event in tree.tables().log.take() {
            let Event::Store { old, new, .. } = event else {
                continue;
            };
            if old & new & 1 == 0 {
                continue;
            }
            let address = 0xffff_ffff_f000u64;
            assert_eq!(
                old & address,
                new & address,
                "{}: {old:#x} -> {new:#x}",
                case.name
            );
            // A link differs in its count alone, which walkers ignore.
            let count = 0xffc;
            if old & 3 == 3 && new & 3 == 3 && (old ^ new) & !count == 0 && old >> 50 == 0 {
                continue;
            }
            judged += 1;
            assert!(
                El1Attributes::is_bbm_safe(flags(old & !address), flags(new & !address)),
                "{}: {old:#x} -> {new:#x}",
                case.name
            );
        }
    }
    assert!(judged > 50, "only {judged} stores over live entries were judged");
}
