//! A second vmalloc subsystem, for addresses reserved in the kernel's, whose invalidations are
//! entered in a [`Ledger`]: no frame is freed and no address reused that a TLB may hold (DESIGN
//! rule 6).

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

const MOST_NODE_PAGES: usize = 256;

/// An area notes the page's address in it, for the free of its frame.
pub const VA_WORD: usize = 2;

static HELD: AtomicBool = AtomicBool::new(false);

#[derive(Debug)]
pub struct TestLock<T>(IrqSpinLock<T>);

// SAFETY: the kernel's lock; that `try_lock` fails more often is permitted.
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

/// Runs `f` as a handler that interrupted the holder of all [`TestLock`]s.
pub fn as_if_interrupted<R>(f: impl FnOnce() -> R) -> R {
    HELD.store(true, Ordering::Release);
    let result = f();
    HELD.store(false, Ordering::Release);
    result
}

type LedgerTree = Tree<layout::Granule, TestTables, LedgerMmu>;

#[derive(Debug)]
pub struct TestBackend {
    tree: LedgerTree,
    linear_map: Tree<layout::Granule, LinearMapTables, TestMmu>,
    ledger: Arc<Ledger>,
    node_frames: IrqSpinLock<ArrayVec<Pfn, MOST_NODE_PAGES>>,
    /// The first, plus one.
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
        // SAFETY: a frame of our own, in the linear map, freed after the subsystem; any contents
        // will do.
        Some(unsafe { &mut *page })
    }
}

// SAFETY: 1. as the kernel's own; 2. the tree translates all of TTBR1, and the region is reserved
// for this subsystem; 3. as the kernel's.
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
        // Or a stale address would be taken for a current one.
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

#[derive(Debug)]
pub struct SecondVmalloc {
    vm: Option<Box<Vmalloc<TestBackend>>>,
    _addresses: KernelArea,
}

impl SecondVmalloc {
    /// Returns a subsystem of `size` bytes of addresses, a multiple of 2M.
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

    /// # Panics
    /// Never: it is there until `self` is dropped.
    #[must_use]
    pub fn vm(&self) -> &Vmalloc<TestBackend> {
        match &self.vm {
            Some(vm) => vm,
            None => unreachable!("a second subsystem that was not made"),
        }
    }

    #[must_use]
    pub fn ledger(&self) -> &Ledger {
        &self.vm().backend().ledger
    }

    /// Notes what maps `range`, before it is unmapped or changed.
    pub fn owe(&self, range: VirtRange) -> Result<(), Failure> {
        let _walk = walk_lock().walk();
        self.vm().backend().tree.visit(range, |leaf| {
            self.ledger().owe(leaf.va, leaf.size);
            Visit::Continue
        })?;
        Ok(())
    }

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
            vm.shrink();
            let node_frames = core::mem::take(&mut *vm.backend().node_frames.lock());
            drop(vm);
            node_frames.iter().for_each(|frame| frames::free(*frame, 0));
        }
    }
}
