use paging::VirtAddr;
use vmalloc::{Backend, Error, Kind, Vmalloc};

use super::source::PAGE;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ByAddress {
    Vfree,
    Vunmap,
    Iounmap,
    FreeVmArea,
    VmUnmapRam(u64),
    Vrealloc,
    SetMemoryRo,
}

impl ByAddress {
    pub const ALL: [Self; 7] = [
        Self::Vfree,
        Self::Vunmap,
        Self::Iounmap,
        Self::FreeVmArea,
        Self::VmUnmapRam(1),
        Self::Vrealloc,
        Self::SetMemoryRo,
    ];

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

    /// # Errors
    /// Those of the call.
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
