use super::{Plant, Small, me};
use mmu_model::Model;
use paging::{Mmu, PhysAddr, Tables, TlbiRange, VirtAddr};
use shuttle::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub struct Seen {
    pub(super) model: Arc<Model<Small>>,
    turn: Arc<AtomicUsize>,
    pub(super) plant: Plant,
    tlbi_owes: Arc<Mutex<[bool; mmu_model::MAX_CPUS]>>,
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
    pub(super) fn new(model: &Arc<Model<Small>>, plant: Plant) -> Self {
        Self {
            model: Arc::clone(model),
            turn: Arc::default(),
            plant,
            tlbi_owes: Arc::default(),
            refuse: Arc::default(),
        }
    }

    pub(super) fn refuse_tables(&self, every: Option<u64>) {
        self.refuse.lock().expect("no panic under this lock").1 = every;
    }

    /// Not during the cleanup of a failed test.
    pub(super) fn step(&self) -> mmu_model::Cpu<'_, Small> {
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

// SAFETY: each method forwards to the model's, one step apart; a refused allocation gives nothing.
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
