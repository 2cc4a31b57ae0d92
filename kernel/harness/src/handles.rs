//! The kernel's backend by other handles on its trees: for code that counts, or notes, what passes
//! through them.

use kernel::mm::areas::{KernelBackend, edit_linear_map};
use kernel::mm::{kernel_tree, linear_map_tree};
use kernel::sync::IrqSpinLock;
use paging::{Failure, Granule4K, Mmu, Outcome, Pfn, PhysAddr, Tables, Tree};
use vmalloc::va::{NodePage, NodePages};
use vmalloc::{Backend, LinearEdit};

/// Those methods of a [`Backend`] that have nothing to do with tables, nor with who has a frame: as
/// [`KernelBackend`] has them.
macro_rules! as_kernel_backend {
    () => {
        fn take_over(&self, frame: paging::Pfn) -> bool {
            kernel::mm::areas::KernelBackend.take_over(frame)
        }
        fn hand_back(&self, frame: paging::Pfn) {
            kernel::mm::areas::KernelBackend.hand_back(frame);
        }
        fn max_order(&self) -> u32 {
            kernel::mm::areas::KernelBackend.max_order()
        }
        fn nr_frames(&self) -> u64 {
            kernel::mm::areas::KernelBackend.nr_frames()
        }
        fn nr_free_frames(&self) -> u64 {
            kernel::mm::areas::KernelBackend.nr_free_frames()
        }
        fn has_free_frames(&self, nr: u64) -> bool {
            kernel::mm::areas::KernelBackend.has_free_frames(nr)
        }
        fn nr_cpus(&self) -> usize {
            kernel::mm::areas::KernelBackend.nr_cpus()
        }
        fn relax(&self) {
            kernel::mm::areas::KernelBackend.relax();
        }
        fn alone_in_linear_map<R>(&self, f: impl FnOnce() -> R) -> R {
            kernel::mm::areas::KernelBackend.alone_in_linear_map(f)
        }
        fn zero_frames(&self, first: paging::Pfn, order: u32) {
            kernel::mm::areas::KernelBackend.zero_frames(first, order);
        }
        fn is_ram(&self, start: paging::PhysAddr, size: u64) -> bool {
            kernel::mm::areas::KernelBackend.is_ram(start, size)
        }
        fn publish_instructions(&self, range: paging::VirtRange) {
            kernel::mm::areas::KernelBackend.publish_instructions(range);
        }
        fn read_memory(&self, pa: paging::PhysAddr, out: &mut [u8]) -> bool {
            kernel::mm::areas::KernelBackend.read_memory(pa, out)
        }
        fn without_waiting<R>(&self, f: impl FnOnce() -> R) -> R {
            kernel::mm::areas::KernelBackend.without_waiting(f)
        }
        fn deferred_free_refused(
            &self,
            va: paging::VirtAddr,
            by: &'static core::panic::Location<'static>,
            error: &vmalloc::Error,
        ) {
            kernel::mm::areas::KernelBackend.deferred_free_refused(va, by, error);
        }
        fn cpu(&self) -> usize {
            kernel::mm::areas::KernelBackend.cpu()
        }
    };
}
pub(crate) use as_kernel_backend;

/// The kernel's backend, with `T` and `M` in the place of its tables and barriers, and `L` in that
/// of those for the linear map.
#[derive(Debug)]
pub struct BackendBy<T: Tables, L: Tables, M: Mmu> {
    tree: Tree<Granule4K, T, M>,
    linear_map: Tree<Granule4K, L, M>,
}

impl<T: Tables, L: Tables, M: Mmu> BackendBy<T, L, M> {
    /// On the kernel's trees.
    pub fn new(tables: T, linear_map_tables: L, mmu: impl Fn() -> M) -> Self {
        Self {
            tree: kernel_tree().handle(tables, mmu()),
            linear_map: linear_map_tree().handle(linear_map_tables, mmu()),
        }
    }

    /// Returns the handle by which the linear map is edited.
    pub fn linear_map(&self) -> &Tree<Granule4K, L, M> {
        &self.linear_map
    }
}

impl<T: Tables, L: Tables, M: Mmu> NodePages for BackendBy<T, L, M> {
    fn node_page(&self) -> Option<&'static mut NodePage> {
        KernelBackend.node_page()
    }
}

// SAFETY: the kernel's backend keeps the promises; the trees are the kernel's, by other handles.
unsafe impl<T: Tables + 'static, L: Tables + 'static, M: Mmu + 'static> Backend for BackendBy<T, L, M> {
    type Granule = Granule4K;
    type Tables = T;
    type Mmu = M;
    type Lock<V: Send> = IrqSpinLock<V>;

    as_kernel_backend!();

    fn tree(&self) -> &Tree<Granule4K, T, M> {
        &self.tree
    }
    fn alloc_frames(&self, order: u32) -> Option<Pfn> {
        KernelBackend.alloc_frames(order)
    }
    fn free_frames(&self, first: Pfn, order: u32) {
        KernelBackend.free_frames(first, order);
    }
    fn read_word(&self, frame: Pfn, index: usize) -> u64 {
        KernelBackend.read_word(frame, index)
    }
    fn write_word(&self, frame: Pfn, index: usize, value: u64) {
        KernelBackend.write_word(frame, index, value);
    }
    fn edit_linear_map(&self, pa: PhysAddr, size: u64, edit: LinearEdit) -> Result<Outcome, Failure> {
        edit_linear_map(&self.linear_map, pa, size, edit)
    }
}
