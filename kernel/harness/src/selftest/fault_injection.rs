//! Planted faults (`selftest.break=`), which the suite must find. `wrong-walker`, `uncounted-tlbi`,
//! `long-hold` and `lock-order` are planted elsewhere. A test's frames and addresses go back only
//! after a real flush of everything.

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use kernel::arch::mmu::{KernelMmu, flush_all};
use kernel::mm::tables::KernelTables;
use paging::descriptor::{ADDRESS, AP_READ_ONLY, CONTIGUOUS};
use paging::mmu::{MmuCounts, MmuEvent};
use paging::{Groups, Mmu, Pfn, PhysAddr, Tables, VirtAddr, forward, forward_mmu};

use super::verify::raw_walk;
use crate::options::Planted;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Work {
    Map,
    Unmap,
    Protect,
    Other,
}

/// The kernel's MMU, counted, less what a planted fault skips.
#[derive(Debug)]
pub struct TestMmu {
    inner: KernelMmu,
    planted: Option<Planted>,
    skip_tlbi: AtomicBool,
    skip_dsb: AtomicBool,
    dsb_ishst: AtomicU64,
    dsb_ish: AtomicU64,
    isb: AtomicU64,
    tlbi_va: AtomicU64,
    tlbi_range: AtomicU64,
    tlbi_all: AtomicU64,
}

impl TestMmu {
    #[must_use]
    pub fn new(inner: KernelMmu, planted: Option<Planted>) -> Self {
        Self {
            inner,
            planted,
            skip_tlbi: AtomicBool::new(false),
            skip_dsb: AtomicBool::new(false),
            dsb_ishst: AtomicU64::new(0),
            dsb_ish: AtomicU64::new(0),
            isb: AtomicU64::new(0),
            tlbi_va: AtomicU64::new(0),
            tlbi_range: AtomicU64::new(0),
            tlbi_all: AtomicU64::new(0),
        }
    }

    /// Begins `work`, and zeroes the counts.
    pub fn begin(&self, work: Work) {
        let skip_tlbi = matches!(
            (self.planted, work),
            (Some(Planted::SkipTlbi), Work::Unmap) | (Some(Planted::StalePermission), Work::Protect)
        );
        self.skip_tlbi.store(skip_tlbi, Relaxed);
        let skip_dsb = self.planted == Some(Planted::SkipDsb) && work == Work::Map;
        self.skip_dsb.store(skip_dsb, Relaxed);
        self.take();
    }

    /// Returns the counts, and zeroes them.
    pub fn take(&self) -> MmuCounts {
        let dsb_ishst = self.dsb_ishst.swap(0, Relaxed);
        let tlbi_range = self.tlbi_range.swap(0, Relaxed);
        let tlbi_all = self.tlbi_all.swap(0, Relaxed);
        MmuCounts {
            dsb: dsb_ishst + self.dsb_ish.swap(0, Relaxed),
            dsb_ishst,
            isb: self.isb.swap(0, Relaxed),
            tlbi: self.tlbi_va.swap(0, Relaxed) + tlbi_range + tlbi_all,
            tlbi_range,
            tlbi_all,
        }
    }

    fn around(&self, event: MmuEvent, issue: impl FnOnce()) {
        let skip_tlbi = self.skip_tlbi.load(Relaxed);
        let (counter, skip) = match event {
            MmuEvent::DsbIshst => (&self.dsb_ishst, self.skip_dsb.load(Relaxed)),
            MmuEvent::DsbIsh => (&self.dsb_ish, false),
            MmuEvent::Isb => (&self.isb, false),
            MmuEvent::TlbiLastLevel(_) | MmuEvent::TlbiAllLevels(_) => (&self.tlbi_va, skip_tlbi),
            MmuEvent::TlbiRangeLastLevel(_) | MmuEvent::TlbiRangeAllLevels(_) => {
                (&self.tlbi_range, skip_tlbi)
            }
            MmuEvent::TlbiAll => (&self.tlbi_all, skip_tlbi),
        };
        if !skip {
            counter.fetch_add(1, Relaxed);
            issue();
        }
    }
}

#[deny(clippy::missing_trait_methods)]
impl Mmu for TestMmu {
    forward_mmu!(self => self.inner, Self::around);
}

#[derive(Debug)]
pub struct TestTables {
    inner: KernelTables,
    leak: AtomicBool,
}

impl TestTables {
    #[must_use]
    pub fn new(planted: Option<Planted>) -> Self {
        Self {
            inner: KernelTables,
            leak: AtomicBool::new(planted == Some(Planted::LeakTable)),
        }
    }
}

// SAFETY: everything goes to the kernel's table memory; a leaked table has no owner.
#[deny(clippy::missing_trait_methods)]
unsafe impl Tables for TestTables {
    fn free_table(&self, table: PhysAddr) {
        if !self.leak.swap(false, Relaxed) {
            self.inner.free_table(table);
        }
    }
    forward! { self => self.inner;
        fn alloc_table() -> Option<PhysAddr>;
        fn load(table: PhysAddr, index: usize) -> u64;
        fn store(table: PhysAddr, index: usize, value: u64);
        fn compare_exchange(table: PhysAddr, index: usize, current: u64, new: u64) -> Result<(), u64>;
        fn fill_linear(table: PhysAddr, index: usize, nr: usize, first: u64, step: u64);
        fn fill_frames(table: PhysAddr, index: usize, frames: &[Pfn], page_shift: u32, template: u64);
        fn fill_groups(table: PhysAddr, index: usize, frames: &[Pfn], groups: Groups, template: u64) -> usize;
        fn clear(table: PhysAddr, index: usize, nr: usize);
        fn or_of_frames(frames: &[Pfn]) -> u64;
        fn nr_consecutive(frames: &[Pfn]) -> usize;
        fn are_vacant(table: PhysAddr, index: usize, nr: usize) -> bool;
        fn kinds(table: PhysAddr, index: usize, nr: usize) -> (u64, u64);
        fn enter_break(va: VirtAddr, broken: u64, tables: &[PhysAddr]);
        fn exit_break();
    }
}

/// Replaces the descriptor that ends the walk of `va`, and invalidates everything.
///
/// # Safety
/// Nothing that Rust relies on is reached through `va`.
pub unsafe fn tamper(root: PhysAddr, va: VirtAddr, change: impl FnOnce(u64) -> u64) {
    let walk = raw_walk(root, va);
    let tables = KernelTables;
    tables.store(walk.table, walk.index, change(walk.descriptor.0));
    invalidate_all();
}

pub fn invalidate_all() {
    flush_all();
}

/// Plants a fault. `group` is a contiguous group of pages in the mapping.
pub fn plant_in_mapping(
    planted: Option<Planted>,
    root: PhysAddr,
    start: VirtAddr,
    group: Option<VirtAddr>,
    read_only: bool,
) {
    match (planted, group) {
        (Some(Planted::WrongOutput), Some(group)) => {
            // SAFETY: the frame is one of the mapping's own.
            unsafe {
                tamper(root, group.add(5 << 12), |old| {
                    old & !ADDRESS | ((old & ADDRESS) + 0x1000)
                })
            };
        }
        (Some(Planted::MixedGroup), Some(group)) => {
            // SAFETY: the page still maps what it did.
            unsafe { tamper(root, group.add(9 << 12), |old| old & !CONTIGUOUS) };
        }
        (Some(Planted::WritableRodata), _) if read_only => {
            // SAFETY: the page is a test's, and is only read.
            unsafe { tamper(root, start, |old| old & !AP_READ_ONLY) };
        }
        _ => {}
    }
}
