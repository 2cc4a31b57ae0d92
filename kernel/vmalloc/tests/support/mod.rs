//! A machine for tests of many threads: each thread of the checker (`shuttle`) is a CPU of the model.
//!
//! Every access to a table, every barrier and every lock is a step at which another thread may go on. The model judges
//! each, and knows what a CPU knows only by the locks that were really handed over. It panics at the first violation.
//!
//! A [`Plant`] breaks one promise of the machine, so that a test can show that it notices.

pub mod locks;
pub mod ram;
mod story;

pub use locks::{CheckedLock, Walks, me};
pub use ram::POISON;

use locks::set_running;
use mmu_model::{Access, Features, Model};
use paging::{
    Attributes, Failure, Granule, Half, LeafSet, Level, Mmu, Outcome, Pfn, PhysAddr, PhysRange, Tables,
    TlbiRange, Tree, VirtAddr, VirtRange,
};
use ram::{FIRST, FRAMES, MAX_ORDER, Ram};
use shuttle::sync::atomic::{AtomicUsize, Ordering};
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use vmalloc::va::{NodePage, NodePages};
use vmalloc::{Backend, Config, LinearEdit, VmArea, Vmalloc, WalkLock};

/// 512 pages of 4 KiB in three levels of 8 descriptors: leaves of 1, 2, 8, 16, 64 and 128 pages.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub struct Small;

impl Granule for Small {
    const NAME: &'static str = "small";
    const PAGE_SHIFT: u32 = 12;
    const INDEX_BITS: u32 = 3;
    const ROOT_LEVEL: Level = 1;
    const VA_BITS: u32 = 21;
    const TLBI_TG: u64 = 1;

    fn leaf_allowed(level: Level) -> bool {
        level >= 1
    }
    fn cont_shift(_level: Level) -> u32 {
        1
    }
}

pub const PAGE: u64 = Small::PAGE_SIZE;

/// What is wrong with a machine.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Plant {
    Nothing,
    /// The DSB ISH in front of a TLBI is left out.
    NoLeadingDsb,
    /// The DSB ISH behind a TLBI is left out.
    NoTrailingDsb,
    /// TLBIs are left out.
    NoTlbi,
    /// The third CPU's walks do not wait for whoever gives tables back, nor he for them.
    WalksDoNotExclude,
    /// Whoever takes a lock does not see what was stored before it was dropped: a lock without acquire.
    LocksDoNotOrder,
    /// One block of frames in seven is lost when it is given back.
    FramesLeak,
    /// The linear map is not edited.
    AliasIsForgotten,
}

/// Tables and barriers of whichever CPU runs.
pub struct Seen {
    model: Arc<Model<Small>>,
    turn: Arc<AtomicUsize>,
    plant: Plant,
    /// CPUs that have issued a TLBI since their last DSB.
    tlbi_owes: Arc<Mutex<[bool; mmu_model::MAX_CPUS]>>,
    /// Refuses one table in so many.
    refuse: Arc<Mutex<(u64, Option<u64>)>>,
}

impl Clone for Seen {
    fn clone(&self) -> Self {
        Self {
            model: Arc::clone(&self.model),
            turn: Arc::clone(&self.turn),
            plant: self.plant,
            tlbi_owes: Arc::clone(&self.tlbi_owes),
            refuse: Arc::clone(&self.refuse),
        }
    }
}

impl Seen {
    /// Another thread may go on here; not where a failed test is only cleaning up.
    fn step(&self) -> mmu_model::Cpu<'_, Small> {
        if !std::thread::panicking() {
            self.model.assert_clean();
            self.turn.load(Ordering::SeqCst);
        }
        self.model.cpu(me())
    }

    fn owing(&self) -> MutexGuard<'_, [bool; mmu_model::MAX_CPUS]> {
        self.tlbi_owes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tlbi(&self, issue: impl FnOnce(mmu_model::Cpu<'_, Small>)) {
        let cpu = self.step();
        self.owing()[me()] = true;
        if self.plant != Plant::NoTlbi {
            issue(cpu);
        }
    }
}

