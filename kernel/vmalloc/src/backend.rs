//! The seam to the kernel around: [`Backend`], [`Lock`].

use crate::error::Error;
use crate::linear::LinearEdit;
use crate::va::NodePages;
use core::ops::DerefMut;
use core::panic::Location;
use paging::{Failure, Granule, Mmu, Outcome, Pfn, PhysAddr, Tables, Tree, VirtAddr, VirtRange};

/// What a lock is for. A lock may be taken while one further up is held, never the other way round,
/// and none twice.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum LockClass {
    /// Of a gate: held for a few instructions, with nothing else taken.
    Gate,
    /// Of a CPU's shard. Never are two of these held.
    Shard,
    /// Of the common shard.
    CommonShard,
}

/// A lock around a value, that masks interrupts while it is held.
///
/// # Safety
/// An implementation promises that one guard of a lock is alive at most, on all CPUs together, that
/// it gives the value that [`new`](Self::new) was given, and that what takes the lock has seen all
/// that was done under it (acquire, and release where it is dropped).
pub unsafe trait Lock<T> {
    /// Held until this is dropped.
    type Guard<'a>: DerefMut<Target = T>
    where
        Self: 'a;
    /// Returns an unlocked lock around `value`.
    fn new(class: LockClass, value: T) -> Self;
    /// Takes the lock, and waits for it.
    fn lock(&self) -> Self::Guard<'_>;
    /// Takes the lock if it is free, of this CPU too: an exception handler may ask for what the
    /// code holds that it interrupted, and is refused.
    fn try_lock(&self) -> Option<Self::Guard<'_>>;
}

