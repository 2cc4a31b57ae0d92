use kernel::layout;
use kernel::mm::areas::{KernelBackend, edit_linear_map};
use kernel::mm::{kernel_tree, linear_map_tree};
use kernel::sync::IrqSpinLock;
use paging::{Failure, Mmu, Outcome, Pfn, PhysAddr, Tables, Tree, forward};
use vmalloc::{Backend, LinearEdit, NodePage, NodePages};

macro_rules! as_kernel_backend {
    ($self:ident) => {
        paging::forward! { $self => kernel::mm::areas::KernelBackend;
            fn take_over(frame: paging::Pfn) -> bool;
            fn hand_back(frame: paging::Pfn);
            fn max_order() -> u32;
            fn nr_frames() -> u64;
            fn nr_free_frames() -> u64;
            fn has_free_frames(nr: u64) -> bool;
            fn zero_frames(first: paging::Pfn, order: u32);
            fn nr_cpus() -> usize;
            fn cpu() -> usize;
            fn relax();
            fn is_ram(start: paging::PhysAddr, size: u64) -> bool;
            fn publish_instructions(range: paging::VirtRange);
            fn read_memory(pa: paging::PhysAddr, out: &mut [u8]) -> bool;
            fn deferred_work();
            fn deferred_free_refused(
                va: paging::VirtAddr,
                by: &'static core::panic::Location<'static>,
                error: &vmalloc::Error,
            );
        }
        fn alone_in_linear_map<R>(&$self, f: impl FnOnce() -> R) -> R {
            kernel::mm::areas::KernelBackend.alone_in_linear_map(f)
        }
        fn without_waiting<R>(&$self, f: impl FnOnce() -> R) -> R {
            kernel::mm::areas::KernelBackend.without_waiting(f)
        }
    };
}
pub(crate) use as_kernel_backend;

/// The kernel's backend with other handles on its trees, which count what passes.
#[derive(Debug)]
pub struct BackendBy<T: Tables, L: Tables, M: Mmu> {
    tree: Tree<layout::Granule, T, M>,
    linear_map: Tree<layout::Granule, L, M>,
}

impl<T: Tables, L: Tables, M: Mmu> BackendBy<T, L, M> {
    pub fn new(tables: T, linear_map_tables: L, mmu: impl Fn() -> M) -> Self {
        Self {
            tree: kernel_tree().handle(tables, mmu()),
            linear_map: linear_map_tree().handle(linear_map_tables, mmu()),
        }
    }

    pub fn linear_map(&self) -> &Tree<layout::Granule, L, M> {
        &self.linear_map
    }
}

impl<T: Tables, L: Tables, M: Mmu> NodePages for BackendBy<T, L, M> {
    fn node_page(&self) -> Option<&'static mut NodePage> {
        KernelBackend.node_page()
    }
}

// SAFETY: the kernel's backend keeps the promises; the trees are the kernel's, by other handles.
#[deny(clippy::missing_trait_methods)]
unsafe impl<T: Tables + 'static, L: Tables + 'static, M: Mmu + 'static> Backend for BackendBy<T, L, M> {
    type Granule = layout::Granule;
    type Tables = T;
    type Mmu = M;
    type Lock<V: Send> = IrqSpinLock<V>;

    as_kernel_backend!(self);

    fn tree(&self) -> &Tree<layout::Granule, T, M> {
        &self.tree
    }
    forward! { self => KernelBackend;
        fn alloc_frames(order: u32) -> Option<Pfn>;
        fn free_frames(first: Pfn, order: u32);
        fn read_word(frame: Pfn, index: usize) -> u64;
        fn write_word(frame: Pfn, index: usize, value: u64);
    }
    fn edit_linear_map(&self, pa: PhysAddr, size: u64, edit: LinearEdit) -> Result<Outcome, Failure> {
        edit_linear_map(&self.linear_map, pa, size, edit)
    }
}
