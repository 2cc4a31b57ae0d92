//! The live kernel, as the suite sees it: what tests map with, and what the subsystem for addresses
//! says.

use kernel::layout;
use kernel::mm;
use kernel::mm::areas::{self, KernelArea};
use paging::{Tree, VirtAddr};

use super::failure::Failure;
use super::fault_injection::{TestMmu, TestTables};
use super::source::PAGE;

/// The tree that tests map with: the live tables, through the suite's wrappers.
pub type TestTree = Tree<layout::Granule, TestTables, TestMmu>;

/// What the vmalloc subsystem holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Usage {
    /// Areas in use.
    pub areas: u64,
    /// Pages of addresses in use, guards included.
    pub pages: u64,
    /// Frames behind its bookkeeping, which never shrinks.
    pub node_frames: u64,
}

/// Reserves `size` bytes of addresses at a multiple of `align` bytes.
///
/// # Errors
/// There is no such range.
pub fn reserve(size: u64, align: u64) -> Result<KernelArea, Failure> {
    Ok(areas::kernel_vmalloc().get_vm_area(size, align)?)
}

/// Frees what the vmalloc subsystem frees lazily or keeps for later, and the tables above the
/// last level that it leaves linked and empty. No other CPU may be using it.
pub fn free_all_kept() {
    let vm = areas::kernel_vmalloc();
    vm.shrink();
    if let Err(failure) = mm::kernel_tree().prune(vm.range()) {
        unreachable!("the region is whole pages of the upper half: {failure}");
    }
}

/// Returns what the vmalloc subsystem holds now, after [all was freed](free_all_kept) that can
/// be.
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

/// Returns whether `start..=last` lies in the pages of one area in use, guards not counted.
#[must_use]
pub fn is_area(start: usize, last: usize) -> bool {
    let Some(area) = areas::kernel_vmalloc().find_vm_area(VirtAddr(start as u64)) else {
        return false;
    };
    // An ioremap's size is what was asked for, which may begin anywhere in its first page.
    areas::kernel_vmalloc().find_vm_area(VirtAddr(last as u64).align_down(PAGE)) == Some(area)
}
