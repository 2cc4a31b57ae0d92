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

/// What is modelled.
#[derive(Clone, Debug)]
pub struct Features {
    /// CPUs, at most [`MAX_CPUS`].
    pub cpus: usize,
    /// Table pages in the pool.
    pub pool_pages: usize,
    /// Physical address of the pool.
    pub pool_base: u64,
    /// Physical address bits.
    pub pa_bits: u32,
    /// FEAT_TLBIRANGE.
    pub tlbi_range: bool,
    /// FEAT_ETS2.
    pub ets2: bool,
    /// A change of leaf size alone is tolerated. FEAT_BBM level 2 promises less (DESIGN rule 3).
    pub tolerates_size_change: bool,
    /// Tolerates RES0 bits in table descriptors of 16K and 64K.
    pub table_res0_ignored: bool,
    /// MAIR_EL1.
    pub mair: u64,
    /// RAM, which has one memory type at a time. By default everything.
    pub one_memory_type: Range<u64>,
    /// Tables are accessed at `linear_map + pa`, mapped except between `enter_break` and
    /// `exit_break`.
    pub linear_map: Option<u64>,
    /// Panics at the first violation.
    pub panics: bool,
    /// That the log keeps.
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

/// The machine without log, counters and violations.
#[derive(Clone, Debug)]
pub struct ModelState(pub(crate) State);

/// What a CPU knew at a [`Model::release`].
#[derive(Clone, Copy, Default, Debug)]
pub struct Released(clock::Clock);

impl Released {
    /// Adds what the other knew: of a lock that several readers have dropped.
    pub fn join(&mut self, other: &Self) {
        self.0.join(&other.0);
    }
}

/// Worst-case table memory, walkers, TLBs and walk caches. See the [crate] documentation.
#[derive(Debug)]
pub struct Model<G: Granule> {
    machine: Mutex<Machine<G>>,
}

impl<G: Granule> Model<G> {
    /// Returns a machine without tables.
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

    /// Returns a machine and its root for the upper half.
    #[must_use]
    pub fn with_root(features: Features) -> (Self, PhysAddr) {
        let model = Self::new(features);
        let root = model.cpu(0).alloc_table();
        let root = root.unwrap_or_else(|| panic!("a pool of no pages"));
        model.set_root(root, VirtAddr(0u64.wrapping_sub(1 << G::VA_BITS)));
        (model, root)
    }

    pub(crate) fn machine(&self) -> MutexGuard<'_, Machine<G>> {
        self.machine.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn with<R>(&self, f: impl FnOnce(&mut Machine<G>) -> R) -> R {
        let mut machine = self.machine();
        let result = f(&mut machine);
        // Flushes during an unwind are not judged.
        let panics = machine.features.panics && !std::thread::panicking();
        if panics && !machine.journal.violations.is_empty() {
            let story = report(&machine);
            drop(machine);
            panic!("{story}");
        }
        result
    }

    /// Returns a CPU.
    #[must_use]
    pub const fn cpu(&self, cpu: usize) -> Cpu<'_, G> {
        Cpu::new(self, cpu)
    }

    /// Makes `root` the root for `1 << VA_BITS` bytes from `base`, as a write of TTBR with its
    /// barriers.
    ///
    /// # Panics
    /// If `root` is not a table in use, or is linked.
    pub fn set_root(&self, root: PhysAddr, base: VirtAddr) {
        self.with(|machine| machine.set_root(root.0, base.0));
    }

    /// Hands over: CPU `from` stores with release, and `to` loads that with acquire.
    pub fn hand_over(&self, from: usize, to: usize) {
        self.with(|machine| machine.hand_over(from, to));
    }

    /// Returns what CPUs know that [acquire](Self::acquire) this.
    #[must_use]
    pub fn release(&self, cpu: usize) -> Released {
        Released(*self.machine().s.clocks.seen(cpu))
    }

    /// Loads with acquire what was stored with that release.
    pub fn acquire(&self, cpu: usize, released: &Released) {
        self.with(|machine| machine.acquire(cpu, &released.0));
    }

    /// Checks that only current translations lead to these frames.
    pub fn frame_reused(&self, pa: PhysAddr, size: u64) {
        self.with(|machine| machine.frame_reused(pa.0, size));
    }

    /// Checks that only current translations are held for these addresses.
    pub fn va_reused(&self, range: VirtRange) {
        self.with(|machine| machine.va_reused(range.start.0, range.size));
    }

    /// Makes one allocation fail, after `succeed` have succeeded.
    pub fn fail_alloc_after(&self, succeed: u64) {
        self.machine().s.fail_alloc = Some(succeed);
    }

    /// Cancels that failure; returns whether it was to come.
    pub fn cancel_alloc_failure(&self) -> bool {
        self.machine().s.fail_alloc.take().is_some()
    }

    /// Returns the tables in use, roots included.
    #[must_use]
    pub fn nr_tables(&self) -> usize {
        self.machine().s.nr_tables
    }

    /// Returns the linked tables: others are reserved or leaked.
    #[must_use]
    pub fn nr_linked_tables(&self) -> usize {
        self.machine().nr_linked_tables()
    }

    /// Returns the current translation of `va`.
    #[must_use]
    pub fn translate(&self, va: VirtAddr) -> Option<Translation> {
        self.machine().translate(va.0)
    }

    /// Returns every valid leaf with its first address.
    #[must_use]
    pub fn leaves(&self) -> Vec<(VirtAddr, Translation)> {
        let leaves = self.machine().leaves();
        leaves
            .into_iter()
            .map(|(va, leaf)| (VirtAddr(va), leaf))
            .collect()
    }

    /// Returns the counts.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.machine().journal.counters
    }

    /// Returns the first violations.
    #[must_use]
    pub fn violations(&self) -> Vec<Violation> {
        self.machine().journal.violations.clone()
    }

    /// Returns them, and forgets them.
    #[must_use]
    pub fn take_violations(&self) -> Vec<Violation> {
        std::mem::take(&mut self.machine().journal.violations)
    }

    /// Returns the last events, a line each.
    #[must_use]
    pub fn log(&self) -> String {
        self.machine().journal.tail()
    }

    /// Asserts that no rule was broken.
    ///
    /// # Panics
    /// If one was, with the log.
    #[track_caller]
    pub fn assert_clean(&self) {
        let machine = self.machine();
        if !machine.journal.violations.is_empty() {
            let story = report(&machine);
            drop(machine);
            panic!("{story}");
        }
    }

    /// Returns whether no stale entry is held, and no store or TLBI lacks its DSB.
    #[must_use]
    pub fn is_quiescent(&self) -> bool {
        self.machine().not_quiescent().is_none()
    }

    /// Asserts that no rule was broken and all is finished.
    ///
    /// # Panics
    /// If not, with the story.
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

    /// Returns what the rules depend on.
    #[must_use]
    pub fn state(&self) -> ModelState {
        ModelState(self.machine().s.clone())
    }

    /// Restores `state`. Log, counters and violations stay.
    pub fn restore(&self, state: &ModelState) {
        let mut machine = self.machine();
        machine.s.clone_from(&state.0);
        machine.frames = None;
    }

    /// Returns words, equal for states that no rule or walk can tell apart.
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
