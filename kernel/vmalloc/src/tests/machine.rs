//! Frames, RAM and locks of the host, tables and TLBs of the model.

pub use super::locks::{HostLock, elsewhere, in_exception, most_under_a_hold};
use super::locks::{WITHOUT_WAITING, holds_no_lock, may_wait, unpoisoned, with};
use super::ram::{MAX_ORDER, Ram};
use crate::va::{NodePage, NodePages};
use crate::{Backend, Config, Error, FlushPolicy, LinearEdit, Lock, Vmalloc};
use mmu_model::{Cpu, Features, Model};
use paging::{
    Attributes, Failure, Granule, Granule4K, Half, LeafSet, Mmu, Outcome, Pfn, PhysAddr, PhysRange, Tree,
    VirtAddr, VirtRange, Visit,
};
use std::boxed::Box;
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::panic::Location;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::vec::Vec;

pub type G = Granule4K;
pub const PAGE: u64 = G::PAGE_SIZE;
pub const K64: u64 = 64 << 10;
pub const M2: u64 = 2 << 20;
pub const RAM: u64 = 0x4000_0000;
pub const RAM_SIZE: u64 = 256 << 20;
pub const LINEAR: u64 = 0xffff_0000_0000_0000;
pub const REGION: VirtAddr = VirtAddr(0xffff_8000_0000_0000);

pub struct Machine {
    pub model: &'static Model<G>,
    pub ram: Mutex<Ram>,
    trees: Vec<Tree<G, Cpu<'static, G>, Cpu<'static, G>>>,
    current: AtomicUsize,
    pub refused: Mutex<Vec<(VirtAddr, Error)>>,
    pub when_refused: RefCell<Option<Box<dyn Fn()>>>,
    pub published: Mutex<Vec<VirtRange>>,
    fetched_right: Mutex<BTreeSet<(VirtAddr, u64)>>,
    pub deferred_work: AtomicUsize,
    linear: bool,
    base_tables: usize,
}

impl Machine {
    /// `cpu` knows all that the last one did, as by a lock.
    pub fn go_to(&self, cpu: usize) {
        let from = self.current.swap(cpu, Ordering::Relaxed);
        if from != cpu {
            self.model.hand_over(from, cpu);
            // As entry by an exception does.
            self.model.cpu(cpu).isb();
        }
    }

    pub fn ram(&self) -> MutexGuard<'_, Ram> {
        unpoisoned(self.ram.try_lock())
    }
}

impl NodePages for Machine {
    fn node_page(&self) -> Option<&'static mut NodePage> {
        holds_no_lock();
        let mut ram = self.ram();
        let none = ram.locked && WITHOUT_WAITING.get();
        (!none && Ram::spend(&mut ram.node_budget)).then(|| Box::leak(Box::new(NodePage::uninit())))
    }
}

// SAFETY: the allocator asserts what it gives and takes; the tree is this machine's alone, on one
// thread.
unsafe impl Backend for Machine {
    type Granule = G;
    type Tables = Cpu<'static, G>;
    type Mmu = Cpu<'static, G>;
    type Lock<T: Send> = HostLock<T>;

