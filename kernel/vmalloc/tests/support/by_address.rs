use paging::{FrameArray, Outcome, VirtAddr};
use vmalloc::{Backend, Error, VmArea, Vmalloc};

/// Frames are numbers, and no Rust value lies in what is mapped.
pub struct Raw<'v, B: Backend>(&'v Vmalloc<B>);

pub trait ByAddress<B: Backend> {
    fn raw(&self) -> Raw<'_, B>;
}

impl<B: Backend> ByAddress<B> for Vmalloc<B> {
    fn raw(&self) -> Raw<'_, B> {
        Raw(self)
    }
}

macro_rules! by_address {
    ($($name:ident($($arg:ident: $type:ty),*) -> $result:ty;)*) => {
        #[allow(dead_code, reason = "each test has the calls that it needs")]
        #[deny(unused_unsafe, reason = "safe code must not be able to make any of these calls")]
        impl<'v, B: Backend> Raw<'v, B> {
            $(#[track_caller]
            pub fn $name(&self, $($arg: $type),*) -> Result<$result, Error> {
                // SAFETY: nothing that lies there is used: see `Raw`. Which area it is, the tests
                // find out.
                unsafe { self.0.$name($($arg),*) }
            })*

            #[track_caller]
            pub fn vmap_put_pages<A: FrameArray + ?Sized>(&self, frames: &A) -> Result<VmArea<'v, B>, Error> {
                // SAFETY: as above; the machine checks each frame itself.
                unsafe { self.0.vmap_put_pages(frames) }
            }
        }
    };
}

by_address! {
    vfree(va: VirtAddr) -> ();
    vunmap(va: VirtAddr) -> ();
    iounmap(va: VirtAddr) -> ();
    free_vm_area(va: VirtAddr) -> ();
    vfree_atomic(va: VirtAddr) -> ();
    vm_unmap_ram(va: VirtAddr, nr: u64) -> ();
    vrealloc(va: VirtAddr, size: u64) -> VirtAddr;
    set_memory_ro(va: VirtAddr, size: u64) -> Outcome;
    set_memory_rw(va: VirtAddr, size: u64) -> Outcome;
    set_memory_x(va: VirtAddr, size: u64) -> Outcome;
    set_memory_nx(va: VirtAddr, size: u64) -> Outcome;
    set_memory_valid(va: VirtAddr, size: u64) -> Outcome;
    set_memory_invalid(va: VirtAddr, size: u64) -> Outcome;
}
