//! Subsystems for the bench: each on addresses that nobody else maps anything in, with the kernel's backend or with one that counts.

use alloc::boxed::Box;

use paging::mmu::Counting;
use paging::{Failure, Granule4K, Half, Outcome, Pfn, PhysAddr, Tree, VirtAddr, VirtRange};
use vmalloc::va::{NodePage, NodePages};
use vmalloc::{Backend, Config, FlushPolicy, LinearEdit, Vmalloc};

use super::counting::{CountingTables, Counts};
use crate::arch::mmu::KernelMmu;
use crate::mm::areas::{KernelBackend, KernelVmalloc, kernel_vmalloc};
use crate::mm::tables::{KernelTables, LinearMapTables};
use crate::mm::{self, WalkLock};
use crate::sync::IrqSpinLock;

/// Never reached by a case: what is withheld stays so until it is asked for.
pub const LAZY: FlushPolicy = FlushPolicy::Lazy {
    areas: usize::MAX,
    pages: u64::MAX,
};

/// The policy of the kernel's own subsystem.
pub fn kernel_policy() -> FlushPolicy {
    kernel_vmalloc().config().flush
}

/// A subsystem on `range`, configured as the kernel's but for when it flushes.
///
/// # Panics
/// If there is no memory for it.
pub fn subsystem(range: VirtRange, flush: FlushPolicy) -> Box<KernelVmalloc> {
    new(range, KernelBackend, flush)
}

/// The same with the backend that counts.
///
/// # Panics
/// If there is no memory for it.
pub fn counting_subsystem(
    range: VirtRange,
    flush: FlushPolicy,
    mmu: KernelMmu,
) -> Box<Vmalloc<CountingBackend>> {
    new(range, CountingBackend::new(mmu), flush)
}

fn new<B: Backend>(range: VirtRange, backend: B, flush: FlushPolicy) -> Box<Vmalloc<B>> {
    let config = Config {
        flush,
        ..*kernel_vmalloc().config()
    };
    match Vmalloc::new(range, backend, config) {
        Ok(vm) => Box::new(vm),
        Err(error) => panic!("a region for the bench: {error}"),
    }
}

/// The kernel's backend with trees that count.
pub struct CountingBackend {
    tree: Tree<Granule4K, CountingTables<KernelTables>, Counting<KernelMmu>>,
    linear: Tree<Granule4K, CountingTables<LinearMapTables>, Counting<KernelMmu>>,
}

impl CountingBackend {
    fn new(mmu: KernelMmu) -> Self {
        let tree = mm::kernel_tree();
        let linear = mm::linear_map_tree();
        Self {
            tree: Tree::new(
                tree.root(),
                Half::High,
                CountingTables::new(KernelTables),
                Counting::new(mmu),
                *tree.config(),
            ),
            linear: Tree::new(
                linear.root(),
                Half::High,
                CountingTables::new(LinearMapTables::new()),
                Counting::new(mmu),
                *linear.config(),
            ),
        }
    }

    /// What has passed, the linear map's part included; all starts again at zero.
    pub fn take(&self) -> Counts {
        self.tree.tables().take(self.tree.mmu()) + self.linear.tables().take(self.linear.mmu())
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
    type Tables = CountingTables<KernelTables>;
    type Mmu = Counting<KernelMmu>;
    type Lock<T: Send> = IrqSpinLock<T>;
    type WalkLock = WalkLock;

    fn tree(&self) -> &Tree<Granule4K, CountingTables<KernelTables>, Counting<KernelMmu>> {
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
    fn without_waiting<R>(&self, f: impl FnOnce() -> R) -> R {
        KernelBackend.without_waiting(f)
    }
    fn cpu(&self) -> usize {
        KernelBackend.cpu()
    }
    fn is_ram(&self, start: PhysAddr, size: u64) -> bool {
        KernelBackend.is_ram(start, size)
    }
    fn edit_linear_map(&self, pa: PhysAddr, size: u64, edit: LinearEdit) -> Result<Outcome, Failure> {
        let va = VirtAddr(mm::linear_va(pa.0) as u64);
        edit.apply(&self.linear, VirtRange::new(va, size))
    }
}
