use alloc::boxed::Box;

use kernel::arch::mmu::KernelMmu;
use kernel::mm::areas::{KernelBackend, KernelVmalloc, kernel_vmalloc};
use kernel::mm::tables::{KernelTables, LinearMapTables};
use paging::VirtRange;
use paging::mmu::Counting;
use vmalloc::{Backend, Config, FlushPolicy, ForeignPages, Vmalloc};

use super::counting::{CountingTables, Counts};
use crate::handles::BackendBy;

pub const LAZY: FlushPolicy = FlushPolicy::Lazy {
    areas: usize::MAX,
    pages: u64::MAX,
};

pub fn kernel_policy() -> FlushPolicy {
    kernel_vmalloc().config().flush
}

/// Returns a subsystem as the kernel's but for the flush policy.
///
/// # Panics
/// Without memory for it.
pub fn subsystem(range: VirtRange, flush: FlushPolicy) -> Box<KernelVmalloc> {
    new(range, KernelBackend, flush)
}

/// Returns a subsystem that defers all flushes, of foreign pages too, as Linux does.
///
/// # Panics
/// Without memory for it.
pub fn deferring_subsystem(range: VirtRange) -> Box<KernelVmalloc> {
    let config = Config {
        flush: LAZY,
        foreign: ForeignPages::Defer,
        ..*kernel_vmalloc().config()
    };
    with_config(range, KernelBackend, config)
}

/// # Panics
/// Without memory for it.
pub fn counting_subsystem(
    range: VirtRange,
    flush: FlushPolicy,
    mmu: KernelMmu,
) -> Box<Vmalloc<CountingBackend>> {
    let backend = BackendBy::new(
        CountingTables::new(KernelTables),
        CountingTables::new(LinearMapTables::new()),
        || Counting::new(mmu),
    );
    new(range, backend, flush)
}

fn new<B: Backend>(range: VirtRange, backend: B, flush: FlushPolicy) -> Box<Vmalloc<B>> {
    let config = Config {
        flush,
        ..*kernel_vmalloc().config()
    };
    with_config(range, backend, config)
}

fn with_config<B: Backend>(range: VirtRange, backend: B, config: Config) -> Box<Vmalloc<B>> {
    match Vmalloc::new(range, backend, config) {
        Ok(vm) => Box::new(vm),
        Err(error) => panic!("a region for the bench: {error}"),
    }
}

pub type CountingBackend =
    BackendBy<CountingTables<KernelTables>, CountingTables<LinearMapTables>, Counting<KernelMmu>>;

impl CountingBackend {
    /// Returns the counts, and zeroes them.
    pub fn take(&self) -> Counts {
        let (tree, linear_map) = (self.tree(), self.linear_map());
        tree.tables().take(tree.mmu()) + linear_map.tables().take(linear_map.mmu())
    }
}
