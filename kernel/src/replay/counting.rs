//! A backend whose barriers and invalidations are counted, CPU by CPU: the kernel's tree, frames and locks, by another handle.
//!
//! The linear map is edited through a counting handle, too, since the aliases of code are a part of what its permissions cost.

use core::sync::atomic::{AtomicU64, Ordering};

use paging::{Failure, Granule4K, Half, Mmu, Outcome, Pfn, PhysAddr, TlbiRange, Tree, VirtAddr, VirtRange};
use vmalloc::va::{NodePage, NodePages};
use vmalloc::{Backend, LinearEdit};

use super::stats::Counts;
use crate::arch::features::Features;
use crate::arch::mmu::KernelMmu;
use crate::arch::percpu::{MAX_CPUS, cpu_index};
use crate::bootargs::LinearLeaves;
use crate::mm::areas::KernelBackend;
use crate::mm::tables::{KernelTables, LinearMapTables};
use crate::mm::{self, WalkLock, linear_va};
use crate::sync::IrqSpinLock;

/// What one CPU has issued. On lines of its own, so that counting is no contention.
#[repr(align(128))]
struct Shard {
    tlbi: AtomicU64,
    dsb: AtomicU64,
    isb: AtomicU64,
}

static SHARDS: [Shard; MAX_CPUS] = [const {
    Shard {
        tlbi: AtomicU64::new(0),
        dsb: AtomicU64::new(0),
        isb: AtomicU64::new(0),
    }
}; MAX_CPUS];

/// What this CPU has issued so far through any [`CountingMmu`].
pub fn of_this_cpu() -> Counts {
    let shard = &SHARDS[cpu_index()];
    Counts {
        tlbi: shard.tlbi.load(Ordering::Relaxed),
        dsb: shard.dsb.load(Ordering::Relaxed),
        isb: shard.isb.load(Ordering::Relaxed),
    }
}

/// Counts what passes through it, and hands it on.
#[derive(Clone, Copy, Debug)]
pub struct CountingMmu(KernelMmu);

fn count(counter: impl FnOnce(&Shard) -> &AtomicU64) {
    counter(&SHARDS[cpu_index()]).fetch_add(1, Ordering::Relaxed);
}

impl Mmu for CountingMmu {
    fn dsb_ishst(&self) {
        count(|shard| &shard.dsb);
        self.0.dsb_ishst();
    }
    fn dsb_ish(&self) {
        count(|shard| &shard.dsb);
        self.0.dsb_ish();
    }
    fn isb(&self) {
        count(|shard| &shard.isb);
        self.0.isb();
    }
    fn tlbi_vaale1is(&self, va: VirtAddr) {
        count(|shard| &shard.tlbi);
        self.0.tlbi_vaale1is(va);
    }
    fn tlbi_vaae1is(&self, va: VirtAddr) {
        count(|shard| &shard.tlbi);
        self.0.tlbi_vaae1is(va);
    }
    fn tlbi_rvaale1is(&self, range: TlbiRange) {
        count(|shard| &shard.tlbi);
        self.0.tlbi_rvaale1is(range);
    }
    fn tlbi_rvaae1is(&self, range: TlbiRange) {
        count(|shard| &shard.tlbi);
        self.0.tlbi_rvaae1is(range);
    }
    fn tlbi_vmalle1is(&self) {
        count(|shard| &shard.tlbi);
        self.0.tlbi_vmalle1is();
    }
    fn has_tlbi_range(&self) -> bool {
        self.0.has_tlbi_range()
    }
    fn masked<R>(&self, f: impl FnOnce() -> R) -> R {
        self.0.masked(f)
    }
}

/// The kernel's backend with trees that count.
pub struct CountingBackend {
    tree: Tree<Granule4K, KernelTables, CountingMmu>,
    linear: Tree<Granule4K, LinearMapTables, CountingMmu>,
}

impl CountingBackend {
    /// On the kernel's tables.
    #[must_use]
    pub fn new(features: &Features) -> Self {
        let mmu = CountingMmu(KernelMmu::new(features));
        let tree = mm::kernel_tree();
        let (root, config) = (tree.root(), *tree.config());
        Self {
            tree: Tree::new(root, Half::High, KernelTables, mmu, config),
            linear: Tree::new(root, Half::High, LinearMapTables::new(), mmu, config),
        }
    }
}

impl NodePages for CountingBackend {
    fn node_page(&self) -> Option<&'static mut NodePage> {
        KernelBackend.node_page()
    }
}

// SAFETY: the kernel's backend keeps the promises; the trees are the kernel's, by other handles.
unsafe impl Backend for CountingBackend {
    type Granule = Granule4K;
    type Tables = KernelTables;
    type Mmu = CountingMmu;
    type Lock<T: Send> = IrqSpinLock<T>;
    type WalkLock = WalkLock;

    fn tree(&self) -> &Tree<Granule4K, KernelTables, CountingMmu> {
        &self.tree
    }
    fn walks(&self) -> &WalkLock {
        mm::walk_lock()
    }
    fn alloc_frames(&self, order: u32) -> Option<Pfn> {
        KernelBackend.alloc_frames(order)
    }
    fn free_frames(&self, first: Pfn, order: u32) {
        KernelBackend.free_frames(first, order);
    }
    fn max_order(&self) -> u32 {
        KernelBackend.max_order()
    }
    fn nr_frames(&self) -> u64 {
        KernelBackend.nr_frames()
    }
    fn zero_frames(&self, first: Pfn, order: u32) {
        KernelBackend.zero_frames(first, order);
    }
    fn read_word(&self, frame: Pfn, index: usize) -> u64 {
        KernelBackend.read_word(frame, index)
    }
    fn write_word(&self, frame: Pfn, index: usize, value: u64) {
        KernelBackend.write_word(frame, index, value);
    }
    fn is_ram(&self, start: PhysAddr, size: u64) -> bool {
        KernelBackend.is_ram(start, size)
    }
    fn without_waiting<R>(&self, f: impl FnOnce() -> R) -> R {
        KernelBackend.without_waiting(f)
    }
    fn cpu(&self) -> usize {
        KernelBackend.cpu()
    }
    fn edit_linear_map(&self, pa: PhysAddr, size: u64, edit: LinearEdit) -> Result<Outcome, Failure> {
        // A map of single pages is to stay one.
        if matches!(edit, LinearEdit::Coalesce | LinearEdit::Fold(_))
            && crate::args().linear == LinearLeaves::Pages
        {
            return Ok(Outcome::default());
        }
        let va = VirtAddr(linear_va(pa.0) as u64);
        edit.apply(&self.linear, VirtRange::new(va, size))
    }
    fn read_memory(&self, pa: PhysAddr, out: &mut [u8]) -> bool {
        KernelBackend.read_memory(pa, out)
    }
}
