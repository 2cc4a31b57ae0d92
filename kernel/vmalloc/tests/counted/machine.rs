//! A machine that counts the work under each hold of a lock, and on which another CPU acts whenever
//! this one comes to a gate, or finds no frame. All on one thread.

use super::ram::{MAX_ORDER, Ram};
use paging::mmu::NoMmu;
use paging::{Granule, Granule4K, Half, Pfn, PhysAddr, Tables, Tree, VirtAddr, VirtRange};
use std::cell::{Cell, RefCell, RefMut, UnsafeCell};
use std::collections::{HashMap, HashSet};
use std::ops::{Deref, DerefMut};
use vmalloc::{Backend, Config, FlushPolicy, Lock, LockClass, NodePage, NodePages, Vmalloc};

pub const PAGE: u64 = Granule4K::PAGE_SIZE;
pub const RAM: u64 = 1 << 30;
pub const RAM_SIZE: u64 = 256 << 20;
const REGION: VirtAddr = VirtAddr(0xffff_8000_0000_0000);
pub const CPUS: usize = 4;

#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Counts {
    pub locks: u64,
    pub common: u64,
    pub loads: u64,
    pub stores: u64,
    pub touched: u64,
    /// Links made to tables.
    pub exchanges: u64,
    pub blocks: u64,
}

impl Counts {
    fn since(self, before: Self) -> Self {
        Self {
            locks: self.locks - before.locks,
            common: self.common - before.common,
            loads: self.loads - before.loads,
            stores: self.stores - before.stores,
            touched: self.touched - before.touched,
            exchanges: self.exchanges - before.exchanges,
            blocks: self.blocks - before.blocks,
        }
    }

    fn max(self, other: Self) -> Self {
        Self {
            locks: self.locks.max(other.locks),
            common: self.common.max(other.common),
            loads: self.loads.max(other.loads),
            stores: self.stores.max(other.stores),
            touched: self.touched.max(other.touched),
            exchanges: self.exchanges.max(other.exchanges),
            blocks: self.blocks.max(other.blocks),
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum At {
    Gate,
    NoFrame,
}

type Meanwhile = Box<dyn Fn(At)>;

thread_local! {
    static NOW: Cell<Counts> = Cell::default();
    static HELD: Cell<usize> = const { Cell::new(0) };
    static BEGAN: Cell<Counts> = Cell::default();
    static MOST: Cell<Counts> = Cell::default();
    static TOUCHED: RefCell<HashSet<(u64, usize)>> = RefCell::default();
    /// The CPUs that wrote each line of a lock or table.
    static WRITERS: RefCell<HashMap<u64, HashSet<usize>>> = RefCell::default();
    static MEANWHILE: RefCell<Option<Meanwhile>> = const { RefCell::new(None) };
    static CPU: Cell<usize> = const { Cell::new(0) };
    static CONTENDED: Cell<bool> = const { Cell::new(false) };
}

fn count(f: impl FnOnce(&mut Counts)) {
    let mut now = NOW.get();
    f(&mut now);
    NOW.set(now);
}

fn touch(table: PhysAddr, index: usize) {
    if HELD.get() != 0 && TOUCHED.with_borrow_mut(|touched| touched.insert((table.0, index))) {
        count(|now| now.touched += 1);
    }
}

/// And the most of it under one hold.
pub fn counted(f: impl FnOnce()) -> (Counts, Counts) {
    let before = NOW.get();
    MOST.set(Counts::default());
    f();
    (NOW.get().since(before), MOST.get())
}

fn write_line(address: u64) {
    WRITERS.with_borrow_mut(|lines| lines.entry(address / 64).or_default().insert(CPU.get()));
}

/// Returns how many lines of locks and tables more than one CPU wrote in `f`.
pub fn lines_of_several_cpus(f: impl FnOnce()) -> usize {
    WRITERS.take();
    f();
    WRITERS.take().values().filter(|cpus| cpus.len() > 1).count()
}

pub fn on_cpu<R>(cpu: usize, f: impl FnOnce() -> R) -> R {
    let before = CPU.replace(cpu);
    let result = f();
    CPU.set(before);
    result
}

pub fn beside<R>(other: impl Fn(At) + 'static, f: impl FnOnce() -> R) -> R {
    MEANWHILE.set(Some(Box::new(other)));
    let result = f();
    MEANWHILE.set(None);
    result
}

pub fn contended<R>(f: impl FnOnce() -> R) -> R {
    CONTENDED.set(true);
    let result = f();
    CONTENDED.set(false);
    result
}

fn come_to(at: At) {
    if let Some(other) = MEANWHILE.take() {
        let held = HELD.replace(0);
        on_cpu(1, || other(at));
        HELD.set(held);
        MEANWHILE.set(Some(other));
    }
}

pub struct CountedLock<T> {
    class: LockClass,
    is_held: Cell<bool>,
    value: UnsafeCell<T>,
}

pub struct CountedGuard<'a, T>(&'a CountedLock<T>);

impl<T> CountedLock<T> {
    fn take(&self) -> Option<CountedGuard<'_, T>> {
        if self.is_held.replace(true) {
            return None;
        }
        write_line((&raw const self.is_held).addr() as u64);
        if HELD.replace(HELD.get() + 1) == 0 {
            BEGAN.set(NOW.get());
            TOUCHED.with_borrow_mut(HashSet::clear);
        }
        count(|now| {
            now.locks += 1;
            now.common += u64::from(self.class == LockClass::CommonShard);
        });
        Some(CountedGuard(self))
    }
}

// SAFETY: one guard at a time has set `is_held`, on the only thread.
unsafe impl<T> Lock<T> for CountedLock<T> {
    type Guard<'a>
        = CountedGuard<'a, T>
    where
        T: 'a;
    fn new(class: LockClass, value: T) -> Self {
        Self {
            class,
            is_held: Cell::new(false),
            value: UnsafeCell::new(value),
        }
    }
    fn lock(&self) -> CountedGuard<'_, T> {
        if self.class == LockClass::Gate {
            come_to(At::Gate);
        }
        self.take().expect("a lock is waited for that this thread holds")
    }
    fn try_lock(&self) -> Option<CountedGuard<'_, T>> {
        if CONTENDED.get() { None } else { self.take() }
    }
}

