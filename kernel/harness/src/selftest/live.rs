use kernel::layout;
use kernel::mm;
use kernel::mm::areas::{self, KernelArea};
use paging::{Tree, VirtAddr};

use super::failure::Failure;
use super::fault_injection::{TestMmu, TestTables};
use super::source::PAGE;

pub type TestTree = Tree<layout::Granule, TestTables, TestMmu>;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Usage {
    pub areas: u64,
    pub pages: u64,
    /// These never shrink.
    pub node_frames: u64,
}

/// Reserves `size` bytes of addresses at a multiple of `align`.
///
/// # Errors
/// There is no such range.
pub fn reserve(size: u64, align: u64) -> Result<KernelArea, Failure> {
    Ok(areas::kernel_vmalloc().get_vm_area(size, align)?)
}

/// Frees what vmalloc keeps or frees lazily, and its empty tables. No other CPU may be using it.
pub fn free_all_kept() {
    let vm = areas::kernel_vmalloc();
    vm.shrink();
    if let Err(failure) = mm::kernel_tree().prune(vm.range()) {
        unreachable!("the region is whole pages of the upper half: {failure}");
    }
}

/// Returns what is held after [`free_all_kept`].
#[must_use]
pub fn usage() -> Usage {
    free_all_kept();
    let usage = areas::kernel_vmalloc().usage();
    Usage {
        areas: usage.areas as u64,
        pages: usage.pages,
        node_frames: areas::nr_node_frames(),
    }
}

/// Returns whether one area in use has the range, without its guards.
#[must_use]
pub fn is_area(start: usize, last: usize) -> bool {
    let Some(area) = areas::kernel_vmalloc().find_vm_area(VirtAddr(start as u64)) else {
        return false;
    };
    // An ioremap's size begins anywhere in a page.
    areas::kernel_vmalloc().find_vm_area(VirtAddr(last as u64).align_down(PAGE)) == Some(area)
}