/// What the kernel gives to the subsystem.
///
/// # Safety
/// An implementation promises:
/// 1. frames from [`alloc_frames`](Self::alloc_frames) have no other use until they are given to
///    [`free_frames`](Self::free_frames), and begin at a multiple of their number;
/// 2. the tree translates the region that a [`Vmalloc`](crate::Vmalloc) is made for, and nothing
///    else maps or unmaps there;
/// 3. no table of the region is freed by anything but its [`free_table`](Tables::free_table), which
///    a reader of the whole tree, if the kernel has one, may keep waiting;
/// 4. [`publish_instructions`](Self::publish_instructions) does what it says, for this CPU and the
///    others.
pub unsafe trait Backend: NodePages + Sized + 'static {
    /// The granule of the tree.
    type Granule: Granule;
    /// Its table memory.
    type Tables: Tables;
    /// Its barriers and invalidations.
    type Mmu: Mmu;
    /// The kernel's lock. Two of them lie in a node page with what they guard, which leaves 128
    /// bytes for each; what is too large does not compile.
    type Lock<T: Send>: Lock<T>;

    /// Returns the tree.
    fn tree(&self) -> &Tree<Self::Granule, Self::Tables, Self::Mmu>;

    /// `1 << order` frames that follow each other, the first at a multiple of that. `None` when
    /// there are none so many.
    fn alloc_frames(&self, order: u32) -> Option<Pfn>;
    /// Takes back what [`alloc_frames`](Self::alloc_frames) gave, whole. Never called from where
    /// locks are only tried.
    fn free_frames(&self, first: Pfn, order: u32);
    /// Makes `frame`, that [`alloc_frames`](Self::alloc_frames) gave as a single one to its holder,
    /// an area's own: until it is [handed back](Self::hand_back), it may not be freed or handed
    /// over otherwise. False if it is no such frame, or is an area's already.
    ///
    /// The default believes the caller.
    fn take_over(&self, _frame: Pfn) -> bool {
        true
    }
    /// Takes back what [`take_over`](Self::take_over) did: `frame` is its owner's again, or is
    /// about to be freed.
    fn hand_back(&self, _frame: Pfn) {}
    /// Returns the largest order worth asking for.
    fn max_order(&self) -> u32;
    /// Frames of RAM in all: nothing larger is even tried. Asked once, when a
    /// [`Vmalloc`](crate::Vmalloc) is made.
    fn nr_frames(&self) -> u64;
    /// Frames that are free at this moment: a request for more than these and what is lazy is
    /// refused before it takes any.
    ///
    /// The default believes that all may be.
    fn nr_free_frames(&self) -> u64 {
        self.nr_frames()
    }
    /// Returns whether `nr` frames are free. Asked often, so an answer that reads less is better.
    fn has_free_frames(&self, nr: u64) -> bool {
        nr <= self.nr_free_frames()
    }

    /// Fills frames with zeros.
    fn zero_frames(&self, first: Pfn, order: u32);
    /// Reads the 64-bit word at `index` of a frame that `alloc_frames` gave.
    fn read_word(&self, frame: Pfn, index: usize) -> u64;
    /// Writes the 64-bit word at `index` of a frame that `alloc_frames` gave.
    fn write_word(&self, frame: Pfn, index: usize, value: u64);

    /// Runs `f`. Within it, and on this CPU, [`alloc_frames`](Self::alloc_frames),
    /// [`node_page`](NodePages::node_page), and the tree's [`alloc_table`](Tables::alloc_table) and
    /// [`free_table`](Tables::free_table) wait for nothing: where an allocator's lock is taken, or
    /// its memory has to be got from somewhere, there is none. This is how
    /// [`Request::nolock`](crate::Request::nolock) reaches them.
    ///
    /// The default is for allocators that never wait.
    fn without_waiting<R>(&self, f: impl FnOnce() -> R) -> R {
        f()
    }

    /// `va`, that `by` gave to [`vfree_atomic`](crate::Vmalloc::vfree_atomic), could not be freed
    /// when its turn came: it was freed before, or is no such area. There is no caller left to
    /// return the error to. A kernel logs it. Called with no lock held.
    fn deferred_free_refused(&self, _va: VirtAddr, _by: &'static Location<'static>, _error: &Error) {}

    /// Something was put off for a call that may wait:
    /// [`deal_with_deferred`](crate::Vmalloc::deal_with_deferred), or any other that allocates or
    /// frees, on the CPU whose area it is. A kernel wakes what makes one. Called in any context.
    fn deferred_work(&self) {}

    /// CPUs that there may be. Asked once, when a [`Vmalloc`](crate::Vmalloc) is made.
    fn nr_cpus(&self) -> usize {
        1
    }
    /// Returns the number of the CPU that this runs on: a hint, for what each CPU keeps for itself.
    fn cpu(&self) -> usize {
        0
    }
    /// A step of waiting for another CPU.
    fn relax(&self) {
        core::hint::spin_loop();
    }

    /// Runs `f`, which makes several [edits of the linear map](Self::edit_linear_map), while no
    /// other subsystem on the same linear map does. Interrupts stay enabled. The default is for the
    /// only subsystem.
    fn alone_in_linear_map<R>(&self, f: impl FnOnce() -> R) -> R {
        f()
    }

    /// Changes the linear map where it maps the `size` bytes of RAM at `pa`, by
    /// [`LinearEdit::apply`] on its tree. One call at a time, from one [`Vmalloc`](crate::Vmalloc).
    /// A kernel without a linear map has nothing to change.
    ///
    /// # Errors
    /// There is no page for a table; only for [`LinearEdit::Split`].
    fn edit_linear_map(&self, _pa: PhysAddr, _size: u64, _edit: LinearEdit) -> Result<Outcome, Failure> {
        Ok(Outcome::default())
    }

    /// Makes what was stored in `range`, whole pages that have just become executable, what every
    /// CPU fetches from there: cleans data caches to the point of unification and invalidates
    /// instruction caches, as far as the CPUs need either, and completes that by a DSB (Arm ARM
    /// B2.7.4).
    ///
    /// Then a CPU must have a context synchronisation event before it goes there. This CPU has had
    /// one when this returns. How each other has it is the kernel's to say: an interrupt to all of
    /// them, that this waits for; or one with every way by which a CPU is handed an address of
    /// code.
    ///
    /// Called as the last step before the call that made the pages executable returns, with no lock
    /// held. A CPU that has no business there may take pages of the range out meanwhile, or their
    /// access: they are passed over.
    fn publish_instructions(&self, range: VirtRange);

    /// Copies RAM at `pa` into `out`, at most to the end of its page. False if it cannot be read. A
    /// lock is held. The linear map may be broken there for a moment, by an edit on another CPU.
    fn read_memory(&self, _pa: PhysAddr, _out: &mut [u8]) -> bool {
        false
    }

    /// Returns whether any of the `size` bytes from `start` on is RAM. `size` is not 0, and the
    /// range does not wrap.
    fn is_ram(&self, start: PhysAddr, size: u64) -> bool;
}
