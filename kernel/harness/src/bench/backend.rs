//! Subsystems for the bench: each on addresses of its own, with the kernel's
//! backend or with one that counts.

use alloc::boxed::Box;

use kernel::arch::mmu::KernelMmu;
use kernel::mm::areas::{KernelBackend, KernelVmalloc, kernel_vmalloc};
use kernel::mm::tables::{KernelTables, LinearMapTables};
use paging::VirtRange;
use paging::mmu::Counting;
use vmalloc::{Backend, Config, FlushPolicy, ForeignPages, Vmalloc};

use super::counting::{CountingTables, Counts};
use crate::handles::BackendBy;

/// Never reached by a case: what is lazy stays so until it is asked for.
pub const LAZY: FlushPolicy = FlushPolicy::Lazy {
    areas: usize::MAX,
    pages: u64::MAX,
};

/// Returns the policy of the kernel's own subsystem.
pub fn kernel_policy() -> FlushPolicy {
    kernel_vmalloc().config().flush
}

/// Returns a subsystem on `range`, configured as the kernel's but for when it flushes.
///
/// # Panics
/// If there is no memory for it.
pub fn subsystem(range: VirtRange, flush: FlushPolicy) -> Box<KernelVmalloc> {
    new(range, KernelBackend, flush)
}

/// Returns a subsystem that lets everything wait until it is asked for, pages of another owner
/// too, as Linux does.
///
/// # Panics
/// If there is no memory for it.
pub fn deferring_subsystem(range: VirtRange) -> Box<KernelVmalloc> {
    let config = Config {
        flush: LAZY,
        foreign: ForeignPages::Defer,
        ..*kernel_vmalloc().config()
    };
    with_config(range, KernelBackend, config)
}

/// As [`subsystem`], with the backend that counts.
///
/// # Panics
/// If there is no memory for it.
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

/// The kernel's backend with trees that count.
pub type CountingBackend =
    BackendBy<CountingTables<KernelTables>, CountingTables<LinearMapTables>, Counting<KernelMmu>>;

impl CountingBackend {
    /// Returns what has passed, the linear map's part included; all starts again at zero.
    pub fn take(&self) -> Counts {
        let (tree, linear_map) = (self.tree(), self.linear_map());
        tree.tables().take(tree.mmu()) + linear_map.tables().take(linear_map.mmu())
    }
}
