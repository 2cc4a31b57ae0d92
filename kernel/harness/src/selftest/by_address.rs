//! The calls that end or change memory by address, as values: for tests that try one after the
//! other.

use paging::VirtAddr;
use vmalloc::{Backend, Error, Kind, Vmalloc};

use super::source::PAGE;

/// A call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ByAddress {
    /// `vfree`.
    Vfree,
    /// `vunmap`.
    Vunmap,
    /// `iounmap`.
    Iounmap,
    /// `free_vm_area`.
    FreeVmArea,
    /// `vm_unmap_ram` of so many pages.
    VmUnmapRam(u64),
    /// `vrealloc` to two pages.
    Vrealloc,
    /// `set_memory_ro` of a page.
    SetMemoryRo,
}

impl ByAddress {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Vfree,
        Self::Vunmap,
        Self::Iounmap,
        Self::FreeVmArea,
        Self::VmUnmapRam(1),
        Self::Vrealloc,
        Self::SetMemoryRo,
    ];

    /// Returns the call that gives an area of `kind` back.
    #[must_use]
    pub const fn that_ends(kind: Kind) -> Self {
        match kind {
            Kind::Vmalloc | Kind::Stack => Self::Vfree,
            Kind::Vmap => Self::Vunmap,
            Kind::Ioremap => Self::Iounmap,
            Kind::Reserved => Self::FreeVmArea,
            Kind::MapRam => Self::VmUnmapRam(1),
        }
    }

    /// Returns what it is, for a report.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Vfree => "vfree",
            Self::Vunmap => "vunmap",
            Self::Iounmap => "iounmap",
            Self::FreeVmArea => "free_vm_area",
            Self::VmUnmapRam(_) => "vm_unmap_ram",
            Self::Vrealloc => "vrealloc",
            Self::SetMemoryRo => "set_memory_ro",
        }
    }

    /// Makes the call.
    ///
    /// # Errors
    /// As the call's.
    ///
    /// # Safety
    /// As the call's.
    #[track_caller]
    pub unsafe fn at<B: Backend>(self, vm: &Vmalloc<B>, va: VirtAddr) -> Result<(), Error> {
        // SAFETY: the caller's promise, for each of them.
        unsafe {
            match self {
                Self::Vfree => vm.vfree(va),
                Self::Vunmap => vm.vunmap(va),
                Self::Iounmap => vm.iounmap(va),
                Self::FreeVmArea => vm.free_vm_area(va),
                Self::VmUnmapRam(nr) => vm.vm_unmap_ram(va, nr),
                Self::Vrealloc => vm.vrealloc(va, 2 * PAGE).map(drop),
                Self::SetMemoryRo => vm.set_memory_ro(va, PAGE).map(drop),
            }
        }
    }
}
