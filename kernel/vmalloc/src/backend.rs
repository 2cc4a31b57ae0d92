//! What the kernel provides: [`Backend`], [`Lock`].

use crate::error::Error;
use crate::linear::LinearEdit;
use crate::va::NodePages;
use core::ops::DerefMut;
use core::panic::Location;
use paging::{Failure, Granule, Mmu, Outcome, Pfn, PhysAddr, Tables, Tree, VirtAddr, VirtRange};

/// A lock's level. Locks are taken in this order, none twice.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum LockClass {
    /// Of a gate.
    Gate,
    /// Of a CPU's shard.
    Shard,
    /// Of the common shard.
    CommonShard,
}

/// A lock that masks interrupts while held.
///
/// # Safety
///
/// At most one guard is alive, it gives the value of [`new`](Self::new), and taking the lock
/// acquires what dropping it released.
pub unsafe trait Lock<T> {
    /// Holds the lock until dropped.
    type Guard<'a>: DerefMut<Target = T>
    where
        Self: 'a;
    /// Returns an unlocked lock.
    fn new(class: LockClass, value: T) -> Self;
    /// Waits for the lock.
    fn lock(&self) -> Self::Guard<'_>;
    /// Takes the lock if it is free on all CPUs, this one included.
    fn try_lock(&self) -> Option<Self::Guard<'_>>;
}

/// What the kernel provides.
///
/// # Safety
///
/// 1. Frames of [`alloc_frames`](Self::alloc_frames) have no other use until freed, and are aligned
///    to their number;
/// 2. the tree translates the [`Vmalloc`](crate::Vmalloc)'s region, and nothing else maps or unmaps
///    there;
/// 3. only [`free_table`](Tables::free_table) frees the region's tables; a reader of the whole tree
///    may delay it;
/// 4. [`publish_instructions`](Self::publish_instructions) does what it says, for all CPUs.
pub unsafe trait Backend: NodePages + Sized + 'static {
    /// The tree's granule.
    type Granule: Granule;
    /// Its table memory.
    type Tables: Tables;
    /// Its barriers and invalidations.
    type Mmu: Mmu;
    /// The kernel's lock. Two lie in a node page with what they guard, 128 bytes each at most.
    type Lock<T: Send>: Lock<T>;

    /// Returns the tree.
    fn tree(&self) -> &Tree<Self::Granule, Self::Tables, Self::Mmu>;

    /// Returns `1 << order` frames, aligned to their number.
    fn alloc_frames(&self, order: u32) -> Option<Pfn>;
    /// Frees such an allocation whole. Not called where locks are only tried.
    fn free_frames(&self, first: Pfn, order: u32);
    /// Makes a single allocated `frame` an area's own: until [`hand_back`](Self::hand_back) it may
    /// not be freed or taken over. False if it is not such a frame, or an area's already. The
    /// default believes the caller.
    fn take_over(&self, _frame: Pfn) -> bool {
        true
    }
    /// Undoes [`take_over`](Self::take_over), also before a free.
    fn hand_back(&self, _frame: Pfn) {}
    /// Returns the largest order worth asking for.
    fn max_order(&self) -> u32;
    /// Returns the frames of RAM, which limit requests. Asked once.
    fn nr_frames(&self) -> u64;
    /// Free frames: a request for more than these and the lazy ones is refused. By default all.
    fn nr_free_frames(&self) -> u64 {
        self.nr_frames()
    }
    /// Whether `nr` frames are free. Asked often.
    fn has_free_frames(&self, nr: u64) -> bool {
        nr <= self.nr_free_frames()
    }

    /// Zeroes frames.
    fn zero_frames(&self, first: Pfn, order: u32);
    /// Reads a word of an allocated frame.
    fn read_word(&self, frame: Pfn, index: usize) -> u64;
    /// Writes a word of an allocated frame.
    fn write_word(&self, frame: Pfn, index: usize, value: u64);

    /// Runs `f`, within which allocations of frames, [node pages](NodePages::node_page) and
    /// [tables](Tables::alloc_table) fail rather than wait on this CPU, and
    /// [`free_table`](Tables::free_table) does not wait. The default is for allocators that never
    /// wait.
    fn without_waiting<R>(&self, f: impl FnOnce() -> R) -> R {
        f()
    }

    /// `va`, which `by` passed to [`vfree_atomic`](crate::Vmalloc::vfree_atomic), could not be
    /// freed later. Called without locks.
    fn deferred_free_refused(&self, _va: VirtAddr, _by: &'static Location<'static>, _error: &Error) {}

    /// There is work for [`deal_with_deferred`](crate::Vmalloc::deal_with_deferred). Called in any
    /// context.
    fn deferred_work(&self) {}

    /// Possible CPUs. Asked once.
    fn nr_cpus(&self) -> usize {
        1
    }
    /// This CPU's number, as a hint.
    fn cpu(&self) -> usize {
        0
    }
    /// Waits for another CPU for a moment.
    fn relax(&self) {
        core::hint::spin_loop();
    }

    /// Runs `f`, which [edits the linear map](Self::edit_linear_map), apart from other subsystems,
    /// with interrupts enabled. The default is for the only subsystem.
    fn alone_in_linear_map<R>(&self, f: impl FnOnce() -> R) -> R {
        f()
    }

    /// Applies `edit` to the linear map of `size` bytes of RAM at `pa`, by [`LinearEdit::apply`].
    /// One call at a time per [`Vmalloc`](crate::Vmalloc). The default is for kernels without one.
    ///
    /// # Errors
    ///
    /// No page for a table; only for [`LinearEdit::Split`].
    fn edit_linear_map(&self, _pa: PhysAddr, _size: u64, _edit: LinearEdit) -> Result<Outcome, Failure> {
        Ok(Outcome::default())
    }

    /// Publishes `range`, whole pages that have become executable, to instruction fetches of every
    /// CPU: cleans data caches to the point of unification, invalidates instruction caches, then a
    /// DSB (Arm ARM B2.7.4).
    ///
    /// On return this CPU has had a context synchronisation event. Others need one before they
    /// execute there. Called without locks, last in a call. Pages unmapped or inaccessible
    /// meanwhile are passed over.
    fn publish_instructions(&self, range: VirtRange);

    /// Copies RAM at `pa` into `out`, at most to the end of its page. False if it cannot be read:
    /// another CPU's edit may have broken the linear map. Called under a lock.
    fn read_memory(&self, _pa: PhysAddr, _out: &mut [u8]) -> bool {
        false
    }

    /// Whether any of `size` bytes, not 0, from `start` are RAM. The range does not wrap.
    fn is_ram(&self, start: PhysAddr, size: u64) -> bool;
}