// SAFETY: every method forwards to the model's, one step apart; a refused allocation gives nothing.
unsafe impl Tables for Seen {
    fn alloc_table(&self) -> Option<PhysAddr> {
        let cpu = self.step();
        {
            let mut refuse = self.refuse.lock().expect("no panic under this lock");
            refuse.0 += 1;
            if refuse.1.is_some_and(|every| refuse.0.is_multiple_of(every)) {
                return None;
            }
        }
        cpu.alloc_table()
    }
    fn free_table(&self, table: PhysAddr) {
        self.step().free_table(table);
    }
    fn load(&self, table: PhysAddr, index: usize) -> u64 {
        self.step().load(table, index)
    }
    fn store(&self, table: PhysAddr, index: usize, value: u64) {
        self.step().store(table, index, value);
    }
    fn compare_exchange(&self, table: PhysAddr, index: usize, current: u64, new: u64) -> Result<(), u64> {
        self.step().compare_exchange(table, index, current, new)
    }
}

impl Mmu for Seen {
    fn dsb_ishst(&self) {
        self.step().dsb_ishst();
    }
    fn dsb_ish(&self) {
        let cpu = self.step();
        let trailing = std::mem::take(&mut self.owing()[me()]);
        let left_out = match self.plant {
            Plant::NoLeadingDsb => !trailing,
            Plant::NoTrailingDsb => trailing,
            _ => false,
        };
        if !left_out {
            cpu.dsb_ish();
        }
    }
    fn isb(&self) {
        self.step().isb();
    }
    fn tlbi_vaale1is(&self, va: VirtAddr) {
        self.tlbi(|cpu| cpu.tlbi_vaale1is(va));
    }
    fn tlbi_vaae1is(&self, va: VirtAddr) {
        self.tlbi(|cpu| cpu.tlbi_vaae1is(va));
    }
    fn tlbi_rvaale1is(&self, range: TlbiRange) {
        self.tlbi(|cpu| cpu.tlbi_rvaale1is(range));
    }
    fn tlbi_rvaae1is(&self, range: TlbiRange) {
        self.tlbi(|cpu| cpu.tlbi_rvaae1is(range));
    }
    fn tlbi_vmalle1is(&self) {
        self.tlbi(|cpu| cpu.tlbi_vmalle1is());
    }
    fn has_tlbi_range(&self) -> bool {
        false
    }
}

/// The machine around a [`Vmalloc`].
pub struct Machine {
    seen: Seen,
    tree: Tree<Small, Seen, Seen>,
    walks: Walks,
    ram: Mutex<Ram>,
    /// Tables of a tree without areas.
    base_tables: usize,
}

pub type Vm = Vmalloc<Machine>;

/// An area as its owner holds it. A test that failed leaves it behind: giving it back would wait for threads that run no more.
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

/// Where the linear map is.
fn linear(tree: &Tree<Small, Seen, Seen>, pa: PhysAddr) -> VirtAddr {
    tree.range().start.add(pa.0 - FIRST * PAGE)
}

