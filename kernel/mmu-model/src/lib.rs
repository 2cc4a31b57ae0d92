#![doc = include_str!("../README.md")]
#![deny(missing_docs)]

mod access;
mod aliases;
mod clock;
mod cpu;
pub mod descriptor;
mod invalidate;
mod judge;
mod machine;
mod pool;
mod quiescent;
mod reach;
mod stale;
mod violation;
mod words;

pub use access::{Access, Fault, Translation};
pub use clock::MAX_CPUS;
pub use cpu::Cpu;
pub use violation::{Counters, Event, Rule, Violation};
pub use words::Word;

use machine::{Machine, State};
use paging::{Granule, PhysAddr, Tables, VirtAddr, VirtRange};
use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// What is modelled, fixed when a [`Model`] is made.
#[derive(Clone, Debug)]
pub struct Features {
    /// CPUs, at most [`MAX_CPUS`].
    pub cpus: usize,
    /// Table pages that can be in use at once.
    pub pool_pages: usize,
    /// Physical address of the first table page.
    pub pool_base: u64,
    /// Implemented physical address bits.
    pub pa_bits: u32,
    /// FEAT_TLBIRANGE.
    pub tlbi_range: bool,
    /// FEAT_ETS2: a translation fault is never due to a store that a DSB completed earlier, even
    /// without an ISB.
    pub ets2: bool,
    /// The CPU is known to take a change of leaf size, with the same output and attributes, without
    /// a conflict abort and without mixing the two up (more than FEAT_BBM level 2 promises; DESIGN
    /// rule 3).
    pub tolerates_size_change: bool,
    /// Tolerate non-zero RES0 bits (`PAGE_SHIFT-1:12`) in a table descriptor, which only 16K and
    /// 64K granules have.
    pub table_res0_ignored: bool,
    /// MAIR_EL1: what the attribute index of a leaf means.
    pub mair: u64,
    /// Physical addresses that have one memory type at a time ([`Rule::MismatchedAlias`]): RAM.
    /// All, unless a test says otherwise.
    pub one_memory_type: Range<u64>,
    /// If set, table memory is accessed at `linear_map + pa`, and must be mapped there whenever it
    /// is accessed, except between `enter_break` and `exit_break` for the tables named there.
    pub linear_map: Option<u64>,
    /// Panic at the first violation, in the middle of what caused it.
    pub panics: bool,
    /// Events that the log keeps. 0 switches it off.
    pub log_events: usize,
}

impl Default for Features {
    fn default() -> Self {
        Self {
            cpus: 1,
            pool_pages: 4096,
            pool_base: 0x80_0000_0000,
            pa_bits: 48,
            tlbi_range: false,
            ets2: false,
            tolerates_size_change: false,
            table_res0_ignored: false,
            // Device-nGnRnE, Device-nGnRE, Normal Non-cacheable, Write-Back, Write-Through.
            mair: 0xbb_ff_44_04_00,
            one_memory_type: 0..u64::MAX,
            linear_map: None,
            panics: false,
            log_events: 100,
        }
    }
}

/// What the rules depend on, without log, counters and violations: to be kept by a search and put
/// back.
#[derive(Clone, Debug)]
pub struct ModelState(pub(crate) State);

/// What a CPU knew at a store with release. See [`Model::release`].
#[derive(Clone, Copy, Default, Debug)]
pub struct Released(clock::Clock);

impl Released {
    /// What either knew: a lock that several have dropped since it was last taken alone.
    pub fn join(&mut self, other: &Self) {
        self.0.join(&other.0);
    }
}

/// Table memory, walkers, TLBs and walk caches of up to [`MAX_CPUS`] CPUs, worst case. See the
/// [crate] documentation.
#[derive(Debug)]
pub struct Model<G: Granule> {
    machine: Mutex<Machine<G>>,
}

impl<G: Granule> Model<G> {
    /// Returns a machine without any table.
    ///
    /// # Panics
    /// If `features.cpus` is not within `1..=MAX_CPUS`, or `pool_base` is not a multiple of the
    /// page size.
    #[must_use]
    pub fn new(features: Features) -> Self {
        Self {
            machine: Mutex::new(Machine::new(features)),
        }
    }

    /// Returns a machine with one root table for the upper half of the address space, and its
    /// physical address.
    #[must_use]
    pub fn with_root(features: Features) -> (Self, PhysAddr) {
        let model = Self::new(features);
        let root = model.cpu(0).alloc_table();
        let root = root.unwrap_or_else(|| panic!("a pool of no pages"));
        model.set_root(root, VirtAddr(0u64.wrapping_sub(1 << G::VA_BITS)));
        (model, root)
    }

    pub(crate) fn machine(&self) -> MutexGuard<'_, Machine<G>> {
        // A panicking test has said all there is to say.
        self.machine.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs `f`, and panics if the model is to panic and there is a violation.
    pub(crate) fn with<R>(&self, f: impl FnOnce(&mut Machine<G>) -> R) -> R {
        let mut machine = self.machine();
        let result = f(&mut machine);
        // What is dropped on the way up from a panic may flush: it is not judged any more.
        let panics = machine.features.panics && !std::thread::panicking();
        if panics && !machine.journal.violations.is_empty() {
            let story = report(&machine);
            drop(machine);
            panic!("{story}");
        }
        result
    }