impl<T> Deref for CountedGuard<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        // SAFETY: this is the only guard.
        unsafe { &*self.0.value.get() }
    }
}

impl<T> DerefMut for CountedGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: this is the only guard.
        unsafe { &mut *self.0.value.get() }
    }
}

impl<T> Drop for CountedGuard<'_, T> {
    fn drop(&mut self) {
        self.0.is_held.set(false);
        if HELD.replace(HELD.get() - 1) == 1 {
            MOST.set(MOST.get().max(NOW.get().since(BEGAN.get())));
        }
    }
}

#[derive(Default)]
pub struct Memory {
    tables: RefCell<Vec<Vec<u64>>>,
    spare: RefCell<Vec<usize>>,
}

const DESCRIPTORS: usize = 512;
const TABLES: u64 = 1 << 40;

impl Memory {
    fn table(&self, table: PhysAddr) -> RefMut<'_, Vec<u64>> {
        RefMut::map(self.tables.borrow_mut(), |all| {
            &mut all[((table.0 - TABLES) / PAGE) as usize]
        })
    }
}

// SAFETY: a table is one vector of zeroed words until it is freed; one thread reaches it.
unsafe impl Tables for Memory {
    fn alloc_table(&self) -> Option<PhysAddr> {
        let mut tables = self.tables.borrow_mut();
        let number = self.spare.borrow_mut().pop().unwrap_or_else(|| {
            tables.push(Vec::new());
            tables.len() - 1
        });
        tables[number] = vec![0; DESCRIPTORS];
        Some(PhysAddr(TABLES + number as u64 * PAGE))
    }
    fn free_table(&self, table: PhysAddr) {
        self.table(table).clear();
        self.spare.borrow_mut().push(((table.0 - TABLES) / PAGE) as usize);
    }
    fn load(&self, table: PhysAddr, index: usize) -> u64 {
        count(|now| now.loads += 1);
        touch(table, index);
        self.table(table)[index]
    }
    fn store(&self, table: PhysAddr, index: usize, value: u64) {
        count(|now| now.stores += 1);
        touch(table, index);
        write_line(table.0 + 8 * index as u64);
        self.table(table)[index] = value;
    }
    fn compare_exchange(&self, table: PhysAddr, index: usize, current: u64, new: u64) -> Result<(), u64> {
        count(|now| now.exchanges += 1);
        write_line(table.0 + 8 * index as u64);
        let found = self.table(table)[index];
        if found != current {
            return Err(found);
        }
        self.table(table)[index] = new;
        Ok(())
    }
}