    fn tree(&self) -> &Tree<G, Self::Tables, Self::Mmu> {
        &self.trees[self.current.load(Ordering::Relaxed)]
    }
    fn alloc_frames(&self, order: u32) -> Option<Pfn> {
        holds_no_lock();
        self.ram().alloc(order).map(Pfn)
    }
    fn free_frames(&self, first: Pfn, order: u32) {
        may_wait();
        holds_no_lock();
        // Rule 6: reuse from here on.
        let pa = PhysAddr(first.0 * PAGE);
        self.model.frame_reused(pa, PAGE << order);
        let frames = first.0..first.0 + (1 << order);
        unpoisoned(self.fetched_right.try_lock()).retain(|(_, frame)| !frames.contains(frame));
        self.ram().release(first.0, order);
    }
    fn take_over(&self, frame: Pfn) -> bool {
        let mut ram = self.ram();
        ram.given.get(&frame.0) == Some(&0) && ram.taken_over.insert(frame.0)
    }
    fn hand_back(&self, frame: Pfn) {
        assert!(
            self.ram().taken_over.remove(&frame.0),
            "frame {:#x} is no area's",
            frame.0
        );
    }
    fn max_order(&self) -> u32 {
        MAX_ORDER
    }
    fn nr_frames(&self) -> u64 {
        RAM_SIZE / PAGE
    }
    fn zero_frames(&self, first: Pfn, order: u32) {
        let mut ram = self.ram();
        for page in first.0..first.0 + (1 << order) {
            ram.zeroed.insert(page);
            ram.words = core::mem::take(&mut ram.words)
                .into_iter()
                .filter(|((frame, _), _)| *frame != page)
                .collect();
        }
    }
    fn read_word(&self, frame: Pfn, index: usize) -> u64 {
        let ram = self.ram();
        assert!(ram.is_given(frame) && index < 512);
        *ram.words.get(&(frame.0, index)).unwrap_or(&0)
    }
    fn write_word(&self, frame: Pfn, index: usize, value: u64) {
        let mut ram = self.ram();
        assert!(ram.is_given(frame) && index < 512);
        ram.words.insert((frame.0, index), value);
    }
    fn without_waiting<R>(&self, f: impl FnOnce() -> R) -> R {
        with(&WITHOUT_WAITING, f)
    }
    fn deferred_free_refused(&self, va: VirtAddr, _by: &'static Location<'static>, error: &Error) {
        unpoisoned(self.refused.try_lock()).push((va, *error));
        if let Some(f) = &*self.when_refused.borrow() {
            f();
        }
    }
    fn nr_free_frames(&self) -> u64 {
        RAM_SIZE / PAGE - self.ram().used()
    }
    fn deferred_work(&self) {
        self.deferred_work.fetch_add(1, Ordering::Relaxed);
    }
    fn nr_cpus(&self) -> usize {
        self.trees.len()
    }
    fn relax(&self) {
        panic!("another CPU is waited for, and there is none");
    }
    fn cpu(&self) -> usize {
        self.current.load(Ordering::Relaxed)
    }
    fn edit_linear_map(&self, pa: PhysAddr, size: u64, edit: LinearEdit) -> Result<Outcome, Failure> {
        if !self.linear {
            return Ok(Outcome::default());
        }
        edit.apply(self.tree(), VirtRange::new(VirtAddr(LINEAR + pa.0), size))
    }
    fn publish_instructions(&self, range: VirtRange) {
        may_wait();
        for page in 0..range.size / PAGE {
            let va = range.start.add(page * PAGE);
            // Fetches are right from here on, of what is executable now.
            let leaf = self.tree().translate(va);
            if let Some(leaf) = leaf.filter(|leaf| leaf.valid && leaf.attributes.is_executable()) {
                let frame = leaf.translate(va).0 / PAGE;
                unpoisoned(self.fetched_right.try_lock()).insert((va, frame));
            }
        }
        unpoisoned(self.published.try_lock()).push(range);
    }
    fn read_memory(&self, pa: PhysAddr, out: &mut [u8]) -> bool {
        let ram = self.ram();
        for (i, byte) in out.iter_mut().enumerate() {
            let at = pa.0 + i as u64;
            let word = ram
                .words
                .get(&(at / PAGE, (at % PAGE / 8) as usize))
                .unwrap_or(&0);
            *byte = word.to_le_bytes()[(at % 8) as usize];
        }
        true
    }
    fn is_ram(&self, start: PhysAddr, size: u64) -> bool {
        start.0 < RAM + RAM_SIZE && RAM - start.0.min(RAM) < size
    }
}

pub type Vm = Vmalloc<Machine>;

pub fn vm_with(pages: u64, features: Features, config: Config) -> Vm {
    machine_with(pages, features, config, false)
}

pub fn vm_with_linear_map(cpus: usize, config: Config) -> Vm {
    let features = Features {
        cpus,
        ..Features::default()
    };
    machine_with(1 << 34, features, config, true)
}

fn machine_with(pages: u64, features: Features, config: Config, linear: bool) -> Vm {
    let cpus = features.cpus;
    let (model, root) = Model::with_root(Features {
        one_memory_type: RAM..RAM + RAM_SIZE,
        ..features
    });
    let model: &'static Model<G> = Box::leak(Box::new(model));
    let tree = |cpu| {
        let cpu = model.cpu(cpu);
        Tree::new(root, Half::High, cpu, cpu, paging::Config::default())
    };
    let mut machine = Machine {
        model,
        ram: Mutex::new(Ram::new()),
        trees: (0..cpus).map(tree).collect(),
        current: AtomicUsize::new(0),
        refused: Mutex::new(Vec::new()),
        when_refused: RefCell::new(None),
        published: Mutex::new(Vec::new()),
        fetched_right: Mutex::new(BTreeSet::new()),
        deferred_work: AtomicUsize::new(0),
        linear: false,
        base_tables: 1,
    };
    if linear {
        let range = VirtRange::new(VirtAddr(LINEAR + RAM), RAM_SIZE);
        let mut source = PhysRange::new(PhysAddr(RAM), RAM_SIZE / PAGE);
        machine
            .tree()
            .map(range, &mut source, Attributes::KERNEL_DATA, LeafSet::ALL)
            .expect("tables for the linear map");
        machine.linear = true;
        machine.base_tables = model.nr_tables();
    }
    Vmalloc::new(VirtRange::new(REGION, pages * PAGE), machine, config).expect("a node page")
}