impl Machine {
    fn new(plant: Plant) -> Self {
        let (model, root) = Model::with_root(Features {
            cpus: mmu_model::MAX_CPUS,
            pool_pages: 64,
            log_events: 60,
            ..Features::default()
        });
        let model = Arc::new(model);
        set_running(&model, plant);
        let seen = Seen {
            model: Arc::clone(&model),
            turn: Arc::default(),
            plant,
            tlbi_owes: Arc::default(),
            refuse: Arc::default(),
        };
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
            walks: Walks::default(),
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

    /// Another thread may go on here.
    pub fn step(&self) {
        self.seen.step();
    }

    /// From here on one table in so many is refused.
    pub fn refuse_tables(&self, every: Option<u64>) {
        self.seen.refuse.lock().expect("no panic under this lock").1 = every;
    }

    /// A store by the running CPU, as the kernel makes it.
    pub fn store(&self, va: VirtAddr, value: u64) {
        let cpu = self.seen.step();
        let pa = cpu
            .access_with_retry(va, Access::Write)
            .unwrap_or_else(|fault| panic!("CPU {} stores to {va}: {fault:?}", me()));
        self.ram().write(pa.0 / PAGE, (pa.0 % PAGE / 8) as usize, value);
    }

    /// A load by the running CPU, as the kernel makes it.
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

    /// A load from the linear map, as the kernel makes it without any lock. While a leaf of it is broken, the access goes by what is
    /// held of before, which is the same, or faults and is made again.
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

    /// The address of a frame in the linear map.
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

// SAFETY: 1. the allocator asserts what it gives and takes; 2. the tree is this machine's alone; 3. the tests work on the
// tree through the subsystem, or with `walks`.
unsafe impl Backend for Machine {
    type Granule = Small;
    type Tables = Seen;
    type Mmu = Seen;
    type Lock<T: Send> = CheckedLock<T>;
    type WalkLock = Walks;

    fn tree(&self) -> &Tree<Small, Seen, Seen> {
        &self.tree
    }
    fn walks(&self) -> &Walks {
        &self.walks
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
            // DESIGN rule 6: from here on, anybody may have them. Not while the linear map is broken somewhere: what may be held
            // of that is the same mapping.
            let _whole = self.walks.keep_releases_out();
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
    fn cpu(&self) -> usize {
        me()
    }
    fn edit_linear_map(&self, pa: PhysAddr, size: u64, edit: LinearEdit) -> Result<Outcome, Failure> {
        if self.seen.plant == Plant::AliasIsForgotten {
            return Ok(Outcome::default());
        }
        edit.apply(&self.tree, VirtRange::new(linear(&self.tree, pa), size))
    }
    fn read_memory(&self, pa: PhysAddr, out: &mut [u8]) -> bool {
        for (i, chunk) in out.chunks_mut(8).enumerate() {
            let at = pa.0 + 8 * i as u64;
            // Through the linear map, as a kernel does it.
            let value = self.load(linear(&self.tree, PhysAddr(at & !7)));
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

/// What the threads of a test share.
pub struct Rig {
    pub vm: Vm,
    /// Ranges in use, guards included, and whose: nobody's twice.
    live: Mutex<Vec<(VirtRange, u64)>>,
}

pub type Job<'j> = &'j (dyn Fn(&Rig) + Sync);

impl Rig {
    fn new(plant: Plant, config: Config) -> Self {
        let machine = Machine::new(plant);
        let all = machine.tree.range();
        // Behind the linear map.
        let range = VirtRange::new(all.start.add(128 * PAGE), 384 * PAGE);
        Self {
            vm: Vmalloc::new(range, machine, config).expect("a page for areas"),
            live: Mutex::default(),
        }
    }

    pub fn machine(&self) -> &Machine {
        self.vm.backend()
    }

    /// Runs `jobs` at once, each on a CPU of its own, and waits for all.
    pub fn at_once(&self, jobs: &[Job<'_>]) {
        let model = self.machine().model();
        let started = model.release(me());
        let ended = Mutex::new(Vec::new());
        shuttle::thread::scope(|scope| {
            for job in jobs {
                let (started, ended) = (&started, &ended);
                scope.spawn(move || {
                    // Whoever is switched to has synchronised its context.
                    model.acquire(me(), started);
                    model.cpu(me()).isb();
                    job(self);
                    // As whoever switches away from a thread does.
                    model.cpu(me()).dsb_ish();
                    ended
                        .lock()
                        .expect("no panic under this lock")
                        .push(model.release(me()));
                });
            }
        });
        for released in ended.into_inner().expect("no panic under this lock") {
            model.acquire(me(), &released);
        }
        model.cpu(me()).isb();
    }

    /// Notes that `range` is in use: nobody else has any of it, and no TLB has anything of whoever had it before.
    pub fn taken(&self, range: VirtRange, key: u64) {
        self.note_taken(range, VirtRange::new(range.start, range.size + PAGE), key);
    }

    /// The same for a part of a block of `vm_map_ram`, where no guard lies between one and the next.
    pub fn taken_without_guard(&self, range: VirtRange, key: u64) {
        self.note_taken(range, range, key);
    }

    fn note_taken(&self, range: VirtRange, with_guard: VirtRange, key: u64) {
        {
            let mut live = self.live.lock().expect("no panic under this lock");
            if let Some((other, whose)) = live.iter().find(|(other, _)| other.overlaps(with_guard)) {
                panic!("{range:?} of {key} is handed out twice: {other:?} of {whose}");
            }
            live.push((with_guard, key));
        }
        self.assert_forgotten(range);
    }

    /// No TLB holds anything of `range` but what the tables say.
    pub fn assert_forgotten(&self, range: VirtRange) {
        // With tables in peace, so that only this range's own are judged.
        let _walk = self.machine().walks().walk();
        self.machine().model().va_reused(range);
        self.machine().model().assert_clean();
    }

    /// Notes that a range is about to be given back.
    pub fn given_back(&self, range: VirtRange) {
        let mut live = self.live.lock().expect("no panic under this lock");
        let index = live
            .iter()
            .position(|(other, _)| other.start == range.start)
            .unwrap_or_else(|| panic!("{range:?} was not in use"));
        live.swap_remove(index);
    }

    /// Memory of its own, with `key` in every page.
    pub fn filled(&self, pages: u64, key: u64) -> Area<'_> {
        let area = Area::from(self.vm.vmalloc(pages * PAGE).expect("memory suffices"));
        self.fill(&area, key);
        area
    }

    pub fn fill(&self, area: &Area<'_>, key: u64) {
        let range = area.range();
        self.taken(range, key);
        for page in 0..range.size / PAGE {
            self.machine()
                .store(range.start.add(page * PAGE), key << 16 | page);
        }
    }

    /// Every page has what [`filled`](Self::filled) put there.
    pub fn assert_filled(&self, range: VirtRange, key: u64) {
        for page in 0..range.size / PAGE {
            let found = self.machine().load(range.start.add(page * PAGE));
            assert_eq!(found, key << 16 | page, "page {page} of {range:?}");
        }
    }

    /// Checks the contents, and gives the area back.
    pub fn check_and_free(&self, area: Area<'_>, key: u64) {
        self.assert_filled(area.range(), key);
        self.given_back(area.range());
        drop(area);
    }

    /// Nothing is held, mapped, or on its way.
    fn assert_empty(&self) {
        let usage = self.vm.usage();
        let census = self.vm.check().unwrap_or_else(|violation| panic!("{violation}"));
        assert_eq!(census.retired, usage.waiting.0 + usage.deferred.0);
        self.vm.vm_unmap_aliases();
        let usage = self.vm.usage();
        assert_eq!((usage.areas, usage.pages), (0, 0), "{usage:?}");
        assert_eq!(self.machine().ram().used(), 0, "frames leaked");
        let tree = self.machine().tree();
        tree.check(|_, _| true, |_| true)
            .unwrap_or_else(|error| panic!("{error}"));
        let model = self.machine().model();
        assert_eq!(model.nr_tables(), self.machine().base_tables, "tables leaked");
        model.va_reused(self.vm.range());
        model.assert_settled();
    }
}

/// How the next thread to run is chosen.
#[derive(Clone, Copy)]
pub enum Schedules {
    /// At each step anew.
    Random,
    /// By priorities, which change a few times: finds what takes a long wait at one place.
    Priorities,
}

fn nr_schedules(default: usize) -> usize {
    // Many more in a soak.
    std::env::var("SHUTTLE_SCHEDULES")
        .ok()
        .and_then(|nr| nr.parse().ok())
        .unwrap_or(default)
}

/// A test body, on a machine that works as it should or one that does not.
#[derive(Clone, Copy)]
pub struct Scenario {
    pub config: Config,
    pub schedules: usize,
    pub body: fn(&Rig),
}

impl Scenario {
    fn run(self, plant: Plant, schedules: Schedules, nr: usize) {
        use shuttle::scheduler::{PctScheduler, RandomScheduler};
        story::install();
        let mut config = shuttle::Config::new();
        config.stack_size = 1 << 18;
        config.ungraceful_shutdown_config.immediately_return_on_panic = true;
        config.failure_persistence = shuttle::FailurePersistence::None;
        let work = move || {
            let rig = Rig::new(plant, self.config);
            (self.body)(&rig);
            rig.assert_empty();
        };
        match schedules {
            Schedules::Random => shuttle::Runner::new(RandomScheduler::new(nr), config).run(work),
            Schedules::Priorities => shuttle::Runner::new(PctScheduler::new(4, nr), config).run(work),
        };
    }

    /// Holds on every schedule tried.
    pub fn holds(self) {
        let nr = nr_schedules(self.schedules);
        self.run(Plant::Nothing, Schedules::Random, nr - nr / 3);
        self.run(Plant::Nothing, Schedules::Priorities, nr / 3);
    }

    /// The same where a thread may wait for another without a lock: a map that meets the mark of a link which is on its way out. No
    /// schedule may keep that other from going on for ever.
    pub fn holds_where_some_spin(self) {
        self.run(Plant::Nothing, Schedules::Random, nr_schedules(self.schedules));
    }

    /// Does not hold on a machine with `plant`, and says so in one of these words.
    pub fn catches(self, plant: Plant, words: &[&str]) {
        self.catches_on(Schedules::Random, plant, words);
    }

    /// The same on schedules of that kind.
    pub fn catches_on(self, schedules: Schedules, plant: Plant, words: &[&str]) {
        story::listen();
        let caught = std::panic::catch_unwind(|| self.run(plant, schedules, 20 * self.schedules));
        let story = story::heard();
        assert!(caught.is_err(), "{plant:?} is not noticed on any schedule");
        assert!(
            words.iter().any(|word| story.contains(word)),
            "{plant:?} is noticed, but not as {words:?}: {story}"
        );
    }
}
