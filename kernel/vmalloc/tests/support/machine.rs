use super::locks::{CheckedLock, Edits, me, set_running};
use super::ram::{FIRST, FRAMES, MAX_ORDER, Ram};
use super::seen::Seen;
use super::{PAGE, Plant, Small};
use mmu_model::{Access, Features, Model};
use paging::{
    Attributes, Failure, Half, LeafSet, Outcome, Pfn, PhysAddr, PhysRange, Tree, VirtAddr, VirtRange,
};
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use vmalloc::{Backend, LinearEdit, NodePage, NodePages, VmArea};

pub struct Machine {
    seen: Seen,
    tree: Tree<Small, Seen, Seen>,
    pub(super) edits: Edits,
    ram: Mutex<Ram>,
    /// Without areas.
    pub(super) base_tables: usize,
}

/// A failed test leaks it: freeing would wait for threads that no longer run.
pub struct Area<'v>(Option<VmArea<'v, Machine>>);

impl<'v> From<VmArea<'v, Machine>> for Area<'v> {
    fn from(area: VmArea<'v, Machine>) -> Self {
        Self(Some(area))
    }
}

impl<'v> Area<'v> {
    pub fn into_inner(mut self) -> VmArea<'v, Machine> {
        self.0.take().expect("held until now")
    }
}

impl<'v> Deref for Area<'v> {
    type Target = VmArea<'v, Machine>;
    fn deref(&self) -> &Self::Target {
        self.0.as_ref().expect("held until it is dropped")
    }
}

impl DerefMut for Area<'_> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        self.0.as_mut().expect("held until it is dropped")
    }
}

impl Drop for Area<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            std::mem::forget(self.0.take());
        }
    }
}

fn linear(tree: &Tree<Small, Seen, Seen>, pa: PhysAddr) -> VirtAddr {
    tree.range().start.add(pa.0 - FIRST * PAGE)
}

impl Machine {
    pub(super) fn new(plant: Plant) -> Self {
        let (model, root) = Model::with_root(Features {
            cpus: mmu_model::MAX_CPUS,
            pool_pages: 64,
            log_events: 60,
            ..Features::default()
        });
        let model = Arc::new(model);
        set_running(&model, plant);
        let seen = Seen::new(&model, plant);
        let tree = Tree::new(
            root,
            Half::High,
            seen.clone(),
            seen.clone(),
            paging::Config::default(),
        );
        let alias = VirtRange::new(linear(&tree, PhysAddr(FIRST * PAGE)), FRAMES * PAGE);
        let mut source = PhysRange::new(PhysAddr(FIRST * PAGE), FRAMES);
        tree.map(alias, &mut source, Attributes::KERNEL_DATA, LeafSet::ALL)
            .expect("tables for the linear map");
        Self {
            seen,
            tree,
            edits: Edits::default(),
            ram: Mutex::new(Ram::new()),
            base_tables: model.nr_tables(),
        }
    }

    pub fn ram(&self) -> MutexGuard<'_, Ram> {
        self.ram.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn model(&self) -> &Model<Small> {
        &self.seen.model
    }

    pub fn step(&self) {
        self.seen.step();
    }

    pub fn refuse_tables(&self, every: Option<u64>) {
        self.seen.refuse_tables(every);
    }

    pub fn store(&self, va: VirtAddr, value: u64) {
        let cpu = self.seen.step();
        let pa = cpu
            .access_with_retry(va, Access::Write)
            .unwrap_or_else(|fault| panic!("CPU {} stores to {va}: {fault:?}", me()));
        self.ram().write(pa.0 / PAGE, (pa.0 % PAGE / 8) as usize, value);
    }

    pub fn load(&self, va: VirtAddr) -> u64 {
        self.step();
        self.load_now(va)
    }

    fn load_now(&self, va: VirtAddr) -> u64 {
        let pa = self
            .model()
            .cpu(me())
            .access_with_retry(va, Access::Read)
            .unwrap_or_else(|fault| panic!("CPU {} loads from {va}: {fault:?}", me()));
        self.ram().peek(pa.0 / PAGE, (pa.0 % PAGE / 8) as usize)
    }

