//! A second vmalloc subsystem on the live tables, for a range of addresses that the kernel's has
//! reserved.
//!
//! It is the same code on the same frames, tables, locks and MMU, but its invalidations are entered
//! in a [`Ledger`], its addresses can be made few, and the code that an exception would have
//! interrupted can be made to hold its lock. So what the kernel's own subsystem does unseen is seen
//! here:
//!
//! - no frame is freed, and no address handed out again, that a TLB could still know (DESIGN rule
//!   6);
//! - in the end nothing is owed, and nothing is left: no area, no address, no record.

use alloc::boxed::Box;
use alloc::sync::Arc;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use arrayvec::ArrayVec;
use kernel::layout;
use kernel::mm::areas::{KernelArea, KernelBackend, edit_linear_map};
use kernel::mm::tables::LinearMapTables;
use kernel::mm::{frames, kernel_tree, linear_va, walk_lock};
use kernel::sync::{IrqSpinLock, IrqSpinLockGuard};
use paging::{Outcome, Pfn, PhysAddr, Tree, VirtAddr, VirtRange, Visit};
use vmalloc::{Backend, Config, FlushPolicy, LinearEdit, Lock, LockClass, NodePage, NodePages, Vmalloc};

use super::failure::{Failure, expect_value};
use super::fault_injection::{TestMmu, TestTables};
use super::ledger::{Ledger, LedgerMmu};
use super::live;
use super::source::{BLOCK, PAGE};
use super::verify::{read, write};
use crate::handles::as_kernel_backend;

/// Pages for nodes at most.
const MOST_NODE_PAGES: usize = 256;

/// Where a page of an area notes its own address, as a word of the page: what frees the frame
/// finds it there.
pub const VA_WORD: usize = 2;

/// The code that runs holds every [`TestLock`], as far as code that only tries one can tell.
static HELD: AtomicBool = AtomicBool::new(false);

/// A kernel's lock that an exception handler may find taken by what it interrupted.
#[derive(Debug)]
pub struct TestLock<T>(IrqSpinLock<T>);

// SAFETY: the kernel's lock. That it is said to be held although it is not keeps code that only
// tries out, no more.
unsafe impl<T: Send> Lock<T> for TestLock<T> {
    type Guard<'a>
        = IrqSpinLockGuard<'a, T>
    where
        Self: 'a;
    fn new(class: LockClass, value: T) -> Self {
        Self(<IrqSpinLock<T> as Lock<T>>::new(class, value))
    }
    fn lock(&self) -> IrqSpinLockGuard<'_, T> {
        self.0.lock()
    }
    fn try_lock(&self) -> Option<IrqSpinLockGuard<'_, T>> {
        if HELD.load(Ordering::Acquire) {
            return None;
        }
        self.0.try_lock()
    }
}

/// Runs `f` as an exception handler that interrupted the holder of the test's locks.
pub fn as_if_interrupted<R>(f: impl FnOnce() -> R) -> R {
    HELD.store(true, Ordering::Release);
    let result = f();
    HELD.store(false, Ordering::Release);
    result
}

/// The tree of the second subsystem: the live tables.
type LedgerTree = Tree<layout::Granule, TestTables, LedgerMmu>;

/// What the second subsystem stands on.
#[derive(Debug)]
pub struct TestBackend {
    tree: LedgerTree,
    linear_map: Tree<layout::Granule, LinearMapTables, TestMmu>,
    ledger: Arc<Ledger>,
    node_frames: IrqSpinLock<ArrayVec<Pfn, MOST_NODE_PAGES>>,
    /// The first frame that was freed too early, plus one.
    too_early: AtomicU64,
}

impl NodePages for TestBackend {
    fn node_page(&self) -> Option<&'static mut NodePage> {
        let frame = frames::allocate_no_reclaim(0)?;
        if self.node_frames.lock().try_push(frame).is_err() {
            frames::free(frame, 0);
            return None;
        }
        let page = linear_va(frame.0 * PAGE) as *mut NodePage;
        // SAFETY: a frame of our own, in the linear map, that is freed when nothing has the
        // subsystem any more; arbitrary contents are allowed.
        Some(unsafe { &mut *page })
    }
}

// SAFETY: 1. as the kernel's own; 2. the tree translates all of TTBR1, and the kernel's subsystem
// has reserved the region for this one; 3. as the kernel's.
#[deny(clippy::missing_trait_methods)]
unsafe impl Backend for TestBackend {
    type Granule = layout::Granule;
    type Tables = TestTables;
    type Mmu = LedgerMmu;
    type Lock<T: Send> = TestLock<T>;

    as_kernel_backend!(self);

