//! The kernel's buddy allocator and its frames' states on memory that is made up: only what is
//! written to a frame exists.

mod frames {
    #[path = "../../../src/mm/frames/buddy.rs"]
    #[allow(dead_code, reason = "it has all that the kernel needs")]
    mod buddy;
    pub mod buddy_tests;
    #[path = "../../../src/mm/frames/zones.rs"]
    #[allow(dead_code, reason = "it has all that the kernel needs")]
    mod zones;

    static NR_FREE: core::sync::atomic::AtomicU64 = core::sync::atomic::AtomicU64::new(0);
}

mod arch {
    pub mod atomic {
        use core::sync::atomic::{AtomicU8, Ordering::Relaxed};

        pub fn exchange_relaxed(byte: &AtomicU8, expected: u8, new: u8) -> bool {
            byte.compare_exchange(expected, new, Relaxed, Relaxed).is_ok()
        }
    }
    pub mod masked {
        pub fn moves_block() {}
        pub fn writes_states() {}
    }
}

mod mm {
    use std::cell::RefCell;
    use std::collections::BTreeMap;

    pub use machine::regions;
    pub mod layout {
        pub const PAGE_SIZE: usize = 4096;
    }

    /// What lies at the start of a frame, for a free block's links.
    type Start = Box<[u64; 2]>;

    thread_local! {
        static STARTS: RefCell<BTreeMap<u64, Start>> = const { RefCell::new(BTreeMap::new()) };
    }

    pub fn linear_va(pa: u64) -> usize {
        STARTS.with_borrow_mut(|starts| starts.entry(pa).or_default().as_mut_ptr() as usize)
    }

    /// Returns how many frames have had links.
    pub fn linked() -> usize {
        STARTS.with_borrow(BTreeMap::len)
    }

    /// # Safety
    /// A page of states, the caller's alone.
    pub unsafe fn zero_page(va: usize) {
        // SAFETY: the caller's promise.
        unsafe { (va as *mut u8).write_bytes(0, layout::PAGE_SIZE) }
    }
}
