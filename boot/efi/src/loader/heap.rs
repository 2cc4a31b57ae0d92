//! A heap that outlives the firmware's: the device tree is written once the last memory map is
//! known.

use core::alloc::{GlobalAlloc, Layout};
use core::ptr::{NonNull, null_mut};

use linked_list_allocator::Heap;

use super::{Error, firmware};

/// A device tree of 2 MiB, its nodes, and the blob that they become.
const SIZE: usize = 32 << 20;

struct Locked(spin::Mutex<Heap>);

#[global_allocator]
static HEAP: Locked = Locked(spin::Mutex::new(Heap::empty()));

/// Gives the heap its memory. Before that it has none.
pub fn set_up() -> Result<(), Error> {
    let place = firmware::allocate(SIZE)?;
    // SAFETY: pages of its own, and this is called once.
    unsafe { HEAP.0.lock().init(place.start as *mut u8, place.len()) };
    Ok(())
}

// SAFETY: `Heap` keeps the contract, and the lock makes it exclusive.
unsafe impl GlobalAlloc for Locked {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let block = self.0.lock().allocate_first_fit(layout);
        block.map_or(null_mut(), NonNull::as_ptr)
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise, of a block and its layout.
        unsafe { self.0.lock().deallocate(NonNull::new_unchecked(block), layout) }
    }
}