    fn tree(&self) -> &LedgerTree {
        &self.tree
    }
    fn alloc_frames(&self, order: u32) -> Option<Pfn> {
        let first = KernelBackend.alloc_frames(order)?;
        // No address of before is taken for one of now.
        (0..1 << order).for_each(|page| self.write_word(Pfn(first.0 + page), VA_WORD, 0));
        Some(first)
    }
    fn free_frames(&self, first: Pfn, order: u32) {
        for frame in first.0..first.0 + (1 << order) {
            let va = VirtAddr(self.read_word(Pfn(frame), VA_WORD));
            if self.ledger.owes(va) {
                self.too_early.fetch_max(frame + 1, Ordering::AcqRel);
            }
        }
        KernelBackend.free_frames(first, order);
    }
    fn read_word(&self, frame: Pfn, index: usize) -> u64 {
        read(linear_va(frame.0 * PAGE) + 8 * index)
    }
    fn write_word(&self, frame: Pfn, index: usize, value: u64) {
        write(linear_va(frame.0 * PAGE) + 8 * index, value);
    }
    fn edit_linear_map(&self, pa: PhysAddr, size: u64, edit: LinearEdit) -> Result<Outcome, paging::Failure> {
        edit_linear_map(&self.linear_map, pa, size, edit)
    }
}

/// A second subsystem and the addresses that it has.
#[derive(Debug)]
pub struct SecondVmalloc {
    vm: Option<Box<Vmalloc<TestBackend>>>,
    _addresses: KernelArea,
}

impl SecondVmalloc {
    /// One for `size` bytes of addresses, a multiple of 2M, that flushes as `flush` says.
    ///
    /// # Errors
    /// There are no such addresses, or there is no frame for it.
    pub fn new(size: u64, flush: FlushPolicy) -> Result<Self, Failure> {
        let addresses = live::reserve(size, BLOCK * PAGE)?;
        let range = addresses.range();
        let ledger = Arc::new(Ledger::new(range));
        let kernel = kernel_tree();
        let mmu = || TestMmu::new(*kernel.mmu(), None);
        let backend = TestBackend {
            tree: kernel.handle(TestTables::new(None), LedgerMmu::new(mmu(), Arc::clone(&ledger))),
            linear_map: kernel.handle(LinearMapTables::new(), mmu()),
            ledger,
            node_frames: IrqSpinLock::new("node frames", ArrayVec::new()),
            too_early: AtomicU64::new(0),
        };
        let policy = Config {
            flush,
            cached_areas: 16,
            ..Config::default()
        };
        Ok(Self {
            vm: Some(Box::new(Vmalloc::new(range, backend, policy)?)),
            _addresses: addresses,
        })
    }

    /// Returns the subsystem.
    ///
    /// # Panics
    /// Never: it is there until this is dropped.
    #[must_use]
    pub fn vm(&self) -> &Vmalloc<TestBackend> {
        match &self.vm {
            Some(vm) => vm,
            None => unreachable!("a second subsystem that was not made"),
        }
    }

    /// Returns the ledger of its addresses.
    #[must_use]
    pub fn ledger(&self) -> &Ledger {
        &self.vm().backend().ledger
    }

    /// What maps `range` now is taken out or changed next.
    ///
    /// # Errors
    /// It is no range of addresses.
    pub fn owe(&self, range: VirtRange) -> Result<(), Failure> {
        let _walk = walk_lock().walk();
        self.vm().backend().tree.visit(range, |leaf| {
            self.ledger().owe(leaf.va, leaf.size);
            Visit::Continue
        })?;
        Ok(())
    }

    /// Nothing was handed out or freed too early; and after a flush, nothing is owed and nothing is
    /// left.
    ///
    /// # Errors
    /// What is.
    pub fn check_empty(&self) -> Result<(), Failure> {
        let vm = self.vm();
        vm.shrink();
        match vm.backend().too_early.load(Ordering::Acquire) {
            0 => {}
            frame => {
                return Err(Failure::Claim {
                    what: "a frame was freed before its translation was flushed",
                    at: (frame - 1) * PAGE,
                });
            }
        }
        if let Some(va) = self.ledger().first_debt() {
            return Err(Failure::Claim {
                what: "a translation was never flushed",
                at: va.0,
            });
        }
        let usage = vm.usage();
        expect_value("areas that are left", usage.areas as u64, 0)?;
        expect_value("pages of addresses that are left", usage.pages, 0)?;
        expect_value("areas that wait for a flush", usage.lazy.0 as u64, 0)?;
        expect_value("areas that were deferred", usage.deferred.0 as u64, 0)?;
        expect_value("addresses that were deferred", usage.deferred_addresses as u64, 0)?;
        let census = vm.check().map_err(|_| Failure::Claim {
            what: "the address space is unsound",
            at: vm.range().start.0,
        })?;
        expect_value(
            "records of areas in use",
            (census.live + census.retired) as u64,
            0,
        )
    }
}

impl Drop for SecondVmalloc {
    fn drop(&mut self) {
        if let Some(vm) = self.vm.take() {
            // The addresses go back without a table.
            vm.shrink();
            let node_frames = core::mem::take(&mut *vm.backend().node_frames.lock());
            drop(vm);
            // No node is in use any more.
            node_frames.iter().for_each(|frame| frames::free(*frame, 0));
        }
    }
}
