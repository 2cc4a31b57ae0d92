//! A CPU of the model under shuttle; and CPUs with a defect, each of which the model must find.

use crate::interleaved::CPUS;
use crate::interleaved::windows::Here;
use arch_policy::windows::{Line, Windows};
use mmu_model::{Cpu, Model, Word};
use paging::{Mmu, PhysAddr, Tables, TinyGranule, TlbiRange, VirtAddr};
use shuttle::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Defect {
    None,
    NoTlbi,
    LastLevelOnly,
    NoLeadingDsb,
    NoTrailingDsb,
    /// When it is unlinked.
    FreedBeforeFlush,
    /// It may be seen before its table's zeroing.
    PlainLink,
    NoDmb,
    /// It may be seen before the make.
    PlainClose,
    /// No DSB and ISB after its look at the windows.
    NoBarrierBeforeQuestion,
}

#[derive(Clone)]
pub struct Seat {
    pub model: Arc<Model<TinyGranule>>,
    pub number: usize,
    pub windows: Arc<Windows<Here, [Line<Word>; CPUS]>>,
    /// Shuttle switches where this is touched.
    turns: Arc<AtomicU64>,
    defect: Defect,
    /// A defect drops it if a TLBI is next.
    owed: Arc<AtomicBool>,
}

impl Seat {
    pub fn first(model: Model<TinyGranule>, defect: Defect) -> Self {
        let words = std::array::from_fn(|_| Line(model.word(0)));
        Self {
            model: Arc::new(model),
            number: 0,
            windows: Arc::new(Windows::new(words)),
            turns: Arc::new(AtomicU64::new(0)),
            defect,
            owed: Arc::default(),
        }
    }

    pub fn other(&self, number: usize) -> Self {
        Self {
            number,
            owed: Arc::default(),
            ..self.clone()
        }
    }

    /// Without letting others run.
    pub fn cpu(&self) -> Cpu<'_, TinyGranule> {
        self.model.cpu(self.number)
    }

    pub fn turn(&self) -> Cpu<'_, TinyGranule> {
        if !std::thread::panicking() {
            self.turns.fetch_add(1, Ordering::Relaxed);
        }
        self.cpu()
    }

    pub fn has(&self, defect: Defect) -> bool {
        self.defect == defect
    }

    /// A leading DSB is left out here.
    fn issues_tlbi(&self) -> bool {
        self.owed.store(false, Ordering::Relaxed);
        !self.has(Defect::NoTlbi)
    }

    fn free_early(&self, old: u64, new: u64) {
        let table = PhysAddr(old & mmu_model::descriptor::ADDRESS);
        let is_link = old & 0b11 == 0b11 && table.0 >= mmu_model::Features::default().pool_base;
        if self.has(Defect::FreedBeforeFlush) && is_link && new & 0b11 != 0b11 {
            self.cpu().free_table(table);
        }
    }
}

// SAFETY: each method is the model's own, or breaks a promise on purpose for the model to find.
unsafe impl Tables for Seat {
    fn alloc_table(&self) -> Option<PhysAddr> {
        self.turn().alloc_table()
    }

    fn free_table(&self, table: PhysAddr) {
        self.turn().free_table(table);
    }

    fn load(&self, table: PhysAddr, index: usize) -> u64 {
        self.turn().load(table, index)
    }

    fn store(&self, table: PhysAddr, index: usize, value: u64) {
        let cpu = self.turn();
        let old = cpu.load(table, index);
        cpu.store(table, index, value);
        self.free_early(old, value);
    }

    fn compare_exchange(&self, table: PhysAddr, index: usize, current: u64, new: u64) -> Result<(), u64> {
        let cpu = self.turn();
        if self.has(Defect::PlainLink) {
            let found = cpu.load(table, index);
            if found != current {
                return Err(found);
            }
            cpu.store(table, index, new);
            return Ok(());
        }
        cpu.compare_exchange(table, index, current, new)?;
        self.free_early(current, new);
        Ok(())
    }

    fn enter_break(&self, va: VirtAddr, broken: u64, tables: &[PhysAddr]) {
        self.windows.open(self.number);
        self.turn().enter_break(va, broken, tables);
    }

    fn exit_break(&self) {
        self.turn().exit_break();
        self.windows.close(self.number);
    }
}

impl Mmu for Seat {
    fn dsb_ishst(&self) {
        if self.has(Defect::NoLeadingDsb) {
            self.owed.store(true, Ordering::Relaxed);
        } else {
            self.turn().dsb_ishst();
        }
    }

    fn dsb_ish(&self) {
        if !self.has(Defect::NoTrailingDsb) {
            self.turn().dsb_ish();
        }
    }

    fn isb(&self) {
        if self.owed.swap(false, Ordering::Relaxed) {
            self.turn().dsb_ishst();
        }
        self.turn().isb();
    }

    fn tlbi_vaale1is(&self, va: VirtAddr) {
        if self.issues_tlbi() {
            self.turn().tlbi_vaale1is(va);
        }
    }

    fn tlbi_vaae1is(&self, va: VirtAddr) {
        if self.has(Defect::LastLevelOnly) {
            self.tlbi_vaale1is(va);
        } else if self.issues_tlbi() {
            self.turn().tlbi_vaae1is(va);
        }
    }

    fn tlbi_rvaale1is(&self, range: TlbiRange) {
        if self.issues_tlbi() {
            self.turn().tlbi_rvaale1is(range);
        }
    }

    fn tlbi_rvaae1is(&self, range: TlbiRange) {
        if self.has(Defect::LastLevelOnly) {
            self.tlbi_rvaale1is(range);
        } else if self.issues_tlbi() {
            self.turn().tlbi_rvaae1is(range);
        }
    }

    fn tlbi_vmalle1is(&self) {
        if self.issues_tlbi() {
            self.turn().tlbi_vmalle1is();
        }
    }

    fn has_tlbi_range(&self) -> bool {
        self.cpu().has_tlbi_range()
    }
}