    /// Returns the handle of CPU `cpu`: its stores, barriers, TLBIs and accesses.
    #[must_use]
    pub const fn cpu(&self, cpu: usize) -> Cpu<'_, G> {
        Cpu::new(self, cpu)
    }

    /// Makes `root` the table where walks for the `1 << VA_BITS` bytes from `base` on begin, as a
    /// write of TTBR with its barriers does.
    ///
    /// # Panics
    /// If `root` is not a table in use, or is linked already.
    pub fn set_root(&self, root: PhysAddr, base: VirtAddr) {
        self.with(|machine| machine.set_root(root.0, base.0));
    }

    /// CPU `from` stores with release, and CPU `to` reads that with acquire: a lock or a flag is
    /// handed over.
    pub fn hand_over(&self, from: usize, to: usize) {
        self.with(|machine| machine.hand_over(from, to));
    }

    /// CPU `cpu` stores with release, as one that drops a lock does. What it knows by then is known
    /// to the CPU that [acquires](Self::acquire) it, however much later.
    #[must_use]
    pub fn release(&self, cpu: usize) -> Released {
        Released(*self.machine().s.clocks.seen(cpu))
    }

    /// CPU `cpu` loads with acquire what was stored with that release, or those releases.
    pub fn acquire(&self, cpu: usize, released: &Released) {
        self.with(|machine| machine.acquire(cpu, &released.0));
    }

    /// `size` bytes of physical memory get another owner: nothing that may be held may lead there,
    /// unless the tables say so at present.
    pub fn frame_reused(&self, pa: PhysAddr, size: u64) {
        self.with(|machine| machine.frame_reused(pa.0, size));
    }

    /// A range of addresses is handed out again: nothing may be held for it, unless the tables say
    /// so at present.
    pub fn va_reused(&self, range: VirtRange) {
        self.with(|machine| machine.va_reused(range.start.0, range.size));
    }

    /// The allocation of a table page fails after `succeed` more have succeeded, once.
    pub fn fail_alloc_after(&self, succeed: u64) {
        self.machine().s.fail_alloc = Some(succeed);
    }

    /// No allocation fails but for want of pages. Whether a failure was still to come.
    pub fn cancel_alloc_failure(&self) -> bool {
        self.machine().s.fail_alloc.take().is_some()
    }

    /// Table pages in use, roots included.
    #[must_use]
    pub fn nr_tables(&self) -> usize {
        self.machine().s.nr_tables
    }

    /// Table pages that walks from the roots reach, roots included: fewer than
    /// [`nr_tables`](Self::nr_tables) where some are kept in reserve, or leaked.
    #[must_use]
    pub fn nr_linked_tables(&self) -> usize {
        self.machine().nr_linked_tables()
    }

    /// Returns what the tables translate `va` to at present, by the model's own walker.
    #[must_use]
    pub fn translate(&self, va: VirtAddr) -> Option<Translation> {
        self.machine().translate(va.0)
    }

    /// Every valid leaf, by the model's own walker: the address of its descriptor's first byte, and
    /// the descriptor.
    #[must_use]
    pub fn leaves(&self) -> Vec<(VirtAddr, Translation)> {
        let leaves = self.machine().leaves();
        leaves
            .into_iter()
            .map(|(va, leaf)| (VirtAddr(va), leaf))
            .collect()
    }

    /// Returns what passed through since the start.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.machine().journal.counters
    }

    /// Returns what was found wrong so far; of very many, the first.
    #[must_use]
    pub fn violations(&self) -> Vec<Violation> {
        self.machine().journal.violations.clone()
    }

    /// The same, and forgets them.
    #[must_use]
    pub fn take_violations(&self) -> Vec<Violation> {
        std::mem::take(&mut self.machine().journal.violations)
    }

    /// Returns the last events, a line each.
    #[must_use]
    pub fn log(&self) -> String {
        self.machine().journal.tail()
    }

    /// That no rule was broken.
    ///
    /// # Panics
    /// If one was; with the stories and the log.
    #[track_caller]
    pub fn assert_clean(&self) {
        let machine = self.machine();
        if !machine.journal.violations.is_empty() {
            let story = report(&machine);
            drop(machine);
            panic!("{story}");
        }
    }

    /// Returns whether everything begun is finished: no entry held that is not what the tables say,
    /// no store or TLBI without its DSB.
    #[must_use]
    pub fn is_quiescent(&self) -> bool {
        self.machine().not_quiescent().is_none()
    }

    /// That no rule was broken and everything begun is finished.
    ///
    /// # Panics
    /// If not; with the story.
    #[track_caller]
    pub fn assert_quiescent(&self) {
        self.assert_clean();
        let mut machine = self.machine();
        if let Some(what) = machine.not_quiescent() {
            machine.violate(Rule::NotQuiescent, || what);
            let story = report(&machine);
            drop(machine);
            panic!("{story}");
        }
    }

    /// Returns what the rules depend on, as it is now.
    #[must_use]
    pub fn state(&self) -> ModelState {
        ModelState(self.machine().s.clone())
    }

    /// Goes back to `state`. Log, counters and violations stay.
    pub fn restore(&self, state: &ModelState) {
        let mut machine = self.machine();
        machine.s.clone_from(&state.0);
        machine.frames = None;
    }

    /// Returns the state as words: equal for two states that no rule and no walk can tell apart.
    /// Where tables lie does not count; how many are in use does. To be hashed by a search.
    #[must_use]
    pub fn canonical(&self) -> Vec<u64> {
        self.machine().canonical()
    }
}

fn report<G: Granule>(machine: &Machine<G>) -> String {
    let journal = &machine.journal;
    let mut story = format!("{} violations\n", journal.violations.len() as u64 + journal.more);
    for violation in &journal.violations {
        story += &format!("{violation}\n");
    }
    story + "last events:\n" + &journal.tail()
}

impl<G: Granule> Clone for Model<G> {
    fn clone(&self) -> Self {
        Self {
            machine: Mutex::new(self.machine().clone()),
        }
    }
}