    /// On a broken leaf the access uses what is held of the same mapping, or faults and is retried.
    pub fn load_through_breaks(&self, va: VirtAddr) -> u64 {
        for _ in 0..100_000 {
            self.step();
            if self.model().translate(va).is_some() {
                return self.load_now(va);
            }
            shuttle::thread::yield_now();
        }
        panic!("{va} stays broken");
    }

    pub fn alias(&self, frame: Pfn) -> VirtAddr {
        linear(&self.tree, PhysAddr(frame.0 * PAGE))
    }
}

impl NodePages for Machine {
    fn node_page(&self) -> Option<&'static mut NodePage> {
        self.step();
        (!self.ram().refuses_node()).then(|| Box::leak(Box::new(NodePage::uninit())))
    }
}

// SAFETY: 1. the allocator asserts what it gives and takes; 2. the tree is this machine's alone; 3.
// nothing reads it as a whole while others work.
unsafe impl Backend for Machine {
    type Granule = Small;
    type Tables = Seen;
    type Mmu = Seen;
    type Lock<T: Send> = CheckedLock<T>;

    fn tree(&self) -> &Tree<Small, Seen, Seen> {
        &self.tree
    }
    fn alloc_frames(&self, order: u32) -> Option<Pfn> {
        self.step();
        self.ram().alloc(order).map(Pfn)
    }
    fn free_frames(&self, first: Pfn, order: u32) {
        if std::thread::panicking() {
            return;
        }
        self.step();
        {
            // DESIGN rule 6: reuse from here on. Not while the linear map is broken: what TLBs hold
            // of that is the same mapping.
            let _whole = self.edits.keep_out();
            self.model().frame_reused(PhysAddr(first.0 * PAGE), PAGE << order);
        }
        if self.seen.plant == Plant::FramesLeak && first.0.is_multiple_of(7) {
            return;
        }
        self.ram().release(first.0, order);
    }
    fn max_order(&self) -> u32 {
        MAX_ORDER
    }
    fn nr_frames(&self) -> u64 {
        FRAMES
    }
    fn zero_frames(&self, first: Pfn, order: u32) {
        self.step();
        self.ram().zero(first.0, order);
    }
    fn read_word(&self, frame: Pfn, index: usize) -> u64 {
        self.step();
        self.ram().read(frame.0, index)
    }
    fn write_word(&self, frame: Pfn, index: usize, value: u64) {
        self.step();
        self.ram().write(frame.0, index, value);
    }
    fn nr_free_frames(&self) -> u64 {
        FRAMES - self.ram().used()
    }
    fn nr_cpus(&self) -> usize {
        mmu_model::MAX_CPUS
    }
    fn cpu(&self) -> usize {
        me()
    }
    fn relax(&self) {
        shuttle::thread::yield_now();
    }
    fn edit_linear_map(&self, pa: PhysAddr, size: u64, edit: LinearEdit) -> Result<Outcome, Failure> {
        if self.seen.plant == Plant::AliasIsForgotten {
            return Ok(Outcome::default());
        }
        let range = VirtRange::new(linear(&self.tree, pa), size);
        self.edits.edit(|| edit.apply(&self.tree, range))
    }
    fn publish_instructions(&self, _range: VirtRange) {
        self.step();
    }
    fn read_memory(&self, pa: PhysAddr, out: &mut [u8]) -> bool {
        for (i, chunk) in out.chunks_mut(8).enumerate() {
            let at = pa.0 + 8 * i as u64;
            // An access to a broken leaf is retried, to an invalid one it fails.
            let va = linear(&self.tree, PhysAddr(at & !7));
            let value = loop {
                self.step();
                if self.model().translate(va).is_some() {
                    break self.load_now(va);
                }
                if !self.edits.is_under_way() && self.model().translate(va).is_none() {
                    return false;
                }
                shuttle::thread::yield_now();
            };
            let from = (at % 8) as usize;
            chunk.copy_from_slice(&value.to_le_bytes()[from..from + chunk.len()]);
        }
        true
    }
    fn is_ram(&self, start: PhysAddr, size: u64) -> bool {
        let (first, end) = (FIRST * PAGE, (FIRST + FRAMES) * PAGE);
        start.0 < end && start.0 + size > first
    }
}