pub struct Machine {
    tree: Tree<Granule4K, &'static Memory, NoMmu>,
    cpus: usize,
    ram: RefCell<Ram>,
    nr_node_pages: Cell<u64>,
    words: RefCell<HashMap<(u64, usize), u64>>,
}

impl Machine {
    pub fn ram(&self) -> RefMut<'_, Ram> {
        self.ram.borrow_mut()
    }

    pub fn nr_node_pages(&self) -> u64 {
        self.nr_node_pages.get()
    }
}

impl NodePages for Machine {
    fn node_page(&self) -> Option<&'static mut NodePage> {
        self.nr_node_pages.set(self.nr_node_pages.get() + 1);
        Some(Box::leak(Box::new(NodePage::uninit())))
    }
}

// SAFETY: the allocator asserts what it gives and takes; the tree is this machine's alone, on one
// thread; nothing is executed.
unsafe impl Backend for Machine {
    type Granule = Granule4K;
    type Tables = &'static Memory;
    type Mmu = NoMmu;
    type Lock<T: Send> = CountedLock<T>;

    fn tree(&self) -> &Tree<Granule4K, &'static Memory, NoMmu> {
        &self.tree
    }
    fn alloc_frames(&self, order: u32) -> Option<Pfn> {
        count(|now| now.blocks += 1);
        let found = self.ram().alloc(order).map(Pfn);
        if found.is_none() && order == 0 {
            come_to(At::NoFrame);
        }
        found
    }
    fn free_frames(&self, first: Pfn, order: u32) {
        count(|now| now.blocks += 1);
        self.ram().release(first.0, order);
    }
    fn max_order(&self) -> u32 {
        MAX_ORDER
    }
    fn nr_frames(&self) -> u64 {
        RAM_SIZE / PAGE
    }
    fn nr_free_frames(&self) -> u64 {
        RAM_SIZE / PAGE - self.ram().used()
    }
    fn zero_frames(&self, first: Pfn, order: u32) {
        let mut words = self.words.borrow_mut();
        for frame in first.0..first.0 + (1 << order) {
            (0..DESCRIPTORS).for_each(|index| {
                words.remove(&(frame, index));
            });
        }
    }
    fn read_word(&self, frame: Pfn, index: usize) -> u64 {
        *self.words.borrow().get(&(frame.0, index)).unwrap_or(&0)
    }
    fn write_word(&self, frame: Pfn, index: usize, value: u64) {
        self.words.borrow_mut().insert((frame.0, index), value);
    }
    fn nr_cpus(&self) -> usize {
        self.cpus
    }
    fn cpu(&self) -> usize {
        CPU.get()
    }
    fn relax(&self) {
        panic!("another CPU is waited for, and there is none");
    }
    fn publish_instructions(&self, _range: VirtRange) {}
    fn read_memory(&self, _pa: PhysAddr, out: &mut [u8]) -> bool {
        out.fill(1);
        true
    }
    fn is_ram(&self, start: PhysAddr, size: u64) -> bool {
        start.0 < RAM + RAM_SIZE && start.0 + size > RAM
    }
}

pub type Vm = Vmalloc<Machine>;

pub const LAZY: FlushPolicy = FlushPolicy::Lazy {
    areas: 256,
    pages: 8192,
};

pub fn vm(size: u64, flush: FlushPolicy) -> &'static Vm {
    vm_of(CPUS, size, flush)
}

pub fn vm_of(cpus: usize, size: u64, flush: FlushPolicy) -> &'static Vm {
    let memory: &'static Memory = Box::leak(Box::default());
    let root = memory.alloc_table().expect("there is no limit");
    let machine = Machine {
        tree: Tree::new(
            root,
            Half::High,
            memory,
            NoMmu { tlbi_range: true },
            paging::Config::default(),
        ),
        cpus,
        ram: RefCell::new(Ram::new()),
        nr_node_pages: Cell::new(0),
        words: RefCell::default(),
    };
    let config = Config {
        flush,
        ..Config::default()
    };
    let vm = Vmalloc::new(VirtRange::new(REGION, size), machine, config).expect("node pages");
    Box::leak(Box::new(vm))
}
