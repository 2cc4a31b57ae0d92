//! The walk of an address for a fatal exception: no locks, no allocation, by probes.

use core::fmt;
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use aarch64_cpu::registers::{Readable, TTBR1_EL1};
use paging::mmu::NoMmu;
use paging::{Config, DisplaySize, Half, PhysAddr, Tables, Tree, VirtAddr};

use super::layout::{Granule, IMAGE_BASE};
use super::linear_va;
use crate::BootInfo;
use crate::arch::cpu::root_of;
use crate::arch::probe::probe_read;

/// Holds the first tables.
static IMAGE_PA: AtomicU64 = AtomicU64::new(0);
static IMAGE_SIZE: AtomicUsize = AtomicUsize::new(0);

pub fn init(info: &BootInfo) {
    IMAGE_PA.store(info.image.start, Ordering::Relaxed);
    IMAGE_SIZE.store((info.image.end - info.image.start) as usize, Ordering::Relaxed);
}

struct ProbedTables;

impl ProbedTables {
    fn va(table: PhysAddr) -> usize {
        let offset = table.0.wrapping_sub(IMAGE_PA.load(Ordering::Relaxed)) as usize;
        if offset < IMAGE_SIZE.load(Ordering::Relaxed) {
            IMAGE_BASE + offset
        } else {
            linear_va(table.0)
        }
    }
}

// SAFETY: gives no table, and only reads.
unsafe impl Tables for ProbedTables {
    fn alloc_table(&self) -> Option<PhysAddr> {
        None
    }
    fn free_table(&self, _table: PhysAddr) {}
    fn load(&self, table: PhysAddr, index: usize) -> u64 {
        // Unreadable: the walk ends.
        probe_read(Self::va(table) + index * size_of::<u64>()).unwrap_or(0)
    }
    fn store(&self, _table: PhysAddr, _index: usize, _value: u64) {}
    fn compare_exchange(&self, table: PhysAddr, index: usize, _current: u64, _new: u64) -> Result<(), u64> {
        Err(self.load(table, index))
    }
}

pub fn walk(va: usize, print: &mut dyn FnMut(fmt::Arguments<'_>)) {
    let root = PhysAddr(root_of(TTBR1_EL1.get()));
    let tree = Tree::<Granule, _, _>::new(
        root,
        Half::High,
        ProbedTables,
        NoMmu::default(),
        Config::default(),
    );
    let walk = match tree.walk(VirtAddr(va as u64)) {
        Ok(walk) => walk,
        Err(_) => {
            print(format_args!(
                "walk of {va:#018x}: not an address of the upper half; TTBR0 is empty\n"
            ));
            return;
        }
    };
    print(format_args!("walk of {va:#018x}:\n"));
    for step in walk.steps() {
        let kind = match step.descriptor {
            found if found.is_vacant() => "vacant",
            found if found.is_table(step.level) => "table",
            found if !found.is_valid() => "invalid",
            _ if step.level == 3 => "page",
            _ => "block",
        };
        print(format_args!(
            "  level {} table {:#x} [{:3}] {:?} {kind}\n",
            step.level, step.table.0, step.index, step.descriptor
        ));
    }
    match walk.leaf {
        Some(leaf) => print(format_args!(
            "  {} of {:#x}: PA {:#x}, {:?}{}\n",
            DisplaySize(leaf.size.bytes::<Granule>()),
            leaf.va.0,
            leaf.translate(VirtAddr(va as u64)).0,
            leaf.attributes,
            if leaf.valid { "" } else { ", not valid" }
        )),
        None => print(format_args!(
            "  not mapped: level {} has no descriptor\n",
            walk.level()
        )),
    }
}