pub fn vm() -> Vm {
    vm_with(1 << 34, Features::default(), Config::default())
}

pub fn lazy(areas: usize, pages: u64) -> Vm {
    lazy_on(1, areas, pages)
}

pub fn lazy_share(areas: usize, pages: u64) -> Vm {
    lazy(2 * areas, 2 * pages)
}

pub fn lazy_on(cpus: usize, areas: usize, pages: u64) -> Vm {
    let config = Config {
        flush: FlushPolicy::Lazy { areas, pages },
        ..Config::default()
    };
    let features = Features {
        cpus,
        ..Features::default()
    };
    vm_with(1 << 34, features, config)
}

/// Tables above the last level may stay.
pub fn assert_empty(vm: &Vm) {
    assert_consistent(vm);
    vm.shrink();
    let usage = vm.usage();
    assert_eq!((usage.areas, usage.pages), (0, 0), "{usage:?}");
    assert_eq!(
        (usage.lazy, usage.cached, usage.pieces, usage.deferred),
        ((0, 0), (0, 0), 0, (0, 0))
    );
    assert_eq!(vm.backend().ram().used(), 0, "frames leaked");
    assert_eq!(nr_last_level_tables_of(vm, 2000), 0, "tables of pieces stay");
    prune_and_check(vm);
    let model = vm.backend().model;
    assert_eq!(model.nr_tables(), vm.backend().base_tables, "tables leaked");
    model.va_reused(vm.range());
    model.assert_clean();
}

/// Of the first `spans` of 2 MiB.
pub fn nr_last_level_tables_of(vm: &Vm, spans: u64) -> usize {
    let range = vm.range();
    let end = range.start.add(spans * M2).min(range.end());
    let (mut va, mut nr) = (range.start, 0);
    while va < end {
        let level = vm
            .backend()
            .tree()
            .walk(va)
            .expect("an address of the tree")
            .level();
        nr += usize::from(level == 3);
        let size = G::size(level).max(M2);
        va = va.align_down(size).add(size);
    }
    nr
}

/// Prunes empty tables.
pub fn assert_sound(vm: &Vm) {
    assert_consistent(vm);
    prune_and_check(vm);
}

fn prune_and_check(vm: &Vm) {
    let tree = vm.backend().tree();
    tree.prune(vm.range())
        .unwrap_or_else(|failure| panic!("{failure}"));
    tree.check(|_, _| true, |_| true)
        .unwrap_or_else(|error| panic!("{error}"));
    vm.backend().model.assert_clean();
}

pub fn assert_fetches(vm: &Vm) {
    let published = unpoisoned(vm.backend().fetched_right.try_lock());
    let visited = vm.backend().tree().visit(vm.range(), |leaf| {
        if leaf.valid && leaf.attributes.is_executable() {
            for page in 0..leaf.size.bytes::<G>() / PAGE {
                let va = leaf.va.add(page * PAGE);
                let frame = leaf.translate(va).0 / PAGE;
                assert!(
                    published.contains(&(va, frame)),
                    "{va} can be executed unpublished"
                );
            }
        }
        Visit::Continue
    });
    visited.unwrap_or_else(|error| panic!("{error}"));
}

pub fn assert_consistent(vm: &Vm) {
    let census = vm.check().unwrap_or_else(|violation| panic!("{violation}"));
    assert_eq!(census.retired, vm.usage().lazy.0 + vm.usage().deferred.0);
    assert_fetches(vm);
    vm.backend().model.assert_clean();
}

pub fn hold_all(vm: &Vm) -> Vec<impl Sized + '_> {
    vm.shards.iter().map(|shard| shard.state.lock()).collect()
}

pub struct Numbers(pub u64);

impl Numbers {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
    pub fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Issued {
    pub dsb_ishst: u64,
    pub dsb_ish: u64,
    pub isb: u64,
    pub tlbi: u64,
}

pub fn issued(vm: &Vm) -> Issued {
    let counters = vm.backend().model.counters();
    Issued {
        dsb_ishst: counters.dsb_ishst,
        dsb_ish: counters.dsb_ish,
        isb: counters.isb,
        tlbi: counters.tlbi_va + counters.tlbi_range + counters.tlbi_all,
    }
}

pub fn issued_by(vm: &Vm, f: impl FnOnce()) -> Issued {
    let before = issued(vm);
    f();
    let after = issued(vm);
    Issued {
        dsb_ishst: after.dsb_ishst - before.dsb_ishst,
        dsb_ish: after.dsb_ish - before.dsb_ish,
        isb: after.isb - before.isb,
        tlbi: after.tlbi - before.tlbi,
    }
}
